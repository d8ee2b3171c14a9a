"""Control variates of the score function: what is taken off log w without changing the mean of the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..config import nearest


class Baseline(nn.Module, ABC):
    """Abstract: (x [B, *event], value [K, B]) -> b [K, B], and the baseline's own surrogate, [B], which trains it.

    The value of a draw is its log w; b must not depend on the draw that it is taken off.
    """

    @abstractmethod
    def forward(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The baseline of every draw, and its own surrogate."""


class NoBaseline(Baseline):
    """b = 0."""

    def forward(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """0, and nothing to learn."""
        return torch.zeros_like(value), torch.zeros_like(value[0])


class LeaveOneOut(Baseline):
    """b_k = mean of log w over the datum's other draws; nothing to learn."""

    def forward(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the others."""
        return (value.sum(0) - value) / (len(value) - 1), torch.zeros_like(value[0])


class RunningMean(Baseline):
    """b = the decaying mean of log w over the training batches before this one."""

    mean: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The mean so far, 0 before the first batch."""
        before = (self.mean / self.weight.clamp_min(1e-6)).expand_as(value)
        if torch.is_grad_enabled():  # training, not validation
            self.mean.mul_(self.decay).add_((1 - self.decay) * value.mean())
            self.weight.mul_(self.decay).add_(1 - self.decay)
        return before, torch.zeros_like(value[0])


class NetworkBaseline(Baseline):
    """b(x) = running mean + a network, trained by (log w − b(x))² beside the model; the first batch gives its size.

    Reference: Mnih and Gregor, "Neural variational inference and learning in belief networks", 2014.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.hidden, self.mean = hidden, RunningMean()
        self.network: nn.Module | None = None

    def _build(self, inputs: int, like: Tensor) -> nn.Module:
        def layer(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, device=like.device, dtype=like.dtype)

        return nn.Sequential(layer(inputs, self.hidden), nn.Tanh(), layer(self.hidden, 1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        first = state_dict.get(f"{prefix}network.0.weight")
        if self.network is None and first is not None:
            self.network = self._build(first.shape[1], first)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """b(x), and −(log w − b(x))²."""
        rows = x.reshape(len(x), -1).to(value.dtype)
        if self.network is None:
            self.network = self._build(rows.shape[1], value)
        mean, _ = self.mean(x, value)
        b = mean + self.network(rows).squeeze(-1)  # [K, B] + [B]
        return b.detach(), -(value - b).square().mean(0)


_BASELINES: dict[str, type[Baseline]] = {
    "none": NoBaseline,
    "mean": RunningMean,
    "network": NetworkBaseline,
    "leave_one_out": LeaveOneOut,
}


def find_baseline(name: str, particles: int) -> Baseline:
    """A baseline by name. Raises ValueError for an unknown one, and for others of a single particle."""
    if name not in _BASELINES:
        raise ValueError(f"unknown baseline {name!r}; {nearest(str(name), _BASELINES)}")
    if name == "leave_one_out" and particles < 2:
        raise ValueError(
            f"baseline 'leave_one_out' is the mean of the other particles and needs at least 2, got {particles}; "
            "use 'mean' or 'network'"
        )
    return _BASELINES[name]()
