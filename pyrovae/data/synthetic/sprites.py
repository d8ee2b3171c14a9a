"""Images of one sprite each, of which it is known what they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..arrays import Raw

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
