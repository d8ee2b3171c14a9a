"""Posteriors on the unit sphere S^{L−1} in L dimensions."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..distributions import sphere
from .base import Posterior


class VonMisesFisher(Posterior):
    """q(z | x) ∝ exp(κ(x) μ(x)ᵀz) on the unit sphere in L dimensions.

    The encoder returns a vector, whose direction is μ, and a number y with κ = 1 + log(1 + e^y). The gradient through
    a draw is exact (`pyrovae.distributions.sphere.VonMisesFisher`). To the priors `UniformSphere` and
    `VonMisesFisher` the KL divergence has a closed form.
    Reference: Davidson et al., "Hyperspherical variational auto-encoders", 2018.

    Args:
        network: an encoder from the event shape of x to [L + 1].

    Raises:
        ValueError: for an encoder of less than two latent dimensions.

    >>> import torch
    >>> VonMisesFisher(nn.Linear(5, 4))(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        if self.latent == 1:
            raise ValueError(
                "VonMisesFisher expects at least 2 dimensions for a sphere to lie in, got an encoder for latent=1; "
                "take latent=2, the circle, or more"
            )

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L + 1]: the direction, then y."""
        return [latent + 1]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """von Mises and Fisher's distribution on the sphere in [L]."""
        y = self.network(x).to(x.dtype)
        return sphere.VonMisesFisher(sphere.unit(y[..., :-1]), 1 + F.softplus(y[..., -1]))
