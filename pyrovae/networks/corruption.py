"""Noise on data, in training alone: an encoder behind it has to make sense of damaged data."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive
from ..config import Configured


class Corruption(Configured, nn.Module, ABC):
    """Abstract: x with fresh noise in training mode, x itself in evaluation mode; as nn.Dropout does."""

    redraws = True  # of what is another function in its next run

    @abstractmethod
    def corrupted(self, x: Tensor) -> Tensor:
        """x with noise on it, in the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, *event], unchanged in shape."""
        return self.corrupted(x) if self.training else x


class GaussianNoise(Corruption):
    """x + ε, ε ~ 𝒩(0, s² I), in training mode.

    Args:
        scale: s, in the units of x.

    Raises:
        ValueError: for a scale that is not above 0.

    >>> GaussianNoise(0.5)(torch.zeros(2, 3)).std() > 0, GaussianNoise(0.5).eval()(torch.zeros(2, 3)).std() > 0
    (tensor(True), tensor(False))
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = check_positive("GaussianNoise", "scale", scale, "give its standard deviation in the units of x")

    def corrupted(self, x: Tensor) -> Tensor:
        """x + ε."""
        return x + self.scale * torch.randn_like(x)


class Masking(Corruption):
    """Every element of x is 0 with probability `rate`, independently, in training mode; the others are left alone.

    Unlike nn.Dropout's, they are not scaled up for it: x without some of its ink, not with more contrast.

    Args:
        rate: the probability, in (0, 1).

    Raises:
        ValueError: for another rate.

    >>> Masking(0.5)(torch.ones(100)).unique()
    tensor([0., 1.])
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ValueError(f"Masking expects rate in (0, 1), got {rate!r}; give the share of elements to be lost")
        self.rate = float(rate)

    def corrupted(self, x: Tensor) -> Tensor:
        """x with zeros."""
        return torch.where(torch.rand_like(x) < self.rate, torch.zeros_like(x), x)
