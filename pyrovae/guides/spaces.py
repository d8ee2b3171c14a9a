"""Where the values of a latent lie, and how a distribution over such values is made of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import constraints, transforms
from pyro.ops.provenance import get_provenance
from torch import Tensor

FAR = 100.0  # beyond, in coordinates that are a logarithm, float32 has no numbers

# Continuous: what torch's constraints of these kinds are, given their bounds
_CONTINUOUS: dict[str, Callable[[Any, Any], Any]] = {
    "real": lambda low, high: constraints.real,
    "above": lambda low, high: constraints.greater_than(low),
    "below": lambda low, high: constraints.less_than(high),
    "between": lambda low, high: constraints.interval(low, high),
    "simplex": lambda low, high: constraints.simplex,
    "ordered": lambda low, high: constraints.ordered_vector,
    "lower triangular": lambda low, high: constraints.lower_cholesky,
    "correlations": lambda low, high: constraints.corr_cholesky,
}
_KINDS = {
    "_Real": "real",
    "_GreaterThan": "above",
    "_GreaterThanEq": "above",
    "_LessThan": "below",
    "_Interval": "between",
    "_HalfOpenInterval": "between",
    "_Simplex": "simplex",
    "_OrderedVector": "ordered",
    "_LowerCholesky": "lower triangular",
    "_CorrCholesky": "correlations",
    "_Sphere": "sphere",
    "_Boolean": "coins",
    "_IntegerInterval": "categories",
    "_IntegerGreaterThan": "counts",
    "_OneHot": "one-hot",
}
DISCRETE = ("coins", "categories", "counts", "one-hot")


@dataclass(frozen=True)
class Space:
    """The values of one event: their kind, the shape of the event, and bounds where the kind has them.

    >>> space = space_of("z", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    >>> space, space.size
    (Space(kind='above', event=(3,), low=0.0, high=None), 3)
    """

    kind: str
    event: tuple[int, ...]
    low: float | None = None
    high: float | None = None

    @property
    def discrete(self) -> bool:
        """Whether its values can be counted."""
        return self.kind in DISCRETE

    @property
    def elements(self) -> int:
        """Numbers in an event."""
        return math.prod(self.event)

    @property
    def size(self) -> int:
        """Dimensions of the coordinates; of discrete values the numbers that a distribution over them takes."""
        if self.kind == "sphere":
            return self.elements
        if self.discrete:
            return self.elements * (self.values if self.kind == "categories" else 1)
        return math.prod(self._bijection().inverse_shape(torch.Size(self.event)))

    @property
    def values(self) -> int:
        """How many values each element of a discrete event has; 0 for infinitely many, or none to count."""
        if self.kind == "categories":
            assert self.high is not None
            return int(self.high) + 1
        return {"coins": 2, "one-hot": self.event[-1] if self.event else 0}.get(self.kind, 0)

    @property
    def combinations(self) -> int:
        """How many values the whole event has; 0 for infinitely many."""
        choices = self.elements // self.values if self.kind == "one-hot" else self.elements
        return self.values**choices

    def coordinates(self, value: Tensor) -> Tensor:
        """A value [*leading, *event] in coordinates [*leading, n]: unbounded numbers, of categories one-hot vectors."""
        leading = value.shape[: value.dim() - len(self.event)]
        if self.kind == "categories":
            value = F.one_hot(value.long(), self.values)
        elif self.kind == "counts":
            value = value.log1p()
        elif self.kind not in ("real", "sphere", *DISCRETE):
            value = self._bijection().inv(value).clamp(-FAR, FAR)  # a draw may be rounded to an end
        return value.reshape(*leading, -1)

    def of_coordinates(self, base: Any, centre: float = 0.0, spread: float = 1.0) -> Any:
        """The distribution over events that one over [n] becomes, its numbers times `spread` plus `centre` at first."""
        if isinstance(base, dist.Independent) and isinstance(base.base_dist, dist.Normal):
            loc, scale = centre + spread * base.base_dist.loc, spread * base.base_dist.scale
            plain = {"real": dist.Normal, "above": dist.LogNormal if self.low == 0 else None}.get(self.kind)
            if plain is not None:  # these have closed forms
                shape = base.batch_shape + torch.Size(self.event)
                return plain(loc.reshape(shape), scale.reshape(shape)).to_event(len(self.event))
            base = dist.Normal(loc, scale).to_event(1)
            centre, spread = 0.0, 1.0
        onto = self._bijection()
        shape = onto.inverse_shape(torch.Size(self.event))
        steps: list[Any] = []
        if (centre, spread) != (0.0, 1.0):
            steps.append(torch.distributions.AffineTransform(centre, spread, event_dim=1))
        if len(shape) != 1:
            steps.append(torch.distributions.ReshapeTransform(base.event_shape, shape))
        if self.kind != "real":
            deep = len(shape) - onto.domain.event_dim
            steps.append(torch.distributions.IndependentTransform(onto, deep) if deep else onto)
        # a flow knows the density of its own draw, which the caches find again
        return Transformed(base, [s.with_cache() for s in steps], self._values()) if steps else base

    def of_numbers(self, raw: Tensor) -> Any:
        """The distribution over discrete events with these logits, or log rates, [*leading, n]."""
        leading = raw.shape[:-1]
        if self.kind == "categories":
            return dist.Categorical(logits=raw.reshape((*leading, *self.event, -1))).to_event(len(self.event))
        raw = raw.reshape((*leading, *self.event))
        if self.kind == "coins":
            return dist.Bernoulli(logits=raw).to_event(len(self.event))
        if self.kind == "counts":
            return dist.Poisson(F.softplus(raw) + 1e-3).to_event(len(self.event))
        return dist.OneHotCategorical(logits=raw).to_event(len(self.event) - 1)

    def _bijection(self) -> Any:
        """From unbounded numbers, in a shape of its own, onto the values."""
        return transforms.biject_to(_CONTINUOUS[self.kind](self.low, self.high))

    def _values(self) -> Any:
        """As a constraint of torch's."""
        one = _CONTINUOUS[self.kind](self.low, self.high)
        return constraints.independent(one, len(self.event) - one.event_dim)

    def __str__(self) -> str:
        shape = f" {list(self.event)}" if self.event else ""
        bounds = {"above": f" {self.low:g}" if self.low is not None else "", "between": f" {self.low} and {self.high}"}
        return f"{self.kind}{bounds.get(self.kind, '')}{shape}"


class Transformed(dist.TransformedDistribution):
    """A distribution carried by transforms onto values that are told: torch takes those of the last step alone."""

    def __init__(self, base: Any, steps: list[Any], values: Any, validate_args: bool | None = None) -> None:
        self.values = values
        super().__init__(base, steps, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:  # type: ignore[override]
        """The values."""
        return self.values

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = self._get_checked_instance(Transformed, _instance)
        new.values = self.values
        return super().expand(batch_shape, _instance=new)


def space_of(name: str, distribution: Any) -> Space:
    """The space of a site's values.

    Raises ValueError for values that no guide can be derived for, or whose bounds are not numbers alone.
    """
    try:
        support = distribution.support
    except NotImplementedError as error:
        raise _refusal(name, f"{type(distribution).__name__}, which does not tell its support") from error
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    kind, event = _KINDS.get(type(support).__name__), tuple(distribution.event_shape)
    if kind is None:
        raise _refusal(name, f"values in {support}")
    low, high = (_bound(name, getattr(support, f"{end}_bound", None)) for end in ("lower", "upper"))
    if kind == "categories" and low:
        raise _refusal(name, f"whole numbers from {low:g}")
    if kind == "counts" and low:
        raise _refusal(name, f"whole numbers from {low:g}")
    if kind == "sphere" and len(event) != 1:
        raise _refusal(name, f"several points on spheres, {list(event)}")
    bounded = {"above": (low, None), "below": (None, high), "between": (low, high), "categories": (None, high)}
    return Space(kind, event, *bounded.get(kind, (None, None)))


def _bound(name: str, bound: Any) -> float | None:
    if bound is None:
        return None
    bound = torch.as_tensor(bound)
    if not bool((bound == bound.flatten()[0]).all()):
        raise _refusal(name, "bounds that differ from value to value")
    if bound.requires_grad or get_provenance(bound):
        raise _refusal(name, "bounds that follow a parameter, a latent or the data")
    return float(bound.flatten()[0])


def _refusal(name: str, got: str) -> ValueError:
    return ValueError(
        f"amortize derives q for real, positive, bounded, simplex, ordered, spherical and discrete latents, and site "
        f"{name!r} has {got}; write it in other terms (as a function of a real latent), mark it for enumeration, or "
        "write a guide"
    )
