"""The plate diagram of a program."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..program.graph import Node, Plate
from ..program.sites import DATA
from ..program.structure import FACTOR, Structure, read_structure
from .drawing import BLUE, ORANGE, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RADIUS = 0.34  # of a circle; the distance between rows and columns is STEP
STEP = 1.2
MARGIN = 0.2  # between a circle and the plate around it
LABEL = 0.3  # height of a plate's name, below what is in it
LEVELS = 5  # deeper graphs go from left to right
WIDEST = 11.0  # inches
MANY = 24  # arrows of q; more are drawn faintly, so that p is seen
BENDS = (0.0, 0.16, -0.16, 0.3, -0.3, 0.45, -0.45, 0.62, -0.62, 0.8, -0.8)  # of an arrow, the least that does
FACTOR_RADIUS = 0.13
DARK, INK = "#bdbdbd", "#222222"

Box = tuple[float, float, float, float]  # left, bottom, right, top


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


@dataclass(frozen=True)
class Layout:
    """Where everything is: the centre of each site, the box of each plate, the arrows."""

    centres: dict[str, np.ndarray]
    plates: dict[str, Box]
    arrows: list[Arrow]


def graph(vae: Any, x: Tensor) -> Figure:
    """The plate diagram: a circle for each site, grey where it is observed, and solid arrows for p, dashed for q.

    A diamond is a site that is summed over, a small square a `pyro.factor`. A box is a plate with its size: what is
    in it is there so many times. Arrows of q start at the observed sites whose data the guide reads.

    Args:
        vae: anything with a Pyro `model(x)`, and a `guide(x)` if there is one.
        x: data [N, *event], of which 16 rows are looked at.

    Raises:
        ValueError: for something without a model, data that are no tensor, and a program that does not run on them.

    Reference: Kingma and Welling, "Auto-encoding variational Bayes", 2014, figure 1.

    >>> import torch, pyrovae as pv
    >>> x = torch.rand(16, 6).round()
    >>> figure = graph(pv.models.VAE.build(x, latent=2, hidden=[5]), x)
    >>> [patch.get_gid() for patch in figure.axes[0].patches]
    ['plate data', 'p: z -> x', 'q: x -> z', 'site z', 'site x']
    """
    structure = read_structure(vae, x, "graph")
    nodes = _nodes(structure)
    plan = arrange(structure)
    boxes = np.array([*plan.plates.values(), *[(*(c - RADIUS), *(c + RADIUS)) for c in plan.centres.values()]])
    curves = np.concatenate([a.at(np.linspace(0, 1, 20)) for a in plan.arrows] or [boxes[:, :2]])
    low = np.minimum(boxes[:, :2].min(0), curves.min(0)) - 0.15
    high = np.maximum(boxes[:, 2:].max(0), curves.max(0)) + 0.15
    low[1] -= 0.35  # the legend
    low[0], high[0] = _at_least(low[0], high[0], 2.8)
    width, height = high - low
    scale = min(0.8, WIDEST / width, WIDEST / height)  # inches to the unit
    figure = blank(width * scale, height * scale, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set_axis_off()
    _draw_plates(ax, plan, nodes, scale)
    many = sum(arrow.side == "q" for arrow in plan.arrows) > MANY
    for arrow in plan.arrows:
        _draw_arrow(ax, arrow, scale, faint=many and arrow.side == "q")
    for name, node in nodes.items():
        _draw_site(ax, name, node, plan.centres[name], scale, name in structure.summed)
    _draw_legend(ax, (low[0] + high[0]) / 2, low[1] + 0.25, structure.q is not None, scale)
    return figure


def _at_least(low: float, high: float, width: float) -> tuple[float, float]:
    more = max(0.0, width - (high - low)) / 2
    return low - more, high + more


def _nodes(structure: Structure) -> dict[str, Node]:
    """Every site, as it is in the model where it is there."""
    p = {f.name: f.node for f in structure.p}
    return p | {f.name: f.node for f in structure.q or () if f.name not in p}


# Where things are


def arrange(structure: Structure) -> Layout:
    """Rows by depth in p, then places in the rows for few crossings and whole plates, then bends of the arrows."""
    nodes = _nodes(structure)
    edges = [("p", g, f.name) for f in structure.p for g in f.given]
    edges += [("q", g, f.name) for f in structure.q or () for g in f.given]
    edges = [e for e in edges if e[1] in nodes]
    rows = _rows(nodes, edges)
    sideways = max(rows.values()) >= LEVELS
    if sideways:
        rows = _in_time(nodes, edges, rows)
    search = _Search(nodes, edges, rows, sideways)
    columns = search.run()
    centres = {n: search.place(columns)[i] for i, n in enumerate(nodes)}
    arrows = _bend(centres, edges, {n: _radius(node) for n, node in nodes.items()})
    at = np.array([centres[n] for n in nodes])
    boxes = search.boxes(at, _inside(nodes, arrows))
    if search.strangers(at, boxes):
        boxes = search.boxes(at)
    return Layout(centres, {n: _rounded(b) for n, b in boxes.items()}, arrows)


def _radius(node: Node) -> float:
    return FACTOR_RADIUS if node.family == FACTOR else RADIUS


def _inside(nodes: dict[str, Node], arrows: list[Arrow]) -> dict[str, np.ndarray]:
    """For each plate the points of arrows between its sites, which are to be in its box too."""
    found: dict[str, list[np.ndarray]] = {}
    for arrow in arrows:
        ends = [{p.name for p in nodes[n].plates} for n in (arrow.source, arrow.target)]
        for plate in ends[0] & ends[1]:
            found.setdefault(plate, []).append(arrow.at(np.linspace(0, 1, 20)))
    return {plate: np.concatenate(curves) for plate, curves in found.items()}


def _rounded(box: np.ndarray) -> Box:
    left, bottom, right, top = (float(v) for v in box)
    return left, bottom, right, top


def _rows(nodes: dict[str, Node], edges: list[tuple[str, str, str]]) -> dict[str, int]:
    """Depth in p; what is in a plate is below all that is outside of it and has no parents inside."""
    depth: dict[str, int] = {}
    for name in nodes:  # in the program's order, so parents come first
        parents = [a for side, a, b in edges if side == "p" and b == name]
        depth[name] = max((depth[a] + 1 for a in parents if a in depth), default=0)
    for name in reversed(list(nodes)):  # one without parents stands right above its first child, not at the top
        children = [depth[b] for side, a, b in edges if side == "p" and a == name and b in depth]
        if children and not any(b == name for side, _, b in edges if side == "p"):
            depth[name] = max(depth[name], min(children) - 1)
    return depth


def _in_time(nodes: dict[str, Node], edges: list[tuple[str, str, str]], rows: dict[str, int]) -> dict[str, int]:
    """An observed site that nothing follows is in the column of its last parent, a source amid its children."""
    rows = dict(rows)
    for name, node in nodes.items():
        parents = [a for side, a, b in edges if side == "p" and b == name]
        leaf = not any(side == "p" and a == name for side, a, _ in edges)
        if leaf and parents and (node.observed or node.family == FACTOR):
            rows[name] = max(rows[a] for a in parents)
    for name in nodes:
        parents = [a for side, a, b in edges if side == "p" and b == name]
        children = [rows[b] for side, a, b in edges if side == "p" and a == name]
        if not parents and len(children) > 2:
            rows[name] = sorted(children)[len(children) // 2]
    return rows


class _Search:
    """Places of sites in their rows, by descent on a cost from two starts.

    Rows are given, and a place is a number of half steps. The cost counts, in this order of weight: circles that
    touch and plates that hold another's site, arrows through circles, crossings, and lengths.
    """

    def __init__(self, nodes: dict[str, Node], edges: list[tuple[str, str, str]], rows: dict[str, int], side: bool):
        self.names, self.side = list(nodes), side
        at = {n: i for i, n in enumerate(self.names)}
        self.row = np.array([rows[n] for n in self.names])
        self.observed = np.array([n.observed for n in nodes.values()])
        inner = max(len(n.plates) for n in nodes.values())
        self.outside = np.array([len(n.plates) < inner and not n.observed for n in nodes.values()])
        self.latent = ~self.observed & ~self.outside if (~self.observed & ~self.outside).any() else ~self.observed
        pairs = {(at[a], at[b]): side for side, a, b in reversed(edges)}  # drawn once where p and q share it
        self.pairs = np.array(list(pairs), dtype=int).reshape(-1, 2)
        self.solid = np.array([s == "p" for s in pairs.values()], dtype=bool)
        k = len(self.pairs)
        i, j = np.triu_indices(k, 1)
        apart = np.array([len({*self.pairs[a], *self.pairs[b]}) == 4 for a, b in zip(i, j, strict=True)], dtype=bool)
        self.i, self.j = i[apart], j[apart]
        ends = np.zeros((k, len(self.names)), dtype=bool)
        ends[np.arange(k)[:, None], self.pairs] = True
        self.ends = ends
        plates: dict[str, set[int]] = {}
        for name, node in nodes.items():
            for plate in node.plates:
                plates.setdefault(plate.name, set()).add(at[name])
        # inner ones first: those around them are drawn around their boxes
        self.plates = dict(sorted(plates.items(), key=lambda p: (len(p[1]), -list(plates).index(p[0]))))
        self.label = {p.name: 0.25 + 0.125 * len(_plate_label(p)) for node in nodes.values() for p in node.plates}
        deepest = {name: [p.name for p in node.plates] for name, node in nodes.items()}
        self.inside = {
            outer: [p for p in self.plates if any(outer in d[: d.index(p)] for d in deepest.values() if p in d)]
            for outer in self.plates
        }

    def place(self, columns: np.ndarray) -> np.ndarray:
        """Centres [n, 2]."""
        across, along = columns * STEP / 2, self.row * STEP * (1.0 if self.side else 1.15)
        return np.stack([along, -across] if self.side else [across, -along], -1)

    def boxes(self, centres: np.ndarray, curves: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The box of each plate: [4], around these curves too."""
        found: dict[str, np.ndarray] = {}
        for plate, members in self.plates.items():
            c = centres[list(members)]
            low, high = c.min(0) - RADIUS - MARGIN, c.max(0) + RADIUS + MARGIN
            for inner in self.inside[plate]:
                if inner in found and self.plates[inner] <= members:
                    low = np.minimum(low, found[inner][:2] - MARGIN)
                    high = np.maximum(high, found[inner][2:] + MARGIN)
            if curves and plate in curves:
                low = np.minimum(low, curves[plate].min(0) - 0.1)
                high = np.maximum(high, curves[plate].max(0) + 0.1)
            crossed = sum(bool(members & self.plates[p]) and not self.plates[p] <= members for p in found)
            low[1] -= 1.6 * MARGIN * crossed  # no edges in one line
            high[1] += 0.7 * MARGIN * crossed
            more = max(0.0, self.label[plate] - (high[0] - low[0])) / 2
            found[plate] = np.array([low[0] - more, low[1] - LABEL, high[0] + more, high[1]])
        return found

    def strangers(self, centres: np.ndarray, boxes: dict[str, np.ndarray]) -> int:
        """How many sites are in the box of a plate that is not theirs, and plates in one."""
        found = 0
        for plate, box in boxes.items():
            others = np.array([i for i in range(len(self.names)) if i not in self.plates[plate]], dtype=int)
            low, high = box[:2] - RADIUS - 0.05, box[2:] + RADIUS + 0.05
            found += int(((centres[others] > low) & (centres[others] < high)).all(1).sum())
        for a, b in itertools.combinations(boxes, 2):
            if not self.plates[a] & self.plates[b]:
                found += bool((boxes[a][:2] < boxes[b][2:]).all() and (boxes[b][:2] < boxes[a][2:]).all())
        return found

    def cost(self, columns: np.ndarray) -> float:
        centres = self.place(columns)
        gap = np.abs(columns[:, None] - columns[None])
        touching = np.triu((self.row[:, None] == self.row[None]) & (gap < 2), 1).sum()
        boxes = self.boxes(centres)
        holds = self.strangers(centres, boxes)
        total = 400.0 * (touching + holds) + 0.05 * np.ptp(columns)
        if len(self.pairs):
            a, b = centres[self.pairs[:, 0]], centres[self.pairs[:, 1]]
            d = b - a
            t = ((centres[None] - a[:, None]) * d[:, None]).sum(-1) / (d**2).sum(-1)[:, None].clip(1e-9)
            near = np.linalg.norm(a[:, None] + t.clip(0, 1)[..., None] * d[:, None] - centres[None], axis=-1)
            weight = np.where(self.solid, 1.0, 0.05 if self.side else 0.4)
            total += (
                8
                * (
                    np.where(self.solid & (not self.side), 1.0, 0.1)[:, None] * ((near < RADIUS + 0.08) & ~self.ends)
                ).sum()
            )
            i, j = self.i, self.j
            crossing = (_turn(a[i], b[i], a[j]) * _turn(a[i], b[i], b[j]) < -1e-9) & (
                _turn(a[j], b[j], a[i]) * _turn(a[j], b[j], b[i]) < -1e-9
            )
            total += 4 * (crossing * weight[i] * weight[j]).sum()
            across = np.abs(columns[self.pairs[:, 0]] - columns[self.pairs[:, 1]])
            total += (weight * (0.3 * across + 0.1 * across**2)).sum()
        if self.side:  # in one line: latents above, data below
            line = np.where(self.observed, 2, 0) - 2 * self.outside
            total += 3.0 * (np.abs(columns - columns[self.latent].mean().round() - line)).sum()
        return float(total)

    def run(self) -> np.ndarray:
        """The best places that are found."""
        first, back = np.zeros(len(self.row), dtype=int), np.zeros(len(self.row), dtype=int)
        for row in set(self.row):
            here = np.flatnonzero(self.row == row)
            if self.side:  # what is outside above, latents in one line, data below
                above, below = here[self.outside[here]], here[self.observed[here]]
                line = here[~self.outside[here] & ~self.observed[here]]
                first[above] = -2 - 2 * np.arange(len(above))
                first[line] = 2 * np.arange(len(line))
                first[below] = 2 * max(1, len(line)) + 2 * np.arange(len(below))
            else:
                first[here], back[here] = 2 * np.arange(len(here)), -2 * np.arange(len(here))
        starts = [first] if self.side else [first, back, self._by_plates()]
        found = min((self.descend(s) for s in starts), key=self.cost)
        return found - found.min()

    def _by_plates(self) -> np.ndarray:
        """A start with every plate in columns of its own."""
        own = [tuple(p for p in self.plates if i in self.plates[p]) for i in range(len(self.row))]
        order = sorted(range(len(self.row)), key=lambda i: own[i][::-1])
        places = np.zeros(len(self.row), dtype=int)
        for place, i in enumerate(order):
            places[i] = 2 * place
        return places

    def descend(self, columns: np.ndarray) -> np.ndarray:
        """Moves one site, a plate, a row, or swaps two sites, while that helps."""
        best, value = columns, self.cost(columns)
        groups = [[i] for i in range(len(columns))]
        groups += [sorted(m) for m in self.plates.values()]
        groups += [list(np.flatnonzero(self.row == r)) for r in set(self.row)]
        reach = (1, -1, 2, -2, 3, -3, 4, -4) if len(columns) <= 12 else (1, -1, 2, -2)
        for _ in range(20 if len(columns) <= 12 else 3 if len(columns) <= 25 else 1):
            before = value
            for group, step in itertools.product(groups, reach):
                moved = best.copy()
                moved[group] += step
                if (c := self.cost(moved)) < value - 1e-9:
                    best, value = moved, c
            for i, j in itertools.combinations(range(len(columns)), 2):
                if self.row[i] == self.row[j]:
                    moved = best.copy()
                    moved[[i, j]] = moved[[j, i]]
                    if (c := self.cost(moved)) < value - 1e-9:
                        best, value = moved, c
            if value == before:
                break
        return best


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Positive where c is to the left of a -> b."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])


