"""The sites of a trace, and their log densities per datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..distributions.missing import WhereObserved

DATA = "data"  # the name of the plate over the data
FACTOR = "Unit"  # the family of a pyro.factor
POINT = "Delta"  # that of one value which has all of the mass
IMPROPER = "ImproperUniform"  # that of a prior without draws


@dataclass(frozen=True)
class Site:
    """One random choice of a program, with its log density per datum."""

    name: str
    distribution: Any
    value: Tensor
    mask: Any  # of poutine.mask around the site; None without
    kept: Any  # the events that count, by that mask and the distribution's own; None for all of them
    reduce: Callable[[Tensor], Tensor]  # [batch shape] -> [K, B], masked; [K] where the site is not local
    data_dim: int | None  # the dimension of the data plate; None for a site outside it
    particle_dim: int | None  # the dimension of the particle plate; None for one particle, or K·B rows
    arrange: Callable[[Tensor], Tensor]  # [*batch, *event] -> [K, B, *other plates, *event]; [K, ...] if not local

    @property
    def local(self) -> bool:
        """Whether the site is inside the data plate, so that it has a density per datum."""
        return self.data_dim is not None

    @cached_property
    def log_prob(self) -> Tensor:
        """log density of the value: [K, B] in nats per datum, or [K] for a site outside the data plate."""
        return self.reduce(self.distribution.log_prob(self.value))

    @property
    def reparametrised(self) -> bool:
        """Whether a gradient passes through its draws."""
        return self.distribution.has_rsample

    def particles_first(self, shape: tuple[int, int], value: Tensor | None = None) -> tuple[Tensor, int]:
        """The value of a local site as [K, ..., B, ...], and the dimension that B has there."""
        assert self.data_dim is not None
        value = self.value if value is None else value
        data = value.dim() + self.data_dim - self.distribution.event_dim
        if self.particle_dim is not None:
            return value, data
        return value.unflatten(data, shape).movedim(data, 0), data + 1  # one particle, or K·B rows

    def spread(self, t: Tensor) -> Tensor:
        """[K, B] -> the same numbers in a shape that broadcasts against the value of a local site."""
        assert self.data_dim is not None
        shape, event = [1] * self.value.dim(), self.distribution.event_dim
        if self.particle_dim is not None:
            shape[self.particle_dim - event] = t.shape[0]
        shape[self.data_dim - event] = -1
        return t.reshape(shape)


@dataclass(frozen=True)
class Densities:
    """Unscaled log densities of one pass, in nats; every sum over sites is lazy, so what is not read is not computed.

    `prior`, `likelihood` and `posterior` map site names to `Site`s: latents under the model, observations, and
    latents under the guide. `data_size` is N, the full size of the data plate.

    K counts the draws of the guide with all combinations of its enumerated sites: `shape` is [K, B]. Every mean over
    particles is therefore weighed by exp(log_mass), 1/K where nothing is enumerated. Sites of the model that are
    summed over (`summed` combinations) are no part of it: log p(x, z) = log Σ_y p(x, y, z) has [K, B] all the same.
    """

    prior: dict[str, Site]
    likelihood: dict[str, Site]
    posterior: dict[str, Site]
    shape: tuple[int, int]
    data_size: int
    draws: int
    enumerated: frozenset[str]  # sites of the guide whose values stand side by side
    shared: int  # of their rows so many may have a draw in common; 1 where every row has its own
    summed: int  # combinations of the sites that the model has alone
    passed: dict[str, Tensor]  # the guide's values as the model got them, to weigh their gradient
    rerun: Callable[[dict[str, Tensor]], dict[str, Site]]  # the guide's sites at other values

    @cached_property
    def log_joint(self) -> Tensor:
        """log p(x, z): [K, B]."""
        if self.summed == 1:
            return self.log_prior + self.log_likelihood
        return self._marginal({**self.prior, **self.likelihood})

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z): [K, B]."""
        return self._marginal(self.prior)

    @cached_property
    def log_likelihood(self) -> Tensor:
        """log p(x | z): [K, B]."""
        return self._sum(self.likelihood) if self.summed == 1 else self.log_joint - self.log_prior

    @cached_property
    def log_posterior(self) -> Tensor:
        """log q(z | x): [K, B]."""
        return self._sum(self.posterior)

    @cached_property
    def log_weight(self) -> Tensor:
        """log w = log p(x, z) − log q(z | x): [K, B]."""
        return self.log_joint - self.log_posterior

    @cached_property
    def log_enumerated(self) -> Tensor:
        """log q of the enumerated sites: [K, B], 0 where there are none."""
        return self._sum({n: s for n, s in self.posterior.items() if n in self.enumerated})

    @cached_property
    def log_sampled(self) -> Tensor:
        """log q of the sites that were drawn: [K, B]; with `log_enumerated`, log q(z | x)."""
        return self._sum({n: s for n, s in self.posterior.items() if n not in self.enumerated})

    @cached_property
    def log_mass(self) -> Tensor:
        """log of a particle's share in a mean over particles, [K, B]: −log K, or log q(enumerated) − log draws."""
        return self.log_enumerated - math.log(self.draws)

    def mean(self, t: Tensor) -> Tensor:
        """The mean over particles, exact in enumerated sites: [K, B] or [K, 1] -> [B]."""
        return (self.log_mass.exp() * t).sum(0) if self.enumerated else t.mean(0)

    @cached_property
    def log_score(self) -> Tensor:
        """`log_sampled` with the draws held fixed, [K, B]: its gradient is the score function ∂ log q(z | x).

        Sites of a guide that depend on one another are evaluated by a second run, at the values of the first.
        """
        local = [s for s in self.posterior.values() if s.local]
        if not any(s.value.requires_grad for s in local):
            return self.log_sampled
        if len(local) == 1:
            (site,) = local
            return site.reduce(site.distribution.log_prob(site.value.detach()))
        again = self.rerun({n: s.value.detach() for n, s in self.posterior.items()})
        return self._sum({n: s for n, s in again.items() if n not in self.enumerated})

    def select(self, particles: Tensor) -> dict[str, Tensor]:
        """The guide's values at these particles [m, B] of each datum, with their paths, to be `given` to a run of m."""
        chosen = {}
        for name, site in self.posterior.items():
            value, data = site.particles_first(self.shape)
            index = [1] * value.dim()
            index[0], index[data] = particles.shape
            value = value.take_along_dim(particles.reshape(index), 0)  # [m, ..., B, ...]
            if len(particles) == 1:
                value = value[0]
            elif site.particle_dim is None:  # a folded guide stays one
                value = value.movedim(0, data - 1).flatten(data - 1, data)
            chosen[name] = value
        return chosen

    def scale_path(self, scale: Tensor) -> None:
        """Multiply, in the backward pass, ∂ log p(x, z) / ∂z by `scale` [K, B]; the guide's own log q is left alone.

        For good: a second scale multiplies the first.
        """
        for name, value in self.passed.items():
            if value.requires_grad and self.posterior[name].local:
                factor = self.posterior[name].spread(scale)
                value.register_hook(lambda gradient, factor=factor: gradient * factor)

    @cached_property
    def global_sites(self) -> list[str]:
        """Names of the sites outside the data plate."""
        return [s.name for s in (*self.prior.values(), *self.likelihood.values()) if not s.local]

    @cached_property
    def log_global(self) -> Tensor:
        """log p − log q of the sites outside the data plate: [K]. It belongs to all N data together."""
        total = torch.zeros(self.shape[0], dtype=self._like.dtype, device=self._like.device)
        for sign, sites in ((1, self.prior), (1, self.likelihood), (-1, self.posterior)):
            for site in sites.values():
                total = total if site.local else total + sign * site.log_prob
        return total

    def local_only(self, who: str) -> None:
        """Refuse a program with a global latent: weights of a datum would be weights of the whole batch.

        Raises ValueError.
        """
        if self.global_sites:
            raise ValueError(
                f"{who} weighs particles datum by datum, so every site must be inside plate {DATA!r}; "
                f"{', '.join(map(repr, self.global_sites))} is outside it. Use objectives.ELBO, pathwise, for global "
                "latents."
            )

    @cached_property
    def points(self) -> list[str]:
        """Names of latents of a datum for which the guide has a point (Delta) and the model a distribution."""
        return [
            n
            for n, q in self.posterior.items()
            if q.local and family(q.distribution) == POINT != family(self.prior[n].distribution)
        ]

    def weighable(self, who: str, remedy: str) -> None:
        """Refuse a guide with a point for a latent of a datum: no density, and no weights. Raises ValueError."""
        if self.points:
            raise ValueError(
                f"{who} expects a guide with a density q(z | x), and its site {self.points[0]!r} is a point (Delta), "
                f"as that of an autoencoder: there is no ELBO, rate, importance weight or log evidence; {remedy}"
            )

    def drawn_only(self, who: str, remedy: str) -> None:
        """Refuse sites of the guide that stand side by side, for what is about draws. Raises ValueError."""
        if self.enumerated:
            marked = ", ".join(map(repr, sorted(self.enumerated)))
            raise ValueError(
                f"{who} draws every site of the guide, and {marked} is marked for enumeration there; {remedy}"
            )

    def reparametrised(self, who: str) -> None:
        """Refuse a guide whose samples carry no gradient, where a gradient is wanted.

        Raises ValueError.
        """
        for site in self.posterior.values():
            if torch.is_grad_enabled() and not site.reparametrised and site.name not in self.enumerated:
                raise ValueError(
                    f"{who} differentiates through the samples of the guide, and site {site.name!r} is "
                    f"{family(site.distribution)}, which has no reparametrised sampler: its gradient would be zero "
                    "without a word. Use ELBO(gradient='score'), IWAE(gradient='vimco'), a relaxed posterior, or "
                    "infer={'enumerate': 'parallel'} at the site."
                )

    @property
    def _like(self) -> Tensor:
        return next(iter(self.likelihood.values())).value

    def _marginal(self, sites: dict[str, Site]) -> Tensor:
        """Σ over sites, log Σ over the values that are summed out."""
        if self.summed == 1:
            return self._sum(sites)
        terms = [site.log_prob for site in sites.values() if site.local]  # each [K·S, B]
        return sum(terms[1:], terms[0]).unflatten(0, (self.shape[0], self.summed)).logsumexp(1)

    def _sum(self, sites: dict[str, Site]) -> Tensor:
        terms = [site.log_prob for site in sites.values() if site.local]
        return sum(terms[1:], terms[0]) if terms else self._like.new_zeros(self.shape)


