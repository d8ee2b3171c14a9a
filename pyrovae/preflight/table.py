"""The table of checks, and the one function that goes through it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..objectives import Objective, PyroELBO
from ..objectives.checks import as_objective
from ..program import home, seeded
from ..program.checks import check_arguments
from . import learning, structure
from .facts import Facts, as_weights, untouched
from .finding import Finding, without_consequences

Check = Callable[[Facts], Iterator[Finding]]

BATCH, BATCHES = 128, 100  # rows of a data set that are run, and of how many such batches the values are looked at
LARGEST = 1024  # rows of a tensor

PYRO: tuple[Check, ...] = (structure.runs,)  # with Pyro's ELBOs, whose own rules for a program hold
CHECKS: tuple[Check, ...] = (
    structure.numbers,
    structure.runs,
    structure.guide_observes,
    structure.shared,
    structure.observed,
    structure.data_plate,
    structure.sites,
    structure.plates,
    structure.latent_events,
    structure.locality,
    structure.supports,
    structure.data_support,
    structure.global_weight,
    structure.changing,
    structure.densities_are_numbers,
    # the rest is told of programs that run
    learning.global_reads_data,
    learning.guide_ignores_data,
    learning.unused_latents,
    learning.no_path,
    learning.unowned_parameters,
    learning.dropout,
    learning.gradients,
)


def check(vae: Any, x: Tensor | Dataset, objective: Any = None) -> list[Finding]:
    """What is wrong with a program, its data, and an objective for them, before a step is run.

    The program, its parameters, gradients, buffers and modes, and the random streams are left as they were.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [B, *event], of which at most 1,024 rows are run, or a data set, of which a batch is run.
        objective: what is to be trained on, as for `fit`; ELBO(kl="analytic") by default. With a `pyro.infer` ELBO
            Pyro's own rules for a program hold, and little is looked at.

    Returns:
        One `Finding` a mistake, with .kind, .site, .message, .remedy and .fatal; none for a sound program.

    Raises:
        ValueError: for what is no program, no data or no objective. A broken program raises nothing here.

    >>> import pyro, pyro.distributions as dist, torch, pyrovae as pv
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Gamma(2.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(9 + x, 0.1))
    >>> for finding in pv.check(pv.Program(model, guide), torch.tensor([1.0, 2.0])):
    ...     print(f"{finding.kind}: {finding.message}")
    support: site 'z' is Gamma in the model and Normal in the guide, over all real numbers
    """
    objective, size = as_objective(objective), None
    if isinstance(x, Dataset):
        size, given = x.size("train"), _first_rows(x, *home(vae))
        batch = given[:BATCH]
    else:
        check_arguments(vae, x, 1)
        given, batch = x, x if len(x) <= LARGEST else x[:LARGEST]
    check_arguments(vae, batch, 1)
    return findings(vae, batch, given, objective, size)


def _first_rows(data: Dataset, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Training rows, at most 12,800; a binarisation that is drawn anew draws nothing of the caller's."""
    with seeded(0, device):
        batches = data.batches("train", BATCH, shuffle=False, device=device)
        return torch.cat(list(itertools.islice(batches, BATCHES))).to(dtype)


def findings(vae: Any, x: Tensor, given: Tensor, objective: Objective, size: int | None) -> list[Finding]:
    """What is found in a batch x [B, *event] of the data given [N, *event]."""
    with untouched(vae, home(vae)[0]):
        ready, found = as_weights(vae, x)
        if given is x:
            given = ready
        facts = Facts(vae, ready, given, copy.deepcopy(objective).to(ready.device), size, found)
        for one in PYRO if isinstance(objective, PyroELBO) else CHECKS:
            facts.findings += one(facts)
    return without_consequences(facts.findings)
