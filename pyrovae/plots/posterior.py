"""Pictures of inference: q beside the exact posterior, what the ELBO lacks, all codes together and the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.gaps import Gaps
from ..evaluation.grid import Grid, prior_on_grid
from ..evaluation.surgery import log_aggregate
from ..program import evaluating, home, seeded
from .arguments import as_data
from .drawing import BLUE, ORANGE, bare, blank, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN = "#009E73"  # Okabe and Ito
MASSES = (0.99, 0.9, 0.5)  # within the contours, from the outermost
SHOWN = 8.0  # nats below the peak that a picture reaches down to
MOST = 12  # panels


def posteriors(grid: Grid, log_best: Tensor | None = None, titles: Sequence[Any] | None = None) -> Figure:
    """The exact p(z | x) of some data, and q(z | x) of the guide over it: curves, or contours in the plane.

    Args:
        grid: of at most 12 data, as `exact_posterior` gives it, or the `grid` of `gaps`.
        log_best: also the best q of the family, `log_best` of `gaps`.
        titles: of the panels, such as labels.

    Raises:
        ValueError: for more data, and titles of another number.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.LinearGaussian.build(data, latent=1)
    >>> len(posteriors(pv.evaluation.exact_posterior(vae, data.test[:2])).axes)
    2
    """
    n = grid.log_joint.shape[1]
    if n > MOST:
        raise ValueError(f"posteriors expects at most {MOST} data in one picture, got {n}; give grid.of_data(range(4))")
    names = [f"datum {i}" for i in range(n)] if titles is None else [str(t) for t in titles]
    if len(names) != n:
        raise ValueError(f"posteriors expects a title for each of {n} data, got {len(names)}; give one each, or none")
    if log_best is not None and log_best.shape != grid.log_guide.shape:
        raise ValueError(
            f"posteriors expects log_best as `gaps` gives it, {list(grid.log_guide.shape)}, got "
            f"{list(log_best.shape)}; give its log_best, and its grid"
        )
    lines = {"q(z | x), the guide's": (grid.log_guide, ORANGE, "-")}
    if log_best is not None:
        lines["best q of the family"] = (log_best, BLUE, "--")
    width = min(n, 4)
    rows = math.ceil(n / width)
    plane = len(grid.axes) == 2
    figure = blank(2.6 * width + 0.6, (2.7 if plane else 2.2) * rows + 0.6)
    axes = figure.subplots(rows, width, squeeze=False).flatten()
    for ax in axes[n:]:
        ax.set_axis_off()
    for i, ax in enumerate(axes[:n]):
        logs = {name: (log[:, i], colour, style) for name, (log, colour, style) in lines.items()}
        (_contours if plane else _curves)(ax, grid, grid.log_posterior[:, i], logs)
        write_title(ax, names[i])
        bare(ax)
    for ax in axes[max(0, n - width) : n]:
        ax.set_xlabel(grid.names[0])
    for ax in axes[:n:width]:
        ax.set_ylabel(grid.names[1] if plane else f"density per unit of {grid.names[0]}")
    _legend(figure, {name: (colour, style) for name, (_, colour, style) in lines.items()}, "exact p(z | x)")
    if plane:
        figure.suptitle("Contours around 50, 90 and 99 % of the mass", x=0.01, ha="left", fontsize=11)
    return figure


def gap_bars(gaps: Gaps, titles: Sequence[Any] | None = None) -> Figure:
    """KL(q(z | x) ‖ p(z | x)) of each datum as its two parts, stacked on its ELBO: together they reach log p(x).

    On the left the means over the data, on the right each datum. As the gaps are small beside log p(x), each bar
    begins at its own ELBO, which is written under it.

    Args:
        gaps: as `evaluation.gaps` gives them; at most 30 data are shown.
        titles: of the data, such as labels.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.LinearGaussian.build(data, latent=1)
    >>> gap_bars(pv.evaluation.gaps(vae, data.test[:2])).axes[0].get_ylabel()
    'nats above the ELBO'
    """
    n = min(len(gaps.elbo), 30)
    names = [str(i) for i in range(n)] if titles is None else [str(t) for t in titles][:n]
    if len(names) != n:
        raise ValueError(f"gap_bars expects a title for each of {n} data, got {len(names)}; give one each, or none")
    columns = [t.detach().cpu().numpy() for t in (gaps.amortisation, gaps.approximation, gaps.elbo)]
    amortisation, approximation, elbo = (np.concatenate([[t.mean()], t[:n]]) for t in columns)
    place = np.concatenate([[0.0], 1.6 + np.arange(n)])
    figure = blank(max(6.4, 2.2 + 0.42 * n), 4.2)
    ax = figure.subplots()
    ax.bar(place, amortisation, 0.75, color=ORANGE, label="amortisation gap: the encoder")
    ax.bar(place, approximation, 0.75, bottom=amortisation, color=BLUE, label="approximation gap: the family of q")
    top = amortisation + approximation
    ax.scatter(place, top, marker="_", s=130, color="black", linewidths=1.5, label="log p(x)", zorder=3)
    ax.axvline(0.8, color="#cccccc", linewidth=0.8)
    below = [f"{value:.0f}".replace("-", "−") for value in elbo]
    ax.set_xticks(place, [f"{name}\n{text}" for name, text in zip(["mean", *names], below, strict=True)])
    ax.tick_params(axis="x", length=0, labelsize=8 if n > 15 else 9)
    ax.set(ylabel="nats above the ELBO", xlabel="datum, and below it its ELBO in nats")
    ax.set_ylim(min(0.0, 1.05 * float(top.min())), 1.4 * float(top.max()) or 1.0)
    ax.legend(frameon=False, ncols=1, loc="upper right")
    bare(ax)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    write_title(ax, "log p(x) = ELBO + amortisation gap + approximation gap")
    return figure


def aggregate_map(vae: Any, x: Tensor, points: int | None = None) -> Figure:
    """The aggregate posterior q(z) = mean of q(z | x) over the data, and the prior p(z): densities of one or two z.

    Where q(z) is empty and the prior is not, what is generated comes from codes that no datum has.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)` that `evaluation.exact_posterior` takes.
        x: data [N, *event]; all of them are in the mixture.
        points: of each axis; None for 1,025, or 129 for each of two.

    Raises:
        ValueError: for data that are none, and latents as in `exact_posterior`.
    """
    x = as_data(x, "aggregate_map", most=None).to(*home(vae))
    with evaluating(vae), seeded(0, x.device):
        grid, codes = prior_on_grid(vae, x, points, "aggregate_map")
        log_q = log_aggregate(vae, x, codes).double()
    plane = len(grid.axes) == 2
    figure = blank(6.0, 5.4 if plane else 3.4)
    ax = figure.subplots()
    (_contours if plane else _curves)(ax, grid, log_q, {"prior": (grid.log_joint[:, 0], ORANGE, "-")})
    if plane:
        ax.set_aspect("equal")
        ax.set(xlabel=grid.names[0], ylabel=grid.names[1])
    else:
        ax.set(xlabel=grid.names[0], ylabel=f"density per unit of {grid.names[0]}")
    write_title(ax, "All codes, and the prior" + (": 50, 90 and 99 % of the mass" if plane else ""))
    bare(ax)
    _legend(figure, {"prior p(z)": (ORANGE, "-")}, "aggregate posterior q(z)")
    return figure


Lines = dict[str, tuple[Tensor, str, str]]  # log density [G], colour, style


def _curves(ax: Axes, grid: Grid, filled: Tensor, lines: Lines) -> None:
    z = grid.axes[0].cpu().numpy()
    density = filled.exp().cpu().numpy()
    ax.fill_between(z, density, color=GREEN, alpha=0.35, linewidth=0)
    ax.plot(z, density, color=GREEN, linewidth=1)
    for log, colour, style in lines.values():
        ax.plot(z, log.exp().cpu().numpy(), color=colour, linestyle=style, linewidth=1.6)
    ax.set_xlim(*_range(grid, [filled, *(log for log, *_ in lines.values())])[0])
    ax.set_ylim(bottom=0)


def _contours(ax: Axes, grid: Grid, filled: Tensor, lines: Lines) -> None:
    a, b = (axis.cpu().numpy() for axis in grid.axes)
    size = len(a), len(b)

    def height(log: Tensor) -> np.ndarray:
        return (log - log.max()).cpu().numpy().reshape(size).T

    shades = [(*_rgb(GREEN), alpha) for alpha in (0.18, 0.4, 0.75)]
    ax.contourf(a, b, height(filled), levels=[*_levels(grid, filled), 1e-9], colors=shades)
    for log, colour, style in lines.values():
        ax.contour(
            a, b, height(log), levels=_levels(grid, log), colors=colour, linestyles=style, linewidths=(0.8, 1.1, 1.5)
        )
    (left, right), (bottom, top) = _range(grid, [filled, *(log for log, *_ in lines.values())])
    ax.set(xlim=(left, right), ylim=(bottom, top))


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _levels(grid: Grid, log: Tensor) -> list[float]:
    """The log densities, below the peak, that these shares of the mass are above, in increasing order."""
    order = log.argsort(descending=True)
    share = (log + grid.log_volume).softmax(0)[order].cumsum(0)
    places = [min(int((share < mass).sum()), len(order) - 1) for mass in MASSES]
    levels = [float(log[order[i]] - log.max()) for i in places]
    return [level - 1e-6 * (len(levels) - i) for i, level in enumerate(levels)]  # never two that are one


def _range(grid: Grid, logs: list[Tensor]) -> list[tuple[float, float]]:
    """Of each axis, where any density is within SHOWN nats of its peak."""
    there = torch.stack([log >= log.max() - SHOWN for log in logs]).any(0)
    z = grid.z[there]
    return [(float(v.min()), float(v.max())) for v in z.T]


def _legend(figure: Figure, lines: dict[str, tuple[str, str]], filled: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=GREEN, alpha=0.5, label=filled)]
    handles += [Line2D([], [], color=c, linestyle=style, label=name) for name, (c, style) in lines.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
