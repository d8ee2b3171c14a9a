"""The step of training: its Python, the graph of operations that it does, or that graph compiled.

A graph is captured once and checked against the Python, at equal noise, before it takes its place: whatever cannot be
captured, compiled, or does not agree is run as it was written, and one line says why.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn as nn
from torch import Tensor

from ..objectives import Objective
from ..program.capture import NotCaptured, Python, capture
from ..program.modes import rewinding

Compile = Literal["auto", "never", "always"]
Level = Literal["python", "captured", "compiled"]
COMPILE: tuple[Compile, ...] = ("auto", "never", "always")

log = logging.getLogger("pyrovae")

# Of a step on a CPU with two cores, in seconds: what it costs whatever its size, and for each operation; the cost of
# getting there. Counts and not a clock decide, so that one seed gives one run.
_STEP: dict[Level, tuple[float, float]] = {
    "python": (1.6e-3, 5e-12),
    "captured": (0.6e-3, 5e-12),
    "compiled": (0.2e-3, 4e-12),
}
_ONCE: dict[Level, float] = {"python": 0.0, "captured": 1.0, "compiled": 20.0}


def choose_level(compile: Compile, steps: int, flops: int) -> Level:
    """How a run of so many steps, of `flops` operations forward, is to be run.

    For "auto", what takes least time in all by the counts above; the estimate is logged.
    """
    if compile != "auto":
        return "compiled" if compile == "always" else "python"
    whole = {k: _ONCE[k] + steps * (once + 3 * flops * each) for k, (once, each) in _STEP.items()}
    best = min(whole, key=whole.__getitem__)
    told = ", ".join(f"{k} {seconds:,.0f} s" for k, seconds in whole.items())
    log.info("compile='auto': %s steps, estimated to take in all: %s; the step is run as %s", f"{steps:,}", told, best)
    return best


class Step:
    """The gradient of an objective's surrogate on a batch, put into .grad of the parameters.

    Args:
        vae: the program.
        objective: what is followed.
        device: where they are.
        autocast: bfloat16 for the networks.
    """

    def __init__(self, vae: nn.Module, objective: Objective, device: torch.device, autocast: bool = False) -> None:
        self.vae, self.objective, self.device, self.autocast = vae, objective, device, autocast
        self.level: Level = "python"
        self.parameters = self._trained()
        self.fast: Callable[..., Any] | None = None
        self.shape: torch.Size | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The sum of the bounds, []; nothing is read back from the device."""
        if self.fast is not None and x.shape == self.shape:
            if (changed := self._objective_python.changed()) is not None:
                self._give_up(changed)
                return self(x)
            bound, *gradients = self.fast(x)
        else:  # the ragged batch at the end of an epoch, say
            bound, *gradients = self.python(x)
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient
        return bound

    def python(self, x: Tensor) -> tuple[Any, ...]:
        """The sum of the bounds, and the gradients."""
        return self._differentiate(x, self.parameters)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in (*self.vae.parameters(), *self.objective.parameters()) if p.requires_grad]

    def _differentiate(self, x: Tensor, parameters: list[nn.Parameter]) -> tuple[Any, ...]:
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            estimate = self.objective(self.vae, x)
        gradients = torch.autograd.grad(-estimate.surrogate.mean(), parameters, allow_unused=True)
        return estimate.bound.sum(), *gradients

    def look(self) -> None:
        """Back to Python where a plain value of the program is another than when it was captured."""
        if self.fast is not None and (changed := self._python.changed()) is not None:
            self._give_up(changed)

    def prepare(self, level: Level, x: Tensor) -> None:
        """Capture the step for batches like x, and compile it, as far as that goes.

        The random stream and the buffers are left as they were.
        """
        if level == "python":
            return
        try:
            expected = self._expect(x)
            graph = self.capture(x)
            self._check(graph, expected, x)
        except NotCaptured as why:
            log.warning("the step of training stays in Python: %s", why)
            return
        self.fast, self.shape, self.level = graph, x.shape, "captured"
        if level == "captured":
            return
        log.info("compiling the step of training ...")
        started = time.perf_counter()
        try:
            compiled = compile_graph(graph, x)
            self._check(compiled, expected, x)
        except Exception as why:  # a compiler may raise anything
            name = "" if isinstance(why, NotCaptured) else f"{type(why).__name__}: "
            reason = " ".join(str(why).split())[:200]
            log.warning("the step of training is captured and not compiled: %s%s", name, reason)
            return
        log.info("compiled in %.0f s", time.perf_counter() - started)
        self.fast, self.level = compiled, "compiled"

    def capture(self, x: Tensor) -> torch.fx.GraphModule:
        """The graph of the step for batches like x: the sum of the bounds and the gradients. Raises NotCaptured."""
        return capture(lambda x: self._differentiate(x, self._trained()), (self.vae, self.objective), x)

    def _give_up(self, why: str) -> None:
        self.fast, self.level = None, "python"
        log.warning("the step of training goes on in Python: %s", why)

    def _expect(self, x: Tensor) -> list[tuple[Any, ...]]:
        """What Python gives. Raises NotCaptured where it depends on more than tensors."""
        self._python, self._objective_python = Python(self.vae, self.objective), Python(self.objective)
        expected = self._twice(self.python, x)
        if (why := self._python.changed() or self._python.drew()) is not None:
            raise NotCaptured(why)
        return expected

    def _twice(self, function: Callable[..., Any], x: Tensor) -> list[tuple[Any, ...]]:
        """Results of two runs after each other, with the buffers they leave; the state is put back."""
        buffers = [b for m in (self.vae, self.objective) for b in m.buffers()]
        before, rewind, found = [b.clone() for b in buffers], rewinding(self.device), []
        for _ in range(2):
            results = [None if t is None else t.detach().clone() for t in function(x)]
            found.append((*results, *(b.clone() for b in buffers)))
        rewind()
        for b, old in zip(buffers, before, strict=True):
            b.copy_(old)
        return found

    def _check(self, function: Callable[..., Any], expected: list[tuple[Any, ...]], x: Tensor) -> None:
        """Raises NotCaptured where a function gives something else than was expected, in one of two runs."""
        found = self._twice(function, x)
        close = math.sqrt(torch.finfo(torch.bfloat16 if self.autocast else x.dtype).eps)
        for a, b in zip(expected, found, strict=True):
            if not _alike(a, b, close):
                raise NotCaptured("as a graph it gives other numbers than in Python")


