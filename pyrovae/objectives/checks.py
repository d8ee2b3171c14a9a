"""What is given as an objective, and what an objective returns."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor

from .base import Estimate, Objective
from .elbo import ELBO
from .pyro_elbo import PyroELBO


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


def check_estimate(objective: Objective, vae: Any, x: Tensor) -> Estimate:
    """The estimate of an objective, a user's own perhaps. Raises ValueError where it returns something else."""
    who, e = type(objective).__name__, objective(vae, x)
    if not isinstance(e, Estimate):
        raise ValueError(f"{who} is to return an Estimate(bound, surrogate), got {type(e).__name__}")
    for name in ("bound", "surrogate"):
        t = getattr(e, name)
        if tuple(t.shape) != (len(x),):
            raise ValueError(
                f"{who} is to return its {name} per datum, [{len(x)}] for this batch, got {list(t.shape)}; take the "
                "mean over particles (dimension 0) alone"
            )
    if e.bound.requires_grad or not e.surrogate.requires_grad:
        raise ValueError(f"{who} is to return a bound without gradient (.detach()) and a surrogate with one")
    return e
