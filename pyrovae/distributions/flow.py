"""Normalising flows: a distribution carried along by an invertible map, and the maps in layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from ..arguments import check_whole
from ..config import nearest
from ..networks.base import as_sizes
from ..networks.masked import MADE

BINS = 8  # of a spline
END = 5.0  # where a spline becomes the identity, as in zuko


@cache
def zuko_transforms() -> Any:
    """zuko.transforms, imported when it is first asked for: its import switches off everybody's validation."""
    before = Distribution._validate_args
    try:
        import zuko.transforms
    finally:
        Distribution.set_default_validate_args(before)
    return zuko.transforms


class _Drawn(NamedTuple):
    """The last draw, its log density, and what tells that it is still the same."""

    value: Tensor
    log_prob: Tensor
    state: tuple[bool, int | None]
    graph: bool


class Flow(dist.TorchDistribution):
    """z = f(z₀) with z₀ from a base distribution: log p(z) = log p₀(f⁻¹(z)) − log |det ∂f/∂z₀|.

    The log density of the last draw is found on the way and kept with it, for as long as the distribution is, and is
    what `log_prob` returns at that very tensor. Every other value, a copy or a detached draw among them, is taken back
    through f⁻¹. As what is kept is a function of the parameters, not of the draw, its gradient is the total one,
    ∂ log p + ∂_z log p · ∂z, and there is none by the draw itself: for that, give `z.view_as(z)`.

    Args:
        base: the distribution of z₀, over [L].
        transform: f, a transform of zuko's from [L] to [L]; its parameters broadcast against the batch shape.

    >>> shift = zuko_transforms().AdditiveTransform(torch.ones(2))
    >>> base = dist.Normal(torch.zeros(7, 2), 1.0).to_event(1)
    >>> Flow(base, zuko_transforms().DependentTransform(shift, 1)).log_prob(torch.ones(2))[0]
    tensor(-1.8379)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: Any, transform: Transform, validate_args: bool | None = None) -> None:
        self.base, self.transform = base, transform
        self._drawn: _Drawn | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = self._get_checked_instance(Flow, _instance)
        new.base, new.transform, new._drawn = self.base.expand(torch.Size(batch_shape)), self.transform, None
        super(Flow, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient."""
        start = self.base.rsample(torch.Size(sample_shape))
        z, log_volume = self.transform.call_and_ladj(start)
        self._drawn = _Drawn(z, self.base.log_prob(start) - log_volume, _state(z), torch.is_grad_enabled())
        return z

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, the same as those of `rsample` under one seed."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, in nats; of the last draw as it was found then."""
        if self._validate_args:
            self._validate_sample(value)
        drawn = self._drawn
        if drawn is not None and value is drawn.value and _state(value) == drawn.state:
            if not torch.is_grad_enabled():
                return drawn.log_prob.detach()
            if drawn.graph:  # without one the gradient would be lost
                return drawn.log_prob
        start, log_volume = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(start) + log_volume


def _state(value: Tensor) -> tuple[bool, int | None]:
    """What changes where a tensor is written to, or made one to differentiate by."""
    return value.requires_grad, None if value.is_inference() else value._version


# The layers of a flow: how many numbers make the function of one feature, that function, whether features are in halves


def _affine(y: Tensor) -> Transform:
    """e^s z + t, |s| below log 1000."""
    return zuko_transforms().MonotonicAffineTransform(*y.unbind(-1))


def _spline(y: Tensor) -> Transform:
    """A monotonic rational-quadratic spline on (−5, 5), the identity beyond."""
    return zuko_transforms().MonotonicRQSTransform(*y.split([BINS, BINS, BINS - 1], -1), bound=END)


class Kind(NamedTuple):
    """A kind of layer."""

    univariate: Callable[[Tensor], Transform]
    numbers: int
    coupling: bool


AFFINE = Kind(_affine, 2, False)
KINDS = {"MAF": AFFINE, "IAF": AFFINE, "NSF": Kind(_spline, 3 * BINS - 1, False), "RealNVP": Kind(_affine, 2, True)}


class Layers(nn.Module):
    """f = f_T ∘ … ∘ f_1, with f_t(z)_i a monotonic function of z_i that a network makes of the z before it.

    The order of the features is reversed from layer to layer. f and log |det| take a pass through each network; f⁻¹
    takes L, one feature after another. A coupling is of two passes either way: the first half of the features goes
    through a function that knows only the context, the second through one that knows the first half.
    At the start f is nearly the identity.

    Args:
        part: the module that the layers belong to, and that an error names.
        kind: a name in KINDS, of those that are known to the part.
        known: those.
        features: L.
        transforms: T.
        hidden: widths of each network's hidden layers.
        context: number of features of the context; 0 for none.

    Raises:
        ValueError: for an unknown kind, with the nearest match, or sizes that are none.
    """

    def __init__(
        self,
        part: nn.Module,
        kind: str,
        known: Sequence[str],
        features: int,
        transforms: int,
        hidden: Sequence[int],
        context: int = 0,
    ) -> None:
        super().__init__()
        who = type(part).__name__
        if kind not in known:
            raise ValueError(f"{who} has no kind {kind!r}; {nearest(str(kind), known)}")
        transforms = check_whole(who, "transforms", transforms, remedy="take between 1 and 10")
        hidden = as_sizes(part, "hidden", hidden)
        self.kind = kind
        upwards = list(range(features))
        self.passes = min(2, features) if KINDS[kind].coupling else features
        order = [i // math.ceil(features / self.passes) for i in upwards]
        orders = [order if t % 2 == 0 else order[::-1] for t in range(transforms)]
        self.networks = nn.ModuleList(MADE(o, KINDS[kind].numbers, hidden, context) for o in orders)
        zuko_transforms()  # so that it is not first imported inside a capture

    def forward(self, context: Tensor | None = None) -> Transform:
        """f given a context [*leading, C], for features [..., *leading, L]."""
        zuko, univariate = zuko_transforms(), KINDS[self.kind].univariate

        def layer(network: Callable[[Tensor], Tensor]) -> Transform:
            return zuko.AutoregressiveTransform(
                lambda z: zuko.DependentTransform(univariate(network(z)), 1), self.passes
            )

        return zuko.ComposedTransform(*(layer(network(context)) for network in self.networks))
