"""Data sets that are drawn here, by a rule that is written down: a program can be held against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .arrays import Raw

STEPS = 12
DAMPING, ANGLE, DRIFT, NOISE = 0.9, 0.9, 0.3, 0.3
PULL, FRICTION, STEP, KICK, BLUR, START = 2.0, 0.2, 0.5, 0.15, 0.1, 1.5


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


SIDE, NEAR, FAR = 24, 5, 19  # of the images of sprites; the first and the last place of a centre
SHAPES = ("square", "disc", "triangle")
RADII = (2, 3, 4)


def sprites(name: str, root: Path) -> Raw:
    """2,025 binary images [1, 24, 24] of one sprite each, all combinations of four factors, after dSprites.

        shape: square, disc, triangle    size: radius 2, 3, 4    x, y: centre at 5, 6, ..., 19

    `data.factors` has what each was made from, whole numbers from 0; the labels are the shapes. One fifth is the test
    split, the same under every seed: combinations that were never seen, of values that all were.

    Reference: Matthey, Higgins, Hassabis and Lerchner, "dSprites", 2017.
    """
    places = range(NEAR, FAR + 1)
    sizes = (len(SHAPES), len(RADII), len(places), len(places))
    factors = np.stack([f.ravel() for f in np.indices(sizes)], 1)  # [N, 4]
    radius = np.array(RADII)[factors[:, 1], None, None]
    across = np.arange(SIDE) - (NEAR + factors[:, 2])[:, None, None]  # [N, 1, SIDE]
    down = np.arange(SIDE)[:, None] - (NEAR + factors[:, 3])[:, None, None]  # [N, SIDE, 1]
    drawn = (
        np.maximum(abs(across), abs(down)) <= radius,
        across**2 + down**2 <= (radius + 0.5) ** 2,
        (abs(down) <= radius) & (2 * abs(across) <= down + radius),  # its tip is above
    )
    images = np.choose(factors[:, 0, None, None], [np.broadcast_to(d, (len(factors), SIDE, SIDE)) for d in drawn])
    order = np.random.default_rng(0).permutation(len(images))
    rows = {"train": np.sort(order[len(order) // 5 :]), "test": np.sort(order[: len(order) // 5])}
    x, told = torch.from_numpy(images.astype(np.uint8))[:, None], torch.from_numpy(factors)
    held = f"{len(rows['test'])} of {len(x)}: one fixed choice, whatever the seed"
    return Raw(
        name,
        {split: x[chosen] for split, chosen in rows.items()},
        {split: told[chosen, 0] for split, chosen in rows.items()},
        "binary",
        origin={"train": "drawn by a rule, all combinations of the factors", "test": held},
        factors={split: told[chosen] for split, chosen in rows.items()},
        factor_names=("shape", "size", "x", "y"),
    )


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
