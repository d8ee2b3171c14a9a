"""Probabilities of few values, as vectors, and log densities that know what a distribution does not have."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily, OneHotCategorical

from ..program import unwrapped

MANY = 1_000  # values of a distribution that are summed over


def as_numbers(p: Any) -> Tensor:
    """A tensor as it is, anything else in float64."""
    p = p if isinstance(p, Tensor) else torch.as_tensor(p, dtype=torch.float64)
    return p if p.is_floating_point() else p.double()


def as_probabilities(who: str, p: Tensor) -> Tensor:
    """Probability vectors as they are. Raises ValueError for numbers that are none."""
    total = p.sum(-1) if p.dim() else p
    if not p.dim() or not bool((p >= 0).all()) or not bool(((total - 1).abs() < 1e-5).all()):
        raise ValueError(
            f"{who} expects probabilities of at least 0 that sum to one over the last dimension, got the sum "
            f"{float(total.flatten()[0]):g} and a smallest of {float(p.min()):g}; divide by the sum"
        )
    return p


def table_of(who: str, p: Any) -> Tensor | None:
    """The probabilities of all values [*batch, n], of a vector or a distribution of few values; else None."""
    if not isinstance(p, Distribution):
        return as_probabilities(who, as_numbers(p))
    refuse_points(who, p)
    if isinstance(p, Categorical | OneHotCategorical):
        return p.probs  # whose zeros are zeros; logits are kept finite
    if isinstance(p, Bernoulli):
        return torch.stack([1 - p.probs, p.probs], -1)
    values = values_of(p)
    return None if values is None else p.log_prob(values).exp().movedim(0, -1)


def refuse_points(who: str, *distributions: Any) -> None:
    """A point has no density, though Pyro's log_prob of one is 0. Raises ValueError."""
    if any(isinstance(unwrapped(d), Delta) for d in distributions):
        raise ValueError(f"{who} expects distributions with a density or a mass, got a point; give one of some width")


def values_of(p: Distribution) -> Tensor | None:
    """All values of a distribution, [n, *batch, *event], where they are few and can be listed; else None."""
    if not p.has_enumerate_support or p.event_shape.numel() > MANY:
        return None
    try:
        values = p.enumerate_support()
    except NotImplementedError:  # batches of different sizes, products of many
        return None
    return values if len(values) <= MANY else None


def both_tables(who: str, p: Any, q: Any) -> tuple[Tensor, Tensor] | None:
    """Both as probabilities of the same values; None where that is not possible. Raises ValueError."""
    both = [isinstance(d, Distribution) for d in (p, q)]
    if both[0] != both[1]:
        raise ValueError(f"{who} expects two distributions or two probability vectors, got one of each")
    if both[0]:
        if p.event_shape != q.event_shape:
            raise ValueError(
                f"{who} expects distributions of one event shape, got {list(p.event_shape)} and {list(q.event_shape)}"
            )
        refuse_points(who, p, q)
        own, others = values_of(p), values_of(q)
        if own is None or others is None or not _alike(own, others):
            return None
    a, b = table_of(who, p), table_of(who, q)
    assert a is not None
    assert b is not None
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{who} expects two vectors of one length, got {a.shape[-1]} and {b.shape[-1]}")
    return a, b


def _alike(own: Tensor, others: Tensor) -> bool:
    """Whether two lists [n, *batch, *event] have the same values, of the first of each batch."""
    return torch.equal(*(v.reshape(len(v), -1)[:, 0].double() for v in (own, others)))


def log_prob(q: Any, x: Tensor) -> Tensor:
    """log q(x), −∞ where q has no such value."""
    if isinstance(q, MixtureSameFamily):  # whose support is what all of its components have
        each = log_prob(q.component_distribution, x.unsqueeze(-1 - len(q.event_shape)))
        return (q.mixture_distribution.logits + each).logsumexp(-1)
    try:
        inside = q.support.check(x)
    except NotImplementedError:
        return q.log_prob(x)
    if bool(inside.all()):
        return q.log_prob(x)
    own = q.sample(x.shape[: x.dim() - len(q.batch_shape) - len(q.event_shape)])
    mask = inside.reshape(inside.shape + (1,) * len(q.event_shape))
    return q.log_prob(torch.where(mask, x, own)).masked_fill(~inside, -math.inf)
