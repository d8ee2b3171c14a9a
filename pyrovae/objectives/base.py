"""What an objective is: a bound on the log evidence per datum, and a surrogate whose gradient is followed."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from torch import Tensor

from ..config import Configured
from ..program import GenerativeProgram

_PLAIN = str | int | float


def check_nonnegative(who: str, **values: float) -> None:
    """Refuse what is no finite number of at least 0. Raises ValueError."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{who} expects {name} as a finite number of at least 0, got {value}")


@dataclass(frozen=True)
class Estimate:
    """One evaluation of an objective on a batch.

    Attributes:
        bound: the bound itself, [B], in nats per datum; without gradient, to be reported. Bigger is better, unless the
            objective says `lower = False`.
        surrogate: [B]; the gradient of its mean is the gradient estimator. Its value need not mean anything.
    """

    bound: Tensor
    surrogate: Tensor


class Objective(Configured, nn.Module, ABC):
    """Abstract: objective(vae, x) -> Estimate. A module, so that schedules and baselines are saved with a run."""

    lower: bool = True  # a lower bound, by which a run can be judged

    @property
    def draws(self) -> int:
        """Draws of the guide per datum, K."""
        return getattr(self, "particles", 1)

    @abstractmethod
    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The bound and its surrogate for data x [B, *event]."""

    def bound_of(self, log_weight: Tensor, log_mass: Tensor) -> Tensor | None:
        """The bound that is reported, as a differentiable function of K draws' weights, for the laboratory.

        It need not be computed in this way, but in the mean it is this. None (the default) where it is no function of
        them; there is then nothing to hold the gradient against.

        Args:
            log_weight: log w, [K, B].
            log_mass: log of each particle's share in a mean over particles, [K, B]: −log K, unless sites are
                enumerated.
        """
        return None

    def options(self) -> dict[str, Any]:
        """The number of particles, and the arguments that are not at their defaults, by name."""
        known = inspect.signature(type(self).__init__).parameters.values()
        set_to = {p.name: getattr(self, p.name) for p in known if isinstance(getattr(self, p.name, None), _PLAIN)}
        told = [p.name for p in known if set_to.get(p.name, p.default) != p.default or p.name == "particles"]
        return {name: set_to[name] for name in told if name in set_to}

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options().items())

    def advance(self, epochs: float) -> None:
        """Training has moved on by this many epochs; for objectives with a schedule."""
