r"""Digits with their labels: each class has a place of its own in latent space.

    y ~ Categorical(π),    z | y ~ 𝒩(m_y, I),    x_d | z ~ Binomial(16, σ(f_d(z)))    y and x are observed

    pyrovae train examples/stories/labelled.py:Labelled --data digits --labelled true --learning_rate 1e-2 --epochs 100

Test log evidence, nats per datum: −87.81 ± 1.04. Baseline, shares of the classes, and a histogram for every pixel in
each: −100.09.
"""

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Labelled(nn.Module):
    """p(y, z, x) = p(y) p(z | y) Π_d Binomial(x_d | 16, σ(f_d(z))): every class has its own place in latent space."""

    def __init__(self, latent: int = 10, hidden: int = 200, classes: int = 10) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(classes))
        self.loc = nn.Parameter(torch.randn(classes, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def model(self, x: Tensor) -> None:
        """x: [B, 65], the label and then the pixels."""
        with pyro.plate("data", len(x), dim=-1):
            label = F.one_hot(x[:, 0].long(), len(self.share)).to(x.dtype)
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.share), obs=label)
            z = pyro.sample("z", dist.Normal(y @ self.loc, 1.0).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=self.decoder(z)).to_event(1), obs=x[:, 1:])