def unwrapped(distribution: Any) -> Any:
    """A distribution without what is around it: .to_event, .expand, .mask, and `WhereObserved`."""
    wrappers = torch.distributions.Independent | ExpandedDistribution | MaskedDistribution | WhereObserved
    while isinstance(distribution, wrappers):
        distribution = distribution.base_dist
    return distribution


def has_mask(distribution: Any) -> bool:
    """Whether a distribution leaves parts of its value out: .mask among its wrappers."""
    while not isinstance(distribution, MaskedDistribution):
        if not hasattr(distribution, "base_dist"):
            return False
        distribution = distribution.base_dist
    return True


def _kept(site: Any) -> Any:
    """Which events of a site count: a mask over its batch, by poutine.mask and .mask together; None for all."""
    mask, distribution = site["mask"], site["fn"]
    while isinstance(distribution, MaskedDistribution | ExpandedDistribution):
        if isinstance(distribution, MaskedDistribution):
            own = distribution._mask
            mask = own if mask is None else mask & own
        distribution = distribution.base_dist
    return mask


def family(distribution: Any) -> str:
    """The name of a distribution's class, under its wrappers."""
    return type(unwrapped(distribution)).__name__.lstrip("_")


def sample_sites(trace: Any) -> Iterator[tuple[str, Any]]:
    """The random choices of a trace, latent and observed; no subsampling of plates, no `pyro.deterministic`."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic"):
            yield name, site


def data_frames(site: Any) -> list[Any]:
    """The data plate around a site: a list of one or none."""
    return [f for f in site["cond_indep_stack"] if f.name == DATA]


def latents(trace: Any) -> list[str]:
    """Names of the sites that were drawn, not observed."""
    return [name for name, site in sample_sites(trace) if not site["is_observed"]]


def read_site(site: Any, shape: tuple[int, int], particle: int | None, which: str, values: int = 1) -> Site:
    """A trace's node with the map from its batch shape to [K, B].

    `particle` is the dimension of the particle plate; None where the program was run on K·B rows instead. A site whose
    `values` stand side by side is, where a mask leaves it out, one of them by a fair choice: the sum over all is 1.
    """
    name, (particles, batch) = site["name"], shape
    plates = 1.0
    for frame in site["cond_indep_stack"]:
        plates *= (frame.full_size or frame.size) / frame.size
    if isinstance(site["scale"], Tensor) or not math.isclose(site["scale"], plates):
        raise ValueError(
            f"{which} site {name!r} is under a poutine.scale; log densities here are unscaled, so it would be lost. "
            "Weigh terms in the objective: objectives.BetaELBO(beta=...)."
        )
    frames = data_frames(site)
    if frames and not frames[0].vectorized:
        raise ValueError(
            f"plate {DATA!r} of the {which} is a Python loop at site {name!r}; write it as `with pyro.plate({DATA!r}, "
            "len(x)):`"
        )
    rows = batch if particle is not None else particles * batch
    data = frames[0].dim if frames else None
    if frames and frames[0].size != rows:
        raise ValueError(
            f"plate {DATA!r} of the {which} has {frames[0].size} rows at site {name!r}, the batch has {rows}; give it "
            "the size len(x), or subsample_size=len(x) with the size of the whole set"
        )
    others = sorted((f for f in site["cond_indep_stack"] if f.vectorized), key=lambda f: f.dim)
    places = {particle: particles, data: rows} | {f.dim: f.size for f in others}
    sizes = {d: size for d, size in places.items() if d is not None}  # particles and data first
    mask, counted, event_dim = site["mask"], _kept(site), site["fn"].event_dim
    in_order = list(sizes) == list(range(-len(sizes), 0))
    if data is not None and site["is_observed"] and family(site["fn"]) != FACTOR:  # it observes nothing
        got, event = list(site["value"].shape), list(site["fn"].event_shape)
        if len(got) < event_dim - data or got[data - event_dim] != rows:
            wanted = [sizes.get(d, 1) for d in range(data, 0)] + event
            raise ValueError(
                f"{which} site {name!r} has events of shape {event} and expects an observed value of shape {wanted}, "
                f"one for each row of plate {DATA!r}, got shape {got}. Give a single datum as a batch of one, x[None]; "
                "declare the dimensions of one datum with .to_event(n)."
            )

    def arrange(t: Tensor, event_dim: int = event_dim) -> Tensor:
        event = list(t.shape[t.dim() - event_dim :])
        wanted = [1] * max(t.dim() - event_dim, *(-d for d in sizes), 0)
        for d, size in sizes.items():
            wanted[d] = size
        if not in_order or list(t.shape) != [*sizes.values(), *event]:
            t = t.expand(wanted + event).movedim([d - event_dim for d in sizes], list(range(len(sizes))))
            t = t.reshape([*sizes.values(), *event])  # without dimensions that are in no plate, of size 1
        if particle is not None:
            return t
        if data is None:
            return t.expand(particles, *t.shape)
        return t[None] if particles == 1 else t.unflatten(0, (particles, batch))

    def reduce(t: Tensor) -> Tensor:
        t = t if mask is None else scale_and_mask(t, 1.0, mask)
        if values > 1 and counted is not None:
            t = torch.where(torch.as_tensor(counted, device=t.device), t, -math.log(values))
        stray = [d for d in range(-t.dim(), 0) if t.shape[d] > 1 and d not in sizes]
        if stray:
            raise ValueError(
                f"{which} site {name!r} has batch shape {list(t.shape)}, of which dimension {stray[0]} is in no plate. "
                "Declare the dimensions of one datum with .to_event(n)."
            )
        t = arrange(t, 0)  # [K, B, *other plates]
        kept = 1 if data is None else 2
        return t.flatten(kept).sum(-1) if t.dim() > kept else t

    return Site(name, site["fn"], site["value"], mask, counted, reduce, data, particle, arrange)
