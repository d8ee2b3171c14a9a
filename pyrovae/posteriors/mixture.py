"""The mixture of factorised normals as a posterior: more than one mode."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..distributions.mixtures import NormalMixture
from .base import Posterior


class Mixture(Posterior):
    """q(z | x) = Σ_c π_c(x) 𝒩(z; μ_c(x), diag σ_c(x)²), the encoder returning the log weights, μ and log σ.

    Gradient: pathwise and unbiased, the weights' included (`pyrovae.distributions.mixtures.NormalMixture`); a draw
    takes [C, L] and [L, L] numbers. The rate has no closed form.
    References: Graves, "Stochastic backpropagation through mixture density distributions", 2016; Figurnov, Mohamed and
    Mnih, "Implicit reparameterization gradients", 2018.

    Args:
        network: an encoder from the event shape of x to [C (1 + 2L)].
        components: C.

    Raises:
        ValueError: for a number of components that is none.

    >>> import torch
    >>> Mixture(nn.Linear(5, 2 * 7), components=2)(torch.zeros(6, 5)).rsample().shape
    torch.Size([6, 3])
    """

    def __init__(self, network: nn.Module, components: int = 5) -> None:
        components = check_whole("Mixture", "components", components)
        super().__init__(network, components=components)
        self.components = components

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[C (1 + 2L)]: for each component its log weight, μ and log σ."""
        return [check_whole("Mixture", "components", options.get("components", 5)) * (1 + 2 * latent)]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The mixture over [L]."""
        y = self.network(x).to(x.dtype).unflatten(-1, (self.components, -1))  # [*leading, C, 1 + 2L]
        loc, log_scale = y[..., 1:].chunk(2, -1)
        return NormalMixture(y[..., 0], loc, log_scale.exp())
