"""Gaussian posteriors: factorised, and with correlations of full or low rank."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..distributions import low_rank
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


class FullNormal(Posterior):
    """q(z | x) = 𝒩(z; μ(x), C(x) C(x)ᵀ), C = diag(σ) (I + R / √L): every correlation, for L²/2 outputs more.

    The encoder returns μ, log σ and R, strictly lower triangular, row by row. The rows of C are in proportion to σ,
    and the √L keeps their lengths near σ for an R of size 1. Against a normal prior, diagonal or not, the KL
    divergence has a closed form.
    Reference: Kingma and Welling, "An introduction to variational autoencoders", 2019.

    Args:
        network: an encoder from the event shape of x to [L + L (L + 1) / 2].

    >>> FullNormal(nn.Linear(5, 9))(torch.zeros(7, 5)).covariance_matrix.shape
    torch.Size([7, 3, 3])
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L + L (L + 1) / 2]: μ, log σ, and the rows of R below the diagonal."""
        return [latent + latent * (latent + 1) // 2]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """𝒩(μ(x), C(x) C(x)ᵀ) over [L]."""
        y = self.network(x).to(x.dtype)
        n = (math.isqrt(9 + 8 * y.shape[-1]) - 3) // 2  # L, from L (L + 3) / 2 outputs
        loc, log_scale, below = y.tensor_split([n, 2 * n], -1)
        row, column = torch.tril_indices(n, n, -1, device=y.device)
        unit = torch.eye(n, dtype=y.dtype, device=y.device).repeat(*y.shape[:-1], 1, 1)  # [*leading, L, L]
        unit[..., row, column] = below / math.sqrt(n)
        return dist.MultivariateNormal(loc, scale_tril=log_scale.exp()[..., None] * unit)


class LowRankNormal(Posterior):
    """q(z | x) = 𝒩(z; μ(x), diag(σ) (I + W(x) W(x)ᵀ) diag(σ)): correlations along `rank` directions W [L, rank].

    The encoder returns μ, log σ and W. As W is in proportion to σ, the [rank, rank] matrix I + Wᵀ W that a density
    takes is well conditioned however small σ is. Against a normal prior, diagonal or not, the KL divergence has a
    closed form.
    Reference: Rezende, Mohamed and Wierstra, "Stochastic backpropagation and approximate inference in deep generative
    models", 2014.

    Args:
        network: an encoder from the event shape of x to [L (2 + rank)].
        rank: number of directions.

    Raises:
        ValueError: for a rank below 1.

    >>> LowRankNormal(nn.Linear(5, 3 * 4), rank=2)(torch.zeros(7, 5)).cov_factor.shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, network: nn.Module, rank: int = 1) -> None:
        rank = check_whole("LowRankNormal", "rank", rank)
        super().__init__(network, rank=rank)
        self.rank = rank

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L (2 + rank)]: μ, log σ, and the rows of W."""
        return [latent * (2 + check_whole("LowRankNormal", "rank", options.get("rank", 1)))]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """𝒩(μ(x), diag(σ) (I + W Wᵀ) diag(σ)) over [L]."""
        y = self.network(x).to(x.dtype)
        n = y.shape[-1] // (2 + self.rank)
        loc, log_scale, w = y.tensor_split([n, 2 * n], -1)
        return low_rank.LowRankNormal(loc, log_scale.exp(), w.unflatten(-1, (n, self.rank)))
