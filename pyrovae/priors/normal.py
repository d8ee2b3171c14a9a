"""Gaussian priors: the standard one."""

from __future__ import annotations

import pyro.distributions as dist
import torch
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
