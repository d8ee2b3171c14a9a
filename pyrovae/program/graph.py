"""The graph of a program: its random choices, the plates they are in, and what each of them depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .checks import explain_plate, plain_errors
from .enumeration import is_marked
from .handlers import StandIns, Values, stand_in
from .modes import evaluating, seeded
from .sites import DATA, POINT, family, sample_sites, unwrapped

TRIES = 20  # to draw another value of a site


@dataclass(frozen=True)
class Plate:
    """A plate around a site: `size` is that of the whole, `rows` those of this run, `dim` counts from the right."""

    name: str
    size: int
    rows: int
    dim: int


@dataclass(frozen=True)
class Node:
    """One random choice of a program, at one run of it.

    Attributes:
        name: of the site.
        distribution: that it had in this run.
        value: that it had, [*batch, *event].
        parents: names of the choices before it that its distribution is a function of, in the program's order.
        reads_data: whether its distribution is a function of x, as that of a label-dependent prior is.
        observed: whether its value is given.
        marked: whether it is to be summed over (infer={"enumerate": "parallel"}).
        plates: those around it, outermost first.
    """

    name: str
    distribution: Any
    value: Tensor
    parents: tuple[str, ...]
    reads_data: bool
    observed: bool
    marked: bool
    plates: tuple[Plate, ...]

    @property
    def local(self) -> bool:
        """Whether it is inside the data plate."""
        return any(p.name == DATA for p in self.plates)

    @property
    def family(self) -> str:
        """The name of its distribution's class."""
        return family(self.distribution)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.distribution.event_shape)


def read_graph(program: Callable[[Tensor], Any], x: Tensor, which: str = "model", vae: Any = None) -> list[Node]:
    """The random choices of a program in their order, each with what its distribution is a function of.

    A choice depends on another, or on x, where a path of derivatives leads from its log density to that value, zero or
    not, where operations on tensors lead there from a discrete value, or where another value in its place changes the
    density. The first two see through weights that are zero, the third through comparisons and numbers read back; what
    does none of it in this one run is missed.

    Args:
        program: a model or a guide.
        x: data [B, *event]; a few rows are enough, and one is too few to vary x.
        which: "model" or "guide", for errors.
        vae: the module that the program belongs to, which is put in evaluation mode.

    Raises:
        ValueError: as `densities`, for a program that does not run on x.
    """
    x = x.detach()
    with evaluating(vae if vae is not None else program), pyro.validation_enabled(False):
        leaf = x.clone().requires_grad_(x.is_floating_point())
        leaves = _Leaves()
        with torch.enable_grad(), leaves:
            trace = _run(program, leaf, which, {})
        sites = dict(sample_sites(trace))
        values = {n: v.detach() for n, v in leaves.values.items()}
        parents: dict[str, set[str]] = {n: set() for n in sites}
        with torch.enable_grad():
            for name, site in sites.items():
                inputs = {n: v for n, v in leaves.values.items() if v.requires_grad and n != name}
                if leaf.requires_grad:
                    inputs[""] = leaf  # no site has this name
                density = _density(site, detach_provenance(site["value"]).detach()).sum()
                parents[name] |= get_provenance(density) - {name}
                density = detach_provenance(density)
                if density.requires_grad and inputs:
                    found = torch.autograd.grad(density, list(inputs.values()), retain_graph=True, allow_unused=True)
                    parents[name] |= {n for n, g in zip(inputs, found, strict=True) if g is not None}
        for name, changed in _changes(program, x, which, sites, values).items():
            parents[name] |= changed
    order = list(sites)
    return [
        Node(
            name=name,
            distribution=site["fn"],
            value=detach_provenance(site["value"]).detach(),
            parents=tuple(n for n in order if n in parents[name]),
            reads_data="" in parents[name],
            observed=bool(site["is_observed"]),
            marked=is_marked(site) and not site["is_observed"],
            plates=_plates(site),
        )
        for name, site in sites.items()
    ]


def _density(site: Any, value: Tensor) -> Tensor:
    """The log density at a value, of what `poutine.mask` leaves of it."""
    density, mask = site_density(site, value), site["mask"]
    return density if mask is None else torch.where(torch.as_tensor(mask, device=density.device), density, 0.0)


def site_density(site: Any, value: Tensor) -> Tensor:
    """The log density at a value; of a point (Delta) how far off it is, which has derivatives."""
    if family(site["fn"]) == POINT:
        return sum_rightmost(unwrapped(site["fn"]).v - value, site["fn"].event_dim)
    return site["fn"].log_prob(value)


def _plates(site: Any) -> tuple[Plate, ...]:
    frames = [f for f in site["cond_indep_stack"] if f.vectorized]
    return tuple(Plate(f.name, f.full_size or f.size, f.size, f.dim) for f in frames)


class _Leaves(Messenger):
    """Cuts the path of derivatives at every latent, so that what is reached is reached directly."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg) or msg["infer"].get("_deterministic"):
            return
        value = detach_provenance(msg["value"]).detach()
        self.values[msg["name"]] = value.requires_grad_(value.is_floating_point())
        discrete = getattr(getattr(msg["fn"], "support", None), "is_discrete", False)
        msg["value"] = track_provenance(value, frozenset({msg["name"]})) if discrete else value


def _run(program: Callable[[Tensor], Any], x: Tensor, which: str, values: dict[str, Tensor]) -> Any:
    with seeded(0, x.device), plain_errors(), StandIns(x), Values(values):
        try:
            return poutine.trace(program).get_trace(x)
        except ValueError as error:
            explain_plate(error, which)
            raise


def _changes(
    program: Callable[[Tensor], Any], x: Tensor, which: str, sites: dict[str, Any], values: dict[str, Tensor]
) -> dict[str, set[str]]:
    """For each site the earlier ones, and "" for x, another value of which changes its density."""
    fixed = {n: detach_provenance(s["value"]).detach() for n, s in sites.items()}

    distributions: dict[str, Any] = {}

    def at(x: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        trace = _run(program, x, which, values)
        found = dict(sample_sites(trace))
        distributions.update({n: s["fn"] for n, s in found.items() if n not in distributions})
        return {n: _density(s, fixed[n]) for n, s in found.items() if n in fixed}

    before = at(x, values)
    changed: dict[str, set[str]] = {n: set() for n in sites}
    for source in [*values, *([""] if len(x) > 1 else [])]:
        try:  # a program need not run at every value
            if source:
                after = at(x, values | {source: _another(distributions[source], values[source])})
            else:
                after = at(_other_rows(x), values)
        except Exception:
            continue
        for name in sites:
            if name != source and (name not in after or not _equal(before[name], after[name])):
                changed[name].add(source)
    return changed


def _other_rows(x: Tensor) -> Tensor:
    """Another datum in every row; what is missing stays missing, since a mask of it says nothing of the others."""
    rolled = x.roll(1, 0)
    return torch.where(x.isnan() | rolled.isnan(), x, rolled)


def _another(distribution: Any, value: Tensor) -> Tensor:
    """Another draw, as different as some tries make it."""
    with seeded(1, value.device):
        for _ in range(TRIES):
            drawn = stand_in(distribution, value)
            if drawn.shape != value.shape or not torch.equal(drawn, value):
                return drawn.reshape(value.shape)
    return value


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)
