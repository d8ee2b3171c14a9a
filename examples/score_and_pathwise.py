"""Score function against pathwise: what a derivative through the draws is worth, and what baselines make up for.

    python examples/score_and_pathwise.py

Both are unbiased for the gradient of the ELBO. The score function, (log w − baseline) ∂ log q, needs no derivative of a
draw, so that it is for discrete latents too; but it learns from the size of log w alone, and every latent dimension
adds to its noise. The pathwise gradient follows ∂ log w / ∂z. Rows differ in nothing but the estimator; decoder passes
are equal, so that the variance is that at equal cost.

References: Mohamed et al., "Monte Carlo gradient estimation in machine learning", 2020; Kool, van Hoof and Welling,
"Buy 4 REINFORCE samples, get a baseline for free!", 2019.
"""

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn

import pyrovae as pv

ELBO = pv.objectives.ELBO
ESTIMATORS = {
    "pathwise": ELBO(2),
    "score": ELBO(2, gradient="score"),
    "score, mean of the batches so far": ELBO(2, gradient="score", baseline="mean"),
    "score, the other draw": ELBO(2, gradient="score", baseline="leave_one_out"),
}


class Dimensions(nn.Module):
    """z ~ 𝒩(0, I), x | z ~ 𝒩(z, I), q(z | x) = 𝒩(a x + b, s² I) in so many dimensions, q not far from the posterior."""

    def __init__(self, latent):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.full((latent,), 0.4)), nn.Parameter(torch.full((latent,), 0.1))
        self.log_s = nn.Parameter(torch.full((latent,), -0.2))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.b), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.a * x + self.b, self.log_s.exp()).to_event(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="gradients of each estimator")
    parser.add_argument("--latent", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--folder", type=Path, default=Path("runs/score-and-pathwise"))
    given = parser.parse_args()

    torch.manual_seed(0)
    x = math.sqrt(2) * torch.randn(32, max(given.latent))
    tables = []
    for latent in given.latent:
        vae = Dimensions(latent)
        table = pv.lab.compare(vae, x[:, :latent], ESTIMATORS, draws=given.draws, reference=500, progress=False)
        tables.append(table[table.group == "guide"].assign(latent=latent))
    table = pd.concat(tables, ignore_index=True)
    print("variance of the guide's gradient")
    print(table.pivot_table("variance", "latent", "objective")[list(ESTIMATORS)].round(2).to_string())

    figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name in ESTIMATORS:
        own = table[table.objective == name]
        ax.loglog(own.latent, own.variance, "o-", label=name)
    ax.set(xlabel="latent dimensions", ylabel="variance of the guide's gradient, tr Σ")
    ax.legend(frameon=False)
    given.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.folder / "variance.png", dpi=120)
    print(f"figure: {given.folder}/variance.png")


if __name__ == "__main__":
    main()
