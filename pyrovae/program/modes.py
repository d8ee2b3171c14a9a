"""States to run a program in: evaluation mode, a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
import torch.nn as nn
from pyro.nn import PyroModule


@contextmanager
def evaluating(vae: Any, gradients: bool = False) -> Generator[None]:
    """Evaluation mode, without gradients unless they are asked for; every submodule's own mode is put back after."""
    modules = list(vae.modules()) if isinstance(vae, nn.Module) else []
    modes = [m.training for m in modules]
    try:
        for m in modules:
            m.training = False
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for m, mode in zip(modules, modes, strict=True):
            m.training = mode


def function_of(given: Any, role: str) -> Any:
    """The method "model" or "guide" of what is given, or that itself where it has none.

    A PyroModule's runs in the module's context, outside of which its PyroSample attributes are drawn anew at every look
    and are no sites.
    """
    function = getattr(given, role, given)
    return partial(_in_context, given, role) if isinstance(given, PyroModule) and function is not given else function


def _in_context(given: Any, role: str, x: torch.Tensor) -> Any:
    with pyro.get_param_store().scope(), given._pyro_context:  # where it leaves its parameters, by bare names
        return getattr(given, role)(x)


@contextmanager
def seeded(seed: int | None, device: torch.device | str = "cpu") -> Generator[None]:
    """Random numbers of this seed inside, the caller's own stream untouched outside; None leaves all as it is."""
    if seed is None:
        yield
        return
    device = torch.device(device)
    devices = [device] if device.type == "cuda" and torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def rewinding(device: torch.device) -> Callable[[], None]:
    """A function that puts the random stream back to where it is now."""
    cuda = device.type == "cuda"
    state = torch.get_rng_state(), torch.cuda.get_rng_state(device) if cuda else None

    def rewind() -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)

    return rewind


def counting() -> Any:
    """A context that counts floating-point operations: `.get_total_flops()`."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a tenth of a second to import

    return FlopCounterMode(display=False)


def home(vae: Any) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of a program's parameters: where its data must be. The CPU and the default without any."""
    tensors = vae.parameters() if isinstance(vae, nn.Module) else ()
    first = next((p for p in tensors if p.is_floating_point()), None)
    return (torch.device("cpu"), torch.get_default_dtype()) if first is None else (first.device, first.dtype)
