"""A number that is exact, or a mean of draws that says how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_whole
from ..program import seeded

UNITS = {"nats": 1.0, "bits": math.log(2)}  # how many nats one of them is


@dataclass(frozen=True)
class Quantity:
    """A number that is known exactly, or estimated.

    Attributes:
        value: [*batch], in `unit`.
        standard_error: [*batch], of the mean of the draws; 0 where the value is exact.
        unit: nats or bits.
    """

    value: Tensor
    standard_error: Tensor
    unit: str

    @property
    def exact(self) -> bool:
        """Whether no draw was needed."""
        return not bool(self.standard_error.any())

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if self.value.numel() > 1:
            return f"{self.value} {self.unit}"
        error = "" if self.exact else f" ± {float(self.standard_error):.2g}"
        return f"{float(self.value):.4g}{error} {self.unit}"


def nats_in(who: str, unit: str) -> float:
    """How many nats a unit is. Raises ValueError."""
    if unit not in UNITS:
        raise ValueError(f"{who} expects unit as nats or bits, got {unit!r}")
    return UNITS[unit]


def exactly(value: Tensor, size: float, unit: str) -> Quantity:
    """A value in nats that is known."""
    value = value / size
    return Quantity(value, torch.zeros_like(value), unit)


def mean_of_draws(
    p: Any, log: Callable[[Tensor], Tensor], draws: int, seed: int, size: float, unit: str, q: Any = None
) -> Quantity:
    """The mean of log(x) over draws from p, with its standard error."""
    check_whole("information", "draws", draws, least=2)
    batch = p.batch_shape if q is None else torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    with seeded(seed):
        values = log(p.expand(batch).sample((draws,))) / size
    error = values.std(0) / math.sqrt(draws)
    return Quantity(values.mean(0), error.where(values.isfinite().all(0), 0.0), unit)  # an infinite value is certain
