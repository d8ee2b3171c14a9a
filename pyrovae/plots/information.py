"""Two distributions, and what it costs to take one for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import information
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
    size = information.UNITS[unit]
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


def _densities(p: Any, q: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Values x, and both densities there. Raises ValueError."""
    if not isinstance(p, Distribution):
        a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (p, q))
        if a.dim() != 1:
            raise ValueError(f"divergences expects one probability vector [n] each, got the shape {list(a.shape)}")
        return torch.arange(len(a)), a, b
    if p.batch_shape or p.event_shape or q.batch_shape or q.event_shape:
        raise ValueError(
            f"divergences expects distributions of one number each, got batch shape {list(p.batch_shape)} and event "
            f"shape {list(p.event_shape)}; take one of them, or a marginal"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = torch.cat([p.sample((DRAWS,)), q.sample((DRAWS,))]).double()
    low, high = draws.min(), draws.max()
    x = torch.linspace(float(low), float(high), POINTS, dtype=draws.dtype)
    own = x.to(p.sample().dtype)
    a, b = (information.log_prob(d, own).exp().double().detach() for d in (p, q))
    return x, a, b


def _curve(ax: Axes, x: Tensor, y: Tensor, label: str, colour: str, shift: float, continuous: bool) -> None:
    if continuous:
        ax.plot(x, y, color=colour, label=label)
        ax.fill_between(x, y, color=colour, alpha=0.15, linewidth=0)
    else:
        ax.bar((x + shift).numpy(), y.numpy(), width=0.38, color=colour, label=label)
