"""Two layers of latents beside one: equal data, epochs, widths, learning rate and seed, the test log evidence of each.

    python -m benchmarks.hierarchy [--epochs 25] [--only NAME] [--images 2000] > benchmarks/results/hierarchy.md

Protocol: MNIST, dynamically binarised, 55,000 training images. Between x and the latents next to it all models have an
MLP 784-200-200 and its mirror image, ReLU; one layer is 50 latents z, two layers are 50 latents z1 below 50 latents z2
with an MLP of 200, 200 between them each way. The ELBO with kl="analytic" from one draw, Adam at 1e-3 on a cosine,
batches of 128, the weights of the last epoch. A seed fixes the initial weights, the order of the data and the draws.
"Log evidence" is that of `pv.evaluate`, a lower bound of log p(x), ± the standard error over the images; "difference"
is to the first row on the same images, ± the standard error of the paired differences. Seconds are those of training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

import pyrovae as pv
from pyrovae.program import seeded

HIDDEN = [200, 200]


def two(data: Any, posterior: str) -> Any:
    """A hierarchy of two layers."""
    return pv.models.HierarchicalVAE.build(data, [50, 50], HIDDEN, HIDDEN, posterior=posterior)


MODELS: dict[str, Callable[[Any], Any]] = {
    "VAE, one layer": lambda data: pv.models.VAE.build(data, 50, HIDDEN),
    "HierarchicalVAE, ladder": lambda data: two(data, "ladder"),
    "HierarchicalVAE, bottom-up": lambda data: two(data, "bottom_up"),
}


def rows(data: Any, options: argparse.Namespace) -> Any:
    """Lines of the table, each as soon as it is known."""
    x, first = data.test[: options.images], None
    for name, build in MODELS.items():
        if options.only and first is not None and options.only.lower() not in name.lower():
            continue
        with seeded(options.seed):
            vae = build(data)
        run = pv.fit(vae, data, epochs=options.epochs, seed=options.seed, progress=False)
        ev = pv.evaluate(vae, x, options.particles)
        first = ev.log_evidence if first is None else first
        paired = ev.log_evidence - first
        difference = f"{paired.mean():+.2f} ± {paired.std() / len(x) ** 0.5:.2f}" if paired.any() else ""
        sites = ", ".join(f"{n} {k}" for n, k in _active(vae, x).items())
        seconds = sum(row["seconds"] for row in run.rows)
        yield (
            f"| {name} | {ev.log_evidence_mean:.2f} ± {ev.log_evidence_mean_error:.2f} | {difference} | "
            f"{ev.elbo.mean():.2f} | {sites} | {seconds:.0f} |"
        )


def _active(vae: Any, x: torch.Tensor) -> dict[str, int]:
    """Units of each latent whose mean varies over the data by more than 0.01."""
    codes = pv.encode(vae, x)
    codes = {"z": codes} if isinstance(codes, torch.Tensor) else dict(sorted(codes.items()))
    return {name: int((z.var(0) > 0.01).sum()) for name, z in codes.items()}


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="the first row and what has this in its name")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = pv.data.load(options.data, binarise=None if options.data == "digits" else "dynamic")
    print("# Two layers of latents\n\n" + (__doc__ or "").partition("\n\n    python")[2].partition("\n\n")[2])
    told = f"with `{' '.join(sys.argv[1:])}`" if sys.argv[1:] else "without options"
    print(f"Run {told}: {options.epochs} epochs, the first {options.images} test images,")
    print(f"{options.particles} particles, seed {options.seed}, on {torch.get_num_threads()} thread(s).\n")
    print("| model | log evidence | difference | ELBO | active units | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for row in rows(data, options):
        print(row, flush=True)


if __name__ == "__main__":
    main()
