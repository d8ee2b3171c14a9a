"""Series that swing and die away, of different lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..arrays import Raw

STEPS = 12
DAMPING, ANGLE, DRIFT, NOISE = 0.9, 0.9, 0.3, 0.3


def oscillations(name: str, root: Path) -> Raw:
    """1,500 damped noisy oscillations of 4 to 12 steps, [12] with NaN behind the end: load them with missing=True.

        z_1 ~ 𝒩(0, I),    z_t ~ 𝒩(0.9 R(0.9) z_{t−1}, 0.3² I),    x_t ~ 𝒩(z_t1, 0.3²)

    z_t has two dimensions and R(φ) turns by φ radians, so that a period is seven steps. The draw is the same on every
    machine and under every seed.
    """
    rng, n = np.random.default_rng(0), 1_500
    turn = DAMPING * np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    z, series = rng.standard_normal((n, 2)), []
    for _ in range(STEPS):
        series.append(z[:, 0] + NOISE * rng.standard_normal(n))
        z = z @ turn.T + DRIFT * rng.standard_normal((n, 2))
    lengths = rng.integers(4, STEPS + 1, n)
    x = np.where(np.arange(STEPS) < lengths[:, None], np.stack(series, 1), np.nan)
    x = torch.from_numpy(x.astype(np.float32))
    origin = {"train": "drawn with a fixed seed", "test": "the last 300 of 1500, drawn alike"}
    return Raw(name, {"train": x[:1200], "test": x[1200:]}, values="real", origin=origin)
