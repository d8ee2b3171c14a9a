"""How a picture is drawn: sheets of images, heat maps, points, with matplotlib and without pyplot."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .arguments import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
WIDTH = 840  # pixels that a sheet of images may fill
TILE = 96  # pixels that one image of it may fill
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito


MARKERS = "osD^vPX"


def in_order(n: int) -> list[Any]:
    """So many colours of one order, dark to light, that can be told apart without hue."""
    from matplotlib import colormaps

    return [BLUE] if n == 1 else [colormaps["viridis"](t) for t in np.linspace(0.0, 0.85, n)]


def markers() -> list[str]:
    """Shapes of points, one after another."""
    return list(MARKERS * 3)


@cache
def canvas() -> type[Figure]:
    """A Figure that a notebook shows without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture


def blank(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure."""
    return canvas()(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def bare(ax: Axes, grid: bool = False) -> None:
    """Axes without a box."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#e6e6e6", linewidth=0.8)


def write_title(ax: Axes, text: str) -> None:
    """A title flush with the left edge."""
    ax.set_title(text, loc="left", fontsize=11, fontweight="medium", pad=8)


def number(value: float) -> str:
    """A number for a title: short, with a true minus."""
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def sheet(
    cells: list[list[Any]],
    title: str | None,
    row_titles: Sequence[str] | None = None,
    column_titles: dict[int, str] | None = None,
    cell_titles: list[list[str | None]] | None = None,
    wide_above: Sequence[int] = (),
    wide_before: Sequence[int] = (),
) -> Figure:
    """Images [H, W, 3] in rows and columns on one canvas, every pixel of an image a square of whole pixels.

    A cell may be None, which is left white. Gaps are wide above and before the rows and columns that are named.
    """
    count = len(cells[0])
    h, w = cells[0][0].shape[:2]
    k = max(1, min(TILE // max(h, w), (WIDTH // count) // w))
    thin = 2 if count > 20 else 4
    line = 28  # pixels that a title with room above takes
    told = [any(t is not None for t in row) for row in cell_titles or [[]] * len(cells)]
    above = [line if t else 0 if r == 0 else 4 * thin if r in wide_above else thin for r, t in enumerate(told)]
    before = [0 if c == 0 else 4 * thin if c in wide_before else thin for c in range(count)]
    tops = np.cumsum(above) + k * h * np.arange(len(cells))
    lefts = np.cumsum(before) + k * w * np.arange(count)
    canvas = np.ones((tops[-1] + k * h, lefts[-1] + k * w, 3))
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell is not None:
                canvas[tops[r] : tops[r] + k * h, lefts[c] : lefts[c] + k * w] = cell.repeat(k, 0).repeat(k, 1)

    full = canvas.shape[1], canvas.shape[0]
    shrink = min(1.0, WIDTH * 1.3 / full[0])  # images wider than the page are shown smaller
    width, height = full[0] * shrink, full[1] * shrink
    margin = 12
    left = margin + (max(map(len, row_titles)) * 7.5 + 10 if row_titles else 0)
    top = margin + (34 if title else 0) + (22 if column_titles else 0)
    page = max(left + width + margin, left + (len(title) * 9.4 if title else 0) + margin), top + height + margin
    figure = blank(page[0] / DPI, page[1] / DPI, layout=None)
    ax = figure.add_axes((left / page[0], margin / page[1], width / page[0], height / page[1]))
    ax.imshow(
        canvas,
        interpolation="nearest" if shrink == 1 else "antialiased",
        extent=(0, full[0], full[1], 0),
        aspect="auto",
    )
    ax.set_axis_off()
    if title:
        figure.text(left / page[0], 1 - margin / page[1], title, va="top", fontsize=11, fontweight="medium")
    for r, text in enumerate(row_titles or ()):
        ax.text(-10 / shrink, tops[r] + k * h / 2, text, ha="right", va="center", fontsize=9.5)
    for c, text in (column_titles or {}).items():
        ax.text(lefts[c] + k * w / 2, -6 / shrink, text, ha="center", va="bottom", fontsize=9.5)
    for r, row in enumerate(cell_titles or ()):
        for c, text in enumerate(row):
            if text is not None:
                ax.text(lefts[c] + k * w / 2, tops[r] - 3, text, ha="center", va="bottom", fontsize=9)
    return figure


def vectors(panels: dict[str, Tensor], span: tuple[float, float], path: bool = False) -> Figure:
    """Vectors: points in the plane where there are two numbers each, else heat maps that share one scale."""
    flat = {name: x.reshape(len(x), -1).double().numpy() for name, x in panels.items()}
    if next(iter(flat.values())).shape[1] == 2:
        return plane(flat, path)
    from matplotlib.ticker import MaxNLocator

    rows = sum(map(len, flat.values()))
    figure = blank(6.4, min(9.0, 0.9 * len(flat) + 0.6 + rows * min(0.16, 5 / rows)))
    heights = [len(v) for v in flat.values()]
    axes = figure.subplots(len(flat), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, values) in zip(axes, flat.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis", vmin=span[0], vmax=span[1])
        ax.set_yticks([])
        ax.set_ylabel("steps, downwards" if path else "one row each", fontsize=9)
        write_title(ax, name)
    axes[-1].set_xlabel("dimension of x")
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
    figure.colorbar(drawn, ax=list(axes), label="value", fraction=0.04, aspect=20, pad=0.02)
    return figure


def plane(panels: dict[str, np.ndarray], path: bool) -> Figure:
    """Panels of points in the plane, one colour each."""
    figure = blank(6.0, 5.2)
    ax = figure.subplots()
    colours = (GREY, BLUE) if len(panels) == 2 and not path else CLASSES if len(panels) > 1 else (BLUE,)
    for (name, values), colour in zip(panels.items(), cycle(colours), strict=False):
        size = 3 if len(values) > 300 else 5
        ax.plot(
            *values.T,
            "o-" if path else "o",
            color=colour,
            markersize=size,
            markeredgewidth=0,
            linewidth=1,
            alpha=0.8,
            label=name,
        )
    ax.set(xlabel="x[0]", ylabel="x[1]")
    ax.set_aspect("equal", adjustable="datalim")
    bare(ax, grid=True)
    if len(panels) > 1:
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    else:
        write_title(ax, next(iter(panels)))
    return figure


def points(ax: Axes, z: np.ndarray, labels: np.ndarray | None) -> None:
    """Points in the plane, coloured by label."""
    size, alpha = min(18.0, max(4.0, 18 * math.sqrt(400 / len(z)))), 0.8 if len(z) <= 1000 else 0.65
    order = np.random.default_rng(0).permutation(len(z))  # no class lies on top of all others
    ax.set_aspect("equal", adjustable="datalim")
    bare(ax, grid=True)
    classes = None if labels is None else np.unique(labels)
    if labels is None or classes is None:
        ax.scatter(*z.T, s=size, alpha=alpha, color=BLUE, linewidths=0)
    elif len(classes) > len(CLASSES):
        drawn = ax.scatter(*z[order].T, c=labels[order], s=size, alpha=alpha, cmap="viridis", linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label="label", fraction=0.04, pad=0.02)
    else:
        colours = np.array(CLASSES)[np.searchsorted(classes, labels)]
        ax.scatter(*z[order].T, s=size, alpha=alpha, c=list(colours[order]), linewidths=0)
        name_classes(ax, z, labels, classes)


def name_classes(ax: Axes, z: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
    """A legend, and the name of each class at its median: colours need not be told apart."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    handles = []
    for name, colour in zip(classes, CLASSES, strict=False):
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, markersize=7, label=str(name)))
        middle = np.median(z[labels == name], 0)
        text = ax.text(middle[0], middle[1], str(name), ha="center", va="center", fontsize=12, fontweight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2)


def circles(ax: Axes) -> None:
    """One and two standard deviations of a standard normal prior."""
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    for radius in (1, 2):
        ax.add_patch(Circle((0, 0), radius, fill=False, color="#333333", linewidth=1, linestyle=(0, (4, 3)), zorder=3))
        text = ax.text(0, radius, f"{radius}σ", ha="center", va="center", fontsize=9, color="#333333", zorder=4)
        text.set_path_effects([withStroke(linewidth=4, foreground="white")])


def strips(ax: Axes, z: np.ndarray, labels: np.ndarray | None, name: str, standard: bool) -> None:
    """One latent dimension: a histogram, or with classes a row of points for each."""
    bare(ax)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    ax.set_xlabel(name)
    classes = None if labels is None else np.unique(labels)
    if labels is None or classes is None or len(classes) > len(CLASSES):
        ax.hist(z, bins="auto", density=True, color=BLUE, alpha=0.7, label="the data")
        ax.set_ylabel("density")
        if standard:
            line = np.linspace(min(-3, z.min()), max(3, z.max()), 200)
            density = np.exp(-(line**2) / 2) / math.sqrt(2 * math.pi)
            ax.plot(line, density, color="#333333", linestyle="--", label="prior")
            ax.legend(frameon=False)
        return
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(z))
    row = np.searchsorted(classes, labels)
    ax.scatter(z, row + jitter, s=9, alpha=0.7, c=list(np.array(CLASSES)[row]), linewidths=0)
    ax.set_yticks(range(len(classes)), [str(c) for c in classes])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("label")
    ax.invert_yaxis()
