"""What the machine can do: products of 2048×2048 float32 matrices by torch, on the threads of the contenders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .flops import SIZE


def step(case: Any, data: Any) -> Callable[[int], None]:
    """Products into one tensor."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    out = torch.empty(SIZE, SIZE)

    def go(n: int) -> None:
        for _ in range(n):
            torch.mm(a, b, out=out)

    return go


epoch = evidence = step
