"""Two contenders in one round: their ratio or difference, the median over the rounds and its quartiles."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .driver import Result


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """The median and the quartiles; None of nothing."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(a: Result | None, b: Result | None) -> Spread | None:
    """The time of a over that of b, round by round; None where one has none."""
    return _paired(a, b, operator.truediv)


def difference(a: Result | None, b: Result | None) -> Spread | None:
    """The time of a less that of b, round by round, in seconds; None where one has none."""
    return _paired(a, b, operator.sub)


def memory_ratio(a: Result | None, b: Result | None) -> Spread | None:
    """The memory that a takes for its steps over that of b; None where one has none."""
    if a is None or b is None or a.failed or b.failed or not b.steps:
        return None
    return spread([a.steps / b.steps])


def _paired(a: Result | None, b: Result | None, of: Callable[[float, float], float]) -> Spread | None:
    if a is None or b is None or a.failed or b.failed:
        return None
    return spread([of(x, y) for x, y in zip(a.seconds, b.seconds, strict=True)])
