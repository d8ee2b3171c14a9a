"""The Python of a program run once, and the tensor operations that it did kept as a graph."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[..., tuple[Tensor | None, ...]]

_LIBRARIES = tuple(str(Path(str(m.__file__)).parent) for m in (torch, pyro))
_OURS = str(Path(__file__).parents[1])
_PLAIN = bool | int | float | str | None | Tensor
_TORCH = vars(nn.Module()).keys() - {"training"}


class NotCaptured(Exception):
    """A function cannot be kept as a graph; the message says what stopped it."""


class _Owner(nn.Module):
    """Modules and a function of their tensors, to be called with other tensors in their place."""

    def __init__(self, modules: tuple[nn.Module, ...], function: Function) -> None:
        super().__init__()
        self.owned, self.function = nn.ModuleList(modules), function

    def forward(self, *inputs: Tensor) -> tuple[Tensor | None, ...]:
        return self.function(*inputs)


def capture(function: Function, modules: tuple[nn.Module, ...], *inputs: Tensor) -> GraphModule:
    """The operations of function(*inputs) as a graph that reads and writes the modules' own tensors.

    Derivatives that the function takes are part of it, so that nothing is differentiated when the graph is run.
    Random numbers are drawn anew in every run, from torch's generator and in the function's order. The graph is one
    of these shapes, and of the Python values that the function saw: `Python` tells whether they have changed.

    Raises:
        NotCaptured: for a function that reads a tensor's value, or an operation that cannot be traced.
    """
    owner = _Owner(modules, function)
    named = dict(owner.named_parameters()) | dict(owner.named_buffers())
    learn = [t.requires_grad for t in named.values()]
    size = len(named)

    def flat(*tensors: Tensor) -> list[Tensor | None]:
        state = [t.detach().requires_grad_(r) for t, r in zip(tensors[:size], learn, strict=True)]
        return list(functional_call(owner, dict(zip(named, state, strict=True)), tensors[size:]))

    # tensors that belong to no module are constants of the graph
    trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = trace(*(t.detach() for t in named.values()), *inputs)
        if any(n.target is _READ_BACK for n in graph.graph.nodes):
            with _NoReadBack():
                function(*inputs)
            raise RuntimeError(str(_READ_BACK))
    except Exception as error:  # a program may do anything
        raise NotCaptured(_reason(error)) from error
    return _bound(graph, list(named.values()))


_READ_BACK = torch.ops.aten._local_scalar_dense.default


class _NoReadBack(TorchDispatchMode):
    """Fails at the line that reads a value back; a graph does not know its lines."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _READ_BACK:
            raise RuntimeError(str(func))
        return func(*args, **(kwargs or {}))


def _bound(graph: GraphModule, state: list[Tensor]) -> GraphModule:
    """The graph with these tensors as attributes of its own in the place of its first inputs."""
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    for i, (node, tensor) in enumerate(zip(placeholders, state, strict=False)):
        name = f"state_{i}"
        graph.register_buffer(name, tensor.detach())  # the same memory; nothing is differentiated here
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _reason(error: BaseException) -> str:
    """What stopped a trace, and at which line of whose code."""
    frames = [(f.filename, str(f.lineno)) for f in traceback.extract_tb(error.__traceback__)]
    text = " ".join(str(error).split()).split(". ")[0]
    if "_local_scalar_dense" in text or "DataDependent" in type(error).__name__:
        text = "it reads a value back from a tensor"
    return (text or type(error).__name__) + _where(frames)


def _where(frames: list[tuple[str, str]]) -> str:
    """The innermost line that is a user's, or else this library's."""
    own = [f for f in frames if not f[0].startswith((*_LIBRARIES, "<"))]
    theirs = [f for f in own if not f[0].startswith(_OURS)] or own
    return f" ({Path(theirs[-1][0]).name}, line {theirs[-1][1]})" if theirs else ""


class Python:
    """The plain values that the Python of some modules may depend on, and the other random numbers it may draw."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = [(name, m) for module in modules for name, m in module.named_modules()]
        self.values = [_values(m) for _, m in self.modules]
        self.random = _random_numbers()

    def changed(self) -> str | None:
        """What has changed since, in words; None if nothing has."""
        for (name, module), before in zip(self.modules, self.values, strict=True):
            now = _values(module)
            if now != before:
                names = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
                at = f"{type(module).__name__}{f' {name!r}' if name else ''}"
                return f"attribute {names[0]!r} of {at} changes in Python; keep it in a buffer"
        return None

    def drew(self) -> str | None:
        """Whether numbers were drawn that no graph draws anew, in words; None if not."""
        return None if self.random == _random_numbers() else "it draws random numbers that are not torch's"


def _values(module: nn.Module) -> dict[str, Any]:
    return {
        k: id(v) if isinstance(v, Tensor) else v
        for k, v in vars(module).items()
        if isinstance(v, _PLAIN) and k not in _TORCH
    }


def _random_numbers() -> tuple[Any, ...]:
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return random.getstate(), legacy["key"].tobytes(), legacy["pos"]
