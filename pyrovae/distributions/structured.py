"""Distributions with dependences among the dimensions of one value: of two blocks, and of each on those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Broadcasting


class Blocks(Broadcasting):
    """p(z) = p(a) p(b | a) for z = (a, b), the concatenation of two real vectors.

    Args:
        first: p(a), of batch shape [].
        then: the function from a [*, A] to p(b | a), of batch shape [*] and event shape [B].
        size: of the whole, A + B.

    >>> import pyro.distributions as dist
    >>> Blocks(dist.Normal(torch.zeros(2), 1.0).to_event(1), lambda a: dist.Normal(a, 0.1).to_event(1), 4)().shape
    torch.Size([4])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, first: Any, then: Callable[[Tensor], Any], size: int, validate_args: bool | None = None) -> None:
        self.first, self.then = first, then
        self.has_rsample = first.has_rsample
        super().__init__(torch.Size(), torch.Size([size]), validate_args=validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        a, b = value.tensor_split([self.first.event_shape[0]], -1)
        return self.first.log_prob(a) + self.then(a).log_prob(b)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of a, then of b."""
        a = self.first.rsample(self._extended_shape(torch.Size(sample_shape))[:-1])
        return torch.cat([a, self.then(a).rsample()], -1)

    def _draw(self, shape: torch.Size) -> Tensor:
        a = self.first.sample(shape[:-1])
        return torch.cat([a, self.then(a).sample()], -1)


class Autoregressive(Broadcasting):
    """p(z) = Π_l p(z_l | z_1 … z_{l−1}): a density in one pass, a draw in L of them.

    Args:
        conditionals: the function from z [*, L] to the distribution of batch shape [*] and event shape [L] whose
            dimension l depends on z_1 … z_{l−1} alone, and on no other dimension of its own draw.
        like: a tensor [L] of the dtype and on the device of the draws.

    >>> import pyro.distributions as dist
    >>> steps = Autoregressive(lambda z: dist.Normal(z.cumsum(-1) - z, 1.0).to_event(1), torch.zeros(4))
    >>> steps.sample([5]).shape
    torch.Size([5, 4])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, conditionals: Callable[[Tensor], Any], like: Tensor, validate_args: bool | None = None) -> None:
        self.conditionals, self._like = conditionals, like
        super().__init__(torch.Size(), like.shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the conditionals have a gradient through their draws."""
        return self.conditionals(self._like).has_rsample

    @property
    def support(self) -> Any:
        """That of the conditionals."""
        return self.conditionals(self._like).support

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.conditionals(value).log_prob(value)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, one dimension after another."""
        return self._in_turn(self._extended_shape(torch.Size(sample_shape)), "rsample")

    def _draw(self, shape: torch.Size) -> Tensor:
        return self._in_turn(shape, "sample")

    def _in_turn(self, shape: Any, how: str) -> Tensor:
        z = self._like.expand(shape)
        turns = torch.arange(shape[-1], device=z.device)
        for turn in turns.unbind():
            z = torch.where(turns == turn, getattr(self.conditionals(z), how)(), z)
        return z
