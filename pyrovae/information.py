"""Information content, entropy, cross-entropy, Kullback-Leibler and Jensen-Shannon divergence, mutual information.

Each takes distributions of Pyro or torch, or probability vectors: tensors, arrays or lists whose last dimension sums to
one. A sum over a few values and a closed form are exact; the rest is a mean of draws, and says how far off it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    OneHotCategorical,
)

from .arguments import check_whole
from .objectives.closed_forms import closed_kl
from .program import seeded, unwrapped

UNITS = {"nats": 1.0, "bits": math.log(2)}  # how many nats one of them is
MANY = 1_000  # values of a distribution that are summed over


@dataclass(frozen=True)
class Quantity:
    """A number that is known exactly, or estimated.

    Attributes:
        value: [*batch], in `unit`.
        standard_error: [*batch], of the mean of the draws; 0 where the value is exact.
        unit: nats or bits.
    """

    value: Tensor
    standard_error: Tensor
    unit: str

    @property
    def exact(self) -> bool:
        """Whether no draw was needed."""
        return not bool(self.standard_error.any())

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if self.value.numel() > 1:
            return f"{self.value} {self.unit}"
        error = "" if self.exact else f" ± {float(self.standard_error):.2g}"
        return f"{float(self.value):.4g}{error} {self.unit}"


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
    size = _nats("information_content", unit)
    if isinstance(p, Distribution):
        if x is None:
            raise ValueError("information_content expects x, what happened, beside a distribution; give it")
        return -log_prob(p, torch.as_tensor(x)) / size
    p = _numbers(p)
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
    size = _nats("entropy", unit)
    table = _table("entropy", p)
    if table is not None:
        return _exactly(torch.special.entr(table).sum(-1), size, unit)
    try:
        return _exactly(p.entropy(), size, unit)
    except NotImplementedError:
        return _mean(p, lambda x: -log_prob(p, x), draws, seed, size, unit)


def cross_entropy(p: Any, q: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """H(p, q) = −E_p log q(x) = H(p) + KL(p ‖ q): the information content of p's values to who believes in q.

    Arguments and errors are those of `kl`.

    >>> print(cross_entropy([0.5, 0.5], [0.25, 0.75], "bits"))
    1.208 bits
    """
    size = _nats("cross_entropy", unit)
    tables = _tables("cross_entropy", p, q)
    if tables is not None:
        return _exactly(-torch.xlogy(*tables).sum(-1), size, unit)
    try:
        return _exactly(p.entropy() + closed_kl(p, q), size, unit)
    except NotImplementedError:
        return _mean(p, lambda x: -log_prob(q, x), draws, seed, size, unit, q)


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
    size = _nats("kl", unit)
    tables = _tables("kl", p, q)
    if tables is not None:
        return _exactly(_kl(*tables), size, unit)
    try:
        return _exactly(closed_kl(p, q), size, unit)
    except NotImplementedError:
        return _mean(p, lambda x: log_prob(p, x) - log_prob(q, x), draws, seed, size, unit, q)


def jensen_shannon(p: Any, q: Any, unit: str = "nats", draws: int = 10_000, seed: int = 0) -> Quantity:
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ p + ½ q: symmetric, and at most log 2, which is one bit.

    It is what one value tells of whether p or q made it. Arguments and errors are those of `kl`.

    Reference: Lin, "Divergence measures based on the Shannon entropy", 1991.

    >>> print(jensen_shannon([1.0, 0.0], [0.0, 1.0], "bits"))
    1 bits
    """
    size = _nats("jensen_shannon", unit)
    tables = _tables("jensen_shannon", p, q)
    if tables is not None:
        middle = (tables[0] + tables[1]) / 2
        return _exactly((_kl(tables[0], middle) + _kl(tables[1], middle)) / 2, size, unit)

    def to_middle(one: Any, other: Any) -> Callable[[Tensor], Tensor]:
        # log one − log ½ (one + other), where the other may be 0
        return lambda x: math.log(2) - torch.nn.functional.softplus(log_prob(other, x) - log_prob(one, x))

    parts = [_mean(a, to_middle(a, b), draws, seed + i, size, unit, b) for i, (a, b) in enumerate(((p, q), (q, p)))]
    error = (parts[0].standard_error ** 2 + parts[1].standard_error ** 2).sqrt() / 2
    return Quantity((parts[0].value + parts[1].value) / 2, error, unit)


