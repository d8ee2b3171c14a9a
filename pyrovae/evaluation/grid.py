"""The exact posterior and evidence of models with one or two latent dimensions, by quadrature on a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from torch import Tensor

from ..program import densities, evaluating, home, seeded
from .annealed import Part
from .arguments import check_count, check_data
from .evidence import _ELEMENTS, POINT_REMEDY
from .samples import drawn_latents

WHO = "exact_posterior"
DEPTH = 30.0  # nats below a datum's peak that the grid reaches down to: 7.7 standard deviations of a normal
DRAWS = 1000  # of the prior, which say where to look first
ROUNDS = 30  # of looking
SCAN = {1: 257, 2: 49}  # points of each axis while looking, by the number of dimensions
FIRST, MOST = {1: 2049, 2: 65}, {1: 16_385, 2: 513}  # of the grid itself: doubled until it is fine enough
GOAL = 0.01  # nats
BATCH = 256  # data at a time


@dataclass(frozen=True)
class Grid:
    """Log densities of N data on a grid of G points of the latent space, in nats and float64.

    An integral over z is Σ_g exp(log_volume_g) f(z_g).

    Attributes:
        axes: the values of each of the L latent dimensions, [P] each: G = P^L.
        z: the points, [G, L], the last dimension changing fastest.
        log_volume: log of the volume that a point stands for, [G]: the trapezoidal rule.
        log_joint: log p(x, z), [G, N].
        log_guide: log q(z | x) of the guide, [G, N].
        error: of log_evidence, [N]: the mass at the border, and the change under a grid of every second point. The
            latter is far more than the error, which falls exponentially with the number of points.
        names: of the dimensions.
    """

    axes: tuple[Tensor, ...]
    z: Tensor
    log_volume: Tensor
    log_joint: Tensor
    log_guide: Tensor
    error: Tensor
    names: tuple[str, ...]

    @cached_property
    def log_evidence(self) -> Tensor:
        """log p(x) = log ∫ p(x, z) dz: [N]."""
        return self.log_integral(self.log_joint)

    @cached_property
    def log_posterior(self) -> Tensor:
        """log p(z | x) = log p(x, z) − log p(x), the exact posterior's density: [G, N]."""
        return self.log_joint - self.log_evidence

    def log_integral(self, log_density: Tensor) -> Tensor:
        """log ∫ exp(log_density) dz: [G, N] -> [N]."""
        return (log_density + self.log_volume[:, None]).logsumexp(0)

    def mean(self, value: Tensor, log_density: Tensor | None = None) -> Tensor:
        """∫ value p(z | x) dz, or under another density, normalised on the grid: [G, N] or [G, 1] -> [N]."""
        share = self._log_share(self.log_posterior if log_density is None else log_density).exp()
        return torch.where(share > 0, share * value, 0).sum(0)  # 0 · ∞ is no part of it

    def elbo(self, log_q: Tensor) -> Tensor:
        """∫ q (log p(x, z) − log q) dz of q normalised on the grid: [G, N] -> [N], and never above log_evidence."""
        return self.log_evidence - self.divergence(log_q)

    def divergence(self, log_q: Tensor) -> Tensor:
        """KL(q ‖ p(z | x)) = ∫ q log(q / p(z | x)) dz of q normalised on the grid: [G, N] -> [N]."""
        return self.mean(self._log_share(log_q) - self._log_share(self.log_posterior), log_q)

    def of_data(self, rows: Any) -> Grid:
        """The same points for some of the data, by index."""
        part = {"log_joint": self.log_joint[:, rows], "log_guide": self.log_guide[:, rows], "error": self.error[rows]}
        return replace(self, **part)

    def every_second(self) -> Grid:
        """The grid of every second point of each axis."""
        sizes = [len(axis) for axis in self.axes]
        kept = torch.arange(math.prod(sizes), device=self.z.device).view(sizes)
        for dim in range(len(sizes)):
            kept = kept.index_select(dim, torch.arange(0, sizes[dim], 2, device=kept.device))
        kept = kept.flatten()
        logs = {name: getattr(self, name)[kept] for name in ("z", "log_joint", "log_guide")}
        volume = self.log_volume[kept] + len(sizes) * math.log(2)
        return replace(self, axes=tuple(axis[::2] for axis in self.axes), log_volume=volume, **logs)

    def _log_share(self, log_density: Tensor) -> Tensor:
        """log of each point's share in the mass: [G, N]."""
        return (log_density + self.log_volume[:, None]).log_softmax(0)


