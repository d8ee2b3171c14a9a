"""Grey to {0, 1}: one draw that a seed fixes, a fresh draw for each batch, or a threshold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KINDS = ("static", "dynamic", "threshold")
SPLITS = ("train", "validation", "test")
_STREAMS = (*SPLITS, "split")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose (a split's draw, or the choice of the splits) under one seed."""
    # numpy's and not torch's: a protocol's draw has to be the same on every device and release
    return np.random.default_rng([seed, _STREAMS.index(purpose)])


def to_float(stored: Tensor, scale: float) -> Tensor:
    """Stored values as float32, divided by `scale`: [n, *event] -> [n, *event]."""
    if scale == 1:
        return stored.to(torch.float32).contiguous()
    return stored.to(torch.float32, copy=True).div_(scale).contiguous()


def fixed_draw(stored: Tensor, scale: float, seed: int, split: str) -> Tensor:
    """One draw x ~ Bernoulli(stored / scale), uint8 [N, *event], the same for the same seed and split.

    >>> fixed_draw(torch.tensor([[0, 255]], dtype=torch.uint8), 255, seed=0, split="train")
    tensor([[0, 1]], dtype=torch.uint8)
    """
    random = stream(seed, split)
    draw = torch.empty(stored.shape, dtype=torch.uint8)
    rows = max(1, 2**22 // max(1, stored[0].numel()))  # in blocks: the set as float32 may not fit in memory
    for start in range(0, len(stored), rows):
        grey = to_float(stored[start : start + rows], scale)
        uniform = torch.from_numpy(random.random(tuple(grey.shape), dtype=np.float32))
        draw[start : start + rows] = uniform < grey  # U < x: ink stays ink; x < U would invert the image
    return draw
