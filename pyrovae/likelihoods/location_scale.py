"""Likelihoods of real numbers with a location and a scale: σ fixed, learned or per pixel."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_positive
from ..distributions import continuous
from .base import Likelihood


class LocationScale(Likelihood):
    """Abstract: p(x | z) = Π_d 1/σ f((x_d − μ_d(z)) / σ).

    Args:
        network: a decoder from [L] to the event shape of x; with "per_pixel", to twice its first dimension.
        scale: σ itself, fixed; "learned" for one learned σ; "per_pixel" for a σ_d(z) from the decoder.
        minimum_scale: the smallest σ that is learned; without one the density of flat pixels has no bound.
    """

    fixed_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        scale: float | Literal["learned", "per_pixel"] = "learned",
        minimum_scale: float = 1e-3,
    ) -> None:
        super().__init__(network)
        who = type(self).__name__
        if isinstance(scale, str):
            if scale not in ("learned", "per_pixel"):
                raise ValueError(f"{who} expects scale as a number, 'learned' or 'per_pixel', got {scale!r}")
        elif not scale > 0:
            raise ValueError(f"{who} expects a positive scale, got {scale}")
        if not 0 <= minimum_scale < math.inf:
            raise ValueError(f"{who} expects minimum_scale of at least 0, got {minimum_scale}; 1e-3 is the default")
        self.minimum_scale = minimum_scale
        self.scale = scale
        if scale == "learned":
            self.raw_scale = nn.Parameter(torch.zeros(()))
        elif scale != "per_pixel":
            self.register_buffer("fixed_scale", torch.tensor(float(scale)), persistent=False)

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """The event shape; with scale="per_pixel" twice its first dimension: μ, then the raw σ."""
        twice = 2 if options.get("scale") == "per_pixel" else 1
        return [twice * event[0], *event[1:]]

    @abstractmethod
    def located(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """The distribution of every element with this location and scale."""

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """That of μ and σ, with μ, or μ and the raw σ, from y."""
        if self.scale == "per_pixel":
            loc, raw = y.chunk(2, dim=-event_dim)
            return self.located(loc, self._positive(raw))
        return self.located(y, self._positive(self.raw_scale) if self.scale == "learned" else self.fixed_scale)

    def _positive(self, raw: Tensor) -> Tensor:
        return F.softplus(raw) + self.minimum_scale


class Normal(LocationScale):
    """p(x | z) = Π_d 𝒩(x_d; μ_d(z), σ²): −log p(x | z) is ‖x − μ‖² / 2σ² plus D log(σ √2π).

    With a fixed σ this is the squared error of regularised autoencoders, up to the factor 1/(2σ²) and a constant.

    Args:
        network: a decoder from [L] to the event shape of x; with "per_pixel", to twice its first dimension.
        scale: σ itself, fixed; "learned" for one learned σ; "per_pixel" for a σ_d(z) from the decoder.
        minimum_scale: the smallest σ that is learned; without one the density of flat pixels has no bound.
    """

    def located(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """𝒩(μ, σ²)."""
        return dist.Normal(loc, scale)


class Laplace(LocationScale):
    """p(x | z) = Π_d 1/(2σ) exp(−|x_d − μ_d(z)| / σ): −log p(x | z) is the absolute error over σ, plus D log 2σ.

    The location is a median: single wrong pixels weigh less than under the Gaussian.

    Args:
        network: a decoder from [L] to the event shape of x; with "per_pixel", to twice its first dimension.
        scale: σ itself, fixed; "learned" for one learned σ; "per_pixel" for a σ_d(z) from the decoder.
        minimum_scale: the smallest σ that is learned.

    >>> import pyrovae as pv
    >>> p = Laplace(pv.networks.MLP([2], [3]), scale=0.5)
    >>> p(torch.zeros(1, 2)).log_prob(torch.zeros(1, 3)).shape
    torch.Size([1])
    """

    def located(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """Laplace(μ, σ)."""
        return dist.Laplace(loc, scale)


class StudentT(LocationScale):
    """p(x | z) = Π_d t_ν((x_d − μ_d(z)) / σ) / σ, Student's t with ν degrees of freedom: outliers weigh little.

    A learned ν is above 1, where the mean exists, and starts at 5. For ν → ∞ this is the Gaussian.
    Reference: Takahashi et al., "Student-t variational autoencoder for robust density estimation", 2018.

    Args:
        network: a decoder from [L] to the event shape of x; with "per_pixel", to twice its first dimension.
        df: ν itself, fixed; "learned" for one learned ν. Up to 1, Cauchy's, there is no mean.
        scale: σ itself, fixed; "learned" for one learned σ; "per_pixel" for a σ_d(z) from the decoder.
        minimum_scale: the smallest σ that is learned.

    >>> import pyrovae as pv
    >>> p = StudentT(pv.networks.MLP([2], [3]))
    >>> round(p(torch.zeros(1, 2)).base_dist.df[0, 0].item(), 3)
    5.0
    """

    fixed_df: Tensor

    def __init__(
        self,
        network: nn.Module,
        df: float | Literal["learned"] = "learned",
        scale: float | Literal["learned", "per_pixel"] = "learned",
        minimum_scale: float = 1e-3,
    ) -> None:
        super().__init__(network, scale, minimum_scale)
        self.df = df
        if df == "learned":
            self.raw_df = nn.Parameter(torch.tensor(math.log(math.expm1(4.0))))
        else:
            value = check_positive("StudentT", "df", df, "give a number above 0, or 'learned'")
            self.register_buffer("fixed_df", torch.tensor(value), persistent=False)

    def located(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """t_ν around μ with scale σ."""
        df = 1 + F.softplus(self.raw_df) if self.df == "learned" else self.fixed_df
        return continuous.StudentT(df, loc, scale, has_mean=self.df == "learned" or self.df > 1)
