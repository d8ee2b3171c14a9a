"""Expectations over a guide's draws without draws: nodes of a quadrature, and all values of discrete sites."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from conftest import F64
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

import pyrovae as pv
from pyrovae.program import Densities, sample_sites
from pyrovae.program.enumeration import support

# Programs of two parameters: theta of the model, phi of the guide


def parameter(size: int, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(0.6 * torch.randn(size, generator=generator, dtype=F64))


class OneLatent(nn.Module):
    """z ~ 𝒩(m, 1), x_j ~ 𝒩(v_j z + b_j, t²) for two features; q(z | x) = 𝒩(a·x + c, s²)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi = parameter(6, 1), parameter(4, 2)

    def model(self, x: Tensor) -> None:
        v, b, (m, log_t) = self.theta.split([2, 2, 2])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(m, 1.0).expand([1]).to_event(1))
            pyro.sample("x", dist.Normal(z * v + b, (log_t + 0.5).exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        a, (c, log_s) = self.phi.split([2, 2])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x @ a + c)[:, None], (log_s + 0.8).exp()).to_event(1))

    def data(self, n: int) -> Tensor:
        return torch.randn(n, 2, dtype=F64)


class Masked(nn.Module):
    """z2 ~ 𝒩(0, 1), z1 ~ 𝒩(w z2, s²), x_j ~ 𝒩(v_j z1, t²), −9 for a missing feature; q(z1 | x) q(z2 | z1)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi = parameter(5, 3), parameter(5, 4)

    def model(self, x: Tensor) -> None:
        v, (w, log_s, log_t) = self.theta.split([2, 3])
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(w * z2, log_s.exp()).to_event(1))
            pyro.sample("x", dist.Normal(z1 * v, log_t.exp()).mask(x > -9).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        a, (c, log_p, log_r) = self.phi.split([2, 3])
        seen = torch.where(x > -9, x, torch.zeros_like(x))
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal((seen @ a)[:, None], (log_p - 1.5).exp()).to_event(1))
            pyro.sample("z2", dist.Normal(c * z1, (log_r - 0.8).exp()).to_event(1))

    def data(self, n: int) -> Tensor:
        x = torch.randn(n, 2, dtype=F64)
        x[0, 1] = x[n // 2, 0] = -9
        return x


class Coins(nn.Module):
    """z ~ Bernoulli(σ(m)) in {0, 1}², x ~ Bernoulli(σ(W z + b)) in {0, 1}³; q(z | x) = Bernoulli(σ(A x + c))."""

    def __init__(self, mark: bool = False) -> None:
        super().__init__()
        self.theta, self.phi = parameter(11, 5), parameter(8, 6)
        self.infer = {"enumerate": "parallel"} if mark else {}

    def model(self, x: Tensor) -> None:
        m, w, b = self.theta.split([2, 6, 3])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=m).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=2 * z @ w.view(2, 3) + b).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        a, c = self.phi.split([6, 2])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x @ a.view(3, 2) + c).to_event(1), infer=self.infer)

    def data(self, n: int) -> Tensor:
        return torch.rand(n, 3, dtype=F64).round()


class Mixture(nn.Module):
    """y ~ Bernoulli(σ(m)), z ~ 𝒩(μ_y, s²), x ~ 𝒩(v z, t²); a guide of both in either order, or of z alone.

    Args:
        order: of the guide: "yz", "zy", or "z", where the model sums over y.
        mark: whether y is marked for enumeration where it is.
    """

    def __init__(self, order: str = "yz", mark: bool = True) -> None:
        super().__init__()
        self.theta, self.phi, self.order = parameter(6, 7), parameter(6, 8), order
        self.infer = {"enumerate": "parallel"} if mark else {}

    def model(self, x: Tensor) -> None:
        m, low, high, log_s, v, log_t = self.theta
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(logits=m), infer=self.infer if self.order == "z" else {})
            z = pyro.sample("z", dist.Normal(2 * torch.where(y > 0.5, high + 1, low - 1), log_s.exp()))
            pyro.sample("x", dist.Normal((v + 1) * z, log_t.exp()), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            if self.order == "yz":
                self.normal(x, self.coin(x, x))
            else:
                z = self.normal(x, torch.zeros_like(x))
                if self.order == "zy":
                    self.coin(x, z)

    def coin(self, x: Tensor, given: Tensor) -> Tensor:
        return pyro.sample("y", dist.Bernoulli(logits=self.phi[0] + 2 * self.phi[1] * given), infer=self.infer)

    def normal(self, x: Tensor, y: Tensor) -> Tensor:
        a, b, c, log_s = self.phi[2:]
        return pyro.sample("z", dist.Normal(a + b * x + c * y, (log_s - 0.5).exp()))

    def data(self, n: int) -> Tensor:
        return torch.randn(n, dtype=F64)


SOME, EVERY = torch.tensor([True, True, False]), torch.tensor([True, True, True])


def masked_within(of_guide: Tensor, of_model: Tensor) -> Any:
    """Three z, each masked within its distribution: z ~ 𝒩(0, 1), x ~ 𝒩(Σ z, 1), q(z | x) = 𝒩(x + 2, 1)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).mask(of_model).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None].expand(-1, 3) + 2, 1.0).mask(of_guide).to_event(1))

    return types.SimpleNamespace(model=model, guide=guide)


