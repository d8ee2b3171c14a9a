"""Priors p(z): modules whose forward returns a distribution over the latents."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from .config import Configured


class Prior(Configured, nn.Module, ABC):
    """Abstract: p(z) over `latent` dimensions."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        if int(latent) < 1:
            raise ValueError(f"{type(self).__name__} expects at least one latent dimension, got latent={latent}")
        self.latent = int(latent)

    @abstractmethod
    def forward(self) -> dist.TorchDistribution:
        """The distribution p(z), with event shape [latent]."""


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
