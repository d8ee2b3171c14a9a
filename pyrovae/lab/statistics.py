"""Means, variances and bootstrap intervals of gradients, at a memory that does not grow with the draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCKS = 40  # the draws are summed in so many blocks, which the bootstrap takes for its sample
RESAMPLES = 2000
COLUMNS = 2**17  # parameters at once in double precision
LEVEL = 0.95
WIDE = 2.36  # errors in half an interval of 95 %, where the error is estimated from eight parts


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def ends(self) -> tuple[float, float, float]:
        """The estimate, the lower end, the upper end."""
        return self.value, self.low, self.high


class Moments:
    """The mean μ and the variance tr Σ of n independent draws of a vector g [P], from sums over blocks of them.

    All figures are quadratic in the block means, so that the bootstrap, which draws blocks with replacement, needs
    their inner products alone: [BLOCKS, BLOCKS], whatever P is. Draws are taken relative to the first of them, so that
    nothing cancels where the noise is small.

    Args:
        draws: n, as many as will be added.
        seed: of the bootstrap.
    """

    def __init__(self, draws: int, seed: int = 0) -> None:
        self.draws, self.seed, self.seen = draws, seed, 0
        self.blocks = min(BLOCKS, draws)
        self.counts = torch.zeros(self.blocks, dtype=torch.float64)
        self.squares = torch.zeros(self.blocks, dtype=torch.float64)  # Σ ‖g − g_1‖² of each block
        self.sums = self.first = torch.empty(0)

    def add(self, g: Tensor) -> None:
        """One more draw, [P]."""
        if self.seen == 0:
            self.first = g.clone()
            self.sums = g.new_zeros(self.blocks, len(g))
        block = self.seen * self.blocks // self.draws
        step = g - self.first
        self.sums[block] += step
        self.squares[block] += float(step.double().square().sum())
        self.counts[block] += 1
        self.seen += 1
        self.__dict__.pop("_own", None)

    def mean(self) -> Tensor:
        """μ, [P]."""
        return self.first + self.sums.sum(0) / self.seen

    def error(self) -> float:
        """√(tr Σ / n): the standard error of the mean, as a length."""
        return math.sqrt(max(self.variance().value, 0.0) / self.seen) if self.seen > 1 else math.nan

    def variance(self) -> Interval:
        """tr Σ, summed over the P components."""
        return self._interval(lambda mean2, variance: variance)

    def length(self, off: Tensor | None = None, error: float = 0.0) -> Interval:
        """‖μ − r‖, r = 0 without another, as √max(0, ‖ḡ − r‖² − tr Σ / n): no length from noise alone.

        Args:
            off: r, [P].
            error: the length of the error of r, where it is an estimate: taken off as well, and added to both ends of
                the interval as often as makes it 95 % for a single parameter. For many it is then a wide one.
        """
        found = self._interval(lambda mean2, variance: (mean2 - error**2).clamp(min=0).sqrt(), off)
        if not error:
            return found
        return Interval(found.value, max(0.0, found.low - WIDE * error), found.high + WIDE * error)

    def relative_to(self, other: Moments) -> Interval:
        """‖μ‖ / ‖μ'‖, the draws of both being resampled together; NaN beside a length of 0."""
        both = zip(self._own, other._own, strict=True)
        value, found = ((a[0].clamp(min=0) / b[0].clamp(min=0)).sqrt() for a, b in both)
        return _interval(value, found)

    def signal_to_noise(self) -> Interval:
        """‖μ‖ / √tr Σ; infinite for a gradient without noise, NaN for none at all."""
        return self._interval(lambda mean2, variance: (mean2.clamp(min=0) / variance).sqrt())

    def _interval(self, of: Callable[[Tensor, Tensor], Tensor], off: Tensor | None = None) -> Interval:
        """A function of ‖μ − r‖² (noise taken off) and tr Σ, with its interval."""
        whole, resampled = self._own if off is None else self._figures_of(self.first - off)
        return _interval(of(*whole), of(*resampled))

    @cached_property
    def _own(self) -> list[tuple[Tensor, Tensor]]:
        """The figures of μ itself, which most of the others are made of; anew after another draw."""
        return self._figures_of(self.first)

    def _figures_of(self, first: Tensor) -> list[tuple[Tensor, Tensor]]:
        """‖μ − r‖² (noise taken off) and tr Σ: of the draws, [1] each, and of resamples of their blocks, [R] each.

        `first` is the first draw less r.
        """
        inner = torch.zeros(self.blocks + 1, self.blocks + 1, dtype=torch.float64)
        for part in zip(self.sums.split(COLUMNS, 1), first.split(COLUMNS), strict=True):
            rows = torch.cat([part[0], part[1][None]]).double()  # [M + 1, of P]
            inner += (rows @ rows.T).cpu()
        whole = torch.ones(1, self.blocks, dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(self.blocks, (RESAMPLES if self.seen > 2 else 0, self.blocks), generator=generator)
        times = torch.zeros(len(drawn), self.blocks, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        # A resample's mean has the noise of the sample once more
        return [self._figures(whole, inner, 1), self._figures(times, inner, 2)]

    def _figures(self, times: Tensor, inner: Tensor, noises: int) -> tuple[Tensor, Tensor]:
        """‖μ − r‖² less `noises` tr Σ / n, and tr Σ, with each block taken so many times: [R], [R]."""
        n = times @ self.counts  # [R]
        share = torch.cat([times / n[:, None], torch.ones(len(times), 1, dtype=torch.float64)], 1)
        mean2 = ((share @ inner) * share).sum(1)  # ‖ḡ − r‖²
        moved2 = ((share[:, :-1] @ inner[:-1, :-1]) * share[:, :-1]).sum(1)  # ‖ḡ − g_1‖²
        spread = (times @ self.squares) / n - moved2
        variance = (spread * (n / (n - 1)) ** noises).clamp(min=0)  # a mean of its own takes 1/n of it each time
        return mean2 - noises * variance / n, variance


def _interval(value: Tensor, found: Tensor) -> Interval:
    """The middle 95 % of what was found in resamples."""
    found = found[~found.isnan()]
    if not len(found):
        return Interval(float(value))
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = found.quantile(edges, interpolation="nearest").tolist()
    return Interval(float(value), low, high)
