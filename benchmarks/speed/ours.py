"""pyrovae: `VAE.build`, its objectives, fused Adam; an epoch is one of `pv.fit`, the evidence that of `pv.evaluate`.

`VAE.build` centres the data before the encoder, a cost that pyrovae bears alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.training.adam import FusedAdam
from pyrovae.training.step import Step

from .cases import LEARNING_RATE, Case


def build(case: Case, x: Tensor) -> pv.models.VAE:
    """The VAE of a case."""
    normal = {"class_path": "Normal", "init_args": {"scale": case.scale}}
    return pv.models.VAE.build(
        x,
        latent=case.latent,
        hidden=list(case.hidden),
        network=case.network,
        activation=case.activation,
        likelihood="Bernoulli" if case.scale is None else normal,
    )


def objective_of(case: Case, backward_particles: int | None = None) -> pv.objectives.Objective:
    """The objective of a case."""
    if case.particles is None:
        return pv.objectives.ELBO(kl="analytic")
    return pv.objectives.IWAE(case.particles, backward_particles=backward_particles)


LEVELS = {"always": "compiled", "captured": "captured", "never": "python"}


def training_step(vae: Any, objective: Any, optimizer: Any, x: Tensor, compile: str) -> Callable[[Tensor], None]:
    """A step as `fit` takes it, without its history: the gradient at the level that is asked for, and the optimiser.

    Where that level is not reached the library says why, and the table tells it.
    """
    gradient = Step(vae, objective)
    if compile != "never":
        gradient.prepare(LEVELS[compile], x)

    def take(x: Tensor) -> None:
        gradient(x)
        optimizer.step()

    return take


def step(case: Case, data: np.ndarray, compile: str, backward_particles: int | None = None) -> Callable[[int], None]:
    """Steps over batches in memory, unvalidated as in `fit`."""
    batches = torch.from_numpy(data).split(case.batch)
    vae = build(case, torch.from_numpy(data))
    optimizer = FusedAdam(list(vae.parameters()), LEARNING_RATE)
    with pyro.validation_enabled(False):
        take = training_step(vae, objective_of(case, backward_particles), optimizer, batches[0], compile)
    pool = itertools.cycle(batches)

    def go(n: int) -> None:
        with pyro.validation_enabled(False):
            for x in itertools.islice(pool, n):
                take(x)

    return go


def epoch(case: Case, data: np.ndarray, compile: str) -> Callable[[int], float]:
    """Epochs of `fit`, by the seconds of its history; each run has one more before them, in which it compiles."""
    x = pv.data.from_arrays(data, values="binary", validation_size=0)
    vae = build(case, x)

    def go(n: int) -> float:
        rows = pv.fit(
            vae,
            x,
            objective_of(case),
            epochs=n + 1,
            batch_size=case.batch,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            device="cpu",
            compile=compile,
            progress=False,
        ).rows
        return sum(row["seconds"] for row in rows[1:])

    return go


def evidence(case: Case, data: np.ndarray, compile: str = "auto") -> Callable[[int], None]:
    """`pv.evaluate`, which finds ELBO, rate, distortion and errors besides."""
    x = torch.from_numpy(data)
    vae = build(case, x)

    def go(n: int) -> None:
        for _ in range(n):
            pv.evaluate(vae, x, case.particles, compile=compile)

    return go
