"""Tighter variational bounds are not necessarily better: the toy of that paper, measured.

    python examples/tighter_bounds.py          # about three minutes; --draws 100 for a first look

More particles make IWAE a tighter bound, and the gradient of the model a better one: its signal-to-noise rises as √K.
The gradient of the guide gets worse: its mean falls as 1/K and its noise only as 1/√K, so that it drowns. The doubly
reparametrised gradient (DReG) of the same bound takes the noise away.

The slopes are those of many particles: they are fitted from K = 32 on, before which the model's gradient is still that
of a loose bound.

References: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018; Tucker et al., "Doubly
reparameterized gradient estimators for Monte Carlo objectives", 2019.
"""

import argparse
import math

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn

import pyrovae as pv


class Toy(nn.Module):
    """z ~ 𝒩(μ, I), x | z ~ 𝒩(z, I) in 20 dimensions; q(z | x) = 𝒩(A x + b, ⅔ I), where the posterior has ½ I.

    The parameters are those of the largest ELBO, μ the mean of x, A = ½ I and b = ½ μ, each moved a little.
    """

    def __init__(self, x, moved=0.01):
        super().__init__()
        d, mean = x.shape[1], x.mean(0)
        self.mu = nn.Parameter(mean + moved * torch.randn(d))
        self.a = nn.Parameter(torch.eye(d) / 2 + moved * torch.randn(d, d))
        self.b = nn.Parameter(mean / 2 + moved * torch.randn(d))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.mu, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x @ self.a.T + self.b, math.sqrt(2 / 3)).to_event(1))

    def log_evidence(self, x):
        """log 𝒩(x; μ, 2 I): with this method the laboratory knows the truth."""
        return dist.Normal(self.mu, math.sqrt(2)).to_event(1).log_prob(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="gradients of each estimator")
    parser.add_argument("--data", type=int, default=256, help="how many x")
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--fit_from", type=int, default=32, help="particles that the slopes are fitted from")
    parser.add_argument("--folder", default="runs/tighter-bounds", help="where the report goes")
    given = parser.parse_args()

    torch.manual_seed(0)
    x = torch.randn(20) + math.sqrt(2) * torch.randn(given.data, 20)
    objectives = {"IWAE": pv.objectives.IWAE(), "IWAE, DReG": pv.objectives.IWAE(gradient="dreg")}
    table = pv.lab.compare(
        Toy(x), x, objectives, given.draws, particles=given.particles, bias=False, folder=given.folder
    )

    print("\nsignal-to-noise of the gradients")
    print(table.pivot_table("snr", "particles", ["group", "objective"]).round(3).to_string())
    print(f"\nslopes of log signal-to-noise in log K, from K = {given.fit_from} on")
    print(pv.lab.slopes(table, fit_from=given.fit_from).round(3).to_string(index=False))
    pv.plots.signal_to_noise(table, given.fit_from).savefig(f"{given.folder}/signal_to_noise.png")
    print(f"\nfigure: {given.folder}/signal_to_noise.png\nreport, its slopes over all K: {given.folder}/report.html")


if __name__ == "__main__":
    main()
