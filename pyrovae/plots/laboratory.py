"""Pictures of a comparison of objectives: one function each, of the table that `pyrovae.lab.compare` returns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import CLASSES
from .drawing import BLUE, GREY, bare, blank, write_title
from .quantities import (
    GROUPS,
    drawable,
    groups_of,
    measured,
    names_of,
    no_bounds,
    one_count,
    power_law,
    relative_bias,
    shared,
    with_ends,
    with_error,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from pandas import DataFrame

COSTS = {"decoder_passes": "decoder passes per datum", "seconds": "seconds"}
PER_COST = {"decoder_passes": ("snr_per_pass", "√decoder pass"), "seconds": ("snr_per_second", "√second")}
SQUARED = "(nats per datum per unit of the parameters)²"
LONG = 24  # letters of a name that fills a line of a legend
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")  # with ten colours, 140 styles


def bounds(table: DataFrame) -> Figure:
    """Each bound against the particles, with standard errors, below the log evidence; nats per datum.

    Objectives of the same bound share a line, and their names stand together. With a single number of particles a dot
    for each objective.

    Args:
        table: what `compare` returns.

    Raises:
        ValueError: as all of this file do, for what is no such table, and for one without a figure that can be drawn.
    """
    rows = measured(table, "bounds", "bound", "bound_error", "evidence", "evidence_error")
    rows = rows.drop_duplicates(["objective", "particles"])  # the groups have the same bound
    rows["low"], rows["high"] = rows.bound - rows.bound_error, rows.bound + rows.bound_error
    seen = drawable(rows, "bounds", "bound")
    evidence, error = seen.evidence.iloc[0], seen.evidence_error.fillna(0).iloc[0]
    known = "\n".join(textwrap.wrap(f"log p(x), {table.attrs.get('reference', 'reference not told')}:", 2 * LONG - 8))
    known += f"\n{with_error(evidence, error)}"
    single = one_count(seen)
    figure = blank(9.6, dots_height(seen) if single else max(4.8, lines_height(seen)))
    ax = figure.subplots()
    if single:
        dots(ax, seen.sort_values("bound"), "bound")
        ax.set_xlabel("bound in nats per datum, ± standard error")
    else:
        seen = lines(ax, seen, "particles", "bound", shared(seen, "bound", whole=False), names_of(rows))
        ax.set(xlabel="particles K", ylabel="nats per datum, ± standard error")
        count_axis(ax, seen.particles)
    if np.isfinite(evidence):
        band, line = (ax.axvspan, ax.axvline) if single else (ax.axhspan, ax.axhline)
        band(evidence - error, evidence + error, color=GREY, alpha=0.25, linewidth=0)
        line(evidence, color=GREY, linewidth=1.2, label=known)
    others = f"; no lower bounds: {', '.join(map(as_text, no_bounds(seen)))}" if no_bounds(seen) else ""
    write_title(ax, "Bounds on log p(x)" + (f", {single}" if single else "") + others)
    legend(ax)
    left_out(figure, rows, seen, "bound")
    return figure


def signal_to_noise(table: DataFrame, fit_from: int = 1) -> Figure:
    """‖μ‖ / √tr Σ against the particles on logarithmic axes, with 95 % intervals and slopes; a panel for each group.

    Slopes are those of `pyrovae.lab.slopes`. With a single number of particles a dot for each objective.

    Args:
        table: what `pyrovae.lab.compare` returns.
        fit_from: the fewest particles that slopes are fitted to.
    """
    rows = with_ends(measured(table, "signal_to_noise", "snr", "snr_low", "snr_high"), "snr")
    seen = drawable(rows, "signal_to_noise", "snr", positive=True)
    single, groups = one_count(seen), groups_of(seen)
    figure = blank(9.6, len(groups) * (dots_height(seen) if single else lines_height(seen)))
    for ax, group in zip(figure.subplots(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
        part = seen[seen.group == group]
        if single:
            dots(ax, part.sort_values("snr"), "snr")
            log_axis(ax.xaxis)
            ax.set_xlabel("signal-to-noise ‖μ‖ / √tr Σ, 95 % interval")
        else:
            lines(ax, part, "particles", "snr", shared(part, "snr"), names_of(rows), fit_from)
            log_axis(ax.yaxis)
            count_axis(ax, seen.particles.dropna())
            ax.set(xlabel="particles K", ylabel="‖μ‖ / √tr Σ, 95 % interval")
            legend(ax)
        told = f", {single}" if single else f"; slopes from K = {fit_from} on" if fit_from > 1 else ""
        write_title(ax, f"Signal-to-noise of the {GROUPS.get(group, group)}{told}")
    left_out(figure, rows, seen if single else seen[seen.particles > 0], "signal-to-noise")
    return figure


def variance(table: DataFrame) -> Figure:
    """tr Σ against decoder passes and against seconds, on logarithmic axes, with lines of equal variance × cost.

    Of two estimators of one gradient that on the lower line is the better use of the time (Glynn and Whitt, 1992).
    Objectives of the same variance have the same look.
    """
    rows = with_ends(measured(table, "variance", "variance", "variance_low", "variance_high", *COSTS), "variance")
    seen = drawable(rows, "variance", "variance", positive=True)
    groups = groups_of(seen)
    figure = blank(12, lines_height(seen) * len(groups))
    axes = figure.subplots(len(groups), 2, squeeze=False, sharey="row")
    for (r, group), (c, cost) in product(enumerate(groups), enumerate(COSTS)):
        part, ax = seen[(seen.group == group) & (seen[cost] > 0)], axes[r, c]
        lines(ax, part, cost, "variance", shared(part, "variance"), names_of(rows))
        ax.set_xlabel(COSTS[cost])
    for ax in axes.flat:  # matplotlib misjudges the ends of intervals that are put on a logarithmic axis
        log_axis(ax.xaxis)
        log_axis(ax.yaxis)
    for (r, group), c in product(enumerate(groups), range(2)):
        equal_products(axes[r, c])
        if c == 0:
            axes[r, 0].set_ylabel(f"tr Σ, {SQUARED}", fontsize=9)
            write_title(axes[r, 0], f"Variance of the {GROUPS.get(group, group)}")
        else:
            legend(axes[r, 1], "grey: equal variance × cost")
    left_out(figure, rows, seen, "variance")
    return figure


def cost(table: DataFrame) -> Figure:
    """The signal-to-noise that one decoder pass per datum and one second pay for: a dot for each number of particles.

    snr / √cost is what the mean of as many gradients has as fit into the cost; further right is better. Sorted by the
    best that an objective has per second.
    """
    needed = ["snr", "snr_low", "snr_high", *COSTS, *(column for column, _ in PER_COST.values())]
    rows = with_ends(measured(table, "cost", *needed), "snr")
    seen = drawable(rows, "cost", "snr", positive=True)
    single, groups = one_count(seen), groups_of(seen)
    counts = sorted(seen.particles.dropna().unique()) + ([np.nan] if seen.particles.isna().any() else [])
    figure = blank(12, len(groups) * dots_height(seen, len(counts)))
    axes = figure.subplots(len(groups), 2, squeeze=False, sharey="row")
    for (r, group), (c, (price, (column, unit))) in product(enumerate(groups), enumerate(PER_COST.items())):
        part, ax = seen[seen.group == group], axes[r, c]
        order = (
            part[::-1].groupby("objective", sort=False).snr_per_second.max().sort_values(kind="stable").index.tolist()
        )
        for i, k in enumerate(counts):
            of = part[part.particles.isna() if np.isnan(k) else part.particles == k]
            paid = of.assign(low=of.low / np.sqrt(of[price]), high=of.high / np.sqrt(of[price]))
            shift = 0.5 * (i / (len(counts) - 1) - 0.5) if len(counts) > 1 else 0.0
            label = ("K not told" if np.isnan(k) else f"K = {k:g}") if i in some(len(counts)) else None
            dots(ax, paid, column, order, shade(i, len(counts)), MARKERS[i % len(MARKERS)], shift, label)
        log_axis(ax.xaxis)
        ax.set_xlabel(f"signal-to-noise per {unit}, 95 % interval")
    for r, group in enumerate(groups):
        text = f"Signal-to-noise of the {GROUPS.get(group, group)} at equal cost"
        write_title(axes[r, 0], text + (f", {single}" if single else ""))
        if not single:
            legend(axes[r, 1])
    left_out(figure, rows, seen, "signal-to-noise")
    return figure


def bias(table: DataFrame) -> Figure:
    """The gradient's bias over its length, with 95 % intervals, at the largest number of particles; by group.

    Hollow where the interval reaches 0: no bias is seen.
    """
    rows = relative_bias(measured(table, "bias", "gradient", "bias", "bias_low", "bias_high"))
    rows = rows[rows.particles.isna() | (rows.particles == rows.groupby("objective").particles.transform("max"))]
    seen = drawable(rows, "bias", "relative")
    single, groups, top = (
        one_count(seen),
        groups_of(seen),
        seen[["relative", "high"]].replace(np.inf, np.nan).max().max() or 1.0,
    )
    figure = blank(9.6, len(groups) * dots_height(seen))
    for ax, group in zip(figure.subplots(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
        part = seen[seen.group == group][::-1].sort_values(["relative", "high"], ascending=False, kind="stable")
        hollow = ~(part.low > 0)
        dots(ax, part, "relative", hollow=hollow)
        ax.set_xlim(-0.02 * top, 1.05 * top)
        told = [part[name].tolist() for name in ("relative", "low", "high", "particles")]
        for y, (value, low, high, k) in enumerate(zip(*told, strict=True)):
            text = with_interval(value, low, high) + ("" if single else f"   K = {k:g}")
            ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
        text = f"Bias of the {GROUPS.get(group, group)}" + (f", {single}" if single else "")
        write_title(ax, text + ("; hollow: none seen" if hollow.any() else ""))
        ax.set_xlabel("bias / length of the gradient, 95 % interval")
    left_out(figure, rows, seen, "bias")
    return figure


# Drawing


def lines(
    ax: Axes,
    rows: DataFrame,
    x: str,
    y: str,
    together: list[list[str]],
    order: list[str],
    fit_from: int | None = None,
) -> DataFrame:
    """A line for each objective, with low and high; those that are together look the same. Returns what was drawn."""
    rows = rows[rows[x] > 0]
    for names in together:
        i = order.index(names[0])  # so that an objective looks the same in every panel
        label = ",\n".join(map(as_text, names))
        if fit_from is not None:
            lead = rows[(rows.objective == names[0]) & (rows.particles >= fit_from)]
            slope, error, _ = power_law(lead.particles, lead[y], lead.low, lead.high)
            apart = ",\n" if len(names) > 1 or len(label) > LONG else ", "
            label += f"{apart}slope {with_error(slope, error)}" if np.isfinite(slope) else ""
        colour = CLASSES[i % len(CLASSES)]
        look: dict[str, Any] = {
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % len(DASHES)],
            "markersize": 5,
        }
        for name in names:
            part = rows[rows.objective == name].sort_values(x)
            ax.plot(part[x], part[y], color=colour, linewidth=1.5, label=label, **look)
            ax.vlines(part[x], part.low, part.high.where(np.isfinite(part.high)), color=colour, linewidth=1.2)
            label = None
    bare(ax, grid=True)
    return rows


def dots(
    ax: Axes,
    rows: DataFrame,
    x: str,
    names: Sequence[str] | None = None,
    colour: Any = BLUE,
    marker: str = "o",
    shift: float = 0.0,
    label: str | None = None,
    hollow: Any = None,
) -> None:
    """A dot with its interval for each row, its objective written on the left."""
    names = list(rows.objective if names is None else names)
    y = np.array([names.index(name) for name in rows.objective]) + shift
    ax.hlines(y, rows.low, rows.high.where(np.isfinite(rows.high)), color=colour, linewidth=1.4)
    fill = [colour] * len(rows) if hollow is None else ["white" if h else colour for h in hollow]
    ax.scatter(rows[x], y, s=30, marker=marker, color=fill, edgecolors=[colour], linewidths=1.3, zorder=3, label=label)
    ax.set_yticks(range(len(names)), map(as_text, names), fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.7, len(names) - 0.3)
    bare(ax)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    ax.grid(axis="y", color="#f2f2f2", linewidth=0.8)


def dots_height(rows: DataFrame, each: int = 1) -> float:
    """Inches for a chart with a row for each objective."""
    dots = 1.15 + rows.objective.nunique() * min(0.22 + 0.03 * (each - 1), 0.34)
    return max(dots, 0.9 + 0.2 * min(each, 9))  # the legend


def lines_height(rows: DataFrame) -> float:
    """Inches for a chart with a line for each objective, and its name in the legend."""
    long = sum(len(name) > LONG for name in names_of(rows))
    return max(3.9, 0.7 + 0.2 * len(names_of(rows)) + 0.145 * long)


def some(n: int) -> list[int]:
    """All of n numbers in order, or eight of them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, 8))})


