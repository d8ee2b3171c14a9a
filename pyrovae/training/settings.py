"""What `fit` is given, checked before the first step: the objective, the device, the settings, the data."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch

from ..config import nearest
from ..data import Dataset
from ..objectives import Objective, PyroELBO
from ..objectives.checks import check_estimate
from ..preflight.table import findings
from ..program import densities, evaluating, home
from ..program.checks import check_support
from ..program.compile import check_compile
from ..program.modes import counting

PRECISION = ("auto", "float32", "bfloat16")
SMALL = 2 * 10**7  # operations of a forward pass from which two threads are faster, by benchmarks/threads.py


def find_device(device: str | torch.device) -> torch.device:
    """A torch device; "auto" is cuda, then mps, then cpu. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"unknown device {device!r}; {nearest(str(device), ['auto', 'cpu', 'cuda', 'mps'])}"
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for and there is none here; use device='auto' or 'cpu'")
    return found


def check_settings(
    vae: Any,
    data: Dataset,
    objective: Objective,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    clip: float | None,
    patience: int | None,
    compile: str,
    precision: str,
    run_dir: str | Path | None,
    resume: bool,
) -> None:
    """Refuse settings that make no sense. Raises ValueError."""
    if not isinstance(vae, torch.nn.Module):
        raise ValueError(
            f"fit expects a torch module with .model(x) and .guide(x), got {type(vae).__name__}; "
            "wrap plain functions in pv.Program(model, guide)"
        )
    counts = {"epochs": epochs, "batch_size": batch_size} | ({} if patience is None else {"patience": patience})
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"fit expects {name} as a whole number above 0, got {value}")
    for name, value in {"learning_rate": learning_rate, "clip": 1.0 if clip is None else clip}.items():
        if not value > 0:
            raise ValueError(f"fit expects {name} above 0, got {value}")
    check_compile(compile)
    if precision not in PRECISION:
        raise ValueError(f"unknown precision {precision!r}; {nearest(precision, PRECISION)}")
    if patience is not None and not data.size("validation"):
        raise ValueError("early stopping (patience) needs validation data; hold some out or leave patience out")
    if patience is not None and not objective.lower:
        raise ValueError(
            f"early stopping (patience) keeps the weights of the largest bound, and {type(objective).__name__} reports "
            "no lower bound; leave patience out, or train on a lower bound"
        )
    if isinstance(objective, PyroELBO) and isinstance(objective.elbo, pyro.infer.RenyiELBO):
        raise ValueError(
            "pyro.infer.RenyiELBO weighs whole batches under the scales of plates; use pyrovae.objectives.IWAE or Renyi"
        )
    if resume and run_dir is None:
        raise ValueError("resume needs the run_dir of the run to go on with")


def check_data(vae: Any, objective: Objective, data: Dataset, batch_size: int, device: torch.device) -> int:
    """The program and the objective on one batch, then the likelihood's support on the first 100,000 rows.

    Returns the floating-point operations of the objective on that batch. Raises ValueError.
    """
    dtype = home(vae)[1]
    x = next(data.batches("train", batch_size, shuffle=False, device=device)).to(dtype)
    if isinstance(objective, PyroELBO):  # Pyro's own rules for a program hold
        with evaluating(vae), torch.enable_grad(), counting() as counter:
            if not torch.isfinite(objective(vae, x).bound).all():
                raise ValueError(f"{type(objective.elbo).__name__} is not finite on the first batch")
        return counter.get_total_flops()
    with evaluating(vae), pyro.validation_enabled(True):
        sites = [s for s in densities(vae, x).likelihood.values() if s.value is x]
    counter = counting()
    with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False), counter:
        check_estimate(objective, vae, x)
    if rest := data.size("train") % batch_size:  # the last batch of an epoch is refused here, if at all
        with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False):
            objective(vae, x[:rest])
    for split in ("train", "validation") if sites else ():
        batches = data.batches(split, batch_size, shuffle=False, device=device) if data.size(split) else ()
        for rows in itertools.islice(batches, max(1, 100_000 // batch_size)):
            full = rows[torch.arange(len(x), device=device) % len(rows)]  # a ragged batch, filled up
            check_support(sites[0].name, sites[0].distribution, full.to(dtype))
    return counter.get_total_flops()


def check_program(vae: Any, objective: Objective, data: Dataset, batch_size: int, device: torch.device) -> list[str]:
    """What `pv.check` finds on the first batch beyond `check_data`: the findings that are not fatal.

    Raises ValueError for those that are, all in one.
    """
    x = next(data.batches("train", batch_size, shuffle=False, device=device)).to(home(vae)[1])
    found = findings(vae, x, x, objective, data.size("train"))
    if fatal := [str(f) for f in found if f.fatal]:
        raise ValueError("\n".join(fatal))
    return [str(f) for f in found]


@contextmanager
def machine(flops: int, device: torch.device, precision: str) -> Generator[None]:
    """What a machine is set to for a training: its threads, and TF32 on CUDA where the precision is left to it."""
    before = torch.get_float32_matmul_precision()
    try:
        if device.type == "cuda" and precision == "auto":
            torch.set_float32_matmul_precision("high")
        with fitting_threads(flops, device):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def fitting_threads(flops: int, device: torch.device) -> Generator[None]:
    """One thread for a step of so few operations: more of them wait for each other longer than they compute.

    By a count and not by a clock, so that one seed gives one run.
    """
    before = torch.get_num_threads()
    try:
        if device.type == "cpu" and flops < SMALL:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
