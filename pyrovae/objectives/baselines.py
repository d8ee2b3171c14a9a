"""Control variates of the score function: what is taken off log w without changing the mean of the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..config import nearest


class Baseline(nn.Module, ABC):
    """Abstract: (x [B, *event], log w [K, B]) -> the learning signal log w − b, [K, B], and the baseline's own
    surrogate, [B], which trains it. b must not depend on the draw that it is taken off."""

    @abstractmethod
    def forward(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """The learning signal and the baseline's own surrogate."""


class NoBaseline(Baseline):
    """log w itself."""

    def forward(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """log w."""
        return log_weight, torch.zeros_like(log_weight[0])


class LeaveOneOut(Baseline):
    """b_k = mean of log w over the datum's other particles; nothing to learn."""

    def forward(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """(log w_k − mean) K / (K − 1)."""
        k = len(log_weight)
        return (log_weight - log_weight.mean(0)) * k / (k - 1), torch.zeros_like(log_weight[0])


class RunningMean(Baseline):
    """b = the decaying mean of log w over the training batches before this one."""

    mean: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """log w − mean so far (0 before the first batch)."""
        before = self.mean / self.weight.clamp_min(1e-6)
        if torch.is_grad_enabled():  # training, not validation
            self.mean.mul_(self.decay).add_((1 - self.decay) * log_weight.mean())
            self.weight.mul_(self.decay).add_(1 - self.decay)
        return log_weight - before, torch.zeros_like(log_weight[0])


class NetworkBaseline(Baseline):
    """b(x), a network trained by (log w − b(x))² beside the model; its sizes come from the first batch."""

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.hidden = hidden
        self.network: nn.Module | None = None  # of the size, dtype and device of the first batch

    def _build(self, inputs: int, like: Tensor) -> nn.Module:
        there = {"dtype": like.dtype, "device": like.device}
        return nn.Sequential(nn.Linear(inputs, self.hidden, **there), nn.Tanh(), nn.Linear(self.hidden, 1, **there))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        first = state_dict.get(f"{prefix}network.0.weight")
        if self.network is None and first is not None:
            self.network = self._build(first.shape[1], first)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """log w − b(x), and −(log w − b(x))²."""
        rows = x.reshape(len(x), -1).to(log_weight.dtype)
        if self.network is None:
            self.network = self._build(rows.shape[1], log_weight)
        b = self.network(rows).squeeze(-1)  # [B]
        return log_weight - b.detach(), -(log_weight - b).square().mean(0)


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