def shade(i: int, n: int) -> Any:
    """The i-th of n colours from dark to light, for numbers in order."""
    from matplotlib import colormaps

    return BLUE if n == 1 else colormaps["viridis"](0.85 * i / (n - 1))


def log_axis(axis: Axis) -> None:
    """A logarithmic axis, once all is drawn: plain numbers where it spans little, and at least a factor of four.

    Ends of intervals at 0 are cut off.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    across = axis is axis.axes.xaxis
    (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
    low, high = axis.get_data_interval()
    if 0 < low <= high < 300 * low:
        if high < 4 * low:
            middle = math.sqrt(low * high)
            (axis.axes.set_xlim if across else axis.axes.set_ylim)(middle / 2.2, middle * 2.2)
        subs = (1, 1.5, 2, 3, 5, 7) if high < 5 * low else (1, 2, 5) if high < 30 * low else (1, 3)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def count_axis(ax: Axes, particles: Any) -> None:
    """A logarithmic axis of K with a tick for each, or for at most eight of them."""
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log")
    counts = np.unique(particles)
    counts = counts[some(len(counts))]
    ax.set_xticks(counts, [f"{k:g}" for k in counts])
    ax.xaxis.set_minor_locator(NullLocator())


def equal_products(ax: Axes) -> None:
    """Lines x · y = a power of ten behind what is drawn, at most six of them."""
    from matplotlib.collections import LineCollection

    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    first, last = np.ceil(np.log10(left * low)), np.floor(np.log10(right * high))
    powers = range(int(first), int(last) + 1, max(1, math.ceil((last - first + 1) / 6)))
    ends = [[(x, 10.0**power / x) for x in (left, right)] for power in powers]
    ax.add_collection(LineCollection(ends, colors="#bbbbbb", linewidths=0.8, zorder=0.5), autolim=False)
    for power in powers:
        x = max(left, 10.0**power / high)  # where it comes in
        y = 10.0**power / x
        if math.log(right / x) > 0.1 * math.log(right / left) and math.log(y / low) > 0.1 * math.log(high / low):
            text = ax.annotate(f"$10^{{{power}}}$", (x, y), (4, -4), textcoords="offset points")
            text.set(va="top", fontsize=8, color=GREY, zorder=0.6)
    ax.set(xlim=(left, right), ylim=(low, high))


def as_text(name: str) -> str:
    """A name as matplotlib shows it: no formula, and not hidden for its first letter."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def legend(ax: Axes, title: str | None = None) -> None:
    """On the right, outside."""
    made = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5, title=title)
    made.get_title().set(fontsize=8.5, color=GREY)


def left_out(figure: Figure, rows: DataFrame, seen: DataFrame, what: str) -> None:
    """A line below that names the objectives with a figure that cannot be drawn."""
    drawn = set(zip(seen.objective, seen.particles.fillna(0), seen.group, strict=True))
    every = zip(rows.objective, rows.particles.fillna(0), rows.group, strict=True)
    names = list(dict.fromkeys(row[0] for row in every if row not in drawn))
    if names:
        text = (
            f"Not shown, for a {what} of 0, infinite or not known, or K not told: {', '.join(map(as_text, names[:6]))}"
        )
        figure.supxlabel(text + (" …" if len(names) > 6 else ""), x=0.01, ha="left", fontsize=8.5, color=GREY)
