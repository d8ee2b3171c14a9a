"""Entropy as an area, two distributions and what it costs to take one for the other, and dependence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import information
from ..information.quantity import UNITS
from ..information.tables import log_prob
from .drawing import BLUE, ORANGE, bare, blank, write_title
from .quantities import with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1_000
DRAWS = 4_000  # from which the range of values is taken


def divergences(p: Any, q: Any, unit: str = "nats", names: tuple[str, str] = ("p", "q")) -> Figure:
    """p and q, and beside them the integrands p log p/q and q log q/p, whose areas are KL(p ‖ q) and KL(q ‖ p).

    An integrand may be below 0; its area is not. Probability vectors are drawn as bars.

    Args:
        p: a distribution of one number, or a probability vector [n].
        q: another one, on the same values.
        unit: nats or bits.
        names: what they are called.

    Raises:
        ValueError: for distributions of more than one number, and as `pyrovae.information.kl` does.
    """
    forward, reverse = information.kl(p, q, unit), information.kl(q, p, unit)
    middle = information.jensen_shannon(p, q, unit)
    x, a, b = _densities(p, q)
    figure = blank(9.6, 3.6)
    left, right = figure.subplots(1, 2)
    size = UNITS[unit]
    continuous = isinstance(p, Distribution)
    for values, name, colour, shift in ((a, names[0], BLUE, -0.2), (b, names[1], ORANGE, 0.2)):
        _curve(left, x, values, name, colour, shift, continuous)
    parts = (
        (torch.xlogy(a, a) - torch.xlogy(a, b), f"KL({names[0]} ‖ {names[1]})", forward, BLUE, -0.2),
        (torch.xlogy(b, b) - torch.xlogy(b, a), f"KL({names[1]} ‖ {names[0]})", reverse, ORANGE, 0.2),
    )
    for values, name, told, colour, shift in parts:
        label = f"{name} = {with_error(float(told), float(told.standard_error))} {unit}"
        _curve(right, x, values / size, label, colour, shift, continuous)
    right.axhline(0, color="#333333", linewidth=0.8)
    for ax in (left, right):
        bare(ax)
        ax.set_xlabel("x")
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))
        if not continuous:
            ax.set_xticks(range(len(x)))
    left.set_ylabel("density" if continuous else "probability")
    right.set_ylabel(f"{unit} per unit of x" if continuous else unit)
    write_title(left, f"Jensen-Shannon divergence {with_error(float(middle))} {unit}")
    write_title(right, "What is summed over x")
    return figure


def entropy(p: Any, unit: str = "nats", name: str = "p") -> Figure:
    """p and the information content −log p of its values, and beside them −p log p, whose area is the entropy H(p).

    What is rare tells a lot, and adds little as it is rare. Probability vectors are drawn as bars.

    Args:
        p: a distribution of one number, or a probability vector [n].
        unit: nats or bits.
        name: what it is called.

    Raises:
        ValueError: for a distribution of more than one number, and as `pyrovae.information.entropy` does.
    """
    told = information.entropy(p, unit)
    x, a, _ = _densities(p, p, "entropy")
    size, continuous = UNITS[unit], isinstance(p, Distribution)
    figure = blank(9.6, 3.6)
    left, right = figure.subplots(1, 2)
    _curve(left, x, a, f"{name}(x)", BLUE, 0, continuous)
    above = left.twinx()
    content = -a.log() / size
    style = {"color": ORANGE, "label": f"−log {name}(x)"}
    if continuous:
        above.plot(x, content, "--", **style)
    else:
        above.plot(x, content, "o", **style)  # of what never happens there is none to draw
    label = f"H({name}) = {with_error(float(told), float(told.standard_error))} {unit}"
    _curve(right, x, torch.special.entr(a) / size, label, BLUE, 0, continuous)
    right.axhline(0, color="#333333", linewidth=0.8)
    for ax in (left, right):
        bare(ax)
        ax.set_xlabel("x")
        if not continuous:
            ax.set_xticks(range(len(x)))
    above.spines["top"].set_visible(False)
    left.set_ylabel(("density" if continuous else "probability") + f" {name}(x)", color=BLUE)
    above.set_ylabel(f"−log {name}(x), {unit}", color=ORANGE)
    above.set_ylim(bottom=min(0, 1.1 * float(content.min())))
    right.set_ylabel(f"{unit} per unit of x" if continuous else unit)
    write_title(left, "How likely, and what it tells")
    write_title(right, f"−{name} log {name}, {'and its area' if continuous else 'which sums to'} {label}")
    return figure


def dependence(joint: Any, unit: str = "nats", names: tuple[str, str] = ("x", "y")) -> Figure:
    """p(x, y), p(x) p(y), and p(x, y) log p(x, y) / p(x) p(y), whose sum is the mutual information I(x; y).

    Args:
        joint: a table of probabilities [X, Y] that sum to one.
        unit: nats or bits.
        names: what rows and columns are called.

    Raises:
        ValueError: for a batch of tables, and as `pyrovae.information.mutual_information` does.
    """
    if isinstance(joint, Distribution):
        raise ValueError(
            f"dependence expects a table of probabilities [X, Y], got {type(joint).__name__}; give p(x, y) on a grid"
        )
    told = information.mutual_information(joint, unit=unit)
    table = torch.as_tensor(joint, dtype=torch.float64).detach().cpu()
    if table.dim() != 2:
        raise ValueError(f"dependence expects one table [X, Y], got the shape {list(table.shape)}; give one of them")
    apart = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
    parts = (torch.xlogy(table, table) - torch.xlogy(table, apart)) / UNITS[unit]
    figure = blank(9.6, 3.4)
    axes = figure.subplots(1, 3)
    most = float(torch.maximum(table, apart).max())
    reach = max(float(parts.abs().max()), 1e-12)
    x, y = names
    shown = (
        (table, f"p({x}, {y})", ("viridis", 0, most), "probability"),
        (apart, f"p({x}) p({y})", ("viridis", 0, most), "probability"),
        (parts, f"I({x}; {y}) = {with_error(float(told))} {unit}", ("PuOr_r", -reach, reach), unit),
    )
    for ax, (values, title, (cmap, low, high), label) in zip(axes, shown, strict=True):
        drawn = ax.imshow(values.numpy(), cmap=cmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
        figure.colorbar(drawn, ax=ax, location="bottom", label=label, fraction=0.06, pad=0.04)
        ax.set(xlabel=y, ylabel=x)
        for axis, n in ((ax.xaxis, table.shape[1]), (ax.yaxis, table.shape[0])):
            if n <= 10:
                axis.set_ticks(range(n))
        write_title(ax, title)
    return figure


def _densities(p: Any, q: Any, who: str = "divergences") -> tuple[Tensor, Tensor, Tensor]:
    """Values x, and both densities there. Raises ValueError."""
    if not isinstance(p, Distribution):
        a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (p, q))
        if a.dim() != 1:
            raise ValueError(f"{who} expects one probability vector [n] each, got the shape {list(a.shape)}")
        return torch.arange(len(a)), a, b
    if p.batch_shape or p.event_shape or q.batch_shape or q.event_shape:
        raise ValueError(
            f"{who} expects distributions of one number each, got batch shape {list(p.batch_shape)} and event "
            f"shape {list(p.event_shape)}; take one of them, or a marginal"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = torch.cat([p.sample((DRAWS,)), q.sample((DRAWS,))]).double()
    low, high = draws.min(), draws.max()
    x = torch.linspace(float(low), float(high), POINTS, dtype=draws.dtype)
    own = x.to(p.sample().dtype)
    a, b = (log_prob(d, own).exp().double().detach() for d in (p, q))
    return x, a, b


def _curve(ax: Axes, x: Tensor, y: Tensor, label: str, colour: str, shift: float, continuous: bool) -> None:
    if continuous:
        ax.plot(x, y, color=colour, label=label)
        ax.fill_between(x, y, color=colour, alpha=0.15, linewidth=0)
    else:
        ax.bar((x + shift).numpy(), y.numpy(), width=0.38, color=colour, label=label)
