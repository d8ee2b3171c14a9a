"""From a Pyro program to log densities: the guide traced once, the model replayed once.

    log_prior, log_likelihood, log_posterior     each [K, B], unscaled, in nats

K particles of B data. Particles are a plate to the left of the program's own plates, so the encoder runs once
per datum. A network that was written for [N, ...] alone cannot take [K, B, ...]; such a program is found by
comparing two particles with each of them alone, once, and is then run on a batch of K·B ("folded").
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import pyro
import torch
import torch.nn as nn
from pyro import poutine
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from .checks import (
    check_arguments,
    check_finite,
    check_latent,
    check_masks,
    check_observed,
    check_repeatable,
    check_shared,
    check_support,
    explain_missing,
    explain_plate,
    plain_errors,
)
from .handlers import Enumerated, Values
from .modes import evaluating, rewinding, seeded
from .sites import Densities, Site, read_site, sample_sites


@runtime_checkable
class GenerativeProgram(Protocol):
    """Anything with a Pyro `model(x)` and a Pyro `guide(x)`; the data plate of both is named "data"."""

    def model(self, x: Tensor) -> Any:
        """p(x, z)."""

    def guide(self, x: Tensor) -> Any:
        """q(z | x)."""


@dataclass(frozen=True)
class Layout:
    """How K particles are given to a program.

    `nesting`: plate dimensions of the program, so that the particle plate stands at dim −1 − nesting.
    `fold_guide`, `fold_model`: whether it is run on a batch of K·B instead.
    """

    nesting: int = 1
    fold_guide: bool = False
    fold_model: bool = False


@dataclass(frozen=True)
class Marks:
    """Sites to sum over exactly, with the sizes of their supports: those of the guide, those the model has alone."""

    guide: dict[str, int] = field(default_factory=dict)
    model: dict[str, int] = field(default_factory=dict)


class _Marked(Exception):
    """The marked sites of a program are others than was thought; `sizes` are those that are known now."""

    def __init__(self, which: str, sizes: dict[str, int]) -> None:
        super().__init__()
        self.which, self.sizes = which, sizes


ROUNDS = 20  # to find the marked sites of a program in; every one adds a site at least
RESTLESS = "the sites that are marked for enumeration change from run to run; mark them once and for all"

_memory: WeakKeyDictionary[Any, tuple[Any, dict[Any, Any]]] = WeakKeyDictionary()


def _known(vae: Any, x: Tensor) -> dict[Any, Any]:
    """What was found out about a program, to be added to; anew when its modules are of other types."""
    types = _types(vae) if isinstance(vae, nn.Module) else None
    try:
        known = _memory.get(vae)
    except TypeError:  # a program that is not hashable or takes no weak reference is looked at each time
        return {}
    if known is None or known[0] != types:
        known = types, {}
        if not isinstance(x, FakeTensor):  # without values there is nothing to compare
            _memory[vae] = known
    return known[1]


def _types(vae: nn.Module) -> list[type]:
    """The types of all modules; `modules()` takes longer than the networks of a small program."""
    found: list[type] = []
    rest: list[nn.Module | None] = [vae]
    while rest:
        if (module := rest.pop()) is not None:
            found.append(type(module))
            rest.extend(module._modules.values())
    return found


def densities(
    vae: GenerativeProgram,
    x: Tensor,
    particles: int = 1,
    aligned: bool = False,
    exact: bool = False,
    drawn: Any = None,
    given: dict[str, Tensor] | None = None,
    still: bool = False,
) -> Densities:
    """Per-datum log densities of a model p(x, z) under K draws from its guide q(z | x).

        log_weight[k, b] = log p(x_b, z_kb) − log q(z_kb | x_b),    z_kb ~ q(z | x_b)

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [B, *event].
        particles: K.
        aligned: give model and guide the same batch shape, so that their distributions can be compared (closed-form
            KL); it costs K runs of the guide where the model has to be folded.
        exact: give sites of the guide that are marked with infer={"enumerate": "parallel"} every value of their
            support side by side, with `mass` as their probability, instead of drawing them. Marked sites that the
            model has alone are always summed over: log p(x, z) = log Σ_y p(x, y, z).
        drawn: a Pyro effect handler around the guide, such as `Detached()`.
        given: values of the guide's sites, in the shapes of an earlier run of as many particles, instead of draws.
        still: run the model without gradients.

    Returns:
        `Densities`: .log_prior, .log_likelihood, .log_posterior and .log_weight, each [K, B], unscaled, in nats.

    Raises:
        ValueError: naming the site and the remedy: sites that model and guide do not share, no data plate,
            a plate of another size than the data, an observed value without a row for each datum, a forgotten
            `to_event`, a `poutine.scale`, or (unless Pyro's validation is off) data outside the support of the
            likelihood.

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.VAE.build(data, latent=2)
    >>> pv.densities(vae, data.test[:7], particles=5).log_weight.shape
    torch.Size([5, 7])
    """
    check_arguments(vae, x, particles)
    validate = pyro.infer.util.is_validation_enabled() and not isinstance(x, FakeTensor)  # it reads values
    with pyro.validation_enabled(validate):
        if validate:
            check_finite("densities", x, vae)
        known, key = _known(vae, x), ("marks", exact)
        rewind = nullcontext if key in known or isinstance(x, FakeTensor) else rewinding(x.device)
        for _ in range(ROUNDS):
            marks = known.setdefault(key, Marks())
            try:
                return _laid_out(vae, x, particles, aligned, _Pass(marks, exact, drawn, given or {}, still))
            except _Marked as found:
                known[key] = replace(marks, **{found.which: found.sizes})
                rewind()  # so that the first call draws what a later one would
        raise ValueError(RESTLESS)


@dataclass(frozen=True)
class _Pass:
    """What one pass does besides drawing: sites to enumerate, the handler of the draws, values instead of draws."""

    marks: Marks = Marks()
    exact: bool = False
    drawn: Any = None
    given: dict[str, Tensor] = field(default_factory=dict)
    still: bool = False


def _laid_out(vae: Any, x: Tensor, particles: int, aligned: bool, how: _Pass) -> Densities:
    combinations = math.prod((*how.marks.guide.values(), *how.marks.model.values()))
    layout = _layout(vae, x) if particles * combinations > 1 else Layout()
    if aligned and layout.fold_model:
        layout = replace(layout, fold_guide=True)
    return _densities(vae, x, particles, layout, how)


def _densities(vae: GenerativeProgram, x: Tensor, particles: int, layout: Layout, how: _Pass) -> Densities:
    """One pass in a known layout."""
    marks, summed = how.marks, math.prod(how.marks.model.values())
    rows = particles * math.prod(marks.guide.values())
    shape = rows, len(x)

    def guide(values: dict[str, Tensor], handler: Any = None) -> tuple[dict[str, Site], int]:
        """The sites of the guide, drawn or at these values, and how many rows may share a draw."""
        marked = Enumerated("guide", marks.guide, set() if how.exact else None)
        trace, particle = _trace(vae.guide, x, rows, layout.nesting, layout.fold_guide, marked, values, handler)
        sites = {n: read_site(s, shape, particle, "guide", marks.guide.get(n, 1)) for n, s in sample_sites(trace)}
        return sites, marked.shared

    posterior, shared = guide(how.given, how.drawn)
    passed = {n: s.value.detach() if how.still else s.value.view_as(s.value) for n, s in posterior.items()}
    values = {n: _hand_over(v, posterior[n], shape, summed, layout) for n, v in passed.items()}
    marked = Enumerated("model", marks.model, set(posterior))
    with torch.no_grad() if how.still else nullcontext():
        trace, particle = _trace(vae.model, x, rows * summed, layout.nesting, layout.fold_model, marked, values)
    check_shared(trace, posterior)
    prior, likelihood = {}, {}
    for name, site in sample_sites(trace):
        group = likelihood if site["is_observed"] else prior
        values = (marks.guide | marks.model).get(name, 1)
        group[name] = read_site(site, (rows * summed, len(x)), particle, "model", values)
    size, enumerated = check_observed(trace), frozenset(marks.guide)

    def again(values: dict[str, Tensor]) -> dict[str, Site]:
        check_repeatable(vae)
        return guide(values)[0]

    found = Densities(prior, likelihood, posterior, shape, size, particles, enumerated, shared, summed, passed, again)
    if pyro.infer.util.is_validation_enabled():
        for name, q in posterior.items():
            check_latent(name, prior[name].distribution, q.distribution, prior[name].value)
            check_masks(name, prior[name], q)
        for site in likelihood.values():
            check_support(site.name, site.distribution, site.value)
    return found


def _trace(
    program: Any,
    x: Tensor,
    particles: int,
    nesting: int,
    folded: bool,
    marked: Enumerated,
    values: dict[str, Tensor],
    handler: Any = None,
) -> tuple[Any, int | None]:
    """The trace of a program under K particles, and the dimension of the particle plate if there is one."""
    particle, plate = None, nullcontext()
    if folded:
        x = x.repeat(particles, *[1] * (x.dim() - 1))  # [B, *event] -> [K·B, *event]
    elif particles > 1:
        particle = -1 - nesting
        plate = pyro.plate("particles", particles, dim=particle)
    marked.laid_out(particles, particle)
    with plain_errors(), handler or nullcontext(), marked, Values(values), plate:
        # the plate within the others: it expands the distributions first
        try:
            trace = poutine.trace(program).get_trace(x)
        except ValueError as error:
            explain_plate(error, marked.which)
            if "to satisfy the constraint" in str(error):  # parameters, as Pyro says it
                explain_missing(marked.which, x, error)
            raise
    if marked.found or marked.met != list(marked.sizes):
        raise _Marked(marked.which, {n: marked.sizes[n] for n in marked.met} | marked.found)
    return trace, particle


def _hand_over(value: Tensor, site: Site, shape: tuple[int, int], summed: int, layout: Layout) -> Tensor:
    """A value of the guide as the model takes it: each particle as often as the model sums, folded if need be."""
    if summed == 1 and (layout.fold_guide or not layout.fold_model or shape[0] == 1):
        return value
    value, data = site.particles_first(shape, value)
    value = value.repeat_interleave(summed, 0) if summed > 1 else value
    if not layout.fold_model:
        return value
    return value.movedim(0, data - 1).flatten(data - 1, data)  # [K, ..., B, ...] -> [..., K·B, ...]


def guide_sites(vae: GenerativeProgram, x: Tensor, values: dict[str, Tensor]) -> dict[str, Site]:
    """The sites of a guide q(z | x) at values [K, ..., B, ...], as `Site.particles_first` has them."""
    particles = len(next(iter(values.values())))
    layout = _layout(vae, x) if particles > 1 else Layout()
    if layout.fold_guide and particles > 1:
        plates = 1 + layout.nesting  # a folded program has no other plates to the left of its data
        values = {n: v.flatten(0, plates - 1) for n, v in values.items()}
    elif particles == 1:
        values = {n: v[0] for n, v in values.items()}
    plain = Enumerated("guide", {}, None)
    trace, particle = _trace(vae.guide, x, particles, layout.nesting, layout.fold_guide, plain, values)
    return {n: read_site(s, (particles, len(x)), particle, "guide") for n, s in sample_sites(trace)}


def _layout(vae: Any, x: Tensor) -> Layout:
    """The layout of a program, found once: the particle plate where it gives what folding gives, else folded."""
    known = _known(vae, x)
    if "layout" not in known:
        with disable_proxy_modes_tracing():  # what is found out is no part of a graph
            known["layout"] = _look(vae, x)
    return known["layout"]


def _look(vae: Any, x: Tensor) -> Layout:
    x = x.detach()
    unborn = isinstance(vae, nn.Module) and next(vae.parameters(), None) is None  # as those of a Program: own numbers
    with evaluating(vae), seeded(None if unborn else 0, x.device):
        one = _first(vae, x)  # a mistake is told in the shapes that the caller knows
    with evaluating(vae), seeded(0, x.device):
        rows = torch.arange(3, device=x.device) % len(x)
        with pyro.validation_enabled(False):
            try:  # two sizes: a width of a network may by chance be that of one of them
                found = [_probe(vae, x[rows[:n]], one) for n in (3, 2)]
            except Exception:  # a program of these rows alone, such as one with a mask of its own
                found = [_probe(vae, x, one)]
    return Layout(found[0].nesting, any(f.fold_guide for f in found), any(f.fold_model for f in found))


def _first(vae: Any, x: Tensor) -> _Pass:
    """Sites that the model has alone at their first value: drawn, they would differ from run to run."""
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        try:
            _densities(vae, x, 1, Layout(), how := _Pass(Marks(model=dict.fromkeys(sizes, 1))))
            return how
        except _Marked as found:
            sizes = found.sizes
    raise ValueError(RESTLESS)


def _probe(vae: Any, x: Tensor, one: _Pass) -> Layout:
    """The layout with least folding in which two particles have the densities that each has alone."""
    single = _densities(vae, x, 1, Layout(), one)
    _ = single.log_weight  # lazy: a program that cannot take these rows says so here
    with Values({n: s.value for n, s in single.posterior.items()}):  # an improper prior cannot be drawn from
        traces = [poutine.trace(program).get_trace(x) for program in (vae.model, vae.guide)]
    frames = [f for t in traces for _, s in sample_sites(t) for f in s["cond_indep_stack"]]
    beside = Layout(max((-f.dim for f in frames if f.dim is not None), default=1))  # a loop takes no dimension
    folded = replace(beside, fold_guide=True, fold_model=True)
    if single.global_sites:
        return beside  # one draw of a global latent serves the whole batch: there is no folding it
    for layout in (beside, replace(beside, fold_model=True)):
        try:
            both = _densities(vae, x, 2, layout, one)
            draws = [
                {n: s.value[k].reshape(single.posterior[n].value.shape) for n, s in both.posterior.items()}
                for k in (0, 1)
            ]
            alone = [_densities(vae, x, 1, Layout(), replace(one, given=g)) for g in draws]
            if _same(both.log_posterior, torch.cat([d.log_posterior for d in alone])) and _same(
                both.log_prior + both.log_likelihood, torch.cat([d.log_prior + d.log_likelihood for d in alone])
            ):
                return layout
        except Exception:  # a program may fail on a shape it was not written for in any way it likes
            continue
    return folded


def _same(a: Tensor, b: Tensor) -> bool:
    return isinstance(a, FakeTensor) or torch.allclose(a, b.to(a.dtype), rtol=1e-4, atol=1e-3, equal_nan=True)
