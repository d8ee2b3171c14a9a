"""Priors over the simplex, {z : z_l ≥ 0, Σ_l z_l = 1}: mixtures of L topics or parts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..distributions import simplex
from ..distributions.relaxed import TEMPERATURE, check_temperature
from .base import Prior


class _Simplex(Prior):
    """Abstract: at least two shares, which sum to one."""

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        check_whole(type(self).__name__, "latent", latent, 2, "one share alone is always 1")


class Dirichlet(_Simplex):
    """p(z) = Γ(L a) / Γ(a)^L Π_l z_l^{a−1}, uniform at a = 1 and sparse below.

    Args:
        latent: number of shares L, at least 2.
        concentration: a, above 0.

    Raises:
        ValueError: for less than two shares, or a concentration that is no number above 0.

    >>> Dirichlet(3)().log_prob(torch.tensor([0.2, 0.3, 0.5])).exp()
    tensor(2.)
    """

    concentration: Tensor

    def __init__(self, latent: int, concentration: float = 1.0) -> None:
        super().__init__(latent)
        value = check_positive("Dirichlet", "concentration", concentration)
        self.register_buffer("concentration", torch.full([self.latent], value), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Dirichlet over [latent]."""
        return simplex.Dirichlet(self.concentration)


class LogisticNormal(_Simplex):
    """z = softmax(y, 0), y ~ 𝒩(0, σ² I) over L − 1 log-ratios.

    Reference: Srivastava and Sutton, "Autoencoding variational inference for topic models", 2017.

    Args:
        latent: number of shares L, at least 2.
        scale: σ, above 0.

    Raises:
        ValueError: for less than two shares, or a scale that is no number above 0.

    >>> LogisticNormal(3)().sample().shape
    torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int, scale: float = 1.0) -> None:
        super().__init__(latent)
        value = check_positive("LogisticNormal", "scale", scale)
        self.register_buffer("loc", torch.zeros(self.latent - 1), persistent=False)
        self.register_buffer("scale", torch.full([self.latent - 1], value), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The logistic normal over [latent]."""
        return simplex.LogisticNormal(self.loc, self.scale)


class RelaxedOneHotCategorical(_Simplex):
    """p(z) = Concrete(z; logits 0, temperature): one of L categories, relaxed to the simplex.

    The prior of a posterior of the same name; a bound is then one for this relaxed model, not for `OneHotCategorical`.
    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    Args:
        latent: number of categories L, at least 2.
        temperature: above 0; towards 0 the choice becomes hard.

    Raises:
        ValueError: for less than two categories, or a temperature that is no number above 0.

    >>> RelaxedOneHotCategorical(3)().sample().shape
    torch.Size([3])
    """

    logits: Tensor

    def __init__(self, latent: int, temperature: float = TEMPERATURE) -> None:
        super().__init__(latent)
        self.temperature = check_temperature("RelaxedOneHotCategorical", temperature)
        self.register_buffer("logits", torch.zeros(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The relaxed categorical over [latent]."""
        return simplex.RelaxedOneHotCategorical(self.logits, self.temperature)
