"""Priors over positive numbers and over (0, 1), their parameters fixed."""

from __future__ import annotations

import math
from numbers import Real

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_positive
from ..distributions import unit
from .base import Prior


class Gamma(Prior):
    """p(z) = Π_l Gamma(z_l; a, b) ∝ z_l^{a−1} e^{−b z_l}: positive latents, sparse for small a.

    Args:
        latent: number of latent dimensions L.
        concentration: a, above 0.
        rate: b, above 0; the mean is a / b.

    Raises:
        ValueError: for parameters that are no numbers above 0.

    >>> Gamma(2)().log_prob(torch.ones(2))  # a = b = 1 is the exponential
    tensor(-2.)
    """

    concentration: Tensor
    rate: Tensor

    def __init__(self, latent: int, concentration: float = 1.0, rate: float = 1.0) -> None:
        super().__init__(latent)
        for name, value in (("concentration", concentration), ("rate", rate)):
            value = check_positive("Gamma", name, value)
            self.register_buffer(name, torch.full([self.latent], value), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Gamma over [latent]."""
        return dist.Gamma(self.concentration, self.rate).to_event(1)


class LogNormal(Prior):
    """log z ~ 𝒩(μ, σ² I).

    Args:
        latent: number of latent dimensions L.
        loc: μ.
        scale: σ, above 0.

    Raises:
        ValueError: for a scale that is no number above 0, or a loc that is no number.

    >>> bool((LogNormal(2)().sample() > 0).all())
    True
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(latent)
        if not isinstance(loc, Real) or isinstance(loc, bool) or not math.isfinite(loc):
            raise ValueError(f"LogNormal expects loc as a finite number, got {loc!r}; 0 is the default")
        self.register_buffer("loc", torch.full([self.latent], float(loc)), persistent=False)
        scale = check_positive("LogNormal", "scale", scale)
        self.register_buffer("scale", torch.full([self.latent], scale), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The log-normal over [latent]."""
        return dist.LogNormal(self.loc, self.scale).to_event(1)


class Beta(Prior):
    """p(z) = Π_l Beta(z_l; a, b) ∝ z_l^{a−1} (1 − z_l)^{b−1}; uniform on (0, 1) with a = b = 1.

    Args:
        latent: number of latent dimensions L.
        concentration1: a, above 0.
        concentration0: b, above 0.

    Raises:
        ValueError: for parameters that are no numbers above 0.

    >>> Beta(2)().log_prob(torch.tensor([0.2, 0.9]))
    tensor(0.)
    """

    concentration1: Tensor
    concentration0: Tensor

    def __init__(self, latent: int, concentration1: float = 1.0, concentration0: float = 1.0) -> None:
        super().__init__(latent)
        for name, value in (("concentration1", concentration1), ("concentration0", concentration0)):
            value = check_positive("Beta", name, value)
            self.register_buffer(name, torch.full([self.latent], value), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Beta over [latent]."""
        return unit.Beta(self.concentration1, self.concentration0).to_event(1)
