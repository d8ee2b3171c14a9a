"""Gaussian posteriors: the factorised one."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from .base import Posterior


class DiagonalNormal(Posterior):
    """q(z | x) = 𝒩(z; μ(x), diag σ(x)²), the encoder returning μ and log σ.

    Args:
        network: an encoder from the event shape of x to [2L].

    >>> import torch, torch.nn as nn
    >>> DiagonalNormal(nn.Linear(5, 2 * 3))(torch.zeros(7, 5))
    Independent(Normal(loc: torch.Size([7, 3]), scale: torch.Size([7, 3])), 1)
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[2L]: μ, then log σ."""
        return [2 * latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """𝒩(μ(x), diag σ(x)²) over [L]."""
        loc, log_scale = self.network(x).to(x.dtype).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)
