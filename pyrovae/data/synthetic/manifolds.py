"""Curved surfaces in a space of more dimensions, of which the tangent planes are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.functional import jvp
from torch.func import vmap

from ...config import nearest
from ..arrays import Raw

SIDE = 16  # of the images
INNER, OUTER = 1.0, 2.0  # radii of the torus: of the tube, and of the circle in its middle
FAR = 3.0  # pixels that an image is shifted by at most
BUMPS = (  # an image is a sum of these: height, centre to the right and downwards, and radius, in pixels
    (1.0, -2.5, -2.0, 1.8),
    (0.8, 2.0, -1.0, 1.4),
    (0.6, 0.5, 3.0, 2.2),
)


class Manifold(NamedTuple):
    """x = point(u), of coordinates u in a box."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    point: Callable[[Tensor], Tensor]  # [d] -> [*event], smooth

    def volume(self, u: Tensor) -> Tensor:
        """√det JᵀJ at coordinates [N, d], J = ∂x/∂u: what one unit of coordinates is in x, [N]."""
        slope = self.jacobian(u)
        return (slope.mT @ slope).det().clamp(min=0).sqrt()

    def jacobian(self, u: Tensor) -> Tensor:
        """∂x/∂u at coordinates [N, d]: [N, D, d]."""
        along = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        points = vmap(lambda v: self.point(v).flatten())
        return torch.stack([jvp(points, u, e.expand_as(u))[1] for e in along], -1)  # few columns of many rows

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n coordinates [n, d] of points that are uniform on the manifold, by its area: the box, thinned out."""
        low, high = (torch.tensor(end, dtype=torch.float64) for end in (self.low, self.high))

        def box(m: int) -> Tensor:
            return low + (high - low) * torch.rand(m, len(low), generator=generator, dtype=torch.float64)

        largest = 1.1 * self.volume(box(2_000)).max()  # of so many draws, and a tenth for those between them
        kept = low.new_empty(0, len(low))
        while len(kept) < n:
            u = box(max(n, 100))
            chosen = torch.rand(len(u), generator=generator, dtype=u.dtype) * largest < self.volume(u)
            kept = torch.cat([kept, u[chosen]])
        return kept[:n]


class Sampled(NamedTuple):
    """Points of a manifold, with what is true of them; all in float64."""

    x: Tensor  # [N, *event], with noise
    coordinates: Tensor  # [N, d]
    tangents: Tensor  # [N, D, d], an orthonormal basis of the plane where the point was before the noise
    clean: Tensor  # [N, *event], without the noise


def _roll(u: Tensor) -> Tensor:
    t, height = u
    return torch.stack([t * t.cos(), height, t * t.sin()])


def _sphere(u: Tensor) -> Tensor:
    down, around = u
    return torch.stack([down.sin() * around.cos(), down.sin() * around.sin(), down.cos()])


def _torus(u: Tensor) -> Tensor:
    around, tube = u
    radius = OUTER + INNER * tube.cos()
    return torch.stack([radius * around.cos(), radius * around.sin(), INNER * tube.sin()])


def _bumps(right: Tensor, down: Tensor) -> Tensor:
    """Grey [1, SIDE, SIDE] at places that are given in pixels from the middle of the image."""
    grey = [h * (-((right - x) ** 2 + (down - y) ** 2) / (2 * r**2)).exp() for h, x, y, r in BUMPS]
    return torch.stack(grey).sum(0)[None]


def _places(like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the pixels are, from the middle: [1, SIDE] to the right and [SIDE, 1] downwards."""
    along = torch.arange(SIDE, dtype=like.dtype, device=like.device) - (SIDE - 1) / 2
    return along[None, :], along[:, None]


def _rotated(u: Tensor) -> Tensor:
    right, down = _places(u)
    cos, sin = u[0].cos(), u[0].sin()
    return _bumps(cos * right + sin * down, cos * down - sin * right)


def _shifted(u: Tensor) -> Tensor:
    right, down = _places(u)
    return _bumps(right - u[0], down - u[1])


MANIFOLDS = {
    "swiss_roll": Manifold((1.5 * math.pi, 0.0), (4.5 * math.pi, 21.0), _roll),
    "sphere": Manifold((0.0, 0.0), (math.pi, 2 * math.pi), _sphere),
    "torus": Manifold((0.0, 0.0), (2 * math.pi, 2 * math.pi), _torus),
    "rotated": Manifold((0.0,), (2 * math.pi,), _rotated),
    "shifted": Manifold((-FAR, -FAR), (FAR, FAR), _shifted),
}
COORDINATES = {
    "swiss_roll": ("angle", "height"),
    "sphere": ("down", "around"),
    "torus": ("around", "tube"),
    "rotated": ("angle",),
    "shifted": ("right", "down"),
}


def manifold(name: str, n: int = 1000, noise: float = 0.0, seed: int = 0) -> Sampled:
    """n points that are uniform on a manifold, with their coordinates and tangent planes.

        x = point(u) + noise ε,    ε ~ 𝒩(0, I),    tangent plane: span of ∂point/∂u

    Args:
        name: of surfaces in three dimensions, "swiss_roll", "sphere" (of radius 1) and "torus" (of radii 2 and 1); of
            images [1, 16, 16] of three soft bumps, "rotated" by any angle, and "shifted" by up to three pixels to the
            right and downwards.
        n: number of points.
        noise: standard deviation in each dimension of x, along the surface as well as off it.
        seed: fixes the draw.

    Raises:
        ValueError: for an unknown name, no points, or a noise below 0.

    >>> swiss = manifold("swiss_roll", n=500)
    >>> swiss.x.shape, swiss.coordinates.shape, swiss.tangents.shape
    (torch.Size([500, 3]), torch.Size([500, 2]), torch.Size([500, 3, 2]))
    """
    if name not in MANIFOLDS:
        raise ValueError(f"manifold {name!r} is not known; {nearest(str(name), MANIFOLDS)}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1 or not 0 <= noise < math.inf:
        raise ValueError(f"manifold expects n of at least 1 and noise of at least 0, got n={n!r}, noise={noise!r}")
    surface, generator = MANIFOLDS[name], torch.Generator().manual_seed(seed)
    u = surface.draw(n, generator)
    clean = vmap(surface.point)(u)
    x = clean + noise * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return Sampled(x, u, torch.linalg.qr(surface.jacobian(u)).Q, clean)


def drawn(name: str, root: Path) -> Raw:
    """2,500 points of a manifold without noise, the last 500 for the test; `data.factors` has their coordinates."""
    told = manifold(name, 2_500)
    splits = {"train": slice(0, 2_000), "test": slice(2_000, 2_500)}
    return Raw(
        name,
        {split: told.x[rows].float() for split, rows in splits.items()},
        values="real",
        origin={"train": "drawn with a fixed seed", "test": "the last 500 of 2500, drawn alike"},
        factors={split: told.coordinates[rows] for split, rows in splits.items()},
        factor_names=COORDINATES[name],
    )
