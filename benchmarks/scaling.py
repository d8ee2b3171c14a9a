"""How the cost of a step grows with particles, image size, data and batch: a table, and a figure with a model of nodes.

    python benchmarks/scaling.py    # some minutes of one core; leaves results/scaling.csv and .png beside this file

Each figure is the fastest epoch of a few, on binary noise, for one network of 200 units a layer (mlp), or two
convolutions of 16 and 32 channels (conv). Nothing is asked of a model here but its time.
"""

import argparse
import csv
import os
import platform
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import pyrovae as pv

WIDTHS = {"mlp": [200], "conv": [16, 32]}
LATENT = 20
BATCH = 64
LINKS = {"10 Gbit Ethernet": (1.25e9, 30e-6), "NVLink": (300e9, 5e-6)}  # bytes a second, seconds a message: nominal


def time_of(side=28, n=512, particles=1, batch=BATCH, network="mlp", epochs=3, threads=1):
    """Seconds of a step, seconds of an epoch, and the number of parameters."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = (torch.rand(n, 1, side, side) < 0.5).to(torch.uint8)
    data = pv.data.from_arrays(x, validation_size=0)
    vae = pv.models.VAE.build(data, latent=LATENT, hidden=WIDTHS[network], network=network)
    objective = pv.objectives.IWAE(particles) if particles > 1 else pv.objectives.ELBO()
    run = pv.fit(vae, data, objective, epochs=epochs, batch_size=batch, progress=False, device="cpu", compile="never")
    seconds = min(row["seconds"] for row in run.rows)
    return seconds / -(-n // batch), seconds, sum(p.numel() for p in vae.parameters())


def measure(quick):
    """One row a figure."""
    few = {"epochs": 2} if quick else {}
    plan = {
        "particles": [("mlp", {"particles": k}) for k in (1, 2, 5, 10, 20, 50, 100)],
        "side": [(w, {"side": s, "n": 256}) for w in WIDTHS for s in (8, 16, 32, 64)],
        "data": [("mlp", {"n": n}) for n in (1_000, 4_000, 16_000, 60_000)],
        "batch": [("mlp", {"batch": b, "n": 8 * b}) for b in (8, 32, 128, 512)],
    }
    names = {"particles": "particles", "side": "side", "data": "n", "batch": "batch"}
    for axis, cases in plan.items():
        for network, options in cases[:2] if quick else cases:
            step, epoch, parameters = time_of(network=network, **(few | options))
            row = {"axis": axis, "network": network, "value": options[names[axis]], "seconds_per_step": step}
            yield row | {"seconds_per_epoch": epoch, "parameters": parameters}
            print(
                axis, network, options[names[axis]], f"{1e3 * step:.2f} ms a step, {epoch:.3f} s an epoch", flush=True
            )


def step_on(m, fixed, each, batch, size, bandwidth, latency):
    """Seconds of a step on m devices: what does not shrink, a share of the batch, and a ring all-reduce."""
    return fixed + each * batch / m + 2 * (m - 1) / m * size / bandwidth + 2 * (m - 1) * latency


def fit_batch(rows):
    """The fixed cost of a step and the cost of a datum, by least squares on relative errors."""
    b, t = (np.array([r[k] for r in rows if r["axis"] == "batch"], float) for k in ("value", "seconds_per_step"))
    design = np.stack([1 / t, b / t], 1)
    return np.clip(np.linalg.lstsq(design, np.ones(len(t)), rcond=None)[0], 1e-9, None)


def draw(rows, path):
    """Three measured panels and one of the model."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for ax, (axis, label, unit) in zip(
        axes,
        (("particles", "particles K", "step"), ("side", "image side, pixels", "step"), ("data", "data N", "epoch")),
        strict=False,
    ):
        for network in WIDTHS:
            chosen = [r for r in rows if r["axis"] == axis and r["network"] == network]
            if chosen:
                ax.loglog([r["value"] for r in chosen], [r[f"seconds_per_{unit}"] for r in chosen], "o-", label=network)
        ax.set(xlabel=label, ylabel=f"seconds of {'a step' if unit == 'step' else 'an epoch'}")
        values = sorted({r["value"] for r in rows if r["axis"] == axis})
        ax.set_xticks(values, [f"{v:,}" for v in values])
        ax.minorticks_off()
        ax.legend()
    fixed, each = fit_batch(rows)
    size = 4 * next(r["parameters"] for r in rows if r["axis"] == "batch")
    m = 2 ** np.arange(8)
    for name, (bandwidth, latency) in LINKS.items():
        for batch, style in ((128, "-"), (8192, "--")):
            gain = (fixed + each * batch) / step_on(m, fixed, each, batch, size, bandwidth, latency)
            axes[3].loglog(m, gain, style, base=2, label=f"{name}, B = {batch}")
    axes[3].loglog(m, m, ":k", base=2, lw=1)
    axes[3].set(xlabel="processes m (a model, not measured)", ylabel="times faster, equal batch", ylim=(0.25, 140))
    axes[3].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="a few figures, to try the script")
    words = parser.parse_args()
    words.output.mkdir(parents=True, exist_ok=True)
    rows = list(measure(words.quick))
    with (words.output / "scaling.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    draw(rows, words.output / "scaling.png")
    fixed, each = fit_batch(rows)
    print(f"a step costs {1e3 * fixed:.2f} ms and {1e6 * each:.1f} µs a datum")
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{platform.machine()}, {os.cpu_count()} cores, {load}, one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
