"""Sticking the landing: near the posterior the path derivative loses its noise, and the plain one does not.

    python examples/sticking_the_landing.py

The gradient of the ELBO has two parts, one through the draws and the score of log q. The score is zero in the mean, and
no smaller near the optimum: at the exact posterior it is all that is left, so that a guide that has arrived goes on
trembling. Without it (`gradient="stl"`) the gradient is zero there for every single draw.

Reference: Roeder, Wu and Duvenaud, "Sticking the landing", 2017.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pyro.distributions as dist
import torch
import torch.nn as nn

import pyrovae as pv


class Near(nn.Module):
    """q(z | x) = 𝒩(m + d s, (1 + d)² S): the exact posterior for d = 0, and as far from it as d says."""

    def __init__(self, vae, distance):
        super().__init__()
        posterior = vae.true_posterior(torch.zeros(vae.event))
        self.scale = nn.Parameter((1 + distance) * posterior.scale_tril.detach())
        self.slope = nn.Parameter(self._slope(vae))
        self.shift = nn.Parameter(distance * posterior.stddev.detach())

    @staticmethod
    def _slope(vae):
        """The posterior's mean is linear in x: its value at each unit vector."""
        return vae.true_posterior(torch.eye(vae.event[0])).mean.T.detach().clone()

    def forward(self, x):
        return dist.MultivariateNormal(x @ self.slope.T + self.shift, scale_tril=self.scale.tril())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="gradients of each estimator")
    parser.add_argument("--folder", type=Path, default=Path("runs/sticking-the-landing"))
    given = parser.parse_args()

    torch.manual_seed(0)
    vae = pv.models.LinearGaussian([6], latent=2)
    with torch.no_grad():
        vae.weight.copy_(torch.randn(6, 2))
        x = vae.likelihood(torch.randn(32, 2)).sample()
    objectives = {"plain": pv.objectives.ELBO(), "sticking the landing": pv.objectives.ELBO(gradient="stl")}
    tables = []
    for distance in (1.0, 0.3, 0.1, 0.03, 0.01, 0.0):
        vae.posterior = Near(vae, distance)
        table = pv.lab.compare(vae, x, objectives, draws=given.draws, progress=False)
        tables.append(table[table.group == "guide"].assign(distance=distance))
    table = pd.concat(tables, ignore_index=True)
    shown = table.pivot_table(["variance", "gap"], "distance", "objective")
    print(shown.to_string(float_format="{:.2g}".format))

    figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, own in table[table.distance > 0].groupby("objective"):
        ax.loglog(own.distance, own.variance, "o-", label=name)
    ax.set(xlabel="distance from the exact posterior", ylabel="variance of the guide's gradient, tr Σ")
    ax.legend(frameon=False)
    given.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.folder / "variance.png", dpi=120)
    print(f"figure: {given.folder}/variance.png")


if __name__ == "__main__":
    main()
