"""A model and a guide that are given apart, as a program: plain functions, modules, or a model alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
import torch.nn as nn
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints, transform_to

from ..config import Configured
from ..program import evaluating, function_of
from .derive import amortize

_MODULE_CODE = pyro.primitives.module.__code__
_RESERVED = {"", *dir(nn.ParameterDict()), *dir(nn.ModuleDict())}


def _key(name: str) -> str:
    """The name as a key of torch's containers, another for every other name: "x.y" is "x/y", "values" is "values%"."""
    key = name.replace("%", "%25").replace("/", "%2F").replace(".", "/")
    return f"{key}%" if key in _RESERVED else key


class Program(Configured, nn.Module):
    """A model and a guide that are given apart: plain functions with `pyro.module` and `pyro.param`, or modules.

    Their parameters live here and not in Pyro's global store, so two programs with equal names train side by side.
    Those of functions come into being when these first run, as with Pyro, on the device of x.

    Args:
        model: p(x, z), a function of x with a plate named "data", or a module with such a `model(x)`.
        guide: q(z | x), likewise; None for one that `pyrovae.amortize` derives from the model at the first data.
        event: shape of a datum, for parameters that come into being at once; None for those of the first data.

    Raises:
        ValueError: for what is no function of x; in use, for two modules of one name, and for a parameter that is given
            initial values of two shapes.

    >>> import pyro, pyro.distributions as dist, torch, pyrovae as pv
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     slope = pyro.param("slope", torch.tensor(0.5))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(slope * x, 0.5**0.5))
    >>> program = pv.Program(model, guide)
    >>> pv.densities(program, torch.tensor([1.0, 2.0])).log_weight.exp()  # an exact posterior: w = p(x)
    tensor([[0.2197, 0.1038]], grad_fn=<ExpBackward0>)
    """

    takes_missing = True  # what its functions have inside is known when they run: the observed sites are asked

    def __init__(self, model: Any, guide: Any = None, event: Sequence[int] | None = None) -> None:
        super().__init__()
        self.params = nn.ParameterDict()  # unconstrained, by the key of the name given to pyro.param
        self.owned = nn.ModuleDict()  # by the key of the name given to pyro.module
        self.parts = nn.ModuleDict()  # model and guide, where they are modules
        self._functions: dict[str, Callable[[Tensor], Any]] = {}
        self._take("model", model)
        if guide is not None:
            self._take("guide", guide)
        if event is not None:
            self.bear(torch.zeros(1, *event))

    def _take(self, role: str, given: Any) -> None:
        function = function_of(given, role)
        if not callable(function):
            raise ValueError(f"Program expects {role} as a function of x, got {type(given).__name__}")
        if isinstance(given, nn.Module):
            self.parts[role] = given
        self._functions[role] = function

    def bear(self, x: Tensor) -> None:
        """Run both once, so that all parameters are there."""
        with poutine.block(), evaluating(self), pyro.validation_enabled(False):
            self.model(x)
            self.guide(x)

    @contextmanager
    def as_before(self) -> Generator[None]:
        """What comes into being inside goes again, so that a seed gives the same numbers as without."""
        containers = self.params, self.owned, self.parts
        keys = [set(c.keys()) for c in containers]
        functions, arguments = dict(self._functions), dict(self.__dict__["_arguments"])
        try:
            yield
        finally:
            for container, before in zip(containers, keys, strict=True):
                for key in set(container.keys()) - before:
                    del container[key]
            self._functions, self.__dict__["_arguments"] = functions, arguments

    def model(self, x: Tensor) -> Any:
        """p(x, z)."""
        self.__dict__["_arguments"]["event"] = list(x.shape[1:])  # so that a config rebuilds it with its parameters
        with _OwnParameters(self, x):
            return self._functions["model"](x)

    def guide(self, x: Tensor) -> Any:
        """q(z | x)."""
        if "guide" not in self._functions:
            self.__dict__["_arguments"]["guide"] = guide = amortize(self, x)
            self._take("guide", guide)
        with _OwnParameters(self, x):
            return self._functions["guide"](x)


class _OwnParameters(poutine.messenger.Messenger):
    """Answers `pyro.param` from a Program's own parameters; those that are new go to the device of x."""

    def __init__(self, program: Program, x: Tensor) -> None:
        super().__init__()
        self.program, self.device = program, x.device

    def _pyro_param(self, msg: Any) -> None:
        name, *init = msg["args"]
        if (value := self._part(name, init)) is not None:
            msg["value"] = value
        elif "$$$" in name:  # one parameter of a module given to pyro.module, which is registered whole
            self._own_module(name.split("$$$")[0])
            msg["value"] = init[0]
        else:
            msg["value"] = self._own_param(name, init, msg["kwargs"].get("constraint", constraints.real))
        msg["done"] = msg["stop"] = True  # what is around the program sees parameters of the program, not of Pyro

    def _part(self, name: str, init: list[Any]) -> Tensor | None:
        """The value of a parameter that is in one of the program's modules, of which a PyroModule tells."""
        store = pyro.get_param_store()
        told = init[0] if init else store._params.get(name)  # a PyroParam leaves it there
        if not any(p is told for p in self.program.parts.parameters()):
            return None
        return init[0] if init else store[name]

    def _own_module(self, name: str) -> None:
        key = _key(name)
        frame: Any = sys._getframe()
        while frame.f_code is not _MODULE_CODE:  # pyro.module is no effect of its own: its argument is in its frame
            frame = frame.f_back
        module = frame.f_locals["nn_module"]
        if key in self.program.owned:
            if self.program.owned[key] is not module:
                raise ValueError(
                    f"pyro.module({name!r}) is given another module than before, which would never train; give every "
                    "module a name of its own, and build it outside of the functions"
                )
            return
        if any(p.device != self.device for p in module.parameters()):  # .to() fails on fake tensors, even to no end
            module.to(self.device)
        self.program.owned[key] = module

    def _own_param(self, name: str, init: list[Any], constraint: Any) -> Tensor:
        key, params = _key(name), self.program.params
        transform = transform_to(constraint)
        if key not in params:
            if not init:
                raise ValueError(f"pyro.param({name!r}) is read before it has an initial value; give one")
            value = init[0]() if callable(init[0]) else init[0]
            params[key] = nn.Parameter(transform.inv(value.detach().to(self.device)).clone())
        value = transform(params[key])
        if init and isinstance(init[0], Tensor) and init[0].shape != value.shape:
            raise ValueError(
                f"pyro.param({name!r}) has shape {list(value.shape)} and is given an initial value of shape "
                f"{list(init[0].shape)}; give every parameter a name of its own, and a shape that does not follow the "
                "batch"
            )
        return value
