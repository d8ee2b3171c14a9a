"""The plate diagram of a program, drawn."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..description.names import plate_label, shortened, symbol
from ..program.graph import Node
from ..program.structure import FACTOR, read_structure
from .drawing import BLUE, ORANGE, blank
from .graph_arrows import RADIUS, Arrow
from .graph_layout import Layout, arrange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST = 11.0  # inches
MANY = 24  # arrows of q; more are drawn faintly, so that p is seen
DARK, INK = "#bdbdbd", "#222222"
STYLES: dict[str, tuple[str, Any]] = {"p": (BLUE, "-"), "q": (ORANGE, (0, (4, 2.5)))}


def graph(vae: Any, x: Tensor) -> Figure:
    """The plate diagram: a circle for each site, grey where it is observed, and solid arrows for p, dashed for q.

    A diamond is a site that is summed over, a small square a `pyro.factor`. A box is a plate with its size: what is
    in it is there so many times. Arrows of q start at the observed sites whose data the guide reads; where these are
    all of more than four, a line of text says so in their place.

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
    nodes, plan = structure.nodes, arrange(structure)
    low, high = _extent(plan)
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
    middle = (low[0] + high[0]) / 2
    _draw_legend(ax, middle, low[1] + (0.6 if plan.given_all else 0.25), structure.q is not None, scale)
    if plan.given_all:
        names = ", ".join(shortened(plan.given_all, lambda name: f"${symbol(name)}$", "…"))
        text = f"the guide of {names} reads all that is observed"
        ax.text(middle, low[1] + 0.22, text, ha="center", va="center", fontsize=11 * scale, color="#555555")
    return figure


def _extent(plan: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The corners at the lower left and the upper right, with room for the legend."""
    boxes = np.array([*plan.plates.values(), *[(*(c - RADIUS), *(c + RADIUS)) for c in plan.centres.values()]])
    curves = np.concatenate([a.at(np.linspace(0, 1, 20)) for a in plan.arrows] or [boxes[:, :2]])
    low = np.minimum(boxes[:, :2].min(0), curves.min(0)) - 0.15
    high = np.maximum(boxes[:, 2:].max(0), curves.max(0)) + 0.15
    low[1] -= 0.7 if plan.given_all else 0.35
    more = max(0.0, 2.8 - (high[0] - low[0])) / 2
    low[0], high[0] = low[0] - more, high[0] + more
    return low, high


def _draw_plates(ax: Axes, plan: Layout, nodes: dict[str, Node], scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    labels = {p.name: plate_label(p) for node in nodes.values() for p in node.plates}
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.14", "fc": "none", "ec": "#777777", "lw": 1.1}
    text: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 12 * scale, "color": "#555555"}
    sizes = {name: (right - left, top - bottom) for name, (left, bottom, right, top) in plan.plates.items()}
    for name, (width, height) in sorted(sizes.items(), key=lambda p: -p[1][0] * p[1][1]):
        left, bottom, right, _ = plan.plates[name]
        box = FancyBboxPatch((left, bottom), width, height, **style)
        box.set_gid(f"plate {name}")
        ax.add_patch(box)
        ax.text(right - 0.12, bottom + 0.1, labels[name], **text)


def _draw_arrow(ax: Axes, arrow: Arrow, scale: float, faint: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    colour, line = STYLES[arrow.side]
    patch = FancyArrowPatch(
        path=Path(arrow.points, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
        arrowstyle=f"-|>,head_length={6 * scale:g},head_width={3 * scale:g}",
        mutation_scale=1,
        linestyle=line,
        color=colour,
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
    else:
        r = RADIUS
        diamond = [(x - r, y), (x, y + r), (x + r, y), (x, y - r)]
        patch = Polygon(diamond, closed=True, **style) if summed else Circle((x, y), r, **style)
        text, letters = _label(name)
        size = (19 if letters <= 2 else 16 if letters <= 4 else 62 / letters) * (0.85 if summed else 1)
        ax.text(x, y, text, fontsize=size * scale, va="center", linespacing=0.9, **label)
    patch.set_gid(f"site {name}")
    ax.add_patch(patch)


def _label(name: str) -> tuple[str, int]:
    """The name as maths, or in lines where it is long, and how many letters wide it is."""
    text = symbol(name)
    letters = len(re.sub(r"\\[a-zA-Z]+", "a", re.sub(r"[{}_]|\\mathrm", "", text)))
    if letters <= 5:
        return f"${text}$", letters
    lines = re.findall(r"[^_. ]+", name) or [name]
    return "\n".join(lines).replace("$", r"\$"), max(map(len, lines))


def _draw_legend(ax: Axes, x: float, y: float, guide: bool, scale: float) -> None:
    names = {"p": "model p", "q": "guide q"} if guide else {"p": "model p"}
    for k, (side, text) in enumerate(names.items()):
        colour, line = STYLES[side]
        left = x + (k - len(names) / 2) * 1.35 + 0.1
        ax.plot([left, left + 0.35], [y, y], color=colour, linestyle=line, linewidth=1.7 * scale)
        ax.text(left + 0.42, y, text, va="center", fontsize=12 * scale, color=INK)
