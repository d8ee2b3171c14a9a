"""What every prior is: a module whose forward returns p(z)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch.nn as nn

from ..config import Configured


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
