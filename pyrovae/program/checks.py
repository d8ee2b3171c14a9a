"""Mistakes in a program or its data, each refused in one sentence: who, expected, got, remedy."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
import torch.nn as nn
from pyro.distributions import constraints
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .enumeration import is_marked
from .sites import DATA, data_frames, family, latents, sample_sites


def check_arguments(vae: Any, x: Any, particles: int) -> None:
    """Refuse what is no program, no data or no number of particles. Raises ValueError."""
    if not (callable(getattr(vae, "model", None)) and callable(getattr(vae, "guide", None))):
        raise ValueError(
            f"expected something with .model(x) and .guide(x), got {type(vae).__name__}; "
            "wrap plain functions in pv.Program(model, guide)"
        )
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"expected data as a tensor [B, *event] with at least one row, got {got}")
    check_particles("densities", particles)


def check_particles(who: str, particles: Any, name: str = "particles") -> None:
    """Refuse what is no number of particles, or of another thing to be counted. Raises ValueError."""
    if isinstance(particles, bool) or not isinstance(particles, Integral) or particles < 1:
        raise ValueError(f"{who} expects {name} as a whole number of at least 1, got {name}={particles!r}")


def check_repeatable(vae: Any) -> None:
    """Refuse a guide or decoder that is another one in its second run of a step. Raises ValueError."""
    noisy = [name for name, module in redrawing(vae) if module.training and getattr(module, "p", 1) > 0]
    if noisy:
        raise ValueError(
            f"this objective runs the program twice a step, and dropout or noise ({noisy[0]!r}) would make it another "
            "one the second time; take it out, or use gradient='pathwise' without backward_particles"
        )


def redrawing(vae: Any) -> list[tuple[str, nn.Module]]:
    """Modules that are another function in each run in training mode: dropout, and what says so (`redraws`)."""
    modules = vae.named_modules() if isinstance(vae, nn.Module) else ()
    drops = nn.modules.dropout._DropoutNd
    return [
        (name, module) for name, module in modules if isinstance(module, drops) or getattr(module, "redraws", False)
    ]


def unshared(model_trace: Any, proposed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Latents that model and guide do not share, each with what is wrong; but for those that the model sums over."""
    latent, proposed = set(latents(model_trace)), set(proposed)
    for name in sorted(latent - proposed):
        if is_marked(model_trace.nodes[name]):
            continue
        yield (
            name,
            f"the model samples site {name!r} and the guide does not (it has {sorted(proposed)}); add it to the guide",
        )
    for name in sorted(proposed - latent):
        yield (
            name,
            f"the guide samples site {name!r} and the model does not (it has {sorted(latent)}); rename or remove it",
        )


def check_shared(model_trace: Any, proposed: Iterable[str]) -> None:
    """Refuse latents that model and guide do not share. Raises ValueError for the first of them."""
    for _, message in unshared(model_trace, proposed):
        raise ValueError(message)


def check_something_observed(model_trace: Any) -> None:
    """Refuse a model that observes nothing. Raises ValueError."""
    if not any(site["is_observed"] for _, site in sample_sites(model_trace)):
        raise ValueError("the model has no observed site; add pyro.sample('x', ..., obs=x)")


def data_size(model_trace: Any) -> int:
    """The full size of the data plate of a model. Raises ValueError for one without."""
    sizes = [f.full_size or f.size for _, site in sample_sites(model_trace) for f in data_frames(site)]
    if not sizes:
        raise ValueError(f"the model has no plate named {DATA!r}; add `with pyro.plate({DATA!r}, len(x), dim=-1):`")
    return max(sizes)


def check_observed(model_trace: Any) -> int:
    """The full size of the data plate of a model that has one, and observes something.

    Raises ValueError.
    """
    check_something_observed(model_trace)
    return data_size(model_trace)


@contextmanager
def plain_errors() -> Generator[None]:
    """Takes the table of shapes that Pyro writes under the errors of a traced program off every ValueError."""
    try:
        yield
    except ValueError as error:
        message, table, _ = str(error).partition("\nTrace Shapes:")
        if not table:
            raise
        raise type(error)(message) from error.__cause__


def explain_plate(error: ValueError, which: str) -> None:
    """Says Pyro's "Shape mismatch inside plate" with its remedy; returns for any other error."""
    mismatch = re.search(r"Shape mismatch inside plate\('(\S+)'\) at site (\S+) dim \S+, (\d+) vs (\d+)", str(error))
    if mismatch is None:
        return
    plate, site, size, got = mismatch.groups()
    raise ValueError(
        f"{which} site {site!r} expects batch dimensions of plate {plate!r}, size {size}, got one of size {got}. "
        "Declare the dimensions of one datum with .to_event(n), or give the plate the size len(x)."
    ) from error


def explain_missing(which: str, x: Tensor, error: ValueError | None = None) -> None:
    """Says that a program made NaN of NaN in its data; returns where there is none in them. Raises ValueError."""
    if x.is_floating_point() and not isinstance(x, FakeTensor) and bool(x.isnan().any()):
        raise ValueError(
            f"the {which} expects data without NaN, got some, and made NaN of them; put networks.Standardise(event, "
            "missing=True) in front of its network, or remove or impute them"
        ) from error


