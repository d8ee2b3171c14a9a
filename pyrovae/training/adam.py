"""torch's fused Adam, without its bookkeeping and without denormal numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

NOTHING = (1e-30, 1e-34)  # moments as small move no weight: Adam divides by 1e-8 + √ of the second
SWEEP = 100  # steps between two looks for them: in 175 one would fall to where numbers are denormal


class FusedAdam(torch.optim.Adam):
    """Adam of one group of parameters with one learning rate, all steps of a tensor in one pass over it.

    The numbers, and the state, are those of torch.optim.Adam(fused=True), which collects its lists of tensors anew in
    every step; that takes half as long as the arithmetic on a few hundred thousand parameters. Moments of nothing
    are set to 0: those of a dead unit would fall to denormal numbers and stay there, where a CPU is many times slower.

    Reference: Kingma and Ba, "Adam: a method for stochastic optimization", 2015.

    Args:
        parameters: of one device and dtype.
        learning_rate: at the start.
    """

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, fused=True)
        self._kept: list[list[Tensor]] | None = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Several groups are stepped as torch does it."""
        super().add_param_group(param_group)
        self._kept = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kept = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients."""
        group = self.param_groups[0]
        gradients = [p.grad for p in group["params"]]
        group["taken"] = group.get("taken", 0) + 1  # kept with the state: a resumed run looks at the same steps
        if self._kept is not None and group["taken"] % SWEEP == 0:
            self._sweep()
        if closure is not None or self._kept is None or any(g is None for g in gradients):
            found = super().step(closure)
            self._kept = self._lists(group["params"]) if len(self.param_groups) == 1 else None
            return found
        parameters, first, second, steps, (taken,) = self._kept
        taken.add_(1)
        torch._fused_adam_(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return None

    def _sweep(self) -> None:
        assert self._kept is not None
        for moments, nothing in zip(self._kept[1:3], NOTHING, strict=True):
            for moment in moments:
                if type(moment) is Tensor and moment.device.type == "cpu":  # a piece of a sharded one is left alone
                    moment.copy_(F.hardshrink(moment, nothing))

    step.__dict__["hooked"] = True  # torch's wrapper, for its profiler and for hooks, takes half as long

    def _lists(self, parameters: list[nn.Parameter]) -> list[list[Tensor]] | None:
        """Parameters, moments and steps; None where some have none yet, or where they are not all alike."""
        if len({(p.device, p.dtype) for p in parameters}) > 1 or any(not self.state[p] for p in parameters):
            return None
        states = [self.state[p] for p in parameters]
        taken = torch.stack([s["step"] for s in states])
        for state, step in zip(states, taken.unbind(), strict=True):
            state["step"] = step  # a view: all are counted on in one addition
        return [list(parameters), *([s[k] for s in states] for k in ("exp_avg", "exp_avg_sq", "step")), [taken]]
