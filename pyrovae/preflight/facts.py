"""What the checks look at: traces of a program, found once, with everything left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyro
import torch
import torch.nn as nn
from pyro import poutine
from torch import Tensor

from ..guides import Program
from ..objectives import Objective
from ..program import Values, evaluating, home, plain_errors, sample_sites, seeded
from ..program.checks import explain_plate
from ..program.graph import Node, read_graph
from .finding import Finding, of_error

FEW = 8  # rows that the graph is read from
AGAIN = 4  # further runs, to see sites that come and go


@contextmanager
def untouched(vae: Any, device: torch.device) -> Generator[None]:
    """Evaluation mode; modes, buffers, Pyro's param store, random streams, and what a `Program` has, are put back."""
    modules = list(vae.modules()) if isinstance(vae, nn.Module) else []
    buffers = [(m, n, b, b.clone()) for m in modules for n, b in m._buffers.items() if b is not None]
    store = pyro.get_param_store()
    streams = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with ExitStack() as stack:
            for program in modules:
                if isinstance(program, Program):
                    stack.enter_context(program.as_before())
            with evaluating(vae), seeded(0, device), store.scope(store.get_state()):
                yield
    finally:
        random.setstate(streams[0])
        np.random.set_state(streams[1])  # noqa: NPY002
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            with torch.no_grad():
                buffer.copy_(value)


@dataclass
class Facts:
    """A program, its data, and what running it has shown.

    Attributes:
        vae: the program.
        x: a batch [B, *event], as its networks take it.
        given: all of the rows that were given, [N, *event].
        objective: a copy, to be run.
        size: N, where a data set says it.
        findings: so far.
    """

    vae: Any
    x: Tensor
    given: Tensor
    objective: Objective
    size: int | None = None
    findings: list[Finding] = field(default_factory=list)
    errors: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing fatal was found so far."""
        return not any(f.fatal for f in self.findings)

    @cached_property
    def guide(self) -> Any:
        """The guide's trace; None where it does not run."""
        return self._first("guide", {})

    @cached_property
    def model(self) -> Any:
        """The model's trace at the guide's values, or at draws of its own; None where it does not run on either."""
        return self._first("model", self.values) or (self._first("model", {}, quiet=True) if self.values else None)

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Of the guide's latents."""
        sites = sample_sites(self.guide) if self.guide else ()
        return {n: s["value"] for n, s in sites if not s["is_observed"]}

    @cached_property
    def prior(self) -> dict[str, Any]:
        """Latent sites of the model, by name."""
        return {n: s for n, s in sites_of(self.model) if not s["is_observed"]}

    @cached_property
    def likelihood(self) -> dict[str, Any]:
        """Observed sites of the model, by name."""
        return {n: s for n, s in sites_of(self.model) if s["is_observed"]}

    @cached_property
    def posterior(self) -> dict[str, Any]:
        """Latent sites of the guide, by name."""
        return {n: s for n, s in sites_of(self.guide) if not s["is_observed"]}

    @cached_property
    def others(self) -> list[tuple[int, Any, Any]]:
        """Traces of guide and model on fewer rows, under other seeds, with how many rows; none where they fail."""
        found = []
        for seed in range(1, AGAIN + 1):
            rows = self.x[: max(1, min(len(self.x) // 2, FEW))]
            try:
                with seeded(seed, self.x.device):
                    guide = run(self.vae, "guide", rows, {})
                    values = {n: s["value"] for n, s in sites_of(guide) if not s["is_observed"]}
                    found.append((len(rows), guide, run(self.vae, "model", rows, values)))
            except Exception:  # a program may be for a batch of this size alone
                break
        return found

    @cached_property
    def model_graph(self) -> list[Node]:
        """The model's sites with what they depend on; an empty list for what cannot be read."""
        return self._graph("model")

    @cached_property
    def guide_graph(self) -> list[Node]:
        """The guide's, likewise."""
        return self._graph("guide")

    def _graph(self, which: str) -> list[Node]:
        for rows in (self.x[:FEW], self.x):
            try:
                return read_graph(getattr(self.vae, which), rows, which, self.vae)
            except Exception:  # as an improper prior, which cannot be drawn from
                continue
        return []

    def _first(self, which: str, values: dict[str, Tensor], quiet: bool = False) -> Any:
        try:
            return run(self.vae, which, self.x, values)
        except Exception as error:  # a broken program may fail in any way it likes
            if not quiet:
                self.errors.append(of_error(error, which, self.x))
            return None


def sites_of(trace: Any) -> Iterable[tuple[str, Any]]:
    """The random choices of a trace; none where there is no trace."""
    return sample_sites(trace) if trace else ()


def run(vae: Any, which: str, x: Tensor, values: dict[str, Tensor]) -> Any:
    """The trace of model or guide at these values, without Pyro's validation: NaN is told from the densities."""
    function: Callable[[Tensor], Any] = getattr(vae, which)
    with pyro.validation_enabled(False), plain_errors(), Values(values):
        try:
            return poutine.trace(function).get_trace(x)
        except ValueError as error:
            explain_plate(error, which)
            raise


def as_weights(vae: Any, x: Tensor) -> tuple[Tensor, list[Finding]]:
    """The data in the dtype of the weights where the program does not run on them otherwise, and a finding if so."""
    device, dtype = home(vae)
    x = x.to(device)
    if x.dtype == dtype or _runs(vae, x) or not _runs(vae, other := x.to(dtype)):
        return x, []
    message = f"the program expects x in the dtype of its weights, {dtype}, got {x.dtype}"
    return other, [Finding("dtype", None, message, f"give x.to({dtype}), or convert the program (vae.double())")]


def _runs(vae: Any, x: Tensor) -> bool:
    try:
        guide = run(vae, "guide", x, {})
        run(vae, "model", x, {n: s["value"] for n, s in sites_of(guide) if not s["is_observed"]})
    except Exception:
        return False
    return True
