"""The exact posterior of an image, and q over it, as a page draws them."""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

from ..evaluation.grid import GOAL, Grid, exact_posterior, resolved

WHO = "explore"
DEPTH = 8.0  # nats below the peak that a density is drawn down to
POINTS = 33  # of each axis of it, at most


def clouds(vae: Any, x: Tensor, seed: int) -> tuple[dict[int, dict[str, Any]], str]:
    """By the index of an image what there is to draw; and, where some have nothing, why."""
    found: dict[int, dict[str, Any]] = {}
    why = ""
    for i, one in enumerate(x.split(1)):
        try:
            found[i] = _cloud(vae, one, seed)
        except ValueError as error:  # a guide that is a point, discrete latents, an error that is too large
            why = " ".join(str(error).split())
    return found, why


def _cloud(vae: Any, x: Tensor, seed: int) -> dict[str, Any]:
    """p(z | x) and q(z | x) of one image, on a grid that both are resolved on; without q where that is not possible."""
    try:
        grid = resolved(vae, x, None, GOAL, seed, WHO, guide=True)
    except ValueError:
        grid = exact_posterior(vae, x, seed=seed)
        return _drawn(grid, [grid.log_posterior[:, 0]])
    return _drawn(grid, [grid.log_posterior[:, 0], grid.log_guide[:, 0]])


def _drawn(grid: Grid, densities: list[Tensor]) -> dict[str, Any]:
    """The part of a grid that can be seen, in bytes: 255 at the peak, 1 at DEPTH nats below it, 0 for less."""
    for axis, name in zip(grid.axes, grid.names, strict=True):
        steps = axis.diff()
        if not torch.allclose(steps, steps.mean(), rtol=1e-3):
            raise ValueError(f"{name} is bounded, and so its grid has uneven steps, which are not drawn")
    sizes = [len(axis) for axis in grid.axes]
    logs = torch.stack(densities).view(-1, *sizes)  # [densities, x, y]
    logs = logs - logs.amax((1, 2), keepdim=True)
    seen = (logs > -DEPTH).any(0)
    kept = []
    for dim, size in enumerate(sizes):
        there = seen.any(1 - dim).nonzero().flatten()
        first, last = max(int(there[0]) - 1, 0), min(int(there[-1]) + 1, size - 1)
        kept.append(torch.arange(first, last + 1, max(1, math.ceil((last - first) / (POINTS - 1)))))
    part = logs[:, kept[0]][:, :, kept[1]].transpose(1, 2)  # rows along y
    shades = torch.where(part > -DEPTH, 1 + 254 * (1 + part / DEPTH), 0).round().to(torch.uint8)
    texts = [base64.b64encode(t.contiguous().numpy().tobytes()).decode() for t in shades]
    axes = [axis[rows] for axis, rows in zip(grid.axes, kept, strict=True)]
    xs, ys = ([float(axis[0]), float(axis[-1]), len(axis)] for axis in axes)
    log_evidence = float(grid.log_evidence[0])
    made = {"xs": xs, "ys": ys, "exact": texts[0], "log_evidence": log_evidence, "error": float(grid.error[0])}
    if len(texts) > 1:
        kl = float(grid.divergence(grid.log_guide)[0])
        made |= {"q": texts[1], "elbo": log_evidence - kl, "kl": kl}
    return made
