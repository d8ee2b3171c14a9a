"""A distribution of which some values are not observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


class OrMissing(constraints.Constraint):
    """The values of another constraint, and NaN."""

    def __init__(self, base_constraint: Any) -> None:
        self.base_constraint = base_constraint
        self.is_discrete, self.event_dim = base_constraint.is_discrete, base_constraint.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is one of the base's, or NaN."""
        return value.isnan() | self.base_constraint.check(value)


class WhereObserved(dist.TorchDistribution):
    """log p(x) of scalars x where they are observed, 0 where x is NaN: the integral over what could be there.

    The base is asked at a value of its own in the place of a NaN, so that gradients are free of NaN as well. Draws
    and moments are those of the base.

    Args:
        base: a distribution of scalars, of any batch shape.
        inside: a value in the base's support, at which its log density is finite.

    >>> WhereObserved(dist.Normal(torch.zeros(2), 1.0)).log_prob(torch.tensor([0.0, torch.nan]))
    tensor([-0.9189,  0.0000])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    takes_missing: ClassVar[bool] = True

    def __init__(self, base: Any, inside: float = 0.0, validate_args: bool | None = None) -> None:
        self.base_dist, self.inside = base, inside
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = self._get_checked_instance(WhereObserved, _instance)
        new.base_dist, new.inside = self.base_dist.expand(torch.Size(batch_shape)), self.inside
        super(WhereObserved, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def has_rsample(self) -> bool:
        """Whether the base's draws carry a gradient."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        """The base's values, and NaN."""
        return OrMissing(self.base_dist.support)

    @property
    def mean(self) -> Tensor:
        """The base's mean."""
        return self.base_dist.mean

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole draws of the base."""
        return self.base_dist.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole draws of the base, with their gradient."""
        return self.base_dist.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's log density where the value is observed, 0 where it is NaN."""
        if self._validate_args:
            self._validate_sample(value)
        absent = value.isnan()
        return self.base_dist.log_prob(value.masked_fill(absent, self.inside)).masked_fill(absent, 0.0)