# Expectations


class Nodes(Messenger):
    """Gives each latent site of a guide all of its nodes in turn, along the particles; the last site's change fastest.

    `log_node` [G, B] is the log of a node's share in an expectation under the guide.
    """

    def __init__(self, vae: Any, x: Tensor, points: int) -> None:
        super().__init__()
        t, w = (torch.as_tensor(a) for a in np.polynomial.hermite.hermgauss(points))
        self.points, self.log_share = 2**0.5 * t, (w / math.pi**0.5).log()
        self.values = {}
        for name, site in sample_sites(poutine.trace(vae.guide).get_trace(x)):
            self.values[name] = support(name, site["fn"]) if site["fn"].support.is_discrete else self.points
        self.rows = math.prod(map(len, self.values.values()))
        self.log_node = torch.zeros((), dtype=F64)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.values:
            return
        names, fn = list(self.values), msg["fn"]
        if msg["name"] == names[0]:
            self.log_node = torch.zeros((), dtype=F64)  # a run begins
        after = math.prod(len(self.values[n]) for n in names[names.index(msg["name"]) + 1 :])
        row = torch.arange(self.rows) // after % len(self.values[msg["name"]])
        node = self.values[msg["name"]][row].reshape(-1, 1, *fn.event_shape)  # [G, 1, *event]
        if fn.support.is_discrete:
            msg["value"] = node.expand(*fn.batch_shape, *fn.event_shape)
            self.log_node = self.log_node + fn.log_prob(msg["value"])
        else:
            assert fn.event_shape.numel() == 1
            base = fn.base_dist if fn.event_shape else fn
            base = getattr(base, "base_dist", base)
            msg["value"] = (base.loc + base.scale * node).expand(*fn.batch_shape, *fn.event_shape)
            self.log_node = self.log_node + self.log_share[row][:, None]
        msg["done"] = True


def at_nodes(vae: Any, x: Tensor, points: int) -> tuple[Densities, Tensor]:
    """The densities at all nodes of the guide, and their log shares [G, B]."""
    nodes = Nodes(vae, x, points)
    d = pv.densities(vae, x, nodes.rows, drawn=nodes)
    return d, nodes.log_node.expand(d.shape)


def expected(vae: Any, x: Tensor, particles: int, value: Callable[..., Tensor], points: int = 20) -> Tensor:
    """E[value] over K draws of the guide, [B], with its gradient.

    `value` is a symmetric function of the draws: log prior, log likelihood, log posterior [K, T, B] -> [T, B].
    """
    d, log_node = at_nodes(vae, x, points)
    some = torch.combinations(torch.arange(d.shape[0]), particles, with_replacement=True).T  # [K, T]
    repeats = torch.stack([(some[: k + 1] == some[k]).sum(0) for k in range(particles)]).prod(0)
    orders = math.factorial(particles) / repeats.to(F64)  # [T]
    weight = orders[:, None] * log_node[some].sum(0).exp()
    terms = (t[some] for t in (d.log_prior, d.log_joint - d.log_prior, d.log_posterior))
    return (weight * value(*terms)).sum(0)


# Bounds as functions of the log densities


def elbo(p: Tensor, r: Tensor, q: Tensor) -> Tensor:
    return (p + r - q).mean(0)


def weighed(beta: float) -> Callable[..., Tensor]:
    return lambda p, r, q: (r - beta * (q - p)).mean(0)


def power(t: float) -> Callable[..., Tensor]:
    """1/t log mean w^t."""
    return lambda p, r, q: ((t * (p + r - q)).logsumexp(0) - math.log(len(p))) / t


iwae = power(1)


def both(beta: float) -> Callable[..., Tensor]:
    """β ELBO + (1 − β) IWAE."""
    return lambda p, r, q: beta * elbo(p, r, q) + (1 - beta) * iwae(p, r, q)
