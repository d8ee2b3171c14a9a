"""What the tests share: programs with known answers, one small VAE a likelihood, statistical and device checks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from scipy import stats
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import pyrovae as pv
from pyrovae.program.capture import capture
from pyrovae.training.step import Step

F64 = torch.float64
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test starts alike, and leaves torch and Pyro as it found them."""
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.enable_validation(True)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()
    torch.set_default_dtype(torch.float32)


# Programs with known answers


class LinearGaussian(nn.Module):
    """z ~ 𝒩(0, I_L), x | z ~ 𝒩(W z + b, σ² I_D); the guide is exact, or 𝒩(A x + c, diag s²)."""

    def __init__(self, latent: int = 2, event: int = 3, guide: str = "exact", size: int | None = None) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(event, latent, generator=g, dtype=F64))
        self.b = nn.Parameter(torch.randn(event, generator=g, dtype=F64))
        self.log_sigma = nn.Parameter(torch.tensor(-0.3, dtype=F64))
        self.exact, self.size = guide == "exact", size
        if not self.exact:
            self.a = nn.Parameter(0.3 * torch.randn(latent, event, generator=g, dtype=F64))
            self.c = nn.Parameter(0.3 * torch.randn(latent, generator=g, dtype=F64))
            self.log_s = nn.Parameter(torch.full((latent,), -0.5, dtype=F64))

    def plate(self, x: Tensor) -> Any:
        """The data plate, a minibatch of `size` rows if that is given."""
        return pyro.plate("data", self.size or len(x), subsample_size=len(x) if self.size else None)

    def model(self, x: Tensor) -> None:
        latent = self.w.shape[1]
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.w.T + self.b, self.log_sigma.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with self.plate(x):
            pyro.sample("z", self.true_posterior(x) if self.exact else self.posterior(x))

    def posterior(self, x: Tensor) -> Any:
        return dist.Normal(x @ self.a.T + self.c, self.log_s.exp()).to_event(1)

    def true_posterior(self, x: Tensor) -> Any:
        precision = torch.eye(self.w.shape[1], dtype=F64) + self.w.T @ self.w / (2 * self.log_sigma).exp()
        cov = torch.linalg.inv(precision)
        loc = (x - self.b) @ self.w @ cov / (2 * self.log_sigma).exp()
        return dist.MultivariateNormal(loc, (cov + cov.T) / 2)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log 𝒩(x; b, W Wᵀ + σ² I): [B]."""
        cov = self.w @ self.w.T + (2 * self.log_sigma).exp() * torch.eye(len(self.b), dtype=F64)
        return dist.MultivariateNormal(self.b, cov).log_prob(x)

    def data(self, n: int) -> Tensor:
        return torch.randn(n, len(self.b), dtype=F64)


class TwoLatents(nn.Module):
    """z2 ~ 𝒩(0, 1), z1 | z2 ~ 𝒩(w z2, s²), x | z1 ~ 𝒩(v z1, t²), all of one dimension.

    The guide goes "up", q(z1 | x) q(z2 | z1), where it may be "exact", or "down", q(z2 | x) q(z1 | z2, x).
    """

    def __init__(self, guide: str = "up") -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.8, 1.3, 0.7, 0.6], dtype=F64))  # w, v, s, t
        self.phi = nn.Parameter(torch.tensor([0.4, 0.5, 0.6, 0.7], dtype=F64))  # slopes and scales of z1 | x, z2 | z1
        self.kind = guide

    def model(self, x: Tensor) -> None:
        w, v, s, t = self.theta
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(w * z2, s).to_event(1))
            pyro.sample("x", dist.Normal(v * z1, t).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        a, c, p, r = self.true_phi() if self.kind == "exact" else self.phi
        with pyro.plate("data", len(x)):
            if self.kind == "down":
                z2 = pyro.sample("z2", dist.Normal(a * x, p).to_event(1))
                pyro.sample("z1", dist.Normal(c * (x + z2), r).to_event(1))
                return
            z1 = pyro.sample("z1", dist.Normal(a * x, p).to_event(1))
            pyro.sample("z2", dist.Normal(c * z1, r).to_event(1))

    def true_phi(self) -> tuple[Tensor, ...]:
        w, v, s, t = self.theta
        prior = w**2 + s**2  # Var z1
        var1 = 1 / (1 / prior + v**2 / t**2)
        var2 = 1 / (1 + w**2 / s**2)
        return var1 * v / t**2, var2 * w / s**2, var1.sqrt(), var2.sqrt()

    def log_evidence(self, x: Tensor) -> Tensor:
        w, v, s, t = self.theta
        return dist.Normal(0.0, (v**2 * (w**2 + s**2) + t**2).sqrt()).log_prob(x).sum(-1)

    def data(self, n: int) -> Tensor:
        return torch.randn(n, 1, dtype=F64)


class Global(nn.Module):
    """θ ~ 𝒩(0, 1) for the whole data set, z ~ 𝒩(θ, 1), x ~ 𝒩(z, 1)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.loc = nn.Parameter(torch.tensor(0.3, dtype=F64))
        self.slope = nn.Parameter(torch.tensor(0.4, dtype=F64))

    def model(self, x: Tensor) -> None:
        theta = pyro.sample("theta", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", self.size, subsample=torch.arange(len(x), device=x.device)):
            z = pyro.sample("z", dist.Normal(theta, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("theta", dist.Normal(self.loc, 0.4))
        with pyro.plate("data", self.size, subsample=torch.arange(len(x), device=x.device)):
            pyro.sample("z", dist.Normal(self.slope * x, 0.7))


EXACT: dict[str, Callable[[], Any]] = {
    "one latent": lambda: LinearGaussian(),
    "two latents": lambda: TwoLatents("exact"),
}
FREE: dict[str, Callable[[], Any]] = {
    "one latent": lambda: LinearGaussian(guide="free"),
    "two latents": lambda: TwoLatents("up"),
    "two latents, downwards": lambda: TwoLatents("down"),
}


# Checks


def run(objective: Callable[[Any, Tensor], Any], vae: Any, x: Tensor, seed: int = 5) -> Any:
    """An objective, or another function of program and data, under a seed."""
    torch.manual_seed(seed)
    return objective(vae, x)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss by parameter name; one that is not reached fails."""
    names, parameters = zip(*((n, p) for n, p in module.named_parameters() if p.requires_grad), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def reached(module: nn.Module, loss: Tensor) -> None:
    """The loss has a finite gradient, not identically zero, for every parameter."""
    for name, g in gradients(module, loss).items():
        assert torch.isfinite(g).all(), name
        assert g.abs().max() > 0, name


def z_test(draws: Tensor, exact: Tensor, failure_rate: float = 1e-6) -> None:
    """The mean of independent draws [n, m] is `exact` [m]: one test over all m, wrong this often for right code."""
    constant = draws.std(0) < 1e-12  # no draw of these has any error: they are equal, or wrong
    torch.testing.assert_close(draws.mean(0)[constant], exact[constant], rtol=1e-9, atol=1e-12)
    draws, exact = draws[:, ~constant], exact[~constant]
    n, m = draws.shape
    if m == 0:
        return
    t = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(n))
    limit = stats.t.isf(failure_rate / 2 / m, n - 1)
    assert t.abs().max() < limit, f"|t| = {t.abs().max():.2f} over the limit {limit:.2f} at {int(t.abs().argmax())}"


READS_BACK = ("_local_scalar_dense", "_linalg_check_errors", "cholesky_inverse")  # the last two on a GPU


def check_trace(vae: Any, objective: Any, x: Tensor) -> None:
    """The step is captured whole, reads nothing back, and gives what it gives in Python, at equal noise."""
    objective(vae, x)  # a baseline takes its size from the first batch
    step = Step(vae, objective)
    state = [b for m in (vae, objective) for b in m.buffers()]
    before = [b.clone() for b in state]

    def results(function: Any, seed: int) -> list[Any]:
        for b, old in zip(state, before, strict=True):
            b.copy_(old)  # a running mean moves
        torch.manual_seed(seed)
        return [*function(x), *(b.clone() for b in state), torch.rand(())]

    with pyro.validation_enabled(False):
        graph = capture(step._traced, (vae, objective), x)
        assert not any(op in graph.code for op in READS_BACK)
        python = {seed: results(step.python, seed) for seed in (5, 6)}
        for seed, expected in python.items():
            for a, b in zip(expected, results(graph, seed), strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    torch.testing.assert_close(a, b)
        drawn = python[5][0] != python[6][0]  # an autoencoder's step has no noise
        assert (graph(x)[0] != graph(x)[0]) == drawn  # the noise is drawn anew, not frozen


def check_device(build: Callable[[], Any], objective: Callable[[], Any], data: Callable[..., Tensor]) -> None:
    """Everything stays where the module is: a CPU tensor among CUDA ones is refused."""
    with fake_cuda():
        with torch.device("cuda"):
            vae, o, x = build(), objective(), data(dtype=torch.float32)
        d = pv.densities(vae, x, 3)
        assert d.log_weight.device.type == d.log_global.device.type == "cuda"
        e = o(vae, x)
        assert e.bound.device.type == e.surrogate.device.type == "cuda"
        if torch.cuda.is_available():  # autograd asks the driver for a stream
            for g in torch.autograd.grad(e.surrogate.mean(), list(vae.parameters())):
                assert g.device.type == "cuda"


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors without numbers, on a CUDA device that need not be there; build under `torch.device("cuda")`."""
    with FakeTensorMode(), pyro.validation_enabled(False):
        yield
