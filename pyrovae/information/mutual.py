"""Mutual information of tables, of normals, and of any two variables one of which is drawn given the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from ..arguments import check_whole
from ..program import seeded
from .divergences import kl_of_tables
from .quantity import Quantity, exactly, nats_in
from .tables import as_numbers, as_probabilities, log_prob, refuse_points, table_of, values_of

ELEMENTS = 2**22  # numbers of x and y that are held against each other at a time


def mutual_information(
    joint: Any,
    first: int | None = None,
    unit: str = "nats",
    given: Callable[[Tensor], Distribution] | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> Quantity:
    """I(x; y) = KL(p(x, y) ‖ p(x) p(y)) = H(x) + H(y) − H(x, y): what x tells of y, and y of x.

    Of a p(y) and a p(x | y) the marginal p(x) = E_p(y) p(x | y) is a sum where y has few values. Otherwise it is a mean
    over the draws of y, with and without the y that x was drawn from:

        E log p(x_i | y_i) / (1/N Σ_j p(x_i | y_j))  ≤  I  ≤  E log p(x_i | y_i) / (1/(N − 1) Σ_{j≠i} p(x_i | y_j))

    The middle of both is given, with half of what is between them in its error. No lower bound exceeds log N.

    Args:
        joint: a table of probabilities [*batch, X, Y] that sum to one; or a `MultivariateNormal` of x and y together,
            for which it is ½ log (det Σ_x det Σ_y / det Σ); or p(y), with `given`.
        first: how many of the normal's dimensions are x's.
        unit: nats or bits.
        given: p(x | y) as a function of y, from values [n, *event] to a distribution of batch shape [n].
        draws: N of y and x, where there is no closed form; time goes as N², of few values of y as N.
        seed: fixes them; the caller's own random numbers stay as they are.

    Raises:
        ValueError: for a table that is none, another distribution without `given`, a `first` that leaves x or y without
            dimensions, and a `given` whose distribution is not one for each y.

    Reference: Poole, Ozair, van den Oord, Alemi and Tucker, "On variational bounds of mutual information", 2019.

    >>> print(mutual_information([[0.5, 0.0], [0.0, 0.5]], unit="bits"))
    1 bits
    >>> from pyro.distributions import Bernoulli
    >>> print(mutual_information(Bernoulli(0.5), unit="bits", given=lambda y: Bernoulli(0.1 + 0.8 * y)))  # a channel
    0.531 bits
    """
    size = nats_in("mutual_information", unit)
    if given is not None:
        return _given(joint, given, draws, seed, size, unit)
    if isinstance(joint, MultivariateNormal):
        dimensions = joint.event_shape[0]
        if first is None or not 0 < first < dimensions:
            raise ValueError(
                f"mutual_information expects first from 1 to {dimensions - 1}, the dimensions that are x's, got {first}"
            )
        cov = joint.covariance_matrix
        parts = cov[..., :first, :first], cov[..., first:, first:], cov
        a, b, whole = (torch.linalg.slogdet(c).logabsdet for c in parts)
        return exactly((a + b - whole) / 2, size, unit)
    if isinstance(joint, Distribution):
        raise ValueError(
            f"mutual_information expects a table of probabilities or a MultivariateNormal, got {type(joint).__name__}; "
            "for others give p(y) and given=y -> p(x | y)"
        )
    joint = as_numbers(joint)
    if joint.dim() < 2:
        raise ValueError(f"mutual_information expects a table [*batch, X, Y], got the shape {list(joint.shape)}")
    flat = as_probabilities("mutual_information", joint.flatten(-2))
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return exactly(kl_of_tables(flat, product.flatten(-2)), size, unit)


def _given(p: Any, given: Callable[[Tensor], Distribution], draws: int, seed: int, size: float, unit: str) -> Quantity:
    """I(x; y) of p(y) and p(x | y)."""
    if not isinstance(p, Distribution) or p.batch_shape:
        got = f"batch shape {list(p.batch_shape)}" if isinstance(p, Distribution) else type(p).__name__
        raise ValueError(f"mutual_information expects one distribution p(y) beside given, got {got}; give one of them")
    check_whole("mutual_information", "draws", draws, least=2)
    refuse_points("mutual_information", p)
    values = values_of(p)
    with seeded(seed):
        y = p.sample((draws,)) if values is None else values
        channel = given(y)
        if not isinstance(channel, Distribution) or channel.batch_shape != y.shape[:1]:
            got = list(channel.batch_shape) if isinstance(channel, Distribution) else type(channel).__name__
            raise ValueError(
                f"mutual_information expects given(y) as a distribution of batch shape {list(y.shape[:1])}, a row for "
                f"each y, got {got}; declare the dimensions of x with to_event"
            )
        refuse_points("mutual_information", channel)
        if values is None:
            return _between(channel, channel.sample(), size, unit)
        weight, table = p.log_prob(values).exp(), table_of("mutual_information", channel)
        if table is not None:
            joint = weight[:, None] * table
            return exactly(kl_of_tables(joint.flatten(), (weight[:, None] * joint.sum(0)).flatten()), size, unit)
        x = channel.sample((draws,))  # [S, n, *event], n the values of y
    rest = len(channel.event_shape)
    each = log_prob(channel, x.unsqueeze(-1 - rest))  # log p(x | y) of every other y: [S, n, n]
    terms = (log_prob(channel, x) - (weight.log() + each).logsumexp(-1)) / size  # [S, n]
    error = (weight.square() * terms.var(0)).sum().div(draws).sqrt()
    return Quantity((weight * terms.mean(0)).sum(), error, unit)


def _between(channel: Distribution, x: Tensor, size: float, unit: str) -> Quantity:
    """I(x; y) from pairs, x [N, *event] a draw from each of N p(x | y).

    That all rows share their y adds nothing to the variance in the first order: E_p(x) [p(x | y) / p(x)] = 1 for all y.
    """
    n = len(x)
    own = log_prob(channel, x)
    lower, upper = [], []
    rows = max(1, ELEMENTS // x.numel())
    for start in range(0, n, rows):
        some = x[start : start + rows]
        each = log_prob(channel, some[:, None])  # [rows, N]
        lower.append(each.logsumexp(1) - math.log(n))
        others = torch.diagonal_scatter(each, torch.full_like(own[start : start + rows], -math.inf), start)
        upper.append(others.logsumexp(1) - math.log(n - 1))
    low, high = ((own - torch.cat(part)) / size for part in (lower, upper))
    middle, width = (low + high) / 2, high.mean() - low.mean()
    return Quantity(middle.mean(), (middle.var() / n + (width / 2) ** 2).sqrt(), unit)
