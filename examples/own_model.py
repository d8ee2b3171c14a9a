"""A model of your own: two Pyro methods, plain torch networks, and everything else for nothing.

    pyrovae train examples/own_model.py:StyleAndTone --style 10 --data digits

The story: every digit has a style z ~ 𝒩(0, I) and a tone t ~ LogNormal, by which all its ink is scaled.
"""

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F


class StyleAndTone(nn.Module):
    """p(x, z, t) = p(z) p(t) Π_d Binomial(x_d; 16, 1 − exp(−t f_d(z))).

    Args:
        style: number of latent dimensions of the style.
        hidden: width of the hidden layers.
    """

    def __init__(self, style: int = 10, hidden: int = 200):
        super().__init__()
        self.style = style
        self.decoder = nn.Sequential(nn.Linear(style, hidden), nn.ReLU(), nn.Linear(hidden, 64))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 2 * style + 2))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([self.style]).to_event(1))
            t = pyro.sample("t", dist.LogNormal(0.0, 0.3))
            ink = 1 - torch.exp(-t[..., None] * F.softplus(self.decoder(z)))
            p = ink.clamp(1e-6, 1 - 1e-6).unflatten(-1, (1, 8, 8))
            pyro.sample("x", dist.Binomial(16, p).to_event(3), obs=x)

    def guide(self, x):
        h = self.encoder(x / 16)
        loc, log_scale, tone = h.split([self.style, self.style, 2], dim=-1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
            pyro.sample("t", dist.LogNormal(tone[..., 0], 0.3 * tone[..., 1].exp()))
