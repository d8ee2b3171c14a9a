"""Pictures of the manifold as neighbours show it: coordinates, shortest ways, and how planes agree with true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..manifold import Coordinates, Neighbours, shortest_ways
from .arguments import as_data, as_labels, finite
from .drawing import BLUE, GREY, ORANGE, bare, blank, in_order, markers, points, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def coordinates(found: Coordinates | Tensor, labels: Any = None, title: str | None = None) -> Figure:
    """Two coordinates of each datum on its manifold, coloured by its label.

    Args:
        found: what `pv.manifold.coordinates` gives, or values [N, 2].
        labels: a class (up to ten of them) or a number for each datum.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for other than two coordinates, and labels of another number.
    """
    z = _two("coordinates", found)
    figure = blank(6.4, 5.6)
    ax = figure.subplots()
    points(ax, z.double().numpy(), as_labels(labels, len(z), "coordinates"))
    ax.set(xlabel="coordinate 1", ylabel="coordinate 2")
    write_title(ax, title or "Coordinates from the graph of neighbours")
    return figure


def agreement(table: DataFrame, title: str | None = None) -> Figure:
    """The angle between planes found and true ones against the number of data, a line for each size of noise.

    Args:
        table: what `pv.manifold.agreement` gives, or several of them, concatenated: a panel for each manifold.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for another table.
    """
    wanted = ["manifold", "n", "noise", "degrees"]
    if not set(wanted) <= set(getattr(table, "columns", ())) or not len(table):
        raise ValueError(f"agreement expects a table with columns {wanted}; give what pyrovae.manifold.agreement does")
    names, noises = list(table.manifold.unique()), sorted(table.noise.unique())
    figure = blank(max(5.6, 3.4 * len(names)), 4.2)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        for sigma, colour, marker in zip(noises, in_order(len(noises)), markers(), strict=False):
            rows = table[(table.manifold == name) & (table.noise == sigma)].sort_values("n")
            ax.plot(rows.n, rows.degrees, marker=marker, markersize=5, color=colour, label=f"{sigma:g}")
        ax.set(xscale="log", yscale="log", xlabel="number of data n")
        ax.set_xticks(sorted(table.n.unique()), [f"{n:,}" for n in sorted(table.n.unique())])
        ax.minorticks_off()
        bare(ax, grid=True)
        ax.set_title(name, loc="left", fontsize=9.5, pad=4)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 45, 90) if t >= table.degrees.min() / 2]
    axes[0].set_yticks(ticks, [f"{t:g}°" for t in ticks])
    axes[0].set_ylim(table.degrees.min() / 1.3, 100)
    axes[0].set_ylabel("median of the largest principal angle")
    axes[-1].legend(title="noise, in units of x", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title or "Planes found in data, and the true ones", x=0.02, ha="left", fontsize=11)
    return figure


def ways(
    found: Coordinates | Tensor, near: Neighbours, ends: Sequence[Sequence[int]], title: str | None = None
) -> Figure:
    """The graph of neighbours, and shortest ways through it beside straight lines.

    Args:
        found: where to draw the data: what `pv.manifold.coordinates` gives, or two of their numbers [N, 2].
        near: what `pv.manifold.neighbours` gives of the same data.
        ends: pairs of rows, from and to.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for other than two coordinates, neighbours of other data, and as `pv.manifold.shortest_ways`.
    """
    from matplotlib.collections import LineCollection

    z = _two("ways", found)
    if len(near.index) != len(z):
        raise ValueError(f"ways expects neighbours of the same data, got {len(near.index)} for {len(z)}")
    between = shortest_ways(near, ends)
    figure = blank(6.4, 5.6)
    ax = figure.subplots()
    edges = torch.stack([z[:, None].expand(*near.index.shape, 2), z[near.index]], 2).flatten(0, 1)  # [N k, 2, 2]
    ax.add_collection(LineCollection(list(edges.numpy()), colors=GREY, linewidths=0.4, alpha=0.35))
    ax.scatter(*z.numpy().T, s=5, color=GREY, linewidths=0)
    for i, way in enumerate(between):
        line, name = z[way.rows].numpy(), "neighbours" if i == 0 else None
        ax.plot(*line[[0, -1]].T, "--", color=ORANGE, linewidth=1.6, label=name and "straight")
        ax.plot(*line.T, "-", color=BLUE, linewidth=2.2, label=name and "through neighbours")
        ax.plot(*line[[0, -1]].T, "o", color=BLUE, markeredgecolor="white", markersize=8)
    ax.set_aspect("equal", adjustable="datalim")
    bare(ax, grid=True)
    ax.set(xlabel="coordinate 1", ylabel="coordinate 2")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    lengths = ", ".join(f"{float(way.length):.3g}" for way in between)
    write_title(ax, title or f"Shortest ways through the graph, of length {lengths}")
    return figure


def _two(who: str, found: Coordinates | Tensor) -> Tensor:
    """Two coordinates of each datum, [N, 2]. Raises ValueError."""
    z = finite(as_data(found.z if isinstance(found, Coordinates) else found, who, None), who)
    if z.dim() != 2 or z.shape[1] != 2:
        raise ValueError(f"{who} expects two of each datum, [N, 2], got {list(z.shape)}; find them with d=2")
    return z
