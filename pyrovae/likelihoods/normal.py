"""The Gaussian likelihood, its σ fixed, learned or per pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .base import Likelihood


class Normal(Likelihood):
    """p(x | z) = Π_d 𝒩(x_d; μ_d(z), σ²): −log p(x | z) is ‖x − μ‖² / 2σ² plus D log(σ √2π).

    With a fixed σ this is the squared error of regularised autoencoders, up to the factor 1/(2σ²) and a constant.

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
        if isinstance(scale, str):
            if scale not in ("learned", "per_pixel"):
                raise ValueError(f"Normal expects scale as a number, 'learned' or 'per_pixel', got {scale!r}")
        elif not scale > 0:
            raise ValueError(f"Normal expects a positive scale, got {scale}")
        if not 0 <= minimum_scale < math.inf:
            raise ValueError(f"Normal expects minimum_scale of at least 0, got {minimum_scale}; 1e-3 is the default")
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

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """𝒩(μ, σ²) with μ, or μ and the raw σ, from y."""
        if self.scale == "per_pixel":
            loc, raw = y.chunk(2, dim=-event_dim)
            return dist.Normal(loc, self._positive(raw))
        scale = self._positive(self.raw_scale) if self.scale == "learned" else self.fixed_scale
        return dist.Normal(y, scale)

    def _positive(self, raw: Tensor) -> Tensor:
        return F.softplus(raw) + self.minimum_scale
