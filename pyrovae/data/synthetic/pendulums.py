"""Pendulums with friction, of which a noisy position is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..arrays import Raw

STEPS = 12
PULL, FRICTION, STEP, KICK, BLUR, START = 2.0, 0.2, 0.5, 0.15, 0.1, 1.5


def pendulums(name: str, root: Path) -> Raw:
    """1,500 swings of a pendulum with friction, 6 to 12 steps, [12, 2] with NaN behind the end: for missing=True.

        θ_1, ω_1 ~ 𝒩(0, 1.5²)
        ω_t = ω_{t−1} − 0.5 (2 sin θ_{t−1} + 0.2 ω_{t−1}) + 0.15 ε_t,    θ_t = θ_{t−1} + 0.5 ω_t
        x_t ~ 𝒩((sin θ_t, cos θ_t), 0.1² I)

    A small swing takes nine steps, a wide one longer, and some go over the top: no linear rule in x. The draw is the
    same on every machine and under every seed.
    """
    rng, n = np.random.default_rng(0), 1_500
    angle, speed = START * rng.standard_normal((2, n))
    series = []
    for _ in range(STEPS):
        seen = np.stack([np.sin(angle), np.cos(angle)], 1)
        series.append(seen + BLUR * rng.standard_normal((n, 2)))
        speed = speed - STEP * (PULL * np.sin(angle) + FRICTION * speed) + KICK * rng.standard_normal(n)
        angle = angle + STEP * speed
    lengths = rng.integers(6, STEPS + 1, n)
    x = np.where((np.arange(STEPS) < lengths[:, None])[..., None], np.stack(series, 1), np.nan)
    x = torch.from_numpy(x.astype(np.float32))
    origin = {"train": "drawn with a fixed seed", "test": "the last 300 of 1500, drawn alike"}
    return Raw(name, {"train": x[:1200], "test": x[1200:]}, values="real", origin=origin)