_COUNTS = ("Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial", "Multinomial")
_TO_COUNTS = (
    "Give whole numbers that are not negative (bytes are read as grey levels: save counts as int32 or float32), or use "
    "Normal, or ContinuousBernoulli for values in [0, 1]."
)
_LEVELS = "levels k · maximum / (levels − 1), k = 0, ..., levels − 1"
_TO_LEVELS = (
    "Set levels and maximum to those of the data (VAE.build(data, ...) does), or use ContinuousBernoulli for other "
    "values in [0, 1] and Normal for others."
)
_REMEDIES = {
    "Bernoulli": "Binarise the data (data.load(..., binarise='dynamic')) or use ContinuousBernoulli.",
    "ContinuousBernoulli": "Scale the data to [0, 1] or use Normal.",
    "Binomial": "Give counts up to total_count, or use Normal.",
    "Beta": "Use ContinuousBernoulli, or Categorical for 8-bit images, which have exact 0 and 1.",
    "Categorical": _TO_LEVELS,
    "DiscretisedLogisticMixture": _TO_LEVELS,
    **dict.fromkeys(_COUNTS, _TO_COUNTS),
}
_SUPPORTS = {
    "Bernoulli": "values in {0, 1}",
    "ContinuousBernoulli": "values in [0, 1]",
    "Binomial": "counts from 0 to total_count",
    "Beta": "values in (0, 1), without the ends",
    "Categorical": _LEVELS,
    "DiscretisedLogisticMixture": _LEVELS,
    **dict.fromkeys(_COUNTS, "counts 0, 1, 2, ..."),
}


def takes_missing(part: Any) -> bool:
    """Whether NaN means "not observed" to a program, by any of its modules, or to a distribution, by its wrappers."""
    if isinstance(part, nn.Module):
        return any(getattr(module, "takes_missing", False) for module in part.modules())
    while not getattr(part, "takes_missing", False):
        if not hasattr(part, "base_dist"):
            return False
        part = part.base_dist
    return True


def check_finite(who: str, x: Tensor, by: Any) -> None:
    """Refuse infinity, and NaN where it is not "not observed" to the program or distribution `by` that takes x.

    Reads a value back: for the start, not for the step. Raises ValueError.
    """
    if not x.is_floating_point():
        return
    bad = int((~torch.isfinite(x)).sum())
    if not bad:
        return
    if not takes_missing(by):
        raise ValueError(
            f"{who} expects finite numbers, got {bad} that are NaN or infinite; remove or impute them, or say that NaN "
            "is missing: data.load(..., missing=True), likelihoods.Missing"
        )
    if bad := int(torch.isinf(x).sum()):
        raise ValueError(f"{who} expects finite numbers and NaN, got {bad} that are infinite; remove or impute them")


def check_masks(name: str, prior: Any, posterior: Any) -> None:
    """Refuse a choice that counts for some data in model or guide alone, given both sites. Raises ValueError.

    A continuous latent under a mask of the model's has a flat prior there, which may be meant. Reads values back.
    """
    try:
        if not prior.distribution.support.is_discrete:
            return
    except NotImplementedError:  # a distribution that does not say
        return
    masks = [torch.as_tensor(True if s.kept is None else s.kept).cpu() for s in (prior, posterior)]
    try:
        p, q = torch.broadcast_tensors(*masks)
    except RuntimeError:  # one of them for every particle of a folded program
        return
    if not torch.equal(p, q):
        raise ValueError(
            f"discrete site {name!r} is under a mask in the {'guide' if bool(masks[0].all()) else 'model'} that the "
            "other does not have; give both one mask, by `with poutine.mask(mask=m):` or .mask(m), else its log p and "
            "log q belong to different data"
        )


def check_latent(name: str, prior: Any, posterior: Any, value: Tensor) -> None:
    """Refuse draws of the guide that the model's site cannot take. Reads values back, as `check_support` does.

    Raises ValueError: who, expected, got, remedy.
    """
    try:
        p, q = prior.support, posterior.support
    except NotImplementedError:  # a distribution that does not say
        return
    measures = p.is_discrete != q.is_discrete or is_sphere(p) != is_sphere(q)  # densities of two kinds
    if measures or not bool(p.check(value).all()):
        raise ValueError(
            f"site {name!r} is {family(prior)} in the model, with values in {plain_support(p)}, and "
            f"{family(posterior)} in the guide, with values in {plain_support(q)}; give prior and posterior the same "
            "values"
        )


def plain_support(support: Any) -> Any:
    """A constraint without its event dimensions."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def is_sphere(support: Any) -> bool:
    """Whether these are the vectors of length 1, whose means and straight lines are inside of the sphere."""
    return plain_support(support) is constraints.sphere


def check_support(name: str, distribution: Any, x: Tensor) -> None:
    """Refuse data that the likelihood gives no density to. Reads values back: for the start, not for the step.

    Raises ValueError: who, expected, got, remedy.
    """
    event = distribution.event_shape
    if tuple(x.shape[x.dim() - len(event) :]) != tuple(event):
        raise ValueError(
            f"site {name!r} expects events of shape {list(event)}, got data of shape {list(x.shape)}; reshape the data "
            "or build the model for them"
        )
    check_finite(f"site {name!r}", x, distribution)
    kind = family(distribution)
    support = distribution.support
    if not bool(support.check(x).all()):
        x = x[~x.isnan()]
        raise ValueError(
            f"likelihood {kind} expects {_SUPPORTS.get(kind, f'values in {plain_support(support)}')}, got values from "
            f"{float(x.min()):.4g} to {float(x.max()):.4g} at site {name!r}. "
            f"{_REMEDIES.get(kind, 'Change one or the other.')}"
        )
