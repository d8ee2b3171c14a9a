"""Data of a linear-Gaussian model, whose evidence and posterior are known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..arrays import Raw

LATENT, DIMENSIONS, SCALE = 2, 8, 0.5


class Truth(NamedTuple):
    """What the set is drawn from."""

    weight: Tensor  # W [D, L]
    loc: Tensor  # b [D]
    scale: float  # σ


def linear_gaussian_truth() -> Truth:
    """W, b and σ of the set `linear_gaussian`."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(DIMENSIONS, LATENT, generator=generator, dtype=torch.float64)
    return Truth(weight, torch.randn(DIMENSIONS, generator=generator, dtype=torch.float64), SCALE)


def linear_gaussian(name: str, root: Path) -> Raw:
    """2,500 vectors [8] of probabilistic PCA with two latents; `data.factors` has z.

        z ~ 𝒩(0, I),    x ~ 𝒩(W z + b, σ² I),    log p(x) = log 𝒩(x; b, W Wᵀ + σ² I)

    W, b and σ are those of `linear_gaussian_truth`. The draw is the same on every machine and under every seed.
    """
    truth, generator = linear_gaussian_truth(), torch.Generator().manual_seed(1)
    z = torch.randn(2_500, LATENT, generator=generator, dtype=torch.float64)
    noise = torch.randn(2_500, DIMENSIONS, generator=generator, dtype=torch.float64)
    x = (z @ truth.weight.T + truth.loc + truth.scale * noise).float()
    splits = {"train": slice(0, 2_000), "test": slice(2_000, 2_500)}
    return Raw(
        name,
        {split: x[rows] for split, rows in splits.items()},
        values="real",
        origin={"train": "drawn with a fixed seed", "test": "the last 500 of 2500, drawn alike"},
        factors={split: z[rows] for split, rows in splits.items()},
        factor_names=("z1", "z2"),
    )