def exact_posterior(vae: Any, x: Tensor, points: int | None = None, tolerance: float = GOAL, seed: int = 0) -> Grid:
    """The exact posterior and evidence of each datum, where all latents together have one or two dimensions.

        log p(x) = log ∫ p(x, z) dz ≈ log Σ_g v_g p(x, z_g),    p(z | x) = p(x, z) / p(x)

    The rule is the trapezoidal one, in unconstrained coordinates, whose error falls exponentially with the number of
    points for what is smooth and dies away at the border. One grid serves all data: it reaches from 30 nats below a
    datum's peak to 30 nats below it on the other side, for all of them, found from draws of the prior and of the guide
    outwards and inwards. A narrow mode far from both may be missed. Evaluation mode, no gradients.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latents continuous and inside the data plate, one site
            of one or two dimensions or two of one. Sites that the model has alone may be marked for enumeration; they
            are summed over.
        x: data [N, *event]; a number for each of them and each of G points is held.
        points: of each axis, an odd number; None for as many as `tolerance` takes, at most 16,385 for one dimension
            and 513 for each of two.
        tolerance: the greatest `error`, in nats; math.inf for any.
        seed: of the draws that say where to look.

    Raises:
        ValueError: for no data or none that are a tensor, points that are no odd number of at least 5, latents of more
            dimensions, discrete, global, with a point for a posterior, or without unconstrained coordinates of their
            own, and for an error above the tolerance.

    Reference: Trefethen and Weideman, "The exponentially convergent trapezoidal rule", 2014.

    >>> import torch, pyrovae as pv
    >>> vae, x = pv.models.LinearGaussian([5], latent=2), torch.randn(3, 5)
    >>> grid = pv.evaluation.exact_posterior(vae, x)
    >>> bool(((grid.log_evidence - vae.log_evidence(x)).abs() < 1e-4).all())
    True
    """
    return resolved(vae, x, points, tolerance, seed, WHO, guide=False)


def resolved(vae: Any, x: Tensor, points: int | None, tolerance: float, seed: int, who: str, guide: bool) -> Grid:
    """As `exact_posterior`; with `guide` the grid also holds the mass of q(z | x), to the same tolerance."""
    check_data(who, x)
    if points is not None:
        check_count(who, "points as an odd number of at least 5", "points", points, 5)
        if points % 2 == 0:
            raise ValueError(f"{who} expects points as an odd number, got {points}; give {points + 1}")
    device, dtype = home(vae)
    x = x.to(device, dtype)
    with evaluating(vae), seeded(seed, device):
        low, high, names = _first_box(vae, x, seed, who)
        axes = len(low)
        with pyro.validation_enabled(False):
            low, high = _look(vae, x, low, high, guide, who)
            size = points or FIRST[axes]
            while True:
                grid, error = _on(vae, x, low, high, size, names, guide, who)
                if points is not None or float(error.max()) <= min(tolerance, GOAL) or size >= MOST[axes]:
                    break
                size = 2 * size - 1
    if not float(error.max()) <= tolerance:  # not where it is NaN
        worst = int(error.nan_to_num(math.inf).argmax())
        what = "log p(x) and the mass of q(z | x)" if guide else "log p(x)"
        raise ValueError(
            f"{who} expects {what} to {tolerance:g} nats, and on {size} points an axis the error at datum {worst} is "
            f"{float(error[worst]):.2g}; give fewer data at a time, more points, or tolerance=math.inf to see the grid"
        )
    return grid


