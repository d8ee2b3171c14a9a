"""A function of tensors run the fastest way that gives what its Python gives: as a graph, or as a graph compiled.

A graph is checked against the Python, at equal noise, before it takes its place. What cannot be captured or compiled,
or does not agree, is run as it was written, and one line of the logger "pyrovae" says why.
"""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.fx import GraphModule

from ..config import nearest
from .capture import Function, NotCaptured, Python, capture
from .modes import rewinding

Compile = Literal["auto", "never", "always"]
Level = Literal["python", "captured", "compiled"]
COMPILE: tuple[Compile, ...] = ("auto", "never", "always")

log = logging.getLogger("pyrovae")

# Of a step on a CPU with two cores, in seconds: what it costs whatever its size, and for each operation; then what it
# costs once. Counts and not a clock decide, so that one seed gives one run.
_COST: dict[Level, tuple[float, float, float]] = {
    "python": (1.6e-3, 5e-12, 0.0),
    "captured": (0.6e-3, 5e-12, 1.0),
    "compiled": (0.2e-3, 4e-12, 20.0),
}


def check_compile(compile: str) -> None:
    """Refuse a word that is none. Raises ValueError."""
    if compile not in COMPILE:
        raise ValueError(f"unknown compile {compile!r}; {nearest(str(compile), COMPILE)}")


def choose_level(compile: Compile, steps: int, operations: float, what: str = "the step of training") -> Level:
    """How what is done so many times, with so many floating-point operations each, is to be run.

    For "auto", the way that takes least time in all by the counts above; the estimate is logged.
    """
    if compile != "auto":
        return "compiled" if compile == "always" else "python"
    whole = {k: once + steps * (each + operations * one) for k, (each, one, once) in _COST.items()}
    best = min(whole, key=whole.__getitem__)
    told = ", ".join(f"{k} {seconds:,.1f} s" for k, seconds in whole.items())
    log.info("%s runs as %s: estimated for %s of them, in all: %s", what, best, f"{steps:,}", told)
    return best


class Fast:
    """A function of one tensor, for modules whose tensors it reads and writes, run at a level or as near as can be.

    Args:
        function: tensors or None from a tensor; its random numbers are torch's.
        modules: what it belongs to.
        x: an input like those to come; others, of another shape, are run as Python.
        level: the level wanted; the one reached is `.level`.
        what: its name in what is logged.
        close: relative difference to Python that is rounding; √ε of the dtype by default.
        traced: the function to capture, where the one to run as Python holds tensors that belong to the modules.
    """

    def __init__(
        self,
        function: Function,
        modules: Sequence[nn.Module],
        x: Tensor,
        level: Level,
        what: str = "the step of training",
        close: float | None = None,
        traced: Function | None = None,
    ) -> None:
        self.function, self.modules, self.shape, self.what = function, tuple(modules), x.shape, what
        self.level: Level = "python"
        self.graph: Callable[..., Any] | None = None
        self.close = close or math.sqrt(torch.finfo(x.dtype).eps)
        if level != "python":
            self._prepare(level, x, traced or function)

    def __call__(self, x: Tensor) -> tuple[Any, ...]:
        """What the function gives."""
        return self.graph(x) if self.graph is not None and x.shape == self.shape else self.function(x)

    def look(self, whole: bool = False) -> None:
        """Back to Python where a plain value is another than it was captured with: of the last module, or of all."""
        if self.graph is None or (changed := (self._all if whole else self._last).changed()) is None:
            return
        self.graph, self.level = None, "python"
        log.warning("%s goes on in Python: %s", self.what, changed)

    def _prepare(self, level: Level, x: Tensor, traced: Function) -> None:
        try:
            self._all, self._last = Python(*self.modules), Python(self.modules[-1])
            expected = self._twice(self.function, x)
            with untouched(self.modules, x.device):
                graph = capture(traced, self.modules, x)
            self._check(graph, expected, x)
        except NotCaptured as why:
            log.warning("%s stays in Python: %s", self.what, why)
            return
        self.graph, self.level = graph, "captured"
        if level == "captured":
            return
        log.info("compiling %s ...", self.what)
        started = time.perf_counter()
        try:
            compiled = compile_graph(graph, x)
            self._check(compiled, expected, x)
        except Exception as why:  # a compiler may raise anything
            name = "" if isinstance(why, NotCaptured) else f"{type(why).__name__}: "
            reason = " ".join(str(why).split())[:200]
            log.warning("%s is captured and not compiled: %s%s", self.what, name, reason)
            return
        log.info("compiled in %.0f s", time.perf_counter() - started)
        self.graph, self.level = compiled, "compiled"

    def _twice(self, function: Callable[..., Any], x: Tensor) -> list[tuple[Any, ...]]:
        """Results of two runs after each other, with the buffers they leave; the state is put back.

        Raises NotCaptured where they change what a graph does not see.
        """
        found = []
        with untouched(self.modules, x.device):
            for _ in range(2):
                results = [None if t is None else t.detach().clone() for t in function(x)]
                found.append((*results, *(b.clone() for m in self.modules for b in m.buffers())))
            if (why := self._all.changed() or self._all.drew()) is not None:
                raise NotCaptured(why)
        return found

    def _check(self, function: Callable[..., Any], expected: list[tuple[Any, ...]], x: Tensor) -> None:
        """Raises NotCaptured where a function gives something else than was expected, in one of two runs."""
        for a, b in zip(expected, self._twice(function, x), strict=True):
            if not _alike(a, b, self.close):
                raise NotCaptured("as a graph it gives other numbers than in Python")


@contextmanager
def untouched(modules: Sequence[nn.Module], device: torch.device) -> Generator[None]:
    """Buffers and attributes of modules, and random states, are put back to what they were."""
    every = [m for top in modules for m in top.modules()]
    values = [(b, b.clone()) for m in modules for b in m.buffers()]
    before = [(m, vars(m).copy(), m._buffers.copy()) for m in every]
    rewind, python, legacy = rewinding(device), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        rewind()
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for m, own, buffers in before:
            vars(m).clear()
            vars(m).update(own)
            m._buffers.clear()
            m._buffers.update(buffers)
        for b, value in values:
            b.copy_(value)


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


def compile_graph(graph: GraphModule, *inputs: Tensor) -> Callable[..., Any]:
    """Machine code for a graph, by torch's inductor, kept on disk for the next run; on CUDA with CUDA graphs.

    Random numbers are those of the graph: torch's own generator, in the same order.

    Raises:
        NotCaptured: where there is no compiler. A compiler that fails may raise anything.
    """
    cuda = inputs[0].device.type == "cuda"
    if not cuda and not any(shutil.which(c) for c in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if c):
        raise NotCaptured("there is no C++ compiler here; install g++ or clang++, or name one in CXX")
    import torch._inductor

    told = logging.getLogger("torch.utils.cpp_extension")
    level = told.level

    options: dict[str, Any] = {"fallback_random": True}
    if cuda:
        options |= torch._inductor.list_mode_options("reduce-overhead")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told.setLevel(logging.ERROR)  # it tells CPU users of CUDA
        try:
            compiled = torch._inductor.compile(graph, list(inputs), options=options)
        finally:
            told.setLevel(level)
    if not cuda:
        return compiled

    def replay(*inputs: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*inputs)

    return replay
