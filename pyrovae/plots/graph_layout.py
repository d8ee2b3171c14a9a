"""Where the sites, plates and arrows of a plate diagram are: rows by depth, and a search for places in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..description.names import plate_label
from ..program.graph import Node
from ..program.structure import FACTOR, Structure
from .graph_arrows import FACTOR_RADIUS, RADIUS, Arrow, Edge, bend

STEP = 1.2  # between rows and columns
MARGIN = 0.2  # between a circle and the plate around it
LABEL = 0.3  # height of a plate's name, below what is in it
ALL = 4  # observed sites; of more, that a guide reads them all is no news in as many arrows
LEVELS = 5  # deeper graphs go from left to right


@dataclass(frozen=True)
class Layout:
    """Where everything is: the centre of each site, the box of each plate, the arrows.

    `given_all` names the latents whose guide reads all of many observed sites, which is said and not drawn.
    """

    centres: dict[str, np.ndarray]
    plates: dict[str, np.ndarray]  # [4]: left, bottom, right, top
    arrows: list[Arrow]
    given_all: list[str]


def arrange(structure: Structure) -> Layout:
    """Rows by depth in p, then places in the rows for few crossings and whole plates, then bends of the arrows."""
    nodes = structure.nodes
    sides = (("p", structure.p), ("q", structure.q or ()))
    observed = set(structure.observed)
    given_all = [f.name for f in structure.q or () if len(observed) > ALL and observed <= set(f.given)]
    edges = [
        Edge(side, g, f.name)
        for side, factors in sides
        for f in factors
        for g in f.given
        if g in nodes and not (side == "q" and f.name in given_all and g in observed)
    ]
    rows, sideways = _rows(nodes, edges)
    plates = _Plates(nodes)
    search = _Search(nodes, edges, rows, plates, sideways)
    at = search.place(search.run())
    centres = dict(zip(nodes, at, strict=True))
    arrows = bend(centres, edges, {n: FACTOR_RADIUS if v.family == FACTOR else RADIUS for n, v in nodes.items()})
    boxes = plates.boxes(at, _inside(nodes, arrows))
    return Layout(centres, plates.boxes(at) if plates.strangers(at, boxes) else boxes, arrows, given_all)


def _inside(nodes: dict[str, Node], arrows: list[Arrow]) -> dict[str, np.ndarray]:
    """For each plate the points of arrows between its sites, which are to be in its box too."""
    found: dict[str, list[np.ndarray]] = {}
    for arrow in arrows:
        source, target = ({p.name for p in nodes[n].plates} for n in (arrow.source, arrow.target))
        for plate in source & target:
            found.setdefault(plate, []).append(arrow.at(np.linspace(0, 1, 20)))
    return {plate: np.concatenate(curves) for plate, curves in found.items()}


def _rows(nodes: dict[str, Node], edges: list[Edge]) -> tuple[dict[str, int], bool]:
    """The depth of each site in p, and whether it is so large that rows are columns, from left to right."""
    parents: dict[str, list[str]] = {n: [e.source for e in edges if e.side == "p" and e.target == n] for n in nodes}
    children: dict[str, list[str]] = {n: [e.target for e in edges if e.side == "p" and e.source == n] for n in nodes}
    sources = [n for n in nodes if children[n] and not parents[n]]
    rows: dict[str, int] = {}
    for name in nodes:  # in the program's order, so that parents come first, but for data that are read before
        rows[name] = max((rows[a] + 1 for a in parents[name] if a in rows), default=0)
    for name in reversed(sources):  # right above the first child, not at the top
        rows[name] = max(rows[name], min(rows[b] for b in children[name]) - 1)
    if max(rows.values()) < LEVELS:
        return rows, False
    for name, node in nodes.items():  # what ends here is in the column of its last parent
        if parents[name] and not children[name] and (node.observed or node.family == FACTOR):
            rows[name] = max(rows[a] for a in parents[name])
    for name in sources:  # amid the children
        if len(children[name]) > 2:
            rows[name] = sorted(rows[b] for b in children[name])[len(children[name]) // 2]
    return rows, True


class _Plates:
    """The plates, and their boxes around given centres of the sites."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        nests = [[p.name for p in node.plates] for node in nodes.values()]
        names = list(dict.fromkeys(itertools.chain(*nests)))
        members = {name: {i for i, nest in enumerate(nests) if name in nest} for name in names}
        # inner ones first: those around them are drawn around their boxes
        self.members = dict(sorted(members.items(), key=lambda p: (len(p[1]), -names.index(p[0]))))
        self.inner = {
            outer: [p for p in self.members if any(outer in nest[: nest.index(p)] for nest in nests if p in nest)]
            for outer in self.members
        }
        self.width = {p.name: 0.25 + 0.125 * len(plate_label(p)) for node in nodes.values() for p in node.plates}

    def boxes(self, centres: np.ndarray, curves: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The box of each plate: [4], around these curves too."""
        found: dict[str, np.ndarray] = {}
        for plate, members in self.members.items():
            c = centres[list(members)]
            low, high = c.min(0) - RADIUS - MARGIN, c.max(0) + RADIUS + MARGIN
            for inner in self.inner[plate]:
                if inner in found and self.members[inner] <= members:
                    low = np.minimum(low, found[inner][:2] - MARGIN)
                    high = np.maximum(high, found[inner][2:] + MARGIN)
            if curves and plate in curves:
                low = np.minimum(low, curves[plate].min(0) - 0.1)
                high = np.maximum(high, curves[plate].max(0) + 0.1)
            crossed = sum(bool(members & self.members[p]) and not self.members[p] <= members for p in found)
            low[1] -= 1.6 * MARGIN * crossed  # no edges in one line
            high[1] += 0.7 * MARGIN * crossed
            more = max(0.0, self.width[plate] - (high[0] - low[0])) / 2
            found[plate] = np.array([low[0] - more, low[1] - LABEL, high[0] + more, high[1]])
        return found

    def strangers(self, centres: np.ndarray, boxes: dict[str, np.ndarray]) -> int:
        """How many sites are in the box of a plate that is not theirs, and plates in one."""
        found = 0
        for plate, box in boxes.items():
            others = np.delete(centres, list(self.members[plate]), axis=0)
            low, high = box[:2] - RADIUS - 0.05, box[2:] + RADIUS + 0.05
            found += int(((others > low) & (others < high)).all(1).sum())
        for a, b in itertools.combinations(boxes, 2):
            if not self.members[a] & self.members[b]:
                found += bool((boxes[a][:2] < boxes[b][2:]).all() and (boxes[b][:2] < boxes[a][2:]).all())
        return found


class _Search:
    """Places of sites in their rows, by descent on a cost from a few starts.

    Rows are given, and a place is a number of half steps. The cost counts, in this order of weight: circles that
    touch and plates that hold another's site, arrows through circles, crossings, and lengths.
    """

    def __init__(
        self, nodes: dict[str, Node], edges: list[Edge], rows: dict[str, int], plates: _Plates, sideways: bool
    ) -> None:
        self.plates, self.sideways = plates, sideways
        self.row = np.array([rows[n] for n in nodes])
        self.observed = np.array([n.observed for n in nodes.values()])
        inner = max(len(n.plates) for n in nodes.values())
        self.outside = np.array([len(n.plates) < inner and not n.observed for n in nodes.values()])
        self.line = ~self.observed & ~self.outside
        at = {n: i for i, n in enumerate(nodes)}
        pairs = {(at[e.source], at[e.target]): e.side for e in reversed(edges)}  # once, where p and q share it
        self.pairs = np.array(list(pairs), dtype=int).reshape(-1, 2)
        solid = np.array([side == "p" for side in pairs.values()], dtype=bool)
        self.weight = np.where(solid, 1.0, 0.05 if sideways else 0.4)
        self.through = np.where(solid & (not sideways), 1.0, 0.1)
        self.ends = (self.pairs[:, :, None] == np.arange(len(nodes))).any(1)  # [pairs, sites]
        i, j = np.triu_indices(len(pairs), 1)
        apart = ~(self.pairs[i][:, :, None] == self.pairs[j][:, None]).any((1, 2))
        self.i, self.j = i[apart], j[apart]

    def place(self, columns: np.ndarray) -> np.ndarray:
        """Centres [n, 2]."""
        across, along = columns * STEP / 2, self.row * STEP * (1.0 if self.sideways else 1.15)
        return np.stack([along, -across] if self.sideways else [across, -along], -1)

    def cost(self, columns: np.ndarray) -> float:
        centres = self.place(columns)
        gap = np.abs(columns[:, None] - columns[None])
        touching = np.triu((self.row[:, None] == self.row[None]) & (gap < 2), 1).sum()
        strangers = self.plates.strangers(centres, self.plates.boxes(centres))
        total = 400.0 * (touching + strangers) + 0.05 * np.ptp(columns)
        if len(self.pairs):
            a, b = centres[self.pairs[:, 0]], centres[self.pairs[:, 1]]
            hit = (_away(a, b, centres) < RADIUS + 0.08) & ~self.ends
            total += 8 * (self.through[:, None] * hit).sum()
            i, j = self.i, self.j
            crossing = _parted(a[i], b[i], a[j], b[j]) & _parted(a[j], b[j], a[i], b[i])
            total += 4 * (crossing * self.weight[i] * self.weight[j]).sum()
            across = np.abs(columns[self.pairs[:, 0]] - columns[self.pairs[:, 1]])
            total += (self.weight * (0.3 * across + 0.1 * across**2)).sum()
        if self.sideways:  # in one line: latents above, data below
            middle = columns[self.line if self.line.any() else ~self.observed].mean().round()
            total += 3.0 * (np.abs(columns - middle - np.where(self.observed, 2, -2 * self.outside))).sum()
        return float(total)

    def run(self) -> np.ndarray:
        """The best places that are found."""
        found = min((self._descend(s) for s in self._starts()), key=self.cost)
        return found - found.min()

    def _starts(self) -> list[np.ndarray]:
        first, back, apart = (np.zeros(len(self.row), dtype=int) for _ in range(3))
        for row in set(self.row):
            here = np.flatnonzero(self.row == row)
            first[here], back[here] = 2 * np.arange(len(here)), -2 * np.arange(len(here))
            if self.sideways:  # what is outside above, latents in one line, data below
                above, line, below = (here[kind[here]] for kind in (self.outside, self.line, self.observed))
                first[above] = -2 - 2 * np.arange(len(above))
                first[line] = 2 * np.arange(len(line))
                first[below] = 2 * max(1, len(line)) + 2 * np.arange(len(below))
        own = [tuple(p for p, members in self.plates.members.items() if i in members) for i in range(len(self.row))]
        # every plate in columns of its own
        apart[sorted(range(len(own)), key=lambda i: own[i][::-1])] = 2 * np.arange(len(own))
        return [first] if self.sideways else [first, back, apart]

    def _descend(self, columns: np.ndarray) -> np.ndarray:
        """Moves one site, a plate, a row, or swaps two sites, while that helps."""
        best, value, n = columns, self.cost(columns), len(columns)
        groups = [[i] for i in range(n)]
        groups += [sorted(m) for m in self.plates.members.values()]
        groups += [list(np.flatnonzero(self.row == r)) for r in set(self.row)]
        reach = (1, -1, 2, -2, 3, -3, 4, -4) if n <= 12 else (1, -1, 2, -2)
        same = np.arange(n)  # a change is an order of the columns, and what is added to them
        changes = [(same, step * np.isin(same, group)) for group, step in itertools.product(groups, reach)]
        for i, j in itertools.combinations(range(n), 2):
            if self.row[i] == self.row[j]:
                order = same.copy()
                order[[i, j]] = j, i
                changes.append((order, np.zeros(n, dtype=int)))
        for _ in range(20 if n <= 12 else 3 if n <= 25 else 1):
            before = value
            for order, steps in changes:
                moved = best[order] + steps
                if (c := self.cost(moved)) < value - 1e-9:
                    best, value = moved, c
            if value == before:
                break
        return best


def _away(a: np.ndarray, b: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """How far each centre is from each line a - b: [k, 2], [k, 2], [n, 2] -> [k, n]."""
    d = b - a
    t = ((centres[None] - a[:, None]) * d[:, None]).sum(-1) / (d**2).sum(-1)[:, None].clip(1e-9)
    return np.linalg.norm(a[:, None] + t.clip(0, 1)[..., None] * d[:, None] - centres[None], axis=-1)


def _parted(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether c and d are on different sides of the line through a and b."""
    return _turn(a, b, c) * _turn(a, b, d) < -1e-9


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Positive where c is to the left of a -> b."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
