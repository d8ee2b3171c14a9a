"""Gaussian priors: the standard one, and one with a learned location and scale."""

from __future__ import annotations

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from .base import Prior


class StandardNormal(Prior):
    """p(z) = 𝒩(z; 0, I).

    Args:
        latent: number of latent dimensions L.

    >>> StandardNormal(2)().event_shape
    torch.Size([2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        # Buffers follow the module to its device and dtype; constants, so not part of its state.
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """𝒩(0, I) over [latent]."""
        return dist.Normal(self.loc, self.scale).to_event(1)


class DiagonalNormal(Prior):
    """p(z) = 𝒩(z; μ, diag σ²), μ and log σ learned from 𝒩(0, I) on.

    Args:
        latent: number of latent dimensions L.

    >>> DiagonalNormal(2)().log_prob(torch.zeros(2)).item()
    -1.8378770351409912
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.loc = nn.Parameter(torch.zeros(self.latent))
        self.log_scale = nn.Parameter(torch.zeros(self.latent))

    def forward(self) -> dist.TorchDistribution:
        """𝒩(μ, diag σ²) over [latent]."""
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
