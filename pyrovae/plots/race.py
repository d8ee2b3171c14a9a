"""The picture of a race."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from .arguments import CLASSES
from .drawing import bare, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {"epoch": "epochs", "seconds": "seconds of training", "decoder_passes": "decoder passes for each datum"}
MARKERS = "osD^v<>Px*"


def race(table: Any) -> Figure:
    """Held-out log evidence of each objective against epochs, seconds and decoder passes; a thin line for each seed.

    Args:
        table: of `pyrovae.lab.race`.

    Raises:
        ValueError: for a table of another kind, or one without any figure.
    """
    if not {"objective", "log_evidence", *COSTS} <= set(getattr(table, "columns", ())):
        raise ValueError("race expects the table that pyrovae.lab.race gives, got another; give that")
    table = table[table["log_evidence"].notna() & table["failed"].eq("")]
    if not len(table):
        raise ValueError("race expects at least one row with a log evidence, got none; see the column 'failed'")
    figure = blank(12.0, 4.2)
    axes = figure.subplots(1, len(COSTS), sharey=True)
    counts = ["" if str(k) == "<NA>" else f", K = {k}" for k in table["particles"]]
    names = table["objective"] + counts
    for name, colour, marker in zip(names.unique(), cycle(CLASSES), cycle(MARKERS), strict=False):
        own = table[names == name]
        runs = [run for _, run in own.groupby("seed")]
        for ax, cost in zip(axes, COSTS, strict=True):
            for run in runs if len(runs) > 1 else ():
                ax.plot(run[cost], run["log_evidence"], color=colour, linewidth=0.6, alpha=0.5)
            mean = own.groupby("epoch")[[cost, "log_evidence"]].mean() if cost != "epoch" else None
            x = own["epoch"].drop_duplicates() if mean is None else mean[cost]
            y = own.groupby("epoch")["log_evidence"].mean()
            ax.plot(x, y, color=colour, marker=marker, markersize=4, label=name)
    low, high = _limits(table)
    for ax, label in zip(axes, COSTS.values(), strict=True):
        bare(ax, grid=True)
        ax.set_xlabel(label)
        ax.set_ylim(low, high)
    particles = f", {table.attrs['particles']:,} particles" if "particles" in table.attrs else ""
    axes[0].set_ylabel(f"held-out log evidence, nats per datum\n(a lower bound{particles})")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    return figure


def _limits(table: Any) -> tuple[float, float]:
    """y-limits without the start, which lies far below."""
    later = table[table["epoch"] > 0]["log_evidence"]
    later = later if len(later) else table["log_evidence"]
    room = 0.08 * (later.max() - later.min()) or 1.0
    return float(later.min() - room), float(later.max() + room)
