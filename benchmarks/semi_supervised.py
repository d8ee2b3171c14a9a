"""How far some labels go: M2 beside its own classifier trained on the labelled data alone, on MNIST.

    python -m benchmarks.semi_supervised --output benchmarks/results/semi-supervised.md

Both have the same classifier, with the same weights at the start, and see the same labelled data. M2 sees the other
images as well, without their labels. The weight of the rate comes down to 1 from a few times that: an image that may
tell little to its style z has to be told by its class, and a class that nobody needs drifts away from its labels.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import pyrovae as pv
from pyrovae.models import SemiSupervisedVAE

ALONE = 500  # steps of the classifier alone, on all labelled data at once: long after it has them all right


def accuracy(vae: SemiSupervisedVAE, data: pv.data.Dataset) -> float:
    """The share of test data whose class is right."""
    assert data.test is not None
    return float((vae.classify(data.test).argmax(-1) == data.test[:, 0]).double().mean())


def alone(vae: SemiSupervisedVAE, learning_rate: float) -> SemiSupervisedVAE:
    """A copy whose classifier is trained on the labelled data, and nothing else."""
    vae = copy.deepcopy(vae)
    row = vae.take_apart(vae.told)
    optimiser = torch.optim.Adam(vae.classifier.parameters(), learning_rate)
    for _ in range(ALONE):
        optimiser.zero_grad()
        F.cross_entropy(vae.classifier(row.content), row.label).backward()
        optimiser.step()
    return vae


def measure(seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Test accuracy of the classifier alone, and of M2."""
    data = pv.data.load(options.data, binarise=options.binarise, labelled=options.labelled, seed=seed)
    torch.manual_seed(seed)
    vae = SemiSupervisedVAE.build(data, options.latent, options.hidden, alpha=options.alpha)
    first = accuracy(alone(vae, options.learning_rate).eval(), data)
    objective = pv.objectives.BetaELBO(start=options.start, warmup=options.warmup)
    pv.fit(vae, data, objective, options.epochs, learning_rate=options.learning_rate, seed=seed)
    return first, accuracy(vae.eval(), data)


def main(words: list[str] | None = None) -> None:
    """Measures, prints and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--binarise", default="dynamic")
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--latent", type=int, default=20)
    parser.add_argument("--hidden", type=int, nargs="+", default=[300])
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--start", type=float, default=5.0, help="the weight of the rate at first")
    parser.add_argument("--warmup", type=float, default=6.0, help="epochs until it is 1")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(words)
    lines = ["| seed | labels alone | M2 |", "|---|---|---|"]
    for seed in range(options.seeds):
        first, both = measure(seed, options)
        lines.append(f"| {seed} | {first:.1%} | {both:.1%} |")
        print(lines[-1], flush=True)
    used: dict[str, Any] = {k: v for k, v in vars(options).items() if k != "output"}
    text = "# Labels and images without\n\nTest accuracy; options " + ", ".join(f"{k} {v}" for k, v in used.items())
    text += ". A seed fixes which data keep their label, the split, the initial weights and the draws.\n\n"
    text += "\n".join(lines) + "\n"
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
