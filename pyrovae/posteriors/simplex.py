"""Posteriors over the simplex: shares of L topics or parts, and a relaxed choice."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..distributions import simplex
from ..distributions.relaxed import TEMPERATURE, check_temperature
from .base import Posterior
from .positive import LEAST, positive


class Dirichlet(Posterior):
    """q(z | x) = Dirichlet(z; a(x)), a = 0.2 + softplus of the encoder's output.

    Gradient: pathwise, by the implicit reparametrisation of gammas.
    Reference: Joo, Lee, Park and Moon, "Dirichlet variational autoencoder", 2020, for the model.

    Args:
        network: an encoder from the event shape of x to [L].

    >>> import torch
    >>> Dirichlet(nn.Linear(5, 3))(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the raw concentrations."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Dirichlet over [L]."""
        return simplex.Dirichlet(positive(self.network(x).to(x.dtype), LEAST))


class LogisticNormal(Posterior):
    """z = softmax(y, 0), y ~ 𝒩(μ(x), diag σ(x)²) over L − 1 log-ratios, the encoder returning μ and log σ.

    Reference: Srivastava and Sutton, "Autoencoding variational inference for topic models", 2017.

    Args:
        network: an encoder from the event shape of x to [2 (L − 1)].

    >>> import torch
    >>> LogisticNormal(nn.Linear(5, 4))(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[2 (L − 1)]: μ, then log σ."""
        return [2 * (latent - 1)]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The logistic normal over [L]."""
        loc, log_scale = self.network(x).to(x.dtype).chunk(2, dim=-1)
        return simplex.LogisticNormal(loc, log_scale.exp())


class RelaxedOneHotCategorical(Posterior):
    """q(z | x) = Concrete(z; l(x), temperature): z = softmax((l(x) + Gumbel noise) / temperature).

    The density is one on the simplex, so the prior has to be priors.RelaxedOneHotCategorical and a bound is one for
    that relaxed model. Gradient: pathwise.
    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    Args:
        network: an encoder from the event shape of x to [L].
        temperature: above 0; towards 0 draws become one-hot, and a pathwise gradient the more biased: see
            `pyrovae.distributions.simplex.RelaxedOneHotCategorical`.

    >>> import torch
    >>> RelaxedOneHotCategorical(nn.Linear(5, 3), temperature=0.5)(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    def __init__(self, network: nn.Module, temperature: float = TEMPERATURE) -> None:
        super().__init__(network)
        self.temperature = check_temperature("RelaxedOneHotCategorical", temperature)

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The relaxed categorical over [L]."""
        return simplex.RelaxedOneHotCategorical(self.network(x).to(x.dtype), self.temperature)
