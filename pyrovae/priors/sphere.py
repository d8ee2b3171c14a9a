"""Priors on the unit sphere S^{L−1} in L dimensions."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive
from ..distributions import sphere
from .base import Prior


class UniformSphere(Prior):
    """p(z) = Γ(L/2) / 2π^{L/2} on the unit sphere in L dimensions: no direction is like another.

    With the posterior `VonMisesFisher` the KL divergence has a closed form.
    Reference: Davidson et al., "Hyperspherical variational auto-encoders", 2018.

    Args:
        latent: number of dimensions L that the sphere lies in, at least 2.

    Raises:
        ValueError: for less than two dimensions.

    >>> UniformSphere(3)().log_prob(torch.tensor([0.0, 0.0, 1.0]))
    tensor(-2.5310)
    """

    zeros: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        _check_sphere(self)
        self.register_buffer("zeros", torch.zeros(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The uniform distribution on the sphere in [latent]."""
        return sphere.UniformSphere(self.zeros)


class VonMisesFisher(Prior):
    """p(z) ∝ exp(κ μᵀz) on the unit sphere in L dimensions, μ and κ learned, μ from a random direction on.

    With the posterior `VonMisesFisher` the KL divergence has a closed form.

    Args:
        latent: number of dimensions L that the sphere lies in, at least 2.
        concentration: κ at the start, above 0; towards 0 the distribution is uniform.

    Raises:
        ValueError: for less than two dimensions, or a concentration that is no number above 0.

    >>> VonMisesFisher(3, concentration=100.0)().mean.norm()
    tensor(0.9900, grad_fn=<LinalgVectorNormBackward0>)
    """

    def __init__(self, latent: int, concentration: float = 1.0) -> None:
        super().__init__(latent)
        _check_sphere(self)
        kappa = check_positive("VonMisesFisher", "concentration", concentration)
        self.direction = nn.Parameter(torch.randn(self.latent))
        self.log_concentration = nn.Parameter(torch.tensor(math.log(kappa)))

    def forward(self) -> dist.TorchDistribution:
        """von Mises and Fisher's distribution on the sphere in [latent]."""
        return sphere.VonMisesFisher(sphere.unit(self.direction), self.log_concentration.exp())


def _check_sphere(prior: Prior) -> None:
    if prior.latent < 2:
        raise ValueError(
            f"{type(prior).__name__} expects at least 2 dimensions for a sphere to lie in, got latent={prior.latent}; "
            "take latent=2, the circle, or more"
        )
