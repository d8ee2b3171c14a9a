"""Information content, entropy, cross-entropy, and the divergences of Kullback and Leibler, Jensen and Shannon."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..objectives.closed_forms import closed_kl
from .quantity import Quantity, exactly, mean_of_draws, nats_in
from .tables import as_numbers, both_tables, log_prob, table_of


def information_content(p: Any, x: Any = None, unit: str = "nats") -> Tensor:
    """−log p(x): how surprising x is. That the sun rises tells nothing, an eclipse of it tells a lot.

    Args:
        p: probabilities of events, each on its own; or a distribution.
        x: what happened, where p is a distribution; of a density it may be negative, and depends on the unit of x.
        unit: nats (natural logarithm) or bits (to base 2).

    Raises:
        ValueError: for numbers that are no probabilities, a distribution without x, and an unknown unit.

    Reference: Shannon, "A mathematical theory of communication", 1948.

    >>> information_content([1.0, 0.5, 2**-10], unit="bits")
    tensor([ 0.,  1., 10.], dtype=torch.float64)
    """
    size = nats_in("information_content", unit)
    if isinstance(p, Distribution):
        if x is None:
            raise ValueError("information_content expects x, what happened, beside a distribution; give it")
        return -log_prob(p, torch.as_tensor(x)) / size
    p = as_numbers(p)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(
            f"information_content expects probabilities from 0 to 1, got {float(p.min()):g} to {float(p.max()):g}"
        )
    return p.log().neg().abs() / size  # the logarithm of one is 0, without a sign


def entropy(p: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """H(p) = −E_p log p(x): the information content of p's values in the mean. Of a density it may be negative.

    Args:
        p: a distribution, or a probability vector [*batch, n].
        unit: nats or bits.
        draws: of x from p, where no closed form is known.
        seed: fixes them.

    Raises:
        ValueError: for vectors that are no probabilities, and an unknown unit.

    >>> print(entropy([0.5, 0.5], "bits")), print(entropy([1.0, 0.0], "bits"))
    1 bits
    0 bits
    (None, None)
    """
    size = nats_in("entropy", unit)
    table = table_of("entropy", p)
    if table is not None:
        return exactly(torch.special.entr(table).sum(-1), size, unit)
    try:
        return exactly(p.entropy(), size, unit)
    except NotImplementedError:
        return mean_of_draws(p, lambda x: -log_prob(p, x), draws, seed, size, unit)


def cross_entropy(p: Any, q: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """H(p, q) = −E_p log q(x) = H(p) + KL(p ‖ q): the information content of p's values to who believes in q.

    Arguments and errors are those of `kl`.

    >>> print(cross_entropy([0.5, 0.5], [0.25, 0.75], "bits"))
    1.208 bits
    """
    size = nats_in("cross_entropy", unit)
    tables = both_tables("cross_entropy", p, q)
    if tables is not None:
        return exactly(-torch.xlogy(*tables).sum(-1), size, unit)
    try:
        return exactly(p.entropy() + closed_kl(p, q), size, unit)
    except NotImplementedError:
        return mean_of_draws(p, lambda x: -log_prob(q, x), draws, seed, size, unit, q)


def kl(p: Any, q: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """KL(p ‖ q) = E_p [log p(x) − log q(x)] ≥ 0: what it costs to believe in q where p holds.

    It is 0 for p = q alone, is not symmetric, and is infinite where p has values that q does not. Seen from p,
    KL(p ‖ q) is the forward and KL(q ‖ p) = `kl(q, p)` the reverse divergence: the q that is best in the forward one
    covers all that p has, the q that is best in the reverse one, as in the ELBO, stays where p is.

    Args:
        p: a distribution, or a probability vector [*batch, n].
        q: another one, on the same values.
        unit: nats or bits.
        draws: of x from p, where no closed form is known.
        seed: fixes them; the caller's own random numbers stay as they are.

    Raises:
        ValueError: for a distribution beside a vector, vectors that are no probabilities or of two lengths, two event
            shapes, and an unknown unit.

    Reference: Kullback and Leibler, "On information and sufficiency", 1951.

    >>> from pyro.distributions import Normal
    >>> print(kl(Normal(0.0, 1.0), Normal(0.0, 2.0))), print(kl(Normal(0.0, 2.0), Normal(0.0, 1.0)))
    0.3181 nats
    0.8069 nats
    (None, None)
    """
    size = nats_in("kl", unit)
    tables = both_tables("kl", p, q)
    if tables is not None:
        return exactly(kl_of_tables(*tables), size, unit)
    try:
        return exactly(closed_kl(p, q), size, unit)
    except NotImplementedError:
        return mean_of_draws(p, lambda x: log_prob(p, x) - log_prob(q, x), draws, seed, size, unit, q)


def jensen_shannon(p: Any, q: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ p + ½ q: symmetric, and at most log 2, which is one bit.

    It is what one value tells of whether p or q made it. Arguments and errors are those of `kl`.

    Reference: Lin, "Divergence measures based on the Shannon entropy", 1991.

    >>> print(jensen_shannon([1.0, 0.0], [0.0, 1.0], "bits"))
    1 bits
    """
    size = nats_in("jensen_shannon", unit)
    tables = both_tables("jensen_shannon", p, q)
    if tables is not None:
        middle = (tables[0] + tables[1]) / 2
        return exactly((kl_of_tables(tables[0], middle) + kl_of_tables(tables[1], middle)) / 2, size, unit)

    def to_middle(one: Any, other: Any) -> Callable[[Tensor], Tensor]:
        # log one − log ½ (one + other), where the other may be 0
        return lambda x: math.log(2) - torch.nn.functional.softplus(log_prob(other, x) - log_prob(one, x))

    there = mean_of_draws(p, to_middle(p, q), draws, seed, size, unit, q)
    back = mean_of_draws(q, to_middle(q, p), draws, seed + 1, size, unit, p)
    error = (there.standard_error**2 + back.standard_error**2).sqrt() / 2
    return Quantity((there.value + back.value) / 2, error, unit)


def kl_of_tables(p: Tensor, q: Tensor) -> Tensor:
    """Σ p log p/q over the last dimension, in nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).clamp(min=0)  # below 0 by rounding alone
