"""How many threads a step is worth: milliseconds with one and with all, beside its operations.

    python benchmarks/threads.py

`fit` takes one thread for a step of fewer than `settings.SMALL` operations forward. This is the measurement behind it:
the rule should choose the faster column, or one that is hardly slower.
"""

from __future__ import annotations

import os
import statistics
import time

import pyro
import torch

import pyrovae as pv
from pyrovae.program import evaluating
from pyrovae.program.modes import counting
from pyrovae.training.adam import FusedAdam
from pyrovae.training.settings import SMALL
from pyrovae.training.step import Step

SIZES = [(8, 16, 50), (8, 128, 100), (8, 128, 400), (28, 20, 100), (28, 20, 400), (28, 128, 100), (28, 128, 400)]


def milliseconds(step, seconds=0.3, rounds=5):
    """The median over rounds of a step."""
    step()
    found = []
    for _ in range(rounds):
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / rounds:
            step()
            n += 1
        found.append((time.perf_counter() - began) / n * 1e3)
    return statistics.median(found)


def main():
    several = os.cpu_count()
    print(f"| x | B | hidden | operations | level | 1 thread, ms | {several} threads, ms | the rule takes |")
    print("|---|---|---|---|---|---|---|---|")
    for side, batch, hidden in SIZES:
        x = (torch.rand(batch, 1, side, side) < 0.2).float()
        vae, objective = pv.models.VAE.build(x, latent=20, hidden=[hidden]), pv.objectives.ELBO(kl="analytic")
        with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False), counting() as operations:
            objective(vae, x)
        flops = operations.get_total_flops()
        for level in ("python", "compiled"):
            step = Step(vae, objective)
            optimizer = FusedAdam(step.parameters, 1e-3)

            def take(step=step, optimizer=optimizer, x=x):
                step(x)
                optimizer.step()

            with pyro.validation_enabled(False):
                step.prepare(level, x)
                figures = []
                for threads in (1, several):
                    torch.set_num_threads(threads)
                    figures.append(f"{milliseconds(take):.2f}")
            rule = 1 if flops < SMALL else several
            print(f"| {side}×{side} | {batch} | {hidden} | {flops:.1e} | {level} | {' | '.join(figures)} | {rule} |")


if __name__ == "__main__":
    main()
