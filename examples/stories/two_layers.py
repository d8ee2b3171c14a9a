"""Digits with two layers of latents: the upper one makes the prior of the lower one.

    z2 ~ 𝒩(0, I),    z1 | z2 ~ 𝒩(m(z2), diag s²(z2)),    x_d | z1 ~ Binomial(16, σ(f_d(z1)))

    pyrovae train examples/stories/two_layers.py:TwoLayers --learning_rate 3e-3 --epochs 100

Test log evidence, nats per datum: −85.41 ± 0.68. Baseline, a histogram for every pixel: −107.57.
"""

import pyro
import pyro.distributions as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class TwoLayers(nn.Module):
    """p(x, z1, z2) = p(z2) p(z1 | z2) Π_d Binomial(x_d | 16, σ(f_d(z1))): a prior of z1 that is learned."""

    def __init__(self, above: int = 4, below: int = 16, hidden: int = 200) -> None:
        super().__init__()
        self.above = above
        self.middle = nn.Sequential(nn.Linear(above, hidden), nn.ReLU(), nn.Linear(hidden, 2 * below))
        self.decoder = nn.Sequential(nn.Linear(below, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def model(self, x: Tensor) -> None:
        """x: [B, 1, 8, 8]."""
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0).expand([self.above]).to_event(1))
            loc, scale = self.middle(z2).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, F.softplus(scale) + 0.1).to_event(1))
            logits = self.decoder(z1).unflatten(-1, (1, 8, 8))
            pyro.sample("x", dist.Binomial(16, logits=logits).to_event(3), obs=x)
