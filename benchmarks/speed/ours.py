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


def training_step(vae: Any, objective: Any, optimizer: Any, x: Tensor, compile: str) -> Callable[[Tensor], None]:
    """The library's own step; without one a plain loop takes the place of compile="never"."""
    try:
        from pyrovae.training.compile import training_step as own
    except ImportError as error:
        if compile != "never":
            raise RuntimeError("not available: pyrovae.training.compile has no training_step") from error
    else:
        return own(vae, objective, optimizer, x, compile=compile)

    def take(x: Tensor) -> None:
        optimizer.zero_grad()
        (-objective(vae, x).surrogate.mean()).backward()
        optimizer.step()

    return take


def step(case: Case, data: np.ndarray, compile: str, backward_particles: int | None = None) -> Callable[[int], None]:
    """Steps over batches in memory, unvalidated as in `fit`."""
    batches = torch.from_numpy(data).split(case.batch)
    vae = build(case, torch.from_numpy(data))
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE, fused=True)
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
    vae, options = build(case, x), {"compile": compile}

    def fit(epochs: int) -> list[dict[str, Any]]:
        return pv.fit(
            vae,
            x,
            objective_of(case),
            epochs=epochs,
            batch_size=case.batch,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            device="cpu",
            progress=False,
            **options,
        ).rows

    def go(n: int) -> float:
        try:
            rows = fit(n + 1)
        except TypeError:
            if compile != "never" or not options:
                raise RuntimeError("not available: pv.fit has no compile") from None
            options.clear()  # a `fit` that has no such option has nothing to switch off
            rows = fit(n + 1)
        return sum(row["seconds"] for row in rows[1:])

    return go


def evidence(case: Case, data: np.ndarray) -> Callable[[int], None]:
    """`pv.evaluate`, which finds ELBO, rate, distortion and errors besides."""
    x = torch.from_numpy(data)
    vae = build(case, x)

    def go(n: int) -> None:
        for _ in range(n):
            pv.evaluate(vae, x, case.particles)

    return go
