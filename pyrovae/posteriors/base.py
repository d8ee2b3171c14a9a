"""What every posterior is: a module whose forward takes the data and returns q(z | x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..config import Configured


class Posterior(Configured, nn.Module, ABC):
    """Abstract: q(z | x), its parameters the output of an encoder.

    Args:
        network: an encoder from the event shape of x to `code(latent)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @classmethod
    @abstractmethod
    def code(cls, latent: int) -> list[int]:
        """The output shape that the encoder must have for `latent` dimensions."""

    @abstractmethod
    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """q(z | x): x is [*leading, *event], the distribution has batch shape [*leading]."""
