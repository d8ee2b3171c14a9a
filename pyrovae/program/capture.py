"""The Python of a program run once, and the tensor operations that it did kept as a graph."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
import torch.nn as nn
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[..., tuple[Tensor | None, ...]]

_LIBRARIES = tuple(str(Path(str(m.__file__)).parent) for m in (torch, pyro))
_OURS = str(Path(__file__).parents[1])
_ABSENT = object()
_TORCH = vars(nn.Module()).keys() - {"training"}


class NotCaptured(Exception):
    """A function cannot be kept as a graph; the message says what stopped it."""


@contextmanager
def _standing_in(modules: Sequence[nn.Module], stand_ins: dict[int, Tensor]) -> Generator[None]:
    """Other tensors in the places of the modules' own, by the id of these.

    As torch.func.functional_call, which puts the wrong tensors back where a module has two names.
    """
    dicts: list[dict[str, Any]] = [d for top in modules for m in top.modules() for d in (m._parameters, m._buffers)]
    before = [d.copy() for d in dicts]
    try:
        for d in dicts:
            for name, t in d.items():
                d[name] = stand_ins.get(id(t), t)
        yield
    finally:
        for d, own in zip(dicts, before, strict=True):
            d.clear()
            d.update(own)


def capture(function: Function, modules: Sequence[nn.Module], *inputs: Tensor) -> GraphModule:
    """The operations of function(*inputs) as a graph that reads and writes the modules' own tensors.

    Derivatives that the function takes are part of it, so that nothing is differentiated when the graph is run.
    Random numbers are drawn anew in every run, from torch's generator and in the function's order. The graph is one
    of these shapes, and of the Python values that the function saw: `Python` tells whether they have changed.

    Raises:
        NotCaptured: for a function that reads a tensor's value, or an operation that cannot be traced.
    """
    state = list({id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}.values())

    def flat(*tensors: Tensor) -> list[Tensor | None]:
        own = {id(t): u.detach().requires_grad_(t.requires_grad) for t, u in zip(state, tensors, strict=False)}
        with _standing_in(modules, own):
            return list(function(*tensors[len(state) :]))

    # tensors that belong to no module are constants of the graph
    trace = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = trace(*(t.detach() for t in state), *inputs)
        if any(n.target is _READ_BACK for n in graph.graph.nodes):
            with _NoReadBack():
                function(*inputs)
            raise RuntimeError(str(_READ_BACK))
    except Exception as error:  # a program may do anything
        raise NotCaptured(_reason(error)) from error
    return _bound(graph, state)


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
    """What the Python of some modules may depend on: attributes, tensors, submodules, hooks, random numbers.

    Not variables outside of the modules, nor what is inside of an object that is no list, dict or module.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = [(name, m) for module in modules for name, m in module.named_modules()]
        self.values = [_values(m) for _, m in self.modules]
        # an id is of use as long as nothing else can have it
        self._held = [(vars(m).copy(), *(d.copy() for d in _dicts(m))) for _, m in self.modules]
        self.random = _random_numbers()

    def changed(self) -> str | None:
        """What has changed since, in words; None if nothing has."""
        for (name, module), before in zip(self.modules, self.values, strict=True):
            now = _values(module)
            if now != before:
                names = sorted(k for k in now.keys() | before.keys() if now.get(k, _ABSENT) != before.get(k, _ABSENT))
                at = f"{type(module).__name__}{f' {name!r}' if name else ''}"
                return f"attribute {names[0]!r} of {at} changes in Python, and a graph would keep what it was"
        return None

    def drew(self) -> str | None:
        """Whether numbers were drawn that no graph draws anew, in words; None if not."""
        return None if self.random == _random_numbers() else "it draws random numbers that are not torch's"


def _values(module: nn.Module) -> dict[str, Any]:
    """Plain values, also in lists and dicts; which tensors, modules and hooks there are, and where tensors lie."""
    own = vars(module)
    parameters, buffers, modules = _dicts(module)
    found = {k: _plain(v) for k, v in own.items() if k not in _TORCH}
    for name, t in (*parameters.items(), *buffers.items()):
        found[name] = t if t is None else (id(t), t.data_ptr(), t.requires_grad, len(t._backward_hooks or ()))
    found |= {name: id(m) for name, m in modules.items()}
    return found | {k: tuple(map(id, v.values())) for k, v in own.items() if k.endswith("_hooks")}


def _dicts(module: nn.Module) -> tuple[dict[str, Any], ...]:
    return module._parameters, module._buffers, module._modules


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return tuple((k, _plain(v)) for k, v in value.items())
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def _random_numbers() -> tuple[Any, ...]:
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return random.getstate(), legacy["key"].tobytes(), legacy["pos"]