def mutual_information(joint: Any, first: int | None = None, unit: str = "nats") -> Quantity:
    """I(x; y) = KL(p(x, y) ‖ p(x) p(y)) = H(x) + H(y) − H(x, y): what x tells of y, and y of x.

    Args:
        joint: a table of probabilities [*batch, X, Y] that sum to one; or a `MultivariateNormal` of x and y together,
            for which it is ½ log (det Σ_x det Σ_y / det Σ).
        first: how many of the normal's dimensions are x's.
        unit: nats or bits.

    Raises:
        ValueError: for a table that is none, another distribution, or a `first` that leaves x or y without dimensions.

    >>> print(mutual_information([[0.5, 0.0], [0.0, 0.5]], unit="bits"))
    1 bits
    """
    size = _nats("mutual_information", unit)
    if isinstance(joint, MultivariateNormal):
        dimensions = joint.event_shape[0]
        if first is None or not 0 < first < dimensions:
            raise ValueError(
                f"mutual_information expects first from 1 to {dimensions - 1}, the dimensions that are x's, got {first}"
            )
        cov = joint.covariance_matrix
        parts = cov[..., :first, :first], cov[..., first:, first:], cov
        a, b, whole = (torch.linalg.slogdet(c).logabsdet for c in parts)
        return _exactly((a + b - whole) / 2, size, unit)
    if isinstance(joint, Distribution):
        raise ValueError(
            f"mutual_information expects a table of probabilities or a MultivariateNormal, got {type(joint).__name__}; "
            "for others take kl of the joint distribution and the product of its marginals"
        )
    joint = _numbers(joint)
    if joint.dim() < 2:
        raise ValueError(f"mutual_information expects a table [*batch, X, Y], got the shape {list(joint.shape)}")
    flat = _check("mutual_information", joint.flatten(-2))
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return _exactly(_kl(flat, product.flatten(-2)), size, unit)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).clamp(min=0)  # below 0 by rounding alone


def _nats(who: str, unit: str) -> float:
    if unit not in UNITS:
        raise ValueError(f"{who} expects unit as nats or bits, got {unit!r}")
    return UNITS[unit]


def _numbers(p: Any) -> Tensor:
    """A tensor as it is, anything else in float64."""
    p = p if isinstance(p, Tensor) else torch.as_tensor(p, dtype=torch.float64)
    return p if p.is_floating_point() else p.double()


def _check(who: str, p: Tensor) -> Tensor:
    total = p.sum(-1) if p.dim() else p
    if not p.dim() or not bool((p >= 0).all()) or not bool(((total - 1).abs() < 1e-5).all()):
        raise ValueError(
            f"{who} expects probabilities of at least 0 that sum to one over the last dimension, got the sum "
            f"{float(total.flatten()[0]):g} and a smallest of {float(p.min()):g}; divide by the sum"
        )
    return p


def _table(who: str, p: Any) -> Tensor | None:
    """The probabilities of all values [*batch, n], of a vector or a distribution of few values; else None."""
    if not isinstance(p, Distribution):
        return _check(who, _numbers(p))
    _refuse_points(who, p)
    if isinstance(p, Categorical | OneHotCategorical):
        return p.probs  # whose zeros are zeros; logits are kept finite
    if isinstance(p, Bernoulli):
        return torch.stack([1 - p.probs, p.probs], -1)
    values = _values(p)
    return None if values is None else p.log_prob(values).exp().movedim(0, -1)


def _refuse_points(who: str, *distributions: Any) -> None:
    """A point has no density, though Pyro's log_prob of one is 0. Raises ValueError."""
    if any(isinstance(unwrapped(d), Delta) for d in distributions):
        raise ValueError(f"{who} expects distributions with a density or a mass, got a point; give one of some width")


def _values(p: Distribution) -> Tensor | None:
    """All values of a distribution, [n, *batch, *event], where they are few and can be listed; else None."""
    if not p.has_enumerate_support or p.event_shape.numel() > MANY:
        return None
    try:
        values = p.enumerate_support()
    except NotImplementedError:  # batches of different sizes, products of many
        return None
    return values if len(values) <= MANY else None


def _tables(who: str, p: Any, q: Any) -> tuple[Tensor, Tensor] | None:
    """Both as probabilities of the same values; None where that is not possible. Raises ValueError."""
    both = [isinstance(d, Distribution) for d in (p, q)]
    if both[0] != both[1]:
        raise ValueError(f"{who} expects two distributions or two probability vectors, got one of each")
    if both[0]:
        if p.event_shape != q.event_shape:
            raise ValueError(
                f"{who} expects distributions of one event shape, got {list(p.event_shape)} and {list(q.event_shape)}"
            )
        _refuse_points(who, p, q)
        own, others = _values(p), _values(q)
        if own is None or others is None or not _alike(own, others):
            return None
    a, b = _table(who, p), _table(who, q)
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


def _exactly(value: Tensor, size: float, unit: str) -> Quantity:
    value = value / size
    return Quantity(value, torch.zeros_like(value), unit)


def _mean(
    p: Any, log: Callable[[Tensor], Tensor], draws: int, seed: int, size: float, unit: str, q: Any = None
) -> Quantity:
    """The mean of log(x) over draws from p, with its standard error."""
    check_whole("information", "draws", draws, least=2)
    batch = p.batch_shape if q is None else torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    with seeded(seed):
        values = log(p.expand(batch).sample((draws,))) / size
    error = values.std(0) / math.sqrt(draws)
    return Quantity(values.mean(0), error.where(values.isfinite().all(0), 0.0), unit)  # an infinite value is certain
