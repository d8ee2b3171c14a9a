"""Every objective on the embedded digits: equal epochs and seeds, all judged by one estimate of the evidence.

    OMP_NUM_THREADS=1 python benchmarks/objectives_digits.py [--seeds 3] [--only IWAE] [--csv FILE] > FILE.md

Protocol: digits, 8×8 counts 0..16; 1,295 training, 143 validation and 359 test images. The VAE of `pyrovae train`: 20
latents, 400 hidden units, Adam at 1e-3 on a cosine, batches of 128, the weights of the last epoch. A seed fixes the
initial weights, the order of the data and the draws. "Own bound": what the objective reports, the mean of 10
evaluations of the test set. "Log evidence": that of `pv.evaluate` with 5,000 particles, ± the standard error over the
test data; it is a lower bound of log p(x), and a looser one under a worse guide. "Difference": to the ELBO of the same
latents, ± the standard error of the paired differences over the test data, or with several seeds the standard deviation
over seeds of their mean. Seconds are those of training, on one thread.

The second table is of one model, trained by the ELBO: bounds of K draws, and in brackets their paired difference from
the estimate by 5,000 particles of another seed.
"""

from __future__ import annotations

import argparse
import csv
from math import nan
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae import objectives as o
from pyrovae.program import seeded

ELBO, SCORE = "ELBO, analytic KL", "Bernoulli: ELBO(5), score, leave_one_out"


def entries(epochs):
    """By name: the objective, the parts of its VAE, and the objective before it that it is compared with."""
    gaussian = {
        ELBO: o.ELBO(kl="analytic"),
        "ELBO, sampled KL": o.ELBO(),
        "ELBO, stl": o.ELBO(gradient="stl"),
        "ELBO(5), score, leave_one_out": o.ELBO(5, gradient="score", baseline="leave_one_out"),
        "BetaELBO, warm-up over a fifth": o.BetaELBO(warmup=epochs / 5),
        "Capacity(25 nats), over a half": o.Capacity(warmup=epochs / 2),
        "BetaTCVAE(6)": o.BetaTCVAE(),
        "InfoVAE(0, 10)": o.InfoVAE(),
        "DIPVAE(10, 10)": o.DIPVAE(),
        **{f"IWAE(5), {g}": o.IWAE(5, g) for g in ("pathwise", "stl", "dreg", "vimco")},
        "IWAE(5), one backward": o.IWAE(5, backward_particles=1),
        "MIWAE(2, 5)": o.MIWAE(2, 5),
        "PIWAE(2, 5)": o.PIWAE(2, 5),
        "CIWAE(5, 0.5)": o.CIWAE(5, 0.5),
        "VRIWAE(5, 0.5)": o.VRIWAE(5, 0.5),
        **{f"Renyi(5, {a})": o.Renyi(5, a) for a in (0.5, -1.0)},
        "VRMax(5)": o.VRMax(5),
        "CUBO(5)": o.CUBO(5),
        "TVO(10)": o.TVO(10),
        "TailAdaptive(10)": o.TailAdaptive(10),
        **{f"WakeSleep(10), {g}": o.WakeSleep(10, g) for g in ("wake", "both")},
    }
    discrete = {
        SCORE: o.ELBO(5, gradient="score", baseline="leave_one_out"),
        "Bernoulli: IWAE(5), vimco": o.IWAE(5, "vimco"),
        "Bernoulli: DisARM": o.DisARM(),
        "Bernoulli: REBAR": o.REBAR(),
        "Bernoulli: WakeSleep(5), wake": o.WakeSleep(5),
        "Bernoulli: TVO(10)": o.TVO(10),
    }
    hard, soft = "StraightThroughBernoulli", "RelaxedBernoulli"
    return {
        **{n: (objective, {}, ELBO) for n, objective in gaussian.items()},
        **{
            n: (objective, {"prior": "Bernoulli", "posterior": "Bernoulli"}, SCORE) for n, objective in discrete.items()
        },
        f"{hard}: ELBO": (o.ELBO(), {"prior": "Bernoulli", "posterior": hard}, SCORE),
        f"{soft}: ELBO, analytic KL": (o.ELBO(kl="analytic"), {"prior": soft, "posterior": soft}, None),
    }