# Arrows


def _bend(centres: dict[str, np.ndarray], edges: list[tuple[str, str, str]], radii: dict[str, float]) -> list[Arrow]:
    """Each arrow with the least bend that keeps it off circles and off the arrows before it; those of q stay bent."""
    arrows: list[Arrow] = []
    t = np.linspace(0.0, 1.0, 41)
    drawn: list[np.ndarray] = []
    leaving: dict[str, list[float]] = {}  # angles at which arrows touch a circle
    order = sorted(range(len(edges)), key=lambda k: (edges[k][0], np.linalg.norm(_span(centres, edges[k]))))
    for k in order:
        side, source, target = edges[k]
        a, b = centres[source], centres[target]
        others = np.array([c for n, c in centres.items() if n not in (source, target)]).reshape(-1, 2)
        bends = BENDS if side == "p" else [v for v in BENDS if v]

        def cost(bend: float, a: np.ndarray = a, b: np.ndarray = b, others: np.ndarray = others, k: int = k) -> float:
            points = _control(a, b, bend)
            curve = _curve(points, t)
            free = np.linalg.norm(curve[:, None] - others[None], axis=-1).min(initial=9.0)
            through = max(0.0, RADIUS + 0.1 - free)
            middle = curve[10:31]
            close = sum(_overlap(middle, other) for other in drawn)
            angles = zip(edges[k][1:], _angles(points), strict=True)
            tight = sum(max(0.0, 0.4 - _apart(u, v)) for n, u in angles for v in leaving.get(n, ()))
            return 60 * through + abs(bend) + 0.06 * close + 2 * tight

        points = _control(a, b, min(bends, key=cost))
        for n, angle in zip((source, target), _angles(points), strict=True):
            leaving.setdefault(n, []).append(angle)
        drawn.append(_curve(points, t)[6:35])
        arrows.append(Arrow(side, source, target, _clipped(points, radii[source], radii[target])))
    return [arrows[order.index(k)] for k in range(len(edges))]


