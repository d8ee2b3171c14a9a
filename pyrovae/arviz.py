"""Draws, log densities and log weights of a program for ArviZ, and Pareto k̂ of its importance weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from .program import Densities, Unobserved, Values, densities, evaluating, home, sample_sites, seeded
from .program.sites import read_site

if TYPE_CHECKING:
    from xarray import DataTree

_ELEMENTS, _ROWS = 2**21, 2**14  # of data, times particles, run at once
FLAT = 1e-3  # nats; a tail of log weights no wider than this is taken for constant
_POSTERIOR = (
    "independent draws from the guide q(z | x), not from the exact posterior, split over chains so that r-hat and ESS "
    "are defined; they say nothing of how good the guide is: see pyrovae.arviz.pareto_k"
)
_WEIGHTS = (
    "nats; log_weight = log p(x, z) - log q(z | x) of the sites inside the data plate, datum by datum; psislw of "
    "arviz_stats wants its negative"
)

_STATS = ("log_weight", "log_prior", "log_posterior")

Groups = dict[str, dict[str, Tensor]]


def to_datatree(
    vae: Any,
    x: Tensor,
    draws: int = 250,
    chains: int = 4,
    data: int | slice | Iterable[int] = 100,
    predictive: bool = True,
    seed: int = 0,
) -> DataTree:
    """A program's draws, log densities and log weights as an xarray DataTree, for ArviZ.

    Draws from q(z | x) are independent. They are split over chains so that r̂ and ESS are defined, and these say
    nothing of how near q is to the posterior: `pareto_k` does. The groups, each variable [chain, draw, ...]:

        posterior              z ~ q(z | x)                          [..., data, z_dim_0, ...]
        prior                  z ~ p(z)                              likewise
        posterior_predictive   x ~ p(x | z), z ~ q(z | x)            [..., data, x_dim_0, ...]
        prior_predictive       x ~ p(x | z), z ~ p(z)                likewise
        log_likelihood         log p(x | z), in nats                 [..., data], one variable an observed site
        sample_stats           log_weight, log_prior, log_posterior  [..., data], in nats; summed over sites
        observed_data          x                                     [data, x_dim_0, ...], without chain and draw

    A site outside the data plate has no dimension "data"; log p − log q of all these together is
    sample_stats.log_weight_global [chain, draw]. The dimensions of other plates are named after the site too, before
    those of the event. "/" in a site name becomes ".".

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        draws: per chain.
        chains: how many parts the draws are split into.
        data: the rows of x to take: the first so many, a slice, or row numbers. They label the dimension "data".
        predictive: with the predictive groups, of chains · draws · data · event numbers each.
        seed: of the draws; the caller's random numbers are untouched.

    Raises:
        ValueError: without chains, draws or rows, and for programs or data that `densities` refuses.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> dt = to_datatree(pv.models.VAE.build(data, latent=2), data.test, draws=5, chains=2, data=10)
    >>> dict(dt.posterior.z.sizes)
    {'chain': 2, 'draw': 5, 'data': 10, 'z_dim_0': 2}
    """
    from arviz_base import from_dict

    from . import __version__

    if draws < 1 or chains < 1:
        raise ValueError(f"to_datatree expects at least one chain of one draw, got chains={chains}, draws={draws}")
    if not isinstance(x, Tensor) or x.dim() < 1:
        raise ValueError(f"to_datatree expects data as a tensor [N, *event], got {type(x).__name__}")
    rows = _rows(data, len(x))
    groups, local = _groups(vae, x[torch.as_tensor(rows, device=x.device)], chains * draws, predictive, seed)
    named = {
        group: {
            name.replace("/", "."): _numpy(t if group == "observed_data" else t.unflatten(0, (chains, draws)))
            for name, t in variables.items()
        }
        for group, variables in groups.items()
    }
    library = {"inference_library": "pyrovae", "inference_library_version": __version__}
    attrs: dict[str, dict[str, Any]] = {group: dict(library) for group in named}
    attrs["posterior"]["description"] = _POSTERIOR
    attrs["sample_stats"]["description"] = _WEIGHTS
    taken = f"first {len(rows)}" if rows == list(range(len(rows))) else str(len(rows))
    attrs["/"] = library | {
        "program": type(vae).__name__,
        "posterior": _POSTERIOR,
        "data": f"{taken} of {len(x)} rows",
        "chains": chains,
        "draws": draws,
        "particles": chains * draws,
        "seed": seed,
    }
    dims = {name.replace("/", "."): ["data"] for name in local}
    return from_dict(named, coords={"data": rows}, dims=dims, attrs=attrs)


def pareto_k(vae: Any, x: Tensor, particles: int = 1000, seed: int = 0) -> Tensor:
    """Pareto k̂ of the importance weights p(x, z) / q(z | x) of each datum: [N].

    The larger k̂, the heavier the tail of the weights: the more of the posterior q misses. Below 0.7 importance
    sampling from q works with this many particles; above it, log evidence and reweighted expectations do not converge
    in practice. k̂ is fitted to the 3√K largest weights. Where these are equal to 0.1 %, as with q the exact posterior
    and often with q wider than it, there is no tail, and k̂ is 0. It is infinite where a few weights outweigh all others
    beyond floating point, and NaN where a quarter of these weights are tied, as discrete latents may have it.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        particles: K, at least 25.
        seed: of the draws; the caller's random numbers are untouched.

    Raises:
        ValueError: for fewer than 25 particles, or a program with a latent outside the data plate.

    Reference: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", 2024; Yao, Vehtari,
        Simpson and Gelman, "Yes, but did it work?", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pareto_k(pv.models.VAE.build(data, latent=2), data.test[:3], particles=100).shape
    torch.Size([3])
    """
    if particles < 25:
        raise ValueError(f"pareto_k fits the tail of the weights and needs at least 25 particles, got {particles}")
    device, dtype = home(vae)
    size, found = _per_run(x), []
    with evaluating(vae), seeded(seed, device):
        for batch in x.split(size):
            batch = batch.to(device, dtype)
            with pyro.validation_enabled(True):
                one = densities(vae, batch)
                one.local_only("pareto_k")
                one.weighable("pareto_k", "k̂ is about weights, and there are none")
            chunk, weights = max(1, size // len(batch)), []
            with pyro.validation_enabled(False):
                for start in range(0, particles, chunk):
                    weights.append(densities(vae, batch, min(chunk, particles - start)).log_weight)
            found.append(_khat(torch.cat(weights).double().cpu()))
    return torch.cat(found)


def _khat(log_weight: Tensor) -> Tensor:
    """k̂ of each column of [K, B]: [B]."""
    from arviz_stats.base import array_stats

    particles = len(log_weight)
    tail = int(3 * math.sqrt(particles)) if particles > 225 else particles // 5
    largest = log_weight.topk(tail, dim=0).values  # [tail, B], falling
    smallest, quartile = largest[-1], largest[tail - int(tail / 4 + 0.5)]
    weight = (log_weight - largest[0]).exp()  # [K, B]
    flat = largest[0] - smallest <= FLAT
    sunk = (quartile - largest[0]).exp() == 0
    tied = quartile <= smallest
    fit = ~(flat | sunk | tied | log_weight.isnan().any(0))
    khat = torch.full_like(smallest, math.nan).masked_fill(sunk, math.inf).masked_fill(flat, 0.0)
    if fit.any():
        # The weights themselves and not their logarithms: no function of ArviZ is asked for its sign convention.
        with np.errstate(all="ignore"):
            k = array_stats.pareto_khat(weight[:, fit].T.numpy()[:, None], r_eff=1.0, tail="right")
        khat[fit] = torch.as_tensor(k, dtype=khat.dtype).nan_to_num(nan=math.inf, posinf=math.inf)
    return khat


def _groups(vae: Any, x: Tensor, total: int, predictive: bool, seed: int) -> tuple[Groups, set[str]]:
    """The groups with `total` draws first, [S, ...] or [S, B, ...], and the names of variables that have B.

    Copies of the data are run as one batch. A global latent belongs to all data of a run, so that each draw of it
    takes a run of its own; so does a program that cannot take another number of data.
    """
    device, dtype = home(vae)
    x = x.to(device, dtype)
    parts: list[Groups] = []
    with evaluating(vae), seeded(seed, device):
        with pyro.validation_enabled(True):
            first = densities(vae, x)
            first.weighable("to_datatree", "codes and reconstructions are pv.encode(vae, x) and pv.reconstruct(vae, x)")
        with pyro.validation_enabled(False):
            chunk = max(1, _per_run(x) // len(x)) if _stackable(vae, x, first) else 1
            for start in range(0, total, chunk):
                parts.append(_run(vae, x, min(chunk, total - start), predictive))
    groups = {g: {n: torch.cat([p[g][n] for p in parts]) for n in parts[0][g]} for g in parts[0]}
    groups["observed_data"] = {n: s.arrange(s.value)[0] for n, s in first.likelihood.items()}
    sites = (*first.prior.values(), *first.likelihood.values())
    return groups, {s.name for s in sites if s.local} | set(_STATS)


def _run(vae: Any, x: Tensor, k: int, predictive: bool) -> Groups:
    """k draws of each group."""
    many = x.repeat(k, *[1] * (x.dim() - 1))  # [B, *event] -> [k·B, *event]

    def split(t: Tensor, local: bool) -> Tensor:
        return t[0].unflatten(0, (k, len(x))) if local else t  # [1, k·B, ...] -> [k, B, ...]; a global one is [1, ...]

    def drawn(given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every site of the model without its observations."""
        trace = poutine.trace(Values(given)(Unobserved()(vae.model))).get_trace(many)
        sites = [read_site(s, (1, len(many)), None, "model") for _, s in sample_sites(trace)]
        return {s.name: split(s.arrange(s.value), s.local) for s in sites}

    d = densities(vae, many)
    groups: Groups = {}
    for name, given in (("posterior", {n: s.value for n, s in d.posterior.items()}), ("prior", {})):
        values = drawn(given)
        groups[name] = {n: values[n] for n in d.prior}
        if predictive:
            groups[f"{name}_predictive"] = {n: values[n] for n in d.likelihood}
    groups["log_likelihood"] = {n: split(s.log_prob, s.local) for n, s in d.likelihood.items()}
    groups["sample_stats"] = {n: split(getattr(d, n), True) for n in _STATS}
    if d.global_sites:
        groups["sample_stats"]["log_weight_global"] = d.log_global
    return groups


def _stackable(vae: Any, x: Tensor, first: Densities) -> bool:
    """Whether copies of the data can be run as one batch."""
    if first.global_sites:
        return False
    try:
        densities(vae, torch.cat([x, x]))
    except Exception:  # a plate of a fixed size, say; a program may fail in any way it likes
        return False
    return True


def _rows(data: int | slice | Iterable[int], n: int) -> list[int]:
    """Row numbers."""
    every = range(n)
    if isinstance(data, int | np.integer):
        chosen = list(every[: max(int(data), 0)])
    else:
        chosen = list(every[data]) if isinstance(data, slice) else [every[int(i)] for i in data]
    if not chosen:
        raise ValueError(f"to_datatree expects at least one row of the data, got data={data!r} of {n} rows")
    return chosen


def _per_run(x: Tensor) -> int:
    return min(_ROWS, max(1, _ELEMENTS // max(1, math.prod(x.shape[1:]))))


def _numpy(t: Tensor) -> np.ndarray:
    return t.detach().cpu().numpy()
