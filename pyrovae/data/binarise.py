"""Grey to {0, 1}: one draw that a seed fixes, a fresh draw for each batch, or a threshold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KINDS = ("static", "dynamic", "threshold")
SPLITS = ("train", "validation", "test")
_STREAMS = (*SPLITS, "split", "labelled")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose (a split's draw, a choice of rows) under one seed."""
    # numpy's and not torch's: a protocol's draw has to be the same on every device and release
    return np.random.default_rng([seed, _STREAMS.index(purpose)])


def to_float(stored: Tensor, scale: float) -> Tensor:
    """Stored values as float32, divided by `scale`: [n, *event] -> [n, *event]."""
    if scale == 1:
        return stored.to(torch.float32).contiguous()
    return stored.to(torch.float32, copy=True, memory_format=torch.contiguous_format).div_(scale)


def fresh_draw(stored: Tensor, scale: float) -> Tensor:
    """A draw x ~ Bernoulli(stored / scale) by torch's global generator, float32 [n, *event].

    Bytes out of 255 are compared with 16 random bits each: P(x = 1) is within 2^-17 of u / 255, 0 and 1 at the ends.

    >>> fresh_draw(torch.tensor([[0, 255]], dtype=torch.uint8), 255)
    tensor([[0., 1.]])
    """
    if stored.dtype != torch.uint8 or scale != 255:
        grey = to_float(stored, scale)
        return torch.rand_like(grey).lt_(grey)  # U < x with U in [0, 1): never at 0, always at 1
    n = stored.numel()
    words = torch.empty(-(-n // 4), dtype=torch.int64, device=stored.device).random_(-(2**63), None)  # all 64 bits
    bits = words.view(torch.int16)[:n].view(stored.shape)
    bits.sub_(bits >> 15)  # -1 and 0 become one: 65,535 = 255 * 257 values, from -32,767
    level = stored.to(torch.int16).mul_(257).add_(-32768)  # modulo 2^16, as int16 has it: -32,768 for 0
    return torch.le(bits, level, out=torch.empty(stored.shape, device=stored.device, dtype=torch.float32))


def thresholded(x: Tensor, threshold: float) -> Tensor:
    """1 where x > threshold, else 0, float32: without a pass over booleans, which torch converts slowly."""
    return torch.gt(x, threshold, out=torch.empty(x.shape, device=x.device, dtype=torch.float32))


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