def _span(centres: dict[str, np.ndarray], edge: tuple[str, str, str]) -> np.ndarray:
    return centres[edge[2]] - centres[edge[1]]


def _overlap(curve: np.ndarray, other: np.ndarray) -> float:
    """How many points of a curve are next to another."""
    return float((np.linalg.norm(curve[:, None] - other[None], axis=-1).min(1) < 0.12).sum())


def _control(a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
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
    curve = _curve(points, t)
    away = np.linalg.norm(curve[:, None] - points[[0, 2]][None], axis=-1)
    outside = (away > np.array([first_radius, last_radius]) + 0.02).all(1)
    first, last = t[outside][[0, -1]]
    a, b = _curve(points, np.array([first, last]))
    # the blossom of the curve at both ends of the part is its control point
    middle = (1 - first) * (1 - last) * points[0] + (first + last - 2 * first * last) * points[1]
    return np.stack([a, middle + first * last * points[2], b])


# Drawing


def _draw_plates(ax: Axes, plan: Layout, nodes: dict[str, Node], scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    sizes = {p.name: p for node in nodes.values() for p in node.plates}
    for name, (left, bottom, right, top) in sorted(plan.plates.items(), key=lambda p: -_area(p[1])):
        style = "round,pad=0,rounding_size=0.14"
        box = FancyBboxPatch(
            (left, bottom), right - left, top - bottom, boxstyle=style, fc="none", ec="#777777", lw=1.1
        )
        box.set_gid(f"plate {name}")
        ax.add_patch(box)
        ax.text(
            right - 0.12,
            bottom + 0.1,
            _plate_label(sizes[name]),
            ha="right",
            va="bottom",
            fontsize=12 * scale,
            color="#555555",
        )


def _plate_label(plate: Plate) -> str:
    """The plate's name and size, but for one over the data as they are given."""
    return plate.name if plate.name == DATA and plate.size == plate.rows else f"{plate.name} {plate.size:,}"


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _draw_arrow(ax: Axes, arrow: Arrow, scale: float, faint: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    p = arrow.side == "p"
    patch = FancyArrowPatch(
        path=Path(arrow.points, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
        arrowstyle=f"-|>,head_length={6 * scale:g},head_width={3 * scale:g}",
        mutation_scale=1,
        linestyle="-" if p else (0, (4, 2.5)),
        color=BLUE if p else ORANGE,
        linewidth=(1.0 if faint else 1.7) * scale,
        alpha=0.5 if faint else 1.0,
        shrinkA=0,
        shrinkB=0,
    )
    patch.set_gid(f"{arrow.side}: {arrow.source} -> {arrow.target}")
    ax.add_patch(patch)


def _draw_site(ax: Axes, name: str, node: Node, centre: np.ndarray, scale: float, summed: bool) -> None:
    from matplotlib.patches import Circle, Polygon, Rectangle

    x, y = centre
    style: dict[str, Any] = {"fc": DARK if node.observed else "white", "ec": INK, "lw": 1.6 * scale, "zorder": 3}
    label: dict[str, Any] = {"ha": "center", "color": INK, "zorder": 4}
    patch: Any
    if node.family == FACTOR:
        patch = Rectangle((x - 0.11, y - 0.11), 0.22, 0.22, facecolor=INK, edgecolor=INK, zorder=3)
        ax.text(x, y - 0.16, name, fontsize=10 * scale, va="top", **label)
    elif summed:
        r = RADIUS
        patch = Polygon([(x - r, y), (x, y + r), (x + r, y), (x, y - r)], closed=True, **style)
    else:
        patch = Circle((x, y), RADIUS, **style)
    patch.set_gid(f"site {name}")
    ax.add_patch(patch)
    if node.family != FACTOR:
        text, letters = _label(name)
        size = 19 if letters <= 2 else 16 if letters <= 4 else 62 / letters
        style = {"va": "center", "linespacing": 0.9, **label}
        ax.text(x, y, text, fontsize=size * scale * (0.85 if summed else 1), **style)


def _label(name: str) -> tuple[str, int]:
    """The name as maths, or in lines where it is long, and how many letters wide it is."""
    from ..describe import symbol

    text = symbol(name)
    letters = len(re.sub(r"\\[a-zA-Z]+", "a", re.sub(r"[{}_]|\\mathrm", "", text)))
    if letters <= 5:
        return f"${text}$", letters
    lines = re.findall(r"[^_. ]+", name) or [name]
    return "\n".join(lines).replace("$", r"\$"), max(map(len, lines))


def _draw_legend(ax: Axes, x: float, y: float, guide: bool, scale: float) -> None:
    sides = [("p", "model p", BLUE, "-"), ("q", "guide q", ORANGE, (0, (4, 2.5)))][: 2 if guide else 1]
    for k, (_, text, colour, line) in enumerate(sides):
        left = x + (k - len(sides) / 2) * 1.35 + 0.1
        ax.plot([left, left + 0.35], [y, y], color=colour, linestyle=line, linewidth=1.7 * scale)
        ax.text(left + 0.42, y, text, va="center", fontsize=12 * scale, color=INK)
