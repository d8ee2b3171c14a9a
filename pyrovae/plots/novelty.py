"""Pictures of novelty: what a model made beside the nearest training data, and how far all of it is from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data import Dataset
from ..evaluation.novelty import VERDICTS, Novelty
from .arguments import as_pictures, in_rows, shades, value_span
from .drawing import BLUE, GREY, ORANGE, bare, blank, sheet, vectors, write_title

SHORT = dict(zip(VERDICTS, ("copy", "new", "off"), strict=True))

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def nearest_pairs(found: Novelty, data: Dataset, n: int = 20, columns: int = 10) -> Figure:
    """What a model made, and below each the nearest training datum, from the nearest pair to the furthest.

    Above each is its verdict, "copy" for memorised, "new" for novel and "off" for off the data, and the distance.

    Args:
        found: as `evaluation.novelty` gives it.
        data: the Dataset that it was compared with.
        n: pairs to show, at even steps of the distance's rank.
        columns: pairs in a row.

    Raises:
        ValueError: for n or columns below 1.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> found = pv.evaluation.novelty(pv.models.VAE.build(data, latent=2), data, n=5)
    >>> nearest_pairs(found, data).axes[0].axison
    False
    """
    if n < 1 or columns < 1:
        raise ValueError(f"nearest_pairs expects n and columns of at least 1, got n={n}, columns={columns}; show some")
    order = found.distance.argsort()
    shown = order[torch.linspace(0, len(order) - 1, min(n, len(order))).round().long()]
    made, near = found.generated[shown], data.train[found.nearest[shown]].cpu()
    both = torch.cat([made, near])
    span = value_span(both, None, "nearest_pairs")
    pictures = as_pictures(both)
    if pictures is None:
        return vectors({"generated": made, "nearest in training": near}, span)
    cells, width = shades(pictures, span), min(columns, len(shown))
    rest = [None] * (-len(shown) % width)
    above, below = (in_rows([*half, *rest], width) for half in (cells[: len(shown)], cells[len(shown) :]))
    told = [f"{SHORT[found.verdicts[i]]} {found.distance[i]:.3g}" for i in shown.tolist()]
    return sheet(
        [row for pair in zip(above, below, strict=True) for row in pair],
        "What was generated, and the nearest training datum at what distance",
        row_titles=["x", "nearest"] * len(above),
        cell_titles=[row for top in in_rows([*told, *rest], width) for row in (top, [None] * width)],
    )


def distances(found: Novelty) -> Figure:
    """Histograms of the distance to the nearest training datum: of what was generated, and of data held out.

    Args:
        found: as `evaluation.novelty` gives it.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> found = pv.evaluation.novelty(pv.models.VAE.build(data, latent=2), data, n=5)
    >>> distances(found).axes[0].get_xlabel()
    'distance to the nearest training datum, in units of x'
    """
    figure = blank(6.4, 3.8)
    ax = figure.subplots()
    groups = {
        "held-out data": (found.held_out.numpy(), BLUE),
        f"{len(found.distance)} generated": (found.distance.numpy(), ORANGE),
    }
    bins = np.histogram_bin_edges(np.concatenate([d for d, _ in groups.values()]), bins=50).tolist()
    for name, (d, colour) in groups.items():
        share = np.full(len(d), 1 / len(d))
        ax.hist(d, bins, weights=share, histtype="stepfilled", color=colour, alpha=0.35, label=name)
        ax.hist(d, bins, weights=share, histtype="step", color=colour, linewidth=1.4)
    top = 1.22 * ax.get_ylim()[1]
    ax.set_ylim(0, top)
    left, right = ax.get_xlim()
    left = min(left, found.low - 0.17 * (right - left))  # for a word
    right = max(right, found.high + 0.17 * (right - left))
    ax.set_xlim(left, right)
    edges = [left, found.low, found.high, right]
    for edge in edges[1:3]:
        ax.axvline(edge, color=GREY, linestyle="--", linewidth=1)
    for i, verdict in enumerate(VERDICTS):
        align = ("right", "center", "left")[i]
        x = (edges[1], (edges[1] + edges[2]) / 2, edges[2])[i]
        ax.annotate(
            f"{verdict}\n{found.shares[verdict]:.0%}",
            (x, top),
            xytext=((-4, 0, 4)[i], -3),
            textcoords="offset points",
            ha=align,
            va="top",
            fontsize=9,
            color=GREY,
        )
    ax.set(xlabel="distance to the nearest training datum, in units of x", ylabel="share")
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    bare(ax)
    write_title(ax, "How far what is generated lies from the training data")
    return figure