def _alike(expected: tuple[Any, ...], found: tuple[Any, ...], close: float) -> bool:
    """Whether tensors are equal up to rounding: as against their own length, or against that of the longest."""
    if [t is None for t in expected] != [t is None for t in found]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(expected, found, strict=True) if a is not None]
    lengths = [float(a.norm()) for a, _ in pairs]
    longest = max((n for n in lengths if math.isfinite(n)), default=0.0)
    return all(
        float((a - b).norm()) <= close * (length + close * longest)
        for (a, b), length in zip(pairs, lengths, strict=True)
        if math.isfinite(length)
    )


def compile_graph(graph: torch.fx.GraphModule, *inputs: Tensor) -> Callable[..., Any]:
    """Machine code for a graph, by torch's inductor, kept on disk for the next run; on CUDA with CUDA graphs.

    Random numbers are those of the graph: torch's own generator, in the same order.

    Raises:
        NotCaptured: where there is no compiler. A compiler that fails may raise anything.
    """
    cuda = inputs[0].device.type == "cuda"
    if not cuda and not any(shutil.which(c) for c in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if c):
        raise NotCaptured("there is no C++ compiler here; install g++ or clang++, or name one in CXX")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells CPU users of CUDA
    import torch._inductor

    options: dict[str, Any] = {"fallback_random": True}
    if cuda:
        options |= torch._inductor.list_mode_options("reduce-overhead")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch._inductor.compile(graph, list(inputs), options=options)
    if not cuda:
        return compiled

    def replay(*inputs: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*inputs)

    return replay
