"""The thermodynamic objective: log p(x) as an integral over inverse temperatures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import nearest
from ..program import check_particles
from .weights import Weighted, Weights, check_several

SCHEDULES = ("log", "linear", "moments")


class TVO(Weighted):
    """The left Riemann sum of log p(x) = ∫₀¹ E_{π_β}[log w] dβ, π_β ∝ q(z | x)^(1−β) p(x, z)^β: a lower bound.

        Σ_j (β_{j+1} − β_j) E_{π_{β_j}}[log w],    0 = β_0 < β_1 < … < β_P = 1

    Each expectation is taken with K draws of q, self-normalised with weights w^β: consistent, with a bias of order 1/K
    for β > 0. P = 1 is the ELBO.

    Gradient: ∂E_π[f] = E_π[∂f] + Cov_π(∂ log π̃, f), no derivative of a draw, so for discrete latents too; the
    covariance of K draws is multiplied by K/(K − 1). For P = 1 it is the ELBO's score function with the mean of the
    other particles as baseline, and unbiased; else biased by the self-normalisation.

    Args:
        particles: K, at least 2.
        partitions: P.
        schedule: of the inner β_j: "log", evenly spaced in log β from `first` to 1; "linear"; "moments", where
            E_{π_β}[log w], averaged over the batch, rises by equal steps.
        first: β_1 of the logarithmic schedule.

    Raises:
        ValueError: for options out of their range, and, in use, for a site outside the data plate.

    References: Masrani, Le and Wood, "The thermodynamic variational objective", 2019; Brekelmans et al., "All in the
    exponential family", 2020 (moments).

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.TVO(5, partitions=3)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    gradients = ("score",)
    independent = ()  # its weights are those of rows, not of draws

    def __init__(self, particles: int = 10, partitions: int = 5, schedule: str = "log", first: float = 0.025) -> None:
        super().__init__(particles, "score")
        check_several("TVO", particles)
        check_particles("TVO", partitions, "partitions")
        if schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {schedule!r} of TVO; {nearest(str(schedule), SCHEDULES)}")
        if not 0 < first < 1:
            raise ValueError(f"TVO expects first, the smallest positive β, between 0 and 1, got {first}")
        self.partitions, self.schedule, self.first = partitions, schedule, first

    def betas(self, log_weight: Tensor, log_mass: Tensor) -> Tensor:
        """β_0 … β_P: [P + 1]."""
        p = self.partitions

        def evenly(points: int) -> Tensor:
            return torch.linspace(0, 1, points, dtype=log_weight.dtype, device=log_weight.device)

        even = evenly(p + 1)
        if self.schedule == "linear" or p == 1:
            return even
        if self.schedule == "log":
            return torch.cat([even[:1], self.first ** (1 - evenly(p))])
        grid = evenly(101)
        v = (grid[:, None, None] * log_weight + log_mass).softmax(1)  # [G, K, B]
        moments = (v * log_weight).sum(1).mean(-1).cummax(0).values  # [G], rising
        steps = moments[0] + even[1:-1] * (moments[-1] - moments[0])
        return torch.cat([even[:1], grid[torch.searchsorted(moments, steps).clamp(max=100)], even[-1:]])

    def by_draw(self, t: Tensor) -> Tensor:
        """The sum over the rows of each draw, at each of them: [P, K·S, B]."""
        sums = t.unflatten(1, (self.particles, -1)).sum(2)
        return sums.repeat_interleave(t.shape[1] // self.particles, 1)

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The sum over partitions, and its weights."""
        betas = self.betas(log_weight, log_mass)
        beta, step = betas[:-1, None, None], betas.diff()[:, None, None]  # [P, 1, 1]
        v = (beta * log_weight + log_mass).softmax(1)  # [P, K, B]
        mean = (v * log_weight).sum(1, keepdim=True)
        # The covariance of values that are summed over is exact. That of draws has K/(K − 1), as of a sample: a draw is
        # no part of the mean it is compared with, and neither are the other rows of that draw.
        exact = v * (log_weight - mean)
        own = self.by_draw(v) * log_weight - self.by_draw(v * log_weight)  # 0 unless a draw has several rows
        covariance = (exact - v * own) * self.particles / (self.particles - 1)
        model = (step * (v + beta * covariance)).sum(0)
        score = (step * ((1 - beta) * covariance - v)).sum(0)
        enumerated = (step * ((1 - beta) * exact - v)).sum(0)
        return (step * mean).sum(0)[0], Weights(model, None, score, enumerated)
