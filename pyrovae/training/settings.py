"""What `fit` is given, checked before the first step: the objective, the device, the settings, the data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyro
import torch

from ..config import nearest
from ..data import Dataset
from ..objectives import ELBO, Objective, PyroELBO
from ..program import densities, evaluating, home


def as_objective(objective: Any) -> Objective:
    """An objective: ours as it is, a `pyro.infer` ELBO wrapped, None for the default. Raises ValueError for others."""
    if objective is None:
        return ELBO(kl="analytic")
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, pyro.infer.ELBO):
        return PyroELBO(objective)
    got = getattr(objective, "__name__", type(objective).__name__)
    raise ValueError(f"expected an objective such as objectives.IWAE(particles=5) or a pyro.infer ELBO, got {got}")


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
    data: Dataset,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    patience: int | None,
    precision: str,
    run_dir: str | Path | None,
    resume: bool,
) -> None:
    """Refuse settings that make no sense. Raises ValueError."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("learning_rate", learning_rate)):
        if not value > 0:
            raise ValueError(f"fit expects {name} above 0, got {value}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"unknown precision {precision!r}; {nearest(precision, ['float32', 'bfloat16'])}")
    if patience is not None and data.validation is None:
        raise ValueError("early stopping (patience) needs validation data; hold some out or leave patience out")
    if resume and run_dir is None:
        raise ValueError("resume needs the run_dir of the run to go on with")


def check_data(vae: Any, objective: Objective, data: Dataset, batch_size: int, device: torch.device) -> None:
    """Every check on the first thousands of rows, and one call of the objective, before the first step."""
    dtype = home(vae)[1]
    splits = [s for s in ("train", "validation") if data.size(s)]
    with evaluating(vae), pyro.validation_enabled(True):
        for split in splits:
            batches = data.batches(split, max(batch_size, 1000), shuffle=False, device=device)
            for x in itertools.islice(batches, 20):
                densities(vae, x.to(dtype))
    if not isinstance(objective, PyroELBO):
        with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False):
            objective(vae, x[:2].to(dtype))
