"""The arrows of a plate diagram, bent around circles and away from each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RADIUS = 0.34  # of a circle
FACTOR_RADIUS = 0.13
BENDS = (0.0, 0.16, -0.16, 0.3, -0.3, 0.45, -0.45, 0.62, -0.62, 0.8, -0.8)  # of an arrow, the least that does
T = np.linspace(0.0, 1.0, 41)  # where a curve is looked at


class Edge(NamedTuple):
    """A dependence of p or q."""

    side: str
    source: str
    target: str


@dataclass(frozen=True)
class Arrow:
    """An arrow of p or q, a curve with one control point between two circles."""

    side: str
    source: str
    target: str
    points: np.ndarray  # [3, 2]: where it starts, its control point, where it ends

    def at(self, t: np.ndarray) -> np.ndarray:
        """Points of the curve: [n] -> [n, 2]."""
        return _curve(self.points, t)


def bend(centres: dict[str, np.ndarray], edges: list[Edge], radii: dict[str, float]) -> list[Arrow]:
    """Each arrow with the least bend that keeps it off circles and off the arrows before it; those of q stay bent."""
    arrows: dict[int, Arrow] = {}
    drawn: list[np.ndarray] = []
    leaving: dict[str, list[float]] = {name: [] for name in centres}  # angles at which arrows touch a circle
    lengths = [np.linalg.norm(centres[e.target] - centres[e.source]) for e in edges]
    for k in sorted(range(len(edges)), key=lambda k: (edges[k].side, lengths[k])):
        side, *ends = edges[k]
        a, b = (centres[n] for n in ends)
        circles = np.array([c for n, c in centres.items() if n not in ends]).reshape(-1, 2)
        options = [(v, _control(a, b, v)) for v in BENDS if v or side == "p"]
        costs = [_cost(v, points, circles, drawn, [leaving[n] for n in ends]) for v, points in options]
        _, points = options[int(np.argmin(costs))]
        for name, angle in zip(ends, _angles(points), strict=True):
            leaving[name].append(angle)
        drawn.append(_curve(points, T)[6:35])
        arrows[k] = Arrow(*edges[k], _clipped(points, *(radii[n] for n in ends)))
    return [arrows[k] for k in range(len(edges))]


def _cost(
    bend: float, points: np.ndarray, circles: np.ndarray, drawn: list[np.ndarray], leaving: Iterable[list[float]]
) -> float:
    """Of a curve: of going through circles, of its bend, of being next to curves, at its ends too."""
    curve = _curve(points, T)
    free = np.linalg.norm(curve[:, None] - circles[None], axis=-1).min(initial=9.0)
    through = max(0.0, RADIUS + 0.1 - free)
    close = sum(_overlap(curve[10:31], other) for other in drawn)
    tight = sum(max(0.0, 0.4 - _apart(u, v)) for u, near in zip(_angles(points), leaving, strict=True) for v in near)
    return 60 * through + abs(bend) + 0.06 * close + 2 * tight


def _overlap(curve: np.ndarray, other: np.ndarray) -> float:
    """How many points of a curve are next to another."""
    return float((np.linalg.norm(curve[:, None] - other[None], axis=-1).min(1) < 0.12).sum())


def _control(a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
    """The points of the curve from a to b whose control point is so far beside the middle, in lengths of b - a."""
    d = b - a
    return np.stack([a, (a + b) / 2 + bend * np.array([-d[1], d[0]]), b])


def _curve(points: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A quadratic Bézier curve: [3, 2], [n] -> [n, 2]."""
    t = t[:, None]
    return (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]


def _angles(points: np.ndarray) -> tuple[float, float]:
    """The directions in which a curve leaves both of its ends."""
    first, last = points[1] - points[0], points[1] - points[2]
    return float(np.arctan2(first[1], first[0])), float(np.arctan2(last[1], last[0]))


def _apart(u: float, v: float) -> float:
    """The angle between two directions."""
    return abs((u - v + np.pi) % (2 * np.pi) - np.pi)


def _clipped(points: np.ndarray, first_radius: float, last_radius: float) -> np.ndarray:
    """The part of a curve that is outside of the circles at its ends."""
    t = np.linspace(0.0, 1.0, 401)
    away = np.linalg.norm(_curve(points, t)[:, None] - points[[0, 2]][None], axis=-1)
    outside = (away > np.array([first_radius, last_radius]) + 0.02).all(1)
    first, last = t[outside][[0, -1]]
    a, b = _curve(points, np.array([first, last]))
    # the blossom of the curve at both ends of the part is its control point
    middle = (1 - first) * (1 - last) * points[0] + (first + last - 2 * first * last) * points[1]
    return np.stack([a, middle + first * last * points[2], b])
