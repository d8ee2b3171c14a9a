"""Programs of every shape that a description and a diagram have to show."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from conftest import F64, Global, TwoLatents
from pieces import small_data, small_vae

import pyrovae as pv


class Clusters(nn.Module):
    """A cluster that is summed over, and an inner plate."""

    def __init__(self):
        super().__init__()
        self.loc, self.logits = nn.Parameter(torch.randn(3)), nn.Parameter(torch.zeros(3))
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(1, 1)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-2):
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(self.loc[c], 1.0))
            with pyro.plate("time", 4, dim=-1):
                w = pyro.sample("w", dist.Normal(z, 1.0))
                pyro.sample("x", dist.Normal(self.decoder(w[..., None])[..., 0], 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-2):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            z = pyro.sample("z", dist.Normal(loc, log_scale.exp()))
            with pyro.plate("time", 4, dim=-1):
                pyro.sample("w", dist.Normal(z + x, 1.0))


class Chain(nn.Module):
    """z_t -> z_{t+1}, z_t -> x_t."""

    def __init__(self, steps=8):
        super().__init__()
        self.steps, self.a, self.encoder = steps, nn.Parameter(torch.tensor(0.9)), nn.Linear(2, 2)

    def model(self, x):
        z = x.new_zeros(len(x))
        with pyro.plate("data", len(x)):
            for t in range(self.steps):
                z = pyro.sample(f"z_{t}", dist.Normal(self.a * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(self, x):
        z = x.new_zeros(len(x))
        with pyro.plate("data", len(x)):
            for t in range(self.steps):
                loc, scale = self.encoder(torch.stack([z, x[:, t]], -1)).unbind(-1)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, scale.sigmoid()))


class Labelled(nn.Module):
    """Two observed sites, the second given the first, and a prior given what none observes before it."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(3, 4), nn.Linear(5, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=x[:, 0])
            z = pyro.sample("z", dist.Normal(x[:, 1:3], 1.0).to_event(1))
            loc = self.decoder(torch.cat([z, x[:, :1]], -1))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[:, 1:])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


class Everything(nn.Module):
    """Global sites, plates side by side and inside one another, two observed sites, a factor."""

    def model(self, x):
        mu, sigma = pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("topics", 5, dim=-1):
            beta = pyro.sample("beta", dist.Normal(mu, 1.0))
        with pyro.plate("data", 1000, subsample=torch.arange(len(x)), dim=-2):
            theta = pyro.sample("theta", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(theta, 1.0), obs=x[:, :1])
            with pyro.plate("words", 3, dim=-1):
                a = pyro.sample("a", dist.Normal(theta, sigma))
                pyro.sample("x", dist.Normal(a + beta.sum(-1), 1.0), obs=x[:, 1:])
            pyro.factor("penalty", -(theta**2))

    def guide(self, x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("topics", 5, dim=-1):
            pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 1000, subsample=torch.arange(len(x)), dim=-2):
            theta = pyro.sample("theta", dist.Normal(x.mean(-1, keepdim=True), 1.0))
            with pyro.plate("words", 3, dim=-1):
                pyro.sample("a", dist.Normal(theta + x[:, 1:], 1.0))


class Tied(nn.Module):
    """An observed site that reads itself; weights that p and q share, are frozen, or are used by neither."""

    def __init__(self):
        super().__init__()
        self.net, self.unused = nn.Linear(4, 4), nn.Linear(2, 2)
        self.net.bias.requires_grad_(False)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(x) + z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))


class Crossed:
    """Plates that cross, no module, no guide."""

    def model(self, x):
        rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 4, dim=-1)
        with rows:
            a = pyro.sample("log_scale", dist.Normal(0.0, 1.0))
        with columns:
            b = pyro.sample("topic_weights", dist.Normal(0.0, 1.0))
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)


GRAPHS = {
    "a VAE": lambda: (small_vae(), small_data(dtype=torch.float32)),
    "two latents": lambda: (TwoLatents("up"), torch.randn(5, 1, dtype=F64)),
    "two latents, downwards": lambda: (TwoLatents("down"), torch.randn(5, 1, dtype=F64)),
    "a global latent": lambda: (Global(1000), torch.randn(5, dtype=F64)),
    "clusters": lambda: (Clusters(), torch.randn(5, 4)),
    "a chain": lambda: (Chain(), torch.randn(5, 8)),
    "a derived chain": lambda: (pv.Program(Chain().model), torch.randn(50, 8)),
    "a long chain": lambda: (Chain(12), torch.randn(5, 12)),
    "labels": lambda: (Labelled(), torch.randn(5, 5)),
    "everything": lambda: (Everything(), torch.randn(5, 4)),
    "tied": lambda: (Tied(), torch.randn(5, 4)),
    "crossed": lambda: (Crossed(), torch.randn(3, 4)),
}
