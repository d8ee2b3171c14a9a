"""Approximate posteriors q(z | x): modules whose forward takes the data and returns a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from .config import Configured


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


class DiagonalNormal(Posterior):
    """q(z | x) = 𝒩(z; μ(x), diag σ(x)²), the encoder returning μ and log σ.

    Args:
        network: an encoder from the event shape of x to [2L].

    >>> import torch
    >>> DiagonalNormal(nn.Linear(5, 2 * 3))(torch.zeros(7, 5))
    Independent(Normal(loc: torch.Size([7, 3]), scale: torch.Size([7, 3])), 1)
    """

    @classmethod
    def code(cls, latent: int) -> list[int]:
        """[2L]: μ, then log σ."""
        return [2 * latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """𝒩(μ(x), diag σ(x)²) over [L]."""
        loc, log_scale = self.network(x).to(x.dtype).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)
