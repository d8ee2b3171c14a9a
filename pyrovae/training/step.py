"""The gradient of one step of training: as Python, as a graph, or compiled."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..objectives import Objective
from ..program.compile import Fast, Level


class Step:
    """The gradient of an objective's surrogate on a batch, put into .grad of the parameters.

    Args:
        vae: the program.
        objective: what is followed.
        autocast: bfloat16 for the networks.
    """

    def __init__(self, vae: nn.Module, objective: Objective, autocast: bool = False) -> None:
        self.vae, self.objective, self.autocast = vae, objective, autocast
        self.parameters = self._trained()
        self.run: Any = self.python

    @property
    def level(self) -> Level:
        """The level that was reached."""
        return self.run.level if isinstance(self.run, Fast) else "python"

    def prepare(self, level: Level, x: Tensor) -> None:
        """Capture the step for batches like x, and compile it, as far as that goes.

        The random stream and the buffers are left as they were.
        """
        close = torch.finfo(torch.bfloat16).eps ** 0.5 if self.autocast else None
        self.run = Fast(self.python, (self.vae, self.objective), x, level, close=close, traced=self._traced)

    def __call__(self, x: Tensor, begin: bool = False) -> Tensor:
        """The sum of the bounds, []; nothing is read back from the device. `begin`: of an epoch."""
        if isinstance(self.run, Fast):
            self.run.look(whole=begin)
        bound, *gradients = self.run(x)
        seen: set[int] = set()
        for p, g in zip(self.parameters, gradients, strict=True):
            # as backward() leaves it: laid out like its parameter, and no other's memory
            if g is not None and (g.stride() != p.stride() or g.data_ptr() in seen):
                g = torch.empty_like(p).copy_(g)
            if g is not None:
                seen.add(g.data_ptr())
            p.grad = g
        return bound

    def python(self, x: Tensor) -> tuple[Any, ...]:
        """The sum of the bounds, and the gradients."""
        return self._differentiate(x, self.parameters)

    def _traced(self, x: Tensor) -> tuple[Any, ...]:
        return self._differentiate(x, self._trained())

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in (*self.vae.parameters(), *self.objective.parameters()) if p.requires_grad]

    def _differentiate(self, x: Tensor, parameters: list[nn.Parameter]) -> tuple[Any, ...]:
        with torch.autocast(x.device.type, torch.bfloat16) if self.autocast else nullcontext():
            estimate = self.objective(self.vae, x)
        learning = [p for p in parameters if p.requires_grad]
        found = iter(torch.autograd.grad(-estimate.surrogate.mean(), learning, allow_unused=True))
        return estimate.bound.sum(), *(next(found) if p.requires_grad else None for p in parameters)
