"""What a network should see of counts."""

from __future__ import annotations

import math

import torch
import torch.nn as nn
from torch import Tensor

from ..config import Configured
from .base import Shape, as_event, check_event


class LogCounts(Configured, nn.Module):
    """log(1 + x_d) of every count and of their sum: [*leading, *event] -> [*leading, D + 1].

    Counts go over orders of magnitude, and a network of the raw ones sees the largest alone.

    Args:
        event: shape of the data.

    Attributes:
        outputs: [D + 1].

    >>> LogCounts([2])(torch.tensor([[0.0, 3.0]])).exp()
    tensor([[1., 4., 4.]])
    """

    def __init__(self, event: Shape) -> None:
        super().__init__()
        self.event = as_event(self, "event", event)
        self.outputs = (math.prod(self.event) + 1,)

    def forward(self, x: Tensor) -> Tensor:
        """log(1 + x) and log(1 + Σ x). Raises ValueError for another event shape."""
        check_event(self, self.event, x)
        flat = x.flatten(x.dim() - len(self.event))
        return torch.cat([flat, flat.sum(-1, keepdim=True)], -1).log1p()
