"""Counts of transcripts in single cells: kinds of cells, programs of genes, and machines that see more or less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..arrays import Raw

CELLS, GENES, KINDS, PROGRAMS, UNITS = 3_000, 64, 5, 3, 16
DEPTH, DEPTH_SPREAD = 600.0, 0.5  # median and logarithmic deviation of a cell's library size
WITHIN = 0.35  # deviation of a cell's state from the centre of its kind


def rule() -> dict[str, np.ndarray]:
    """What is the same for all cells: centres [5, 3], the weights of f ([3, 16], [16], [16, 64], [64]) and r [64]."""
    rng = np.random.default_rng(1)
    return {
        "centres": 1.5 * rng.standard_normal((KINDS, PROGRAMS)),
        "inner": rng.standard_normal((PROGRAMS, UNITS)),
        "shift": rng.standard_normal(UNITS),
        "outer": 0.5 * rng.standard_normal((UNITS, GENES)),
        "level": rng.standard_normal(GENES),
        "dispersion": np.exp(rng.uniform(np.log(1.0), np.log(10.0), GENES)),
    }


def expression(z: np.ndarray) -> np.ndarray:
    """The share of each gene in the transcripts of a cell in state z: softmax(tanh(z A + a) C + c), [N, 64]."""
    r = rule()
    y = np.tanh(z @ r["inner"] + r["shift"]) @ r["outer"] + r["level"]
    e = np.exp(y - y.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def states() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is behind the cells, in their order: kind [N], state z [N, 3] and library size l [N]."""
    rng, r = np.random.default_rng(0), rule()
    kind = rng.integers(0, KINDS, CELLS)
    z = r["centres"][kind] + WITHIN * rng.standard_normal((CELLS, PROGRAMS))
    return kind, z, DEPTH * np.exp(DEPTH_SPREAD * rng.standard_normal(CELLS))


def cells(name: str, root: Path) -> Raw:
    """3,000 cells, counts of 64 genes: five kinds of cells (the labels), a nonlinear program, random library sizes.

        z ~ 𝒩(m_kind, 0.35² I) in three dimensions,    log l ~ 𝒩(log 600, 0.5²)
        x_g ~ NegativeBinomial(mean μ_g = l · softmax(f(z))_g, variance μ_g + μ_g² / r_g)

    f is a network of tanh units with fixed weights (`rule`, `expression`), r_g between 1 and 10; `states` has what is
    behind each cell. The draw is the same on every machine and under every seed.
    """
    kind, z, depth = states()
    rng, r = np.random.default_rng(2), rule()["dispersion"]
    rate = depth[:, None] * expression(z) * rng.gamma(r, 1 / r, (CELLS, GENES))
    x = torch.from_numpy(rng.poisson(rate).astype(np.float32))
    y = torch.from_numpy(kind.astype(np.int64))
    splits, labels = {"train": x[:2400], "test": x[2400:]}, {"train": y[:2400], "test": y[2400:]}
    origin = {"train": "drawn with a fixed seed", "test": "the last 600 of 3000, drawn alike"}
    return Raw(name, splits, labels, "counts", int(x.max()), origin=origin)
