"""One VAE, its prior or its posterior swapped by name: equal data, epochs and seeds, the test log evidence of each.

    python -m benchmarks.swapped_parts [--role prior|posterior|both] [--only NAME] [--epochs 50] [--seeds 1] > FILE.md

Protocol: MNIST, dynamically binarised, 55,000 training images; an MLP 784-300-300-40 and its mirror image, ReLU; the
ELBO from one draw, Adam at 1e-3 on a cosine, batches of 128, the weights of the last epoch. A seed fixes the initial
weights, the order of the data and the draws. "Log evidence" is that of `pv.evaluate` on the first 1,000 test images
(one fixed binarisation), ± the standard error over them; it is a lower bound of log p(x), looser under a worse guide.
"Difference": to the first row of the same role, ± the standard error of the paired differences over the images, or with
several seeds the standard deviation over seeds of their mean. Seconds are those of training.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import pyrovae as pv
from pyrovae.program import seeded

Spec = str | dict[str, Any]


def part(name: str, **options: Any) -> Spec:
    """A class by its name, with options."""
    return {"class_path": name, "init_args": options}


NORMAL: dict[str, Spec] = {"prior": "StandardNormal", "posterior": "DiagonalNormal"}
ROLES: dict[str, dict[str, Spec]] = {
    "prior": {
        "StandardNormal": "StandardNormal",
        "Mixture of 100": part("Mixture", components=100),
        "VampPrior of 500": part("VampPrior", components=500),
        "NSF flow": part("Flow", kind="NSF"),
    },
    "posterior": {
        "DiagonalNormal": "DiagonalNormal",
        "FullNormal": "FullNormal",
        "IAF flow": part("Flow", kind="IAF"),
        "NSF flow": part("Flow", kind="NSF"),
    },
}


def trained(data: Any, parts: dict[str, Spec], options: argparse.Namespace, seed: int) -> tuple[Any, float]:
    """A VAE of these parts after its epochs, and the seconds that they took."""
    with seeded(seed):
        vae = pv.models.VAE.build(data, latent=options.latent, hidden=[300, 300], **parts)
    run = pv.fit(
        vae,
        data,
        pv.objectives.ELBO(),
        epochs=options.epochs,
        batch_size=128,
        learning_rate=1e-3,
        seed=seed,
        progress=False,
    )
    return vae, sum(row["seconds"] for row in run.rows)


def rows(role: str, data: Any, options: argparse.Namespace) -> Any:
    """Lines of the table of one role, each as soon as it is known."""
    x, first = data.test[: options.images], None
    for name, spec in ROLES[role].items():
        if options.only and first is not None and options.only.lower() not in name.lower():
            continue
        found, seconds = [], 0.0
        for seed in range(options.seeds):
            vae, time = trained(data, NORMAL | {role: spec}, options, seed)
            found.append(pv.evaluate(vae, x, options.particles))
            seconds += time / options.seeds
        evidence = torch.stack([ev.log_evidence for ev in found])  # [seeds, N]
        first = evidence if first is None else first
        by_seed, by_image = (evidence - first).mean(1), (evidence - first).mean(0)
        error = by_seed.std() if options.seeds > 1 else by_image.std() / len(x) ** 0.5
        difference = "" if first is evidence else f"{by_seed.mean():+.2f} ± {error:.2f}"
        mean = evidence.mean(0)
        means = [torch.tensor([float(getattr(ev, n).mean()) for ev in found]).mean() for n in ("elbo", "rate")]
        units = sum(ev.active_units for ev in found) / options.seeds
        yield (
            f"| {name} | {mean.mean():.2f} ± {mean.std() / len(x) ** 0.5:.2f} | {difference} | {means[0]:.2f} | "
            f"{means[1]:.2f} | {units:.3g} of {options.latent} | {seconds:.0f} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--role", choices=[*ROLES, "both"], default="both")
    parser.add_argument("--only", default="", help="the baseline and what has this in its name")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--latent", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=1000)
    options = parser.parse_args()
    data = pv.data.load(options.data, binarise=None if options.data == "digits" else "dynamic")
    for role in ROLES if options.role == "both" else [options.role]:
        print(
            f"\n## The {role}\n\n{options.epochs} epochs, {options.seeds} seed(s), {options.images} test images, ",
            end="",
        )
        print(f"{options.particles} particles; nats per image.\n")
        print(f"| {role} | log evidence | difference | ELBO | rate | active units | seconds |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for row in rows(role, data, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
