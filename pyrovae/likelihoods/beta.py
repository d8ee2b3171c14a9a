"""The beta likelihood of numbers strictly between 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_positive
from ..distributions import continuous
from .base import Likelihood


class Beta(Likelihood):
    """p(x | z) = Π_d Beta(x_d; α_d, β_d), α = m φ, β = (1 − m) φ, of a mean m and a precision φ; x in (0, 1).

    The density of 0 and of 1 is 0 or infinite, so that data with exact ends, as black and white pixels are, are
    refused. They are not squeezed: the density would no longer integrate to one over them. ContinuousBernoulli takes
    them, and Categorical and DiscretisedLogisticMixture give them a mass.

    Args:
        network: a decoder from [L] to twice the first dimension of x: the logits of m, then the raw φ.
        maximum_precision: φ = 1 / (1 / softplus(raw) + 1 / maximum) stays below it; without one the density of flat
            pixels has no bound. The deviation around a mean of ½ is 1 / (2 √(φ + 1)).

    Reference: Ferrari and Cribari-Neto, "Beta regression for modelling rates and proportions", 2004.

    >>> import torch, pyrovae as pv
    >>> Beta(pv.networks.MLP([2], Beta.decoded([3])))(torch.zeros(1, 2)).mean
    tensor([[0.5000, 0.5000, 0.5000]], grad_fn=<DivBackward0>)
    """

    SMALLEST = 1e-6  # of α and β, so that both are above 0 at every logit

    def __init__(self, network: nn.Module, maximum_precision: float = 1e6) -> None:
        super().__init__(network)
        self.maximum_precision = check_positive("Beta", "maximum_precision", maximum_precision)

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """Twice the first dimension: the logits of the mean, then the raw precision."""
        return [2 * event[0], *event[1:]]

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Beta with the mean and the precision of y."""
        logits, raw = y.chunk(2, dim=-event_dim)
        positive = F.softplus(raw)
        precision = positive / (1 + positive / self.maximum_precision)
        a, b = (precision * side.sigmoid() + self.SMALLEST for side in (logits, -logits))
        return continuous.Beta(a, b)