def bound(objective, vae, x, repeats=1):
    """What an objective reports for each datum, the mean of so many evaluations: [N]."""
    with torch.no_grad(), seeded(0):
        rows = [torch.cat([objective(vae, part).bound for part in x.split(20)]) for _ in range(repeats)]
    return torch.stack(rows).mean(0)


def summary(values):
    """The mean over the data, and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def compare(data, chosen, epochs, particles, seeds, models):
    """Rows of the first table; the models of seed 0 are left in `models`."""
    evidence = {}  # name: [seeds, N]
    for name, (objective, parts, baseline) in chosen.items():
        found, runs = [], []
        for seed in range(seeds):
            with seeded(seed):
                vae = pv.models.VAE.build(data, **parts)
            run = pv.fit(vae, data, objective, epochs=epochs, seed=seed, device="cpu", progress=False)
            found.append(pv.evaluate(vae, data.test, particles).log_evidence)
            runs.append([bound(objective, vae, data.test, 10).mean(), sum(row["seconds"] for row in run.rows)])
            models.setdefault(name, vae)
        evidence[name] = torch.stack(found)
        own, seconds = torch.tensor(runs).mean(0).tolist()
        difference = (nan, nan)
        if baseline not in (None, name):
            d = evidence[name] - evidence[baseline]
            difference = summary(d[0]) if seeds == 1 else (float(d.mean()), float(d.mean(1).std()))
        yield name, own, *summary(evidence[name].mean(0)), *difference, seconds


def tightness(vae, x, particles, sizes):
    """Rows of the second table."""
    reference = pv.evaluate(vae, x, particles, seed=1).log_evidence
    bounds = {
        "ELBO(K)": o.ELBO,
        "CIWAE(K, 0.5)": o.CIWAE,
        "MIWAE(5, K/5)": lambda k: o.MIWAE(5, k // 5),
        "TVO(K)": o.TVO,
        "VRIWAE(K, 0.5), Renyi(K, 0.5)": o.VRIWAE,
        "IWAE(K)": o.IWAE,
        "CUBO(K, 2), Renyi(K, -1)": o.CUBO,
        "VRMax(K)": o.VRMax,
    }
    yield f"{particles:,} particles", *[v for _ in sizes for v in (*summary(reference), nan, nan)]
    for name, make in bounds.items():
        found = [bound(make(k), vae, x) for k in sizes]
        yield name, *[v for b in found for v in (*summary(b), *summary(b - reference))]


def show(header, form, rows):
    """Print Markdown, each row as soon as it is there; all rows."""
    print("|", " | ".join(header), "|\n|", " | ".join("---" for _ in header), "|")
    kept = []
    for row in rows:
        print("|", form.format(*row).replace("+nan ± nan", "—").replace(" (—)", ""), "|", flush=True)
        kept.append(row)
    print()
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--particles", type=int, default=5000, help="of the evaluation")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", metavar="NAME", help="objectives with this in their name, and baselines")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="the first table as CSV")
    given = parser.parse_args()
    known, models, data = entries(given.epochs), {}, pv.data.load("digits")
    needed = {ELBO, *(n for name, (_, _, baseline) in known.items() if given.only in name for n in (name, baseline))}
    chosen = {n: e for n, e in known.items() if n in needed}
    rows = compare(data, chosen, given.epochs, given.particles, given.seeds, models)
    form = "{} | {:.2f} | {:.2f} ± {:.2f} | {:+.2f} ± {:.2f} | {:.1f}"
    kept = show(["objective", "own bound", "log evidence", "difference", "seconds"], form, rows)
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            header = ["objective", "bound", "log_evidence", "error", "difference", "difference_error", "seconds"]
            csv.writer(file).writerows([header, *kept])
    sizes = [5, 50, 500, given.particles]
    rows = tightness(models[ELBO], data.test, given.particles, sizes)
    show(["bound", *(f"K = {k:,}" for k in sizes)], "{}" + " | {:.2f} ± {:.2f} ({:+.2f} ± {:.2f})" * len(sizes), rows)


if __name__ == "__main__":
    main()