def prior_on_grid(vae: Any, x: Tensor, points: int | None, who: str) -> tuple[Grid, dict[str, Tensor]]:
    """p(z), in the place of p(x, z) and of q, around draws of prior and guide; and the latents there, [G, ...] each.

    Raises ValueError as `exact_posterior` does.
    """
    low, high, names = _first_box(vae, x, 0, who)
    u, step = _points(low, high, points or (1025, 129)[len(low) - 1])
    found: list[tuple[Tensor, ...]] = []
    latents: dict[str, list[Tensor]] = {}
    for rows in u.split(max(2, _ELEMENTS // x[0].numel())):
        with pyro.validation_enabled(False):
            parts = _parts(vae, x[:1], len(rows), who)
            values, z, log_jacobian = _values(rows, 1, parts)
            d = densities(vae, x[:1], len(rows), given=values)
        for name, site in d.posterior.items():
            value, data = site.particles_first(d.shape, values[name])
            latents.setdefault(name, []).append(value.squeeze(data))
        found.append((z[:, 0], log_jacobian, d.log_prior.double()))
    z, log_jacobian, log_prior = (torch.cat(t) for t in zip(*found, strict=True))
    log_volume, axes = _rule(u, z, low, high, step, log_jacobian, names, who)
    grid = Grid(axes, z, log_volume, log_prior, log_prior, log_prior.new_zeros(1), names)
    return grid, {name: torch.cat(t) for name, t in latents.items()}


def _parts(vae: Any, x: Tensor, points: int, who: str) -> dict[str, Part]:
    d = densities(vae, x, points)
    return {name: Part(site, d.shape, who) for name, site in d.posterior.items()}


def _first_box(vae: Any, x: Tensor, seed: int, who: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Ends of each unconstrained coordinate [D] that hold draws of prior and guide, and names of the dimensions."""
    with pyro.validation_enabled(True):
        one = densities(vae, x)  # a first call makes parameters; mistakes are told here
        one.local_only(who)
        one.weighable(who, POINT_REMEDY)
        parts = {name: Part(site, one.shape, who) for name, site in one.posterior.items()}
    sizes = {name: part.rows(part.start).shape[-1] for name, part in parts.items()}
    if sum(sizes.values()) not in (1, 2):
        raise ValueError(
            f"{who} expects latents of one or two dimensions in all, for a grid of them, got {sizes}; use pv.evaluate "
            "or pv.anneal, or build the model with latent=2"
        )
    drawn = drawn_latents(vae, DRAWS, seed, x)
    seen = []
    for name, part in parts.items():
        prior = part.bijection.inv(drawn[name]).reshape(DRAWS, -1)
        if prior.shape[-1] != sizes[name] or drawn[name][0].numel() != sizes[name]:
            raise ValueError(
                f"{who} expects latents with as many coordinates as numbers, and site {name!r} has {sizes[name]} "
                f"for {drawn[name][0].numel()}; use pv.evaluate or pv.anneal"
            )
        seen.append(torch.cat([prior, part.rows(part.start)[0]]))
    u = torch.cat(seen, -1)  # [DRAWS + N, D]
    room = (u.amax(0) - u.amin(0)) / 4 + 1e-3
    names = [name if size == 1 else f"{name}[{i}]" for name, size in sizes.items() for i in range(size)]
    return u.amin(0) - room, u.amax(0) + room, tuple(names)


def _look(vae: Any, x: Tensor, low: Tensor, high: Tensor, guide: bool, who: str) -> tuple[Tensor, Tensor]:
    """The box outside of which every datum's density is DEPTH below its peak."""
    points = SCAN[len(low)]
    for _ in range(ROUNDS):
        u, step = _points(low, high, points)
        _, log_jacobian, *logs = _densities_at(vae, x, u, who)
        there = torch.zeros(len(u), dtype=torch.bool, device=u.device)
        for log in logs if guide else logs[:1]:
            log = log + log_jacobian[:, None]
            there |= (log >= log.amax(0) - DEPTH).any(1)
        least, most = u[there].amin(0), u[there].amax(0)
        width, below, above = high - low, least < low + step / 2, most > high - step / 2
        if bool((below | above).any()):  # the border is not deep enough: first outwards, and inwards when all is inside
            low, high = torch.where(below, low - width / 2, low), torch.where(above, high + width / 2, high)
            continue
        low, high = least - step, most + step
        done = high - low > 0.7 * width
        if bool(done.all()):
            break
    return low, high


def _on(
    vae: Any, x: Tensor, low: Tensor, high: Tensor, points: int, names: tuple[str, ...], guide: bool, who: str
) -> tuple[Grid, Tensor]:
    """The grid, and the error that has to be within the tolerance."""
    u, step = _points(low, high, points)
    z, log_jacobian, log_joint, log_guide = _densities_at(vae, x, u, who)
    log_volume, axes = _rule(u, z, low, high, step, log_jacobian, names, who)
    border = _edges(u, low, high, step)

    def error(log: Tensor, grid: Grid) -> Tensor:
        half = grid.every_second()
        whole = grid.log_integral(log)
        edge = (log[border > 0] + log_volume[border > 0, None]).logsumexp(0) - whole
        part = log.view(*[points] * len(step), -1)
        part = part[::2, ::2] if len(step) == 2 else part[::2]
        return (whole - half.log_integral(part.flatten(0, -2))).abs() + edge.exp()

    grid = Grid(axes, z, log_volume, log_joint, log_guide, log_joint[0], names)
    found = error(log_joint, grid)
    grid = Grid(axes, z, log_volume, log_joint, log_guide, found, names)
    return grid, torch.maximum(found, error(log_guide, grid)) if guide else found


def _rule(
    u: Tensor, z: Tensor, low: Tensor, high: Tensor, step: Tensor, log_jacobian: Tensor, names: Any, who: str
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """log volumes of the points [G], and the axes. Raises ValueError for latents whose grid is no product of axes."""
    log_volume = step.log().sum() + log_jacobian - _edges(u, low, high, step) * math.log(2)
    points = round(len(u) ** (1 / len(step)))
    rows = z.view(*[points] * len(step), -1)
    axes = (rows[:, 0, 0], rows[0, :, 1]) if len(step) == 2 else (rows[:, 0],)
    if not torch.equal(torch.cartesian_prod(*axes).view_as(z), z):
        raise ValueError(
            f"{who} expects latents each of whose numbers has a range of its own, and those of {list(names)} bound one "
            "another; use pv.evaluate or pv.anneal"
        )
    return log_volume, axes


def _edges(u: Tensor, low: Tensor, high: Tensor, step: Tensor) -> Tensor:
    """How many edges each point is on: 0, 1 or 2."""
    return ((u <= low + step / 2) | (u >= high - step / 2)).sum(1)


def _points(low: Tensor, high: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The points of a product grid [P^D, D] and the steps between them [D]."""
    unit = torch.linspace(0, 1, points, dtype=low.dtype, device=low.device)
    axes = [a + (b - a) * unit for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).view(-1, len(axes)), (high - low) / (points - 1)


def _densities_at(vae: Any, x: Tensor, u: Tensor, who: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z [G, L], log |dz/du| [G], and log p(x, z) and log q(z | x) [G, N], in float64, at coordinates u."""
    found = []
    for batch in x.split(BATCH):
        chunk = max(2, min(len(u), _ELEMENTS // max(1, batch.numel())))
        parts = _parts(vae, batch, chunk, who)
        common = _common(vae, batch, u, parts, who)
        rest = -len(u) % chunk
        rows = torch.cat([u, u[-1:].expand(rest, -1)])
        made = [_chunk(vae, batch, part, parts, common, who) for part in rows.split(chunk)]
        found.append([torch.cat(t)[: len(u)] for t in zip(*made, strict=True)])
    z, log_jacobian = found[0][:2]
    if any(not torch.equal(z, f[0]) for f in found):
        raise ValueError(f"{who} expects latents whose support is one for all data; use pv.evaluate or pv.anneal")
    return z, log_jacobian, torch.cat([f[2] for f in found], 1), torch.cat([f[3] for f in found], 1)


def _chunk(vae: Any, x: Tensor, u: Tensor, parts: dict[str, Part], common: bool, who: str) -> tuple[Tensor, ...]:
    values, z, log_jacobian = _values(u, len(x), parts)
    if not torch.equal(z, z[:, :1].expand_as(z)):
        raise ValueError(f"{who} expects latents whose support is one for all data; use pv.evaluate or pv.anneal")
    if common:
        values = {name: value.narrow(parts[name].at[1], 0, 1) for name, value in values.items()}
    d = densities(vae, x, len(u), given=values)
    return z[:, 0], log_jacobian, d.log_joint.double(), d.log_posterior.double()


def _values(u: Tensor, data: int, parts: dict[str, Part]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The latents at coordinates u [k, D] for each of B data, as rows [k, B, L], and log |dz/du| [k]."""
    values, rows, log_jacobian = {}, [], torch.zeros(len(u), dtype=torch.float64, device=u.device)
    sizes = [part.rows(part.start).shape[-1] for part in parts.values()]
    for (name, part), own in zip(parts.items(), u.split(sizes, -1), strict=True):
        at = part.value(own[:, None].expand(-1, data, -1))
        values[name] = part.bijection(at)
        rows.append(part.rows(values[name]))
        log_jacobian += part.rows(part.bijection.log_abs_det_jacobian(at, values[name]))[:, 0].sum(-1)
    return values, torch.cat(rows, -1), log_jacobian


def _common(vae: Any, x: Tensor, u: Tensor, parts: dict[str, Part], who: str) -> bool:
    """Whether one z may stand for all data, so that a decoder runs once a point and not once a point and datum."""
    if any(part.folded for part in parts.values()):
        return False
    points = next(iter(parts.values())).shape[0]
    u = u[torch.linspace(0, len(u) - 1, points, device=u.device).long()]
    own = _chunk(vae, x, u, parts, False, who)
    try:
        return torch.allclose(own[2], _chunk(vae, x, u, parts, True, who)[2], rtol=1e-4, atol=1e-3, equal_nan=True)
    except Exception:  # a program may fail on a shape it was not written for in any way it likes
        return False
