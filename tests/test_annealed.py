"""Annealed importance sampling: exact where the guide is, unbiased everywhere, and near where the guide is poor."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import EXACT, F64, FREE, TIGHT, Global, LinearGaussian, TwoLatents, z_test
from exact import SOME, Coins, Masked, Mixture, masked_within
from torch import Tensor

import pyrovae as pv
from pyrovae.evaluation import annealed
from pyrovae.evaluation.annealed import anneal, schedule

X = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=F64)

# Programs whose evidence is known, with guides that are not the posterior


class Constrained(nn.Module):
    """t ~ LogNormal(0, ½), b ~ Beta(2, 3), x_j ~ 𝒩(t b, 0.3²) for two features; the guide is LogNormal and Beta."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.tensor([0.2, 0.9, 1.2, 1.1], dtype=F64))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", dist.LogNormal(x.new_zeros(()), 0.5))
            b = pyro.sample("b", dist.Beta(x.new_tensor(2.0), 3.0))
            pyro.sample("x", dist.Normal((t * b)[..., None], 0.3).expand([*t.shape, 2]).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, scale, a, b = self.phi
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", dist.LogNormal(loc * x.mean(-1), scale))
            pyro.sample("b", dist.Beta(a + 0 * t, b))

    def log_evidence(self, x: Tensor) -> Tensor:
        """By the midpoint rule over log t and b."""
        n = 800
        u = (torch.arange(n, dtype=F64)[:, None] + 0.5) / n
        s, b = 8 * u - 4, u.T
        log_prior = dist.Normal(torch.zeros((), dtype=F64), 0.5).log_prob(s)
        log_prior = log_prior + dist.Beta(torch.tensor(2.0, dtype=F64), 3.0).log_prob(b)
        log_p = [log_prior + dist.Normal(s.exp() * b, 0.3).log_prob(row[:, None, None]).sum(0) for row in x]
        return torch.stack([p.logsumexp((0, 1)) for p in log_p]) + math.log(8 / n**2)

    def data(self, n: int) -> Tensor:
        return 0.6 + 0.4 * torch.randn(n, 2, dtype=F64)


class Shares(nn.Module):
    """z ~ Dirichlet(1, 2, 3), x ~ Multinomial(8, z): two unconstrained coordinates for three numbers."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=F64)))
            pyro.sample("x", dist.Multinomial(8, z, validate_args=False), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(1.5 + 0.2 * x))

    def log_evidence(self, x: Tensor) -> Tensor:
        return dist.DirichletMultinomial(torch.tensor([1.0, 2.0, 3.0], dtype=F64), 8).log_prob(x)

    def data(self, n: int) -> Tensor:
        return dist.Multinomial(8, torch.tensor([0.5, 0.3, 0.2], dtype=F64)).sample((n,))


class Plated(nn.Module):
    """z_j ~ 𝒩(0, 1) in a plate of its own to the left of the data, x_j ~ 𝒩(z_j, ½²)."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.movedim(-2, -1), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", 2, dim=-2):
            pyro.sample("z", dist.Normal(0.4 * x.mT, 0.9))

    def log_evidence(self, x: Tensor) -> Tensor:
        return dist.Normal(0.0, 1.25**0.5).log_prob(x).sum(-1)

    def data(self, n: int) -> Tensor:
        return torch.randn(n, 2, dtype=F64)


class Folded(TwoLatents):
    """Takes its latents as [N, 1] alone, so that K particles are a batch of K·B."""

    def model(self, x: Tensor) -> None:
        w, v, s, t = self.theta
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(torch.einsum("nl->nl", w * z2), s).to_event(1))
            pyro.sample("x", dist.Normal(v * z1, t).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        a, c, p, r = self.phi
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(a * x, p).to_event(1))
            pyro.sample("z2", dist.Normal(torch.einsum("nl->nl", c * z1), r).to_event(1))


class Missing(Masked):
    """Observations with a mask; a guide that is wider than the posterior, so that the weights have a variance."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.phi[3:] += 1.5

    def log_evidence(self, x: Tensor) -> Tensor:
        v, (w, log_s, log_t) = self.theta.split([2, 3])
        seen = x > -9
        covariance = (w**2 + (2 * log_s).exp()) * torch.outer(v, v) + (2 * log_t).exp() * torch.eye(2, dtype=F64)
        both = dist.MultivariateNormal(torch.zeros(2, dtype=F64), covariance).log_prob(x)
        each = dist.Normal(0.0, covariance.diag().sqrt()).log_prob(x)
        return torch.where(seen.all(-1), both, (each * seen).sum(-1))


class Summed(Mixture):
    """A discrete site that the model has alone."""

    def __init__(self) -> None:
        super().__init__("z")

    def log_evidence(self, x: Tensor) -> Tensor:
        m, low, high, log_s, v, log_t = self.theta
        scale = ((v + 1) ** 2 * (2 * log_s).exp() + (2 * log_t).exp()).sqrt()
        zero, one = (dist.Normal((v + 1) * 2 * mean, scale).log_prob(x) for mean in (low - 1, high + 1))
        return torch.logaddexp(nn.functional.logsigmoid(-m) + zero, nn.functional.logsigmoid(m) + one)


class Withheld(nn.Module):
    """Three z, the third masked in model and guide: it stays as q(z₃ | x) = 𝒩(x + 2, 1) draws it."""

    def __init__(self) -> None:
        super().__init__()
        program = masked_within(SOME, SOME)
        self.model, self.guide = program.model, program.guide

    def log_evidence(self, x: Tensor) -> Tensor:
        return dist.Normal(x + 2, 2.0).log_prob(x)  # x | z₃ ~ 𝒩(z₃, 3)

    def data(self, n: int) -> Tensor:
        return -2 + 0.4 * torch.randn(n, dtype=F64)  # where the guide is not far from the prior


class Wide(LinearGaussian):
    """A guide whose mean is off and whose scale is more than the posterior's, so that the weights have a variance."""

    def __init__(self) -> None:
        super().__init__(guide="free")
        with torch.no_grad():
            self.log_s += 0.6


# The mean of 6,000 weights is as good as normal where their variance is finite, so every guide has to be wide enough
KNOWN: dict[str, Callable[[], Any]] = {
    "one latent": Wide,
    "two latents": FREE["two latents"],
    "two latents, downwards": FREE["two latents, downwards"],
    "constrained": Constrained,
    "simplex": Shares,
    "plates beside the data": Plated,
    "folded": Folded,
    "missing data": Missing,
    "masked latent": Withheld,
    "summed in the model": Summed,
}


@pytest.fixture
def log_weights(monkeypatch: Any) -> list[Tensor]:
    """What every chunk of a run gives: [k, b]."""
    seen: list[Tensor] = []

    def run(*args: Any, of: Any = annealed._run) -> Any:
        found = of(*args)
        seen.append(found[0])
        return found

    monkeypatch.setattr(annealed, "_run", run)
    return seen


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_posterior_gives_every_chain_the_evidence(name, log_weights):
    vae = EXACT[name]()
    x = vae.data(4)
    a = anneal(vae, x, chains=3, steps=6)
    exact = vae.log_evidence(x).detach()
    torch.testing.assert_close(a.log_evidence, exact, **TIGHT)
    torch.testing.assert_close(log_weights[0], exact.expand(3, -1), **TIGHT)
    assert a.standard_error.max() < 1e-9
    assert 0.5 < a.acceptance < 0.9


def test_one_step_is_importance_sampling():
    vae = LinearGaussian(guide="free")
    x = vae.data(4)
    a = anneal(vae, x, chains=7, steps=1, seed=3)
    torch.manual_seed(3)
    log_weight = pv.densities(vae, x, 7).log_weight.detach()
    torch.testing.assert_close(a.log_evidence, log_weight.logsumexp(0) - math.log(7), **TIGHT)
    relative = log_weight.softmax(0) * 7
    torch.testing.assert_close(a.standard_error, relative.std(0) / math.sqrt(7), **TIGHT)
    assert math.isnan(a.acceptance)
    assert math.isnan(anneal(vae, x, chains=1, steps=1).log_evidence_monte_carlo_error)


@pytest.mark.parametrize("name", KNOWN)
def test_the_weights_mean_is_the_evidence(name, log_weights):
    """E[w / p(x)] = 1 by one z-test of 6,000 chains for each of 4 data, wrong one time in 10^6."""
    vae = KNOWN[name]()
    x = vae.data(4)
    a = anneal(vae, x, chains=6000, steps=5, leapfrog=3)
    log_w = torch.cat(log_weights, 1)  # all chains of a datum come together
    assert log_w.shape == (6000, 4)
    z_test((log_w - vae.log_evidence(x).detach()).exp(), torch.ones(4, dtype=F64))
    torch.testing.assert_close(a.log_evidence, log_w.logsumexp(0) - math.log(6000), **TIGHT)


def test_many_steps_are_worth_more_than_as_many_chains():
    """Ten latents and the prior as guide, 16 chains: importance sampling is nats away, annealing is not."""
    vae = LinearGaussian(latent=10, event=20, guide="free")
    with torch.no_grad():
        vae.a.zero_()
        vae.c.zero_()
        vae.log_s.zero_()
    x = vae.data(8)
    exact = vae.log_evidence(x).detach()
    long, plain = anneal(vae, x, chains=16, steps=200), pv.evaluate(vae, x, particles=16)
    assert (long.log_evidence - exact).abs().max() < 0.1 * (plain.log_evidence - exact).abs().min()
    assert abs(long.log_evidence_mean - float(exact.mean())) < 0.5
    assert long.log_evidence_monte_carlo_error < 0.2


def test_the_schedule_goes_from_the_guide_to_the_posterior():
    for steps in (1, 2, 7, 1000):
        beta = schedule(steps)
        assert len(beta) == steps + 1
        assert (beta[0], beta[-1]) == (0.0, 1.0)
        assert all(a < b for a, b in pairwise(beta))


def test_chunks_change_neither_the_number_of_chains_nor_the_data(monkeypatch, log_weights):
    monkeypatch.setattr(annealed, "_ROWS", 50)
    vae = LinearGaussian()
    x = vae.data(60)
    a = anneal(vae, x, chains=5, steps=2, leapfrog=1)
    assert {tuple(w.shape) for w in log_weights} == {(5, 10)}
    torch.testing.assert_close(a.log_evidence, vae.log_evidence(x).detach(), **TIGHT)
    log_weights.clear()
    monkeypatch.setattr(annealed, "_ROWS", 3)  # a datum whose chains are too many for one chunk
    a = anneal(vae, x[:2], chains=5, steps=2, leapfrog=1)
    assert [tuple(w.shape) for w in log_weights] == [(3, 1), (2, 1)] * 2
    torch.testing.assert_close(a.log_evidence, vae.log_evidence(x[:2]).detach(), **TIGHT)


def test_memory_does_not_grow_with_the_steps():
    vae = pv.models.VAE(
        pv.priors.StandardNormal(4),
        pv.likelihoods.Bernoulli(pv.networks.MLP([4], [1, 28, 28], [20])),
        pv.posteriors.DiagonalNormal(pv.networks.MLP([1, 28, 28], [8], [20])),
    )
    x = torch.bernoulli(torch.full((20, 1, 28, 28), 0.5))
    anneal(vae, x, steps=2, leapfrog=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    anneal(vae, x, steps=400, leapfrog=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB; with every graph kept, 400 MiB


def test_annealing_leaves_mode_gradients_statistics_and_random_numbers_alone():
    vae = pv.models.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(pv.networks.TransposedConv([2], [1, 4, 4], [3], batch_norm=True)),
        pv.posteriors.DiagonalNormal(pv.networks.Conv([1, 4, 4], [4], [3], batch_norm=True)),
    ).train()
    vae.posterior.eval()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    x = torch.bernoulli(torch.full((5, 1, 4, 4), 0.5))
    state = torch.get_rng_state()
    a, b, c = (anneal(vae, x, chains=3, steps=3, leapfrog=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.log_evidence, b.log_evidence)
    assert torch.equal(a.standard_error, b.standard_error)
    assert not torch.equal(a.log_evidence, c.log_evidence)
    assert (a.chains, a.steps, a.seed, c.seed) == (3, 3, 0, 1)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert not a.log_evidence.requires_grad
    assert vae.training
    assert vae.likelihood.network.training
    assert not vae.posterior.training


def test_nothing_is_adapted_to_the_draws_that_count(monkeypatch):
    """Step sizes that know them would bias the weights: they come from the pilot run, which has a seed of its own."""
    seeds, tuned, moved = [], [], []

    def pilot(*args, of=annealed._pilot):
        tuned.append(of(*args))
        moved.clear()
        return tuned[-1]

    def transition(space, state, beta, step, scale, leapfrog, of=annealed._transition):
        moved.append((step, scale))
        return of(space, state, beta, step, scale, leapfrog)

    def seeded(seed, device, of=annealed.seeded):
        seeds.append(seed)
        return of(seed, device)

    for name, spy in {"_pilot": pilot, "_transition": transition, "seeded": seeded}.items():
        monkeypatch.setattr(annealed, name, spy)
    vae = LinearGaussian(guide="free")
    anneal(vae, vae.data(3), chains=4, steps=50, leapfrog=1, seed=7)
    assert len(seeds) == len(set(seeds)) == 2
    assert seeds[0] == 7
    (found,) = tuned
    assert len(moved) == 49
    assert all(scale is found.scale and any(step is s for s in found.steps) for step, scale in moved)
    assert {id(step) for step, _ in moved} == {id(step) for step in found.steps}


def test_a_first_call_gives_what_a_second_does():
    """Of a program whose parameters are made in the first run, and whose layout is found in it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    program, x = pv.Program(model, guide), X.float()
    a, b = (anneal(program, x, chains=3, steps=3, leapfrog=1) for _ in range(2))
    assert torch.equal(a.log_evidence, b.log_evidence)
    torch.manual_seed(1)
    assert torch.equal(a.log_evidence, anneal(pv.Program(model, guide), x, chains=3, steps=3, leapfrog=1).log_evidence)


def test_a_float32_vae_is_no_lower_than_importance_sampling():
    """On digits, with 16 chains and 16 particles."""
    data = pv.data.load("digits")
    torch.manual_seed(0)
    vae = pv.models.VAE.build(data, latent=8, hidden=[64])
    pv.fit(vae, data, epochs=3, progress=False)
    x = data.test[:16]
    a, ev = anneal(vae, x, steps=60), pv.evaluate(vae, x, particles=16)
    assert a.log_evidence_mean >= ev.log_evidence_mean
    assert a.log_evidence_mean == pytest.approx(float(a.log_evidence.mean()))
    assert torch.isfinite(a.log_evidence).all()
    assert torch.isfinite(a.standard_error).all()
    assert 0 < a.log_evidence_monte_carlo_error < ev.log_evidence_monte_carlo_error
    assert 0.6 < a.acceptance < 0.8


def test_the_example_of_ones_own_model_is_annealed():
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "examples" / "own_model.py"
    spec = importlib.util.spec_from_file_location("own_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    vae, x = module.StyleAndTone(style=3, hidden=16), pv.data.load("digits").test[:6]
    a, ev = anneal(vae, x, steps=60), pv.evaluate(vae, x, particles=16)
    assert torch.isfinite(a.log_evidence).all()
    assert a.log_evidence_mean > ev.log_evidence_mean


# Refusals


class Of(nn.Module):
    """One latent of this distribution, in model and guide."""

    def __init__(self, latent: Callable[[], Any], mark: bool = False) -> None:
        super().__init__()
        self.latent, self.infer = latent, {"enumerate": "parallel"} if mark else {}

    def draw(self, x: Tensor) -> None:
        pyro.sample("z", self.latent(), infer=self.infer)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            self.draw(x)
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            self.draw(x)


class Nested(Of):
    """z within what is drawn before it."""

    def draw(self, x: Tensor) -> None:
        top = pyro.sample("top", dist.Gamma(x.new_tensor(2.0), 1.0))
        pyro.sample("z", dist.Uniform(0.0, top))


@pytest.mark.parametrize(
    ("build", "x", "options", "message"),
    [
        (
            Coins,
            torch.ones(4, 3, dtype=F64),
            {},
            "continuous latents, and site 'z' of the guide is Bernoulli, which is",
        ),
        (
            lambda: Coins(mark=True),
            torch.ones(4, 3, dtype=F64),
            {},
            "is Bernoulli, which is discrete; use evaluate, or",
        ),
        (
            lambda: Of(lambda: pv.distributions.relaxed.RelaxedBernoulli(torch.zeros(()), 0.1)),
            X,
            {},
            "'z' of the guide is RelaxedBernoulli, which has mass at the ends of its range; use evaluate",
        ),
        (
            lambda: Of(lambda: dist.ProjectedNormal(torch.ones(3))),
            X,
            {},
            "unconstrained coordinates for, and site 'z' of the guide is ProjectedNormal, which has none; use evaluate",
        ),
        (lambda: Nested(list), X, {}, "support depends on x alone, and that of 'z' depends on other latents; give it"),
        (lambda: Global(5), X, {}, "anneal weighs particles datum by datum.*'theta' is outside it"),
        (LinearGaussian, torch.randn(4, 3), {"chains": 0}, "anneal expects chains of at least 1, got chains=0; give a"),
        (LinearGaussian, torch.randn(4, 3), {"steps": 0}, "anneal expects steps of at least 1, got steps=0; give a"),
        (
            LinearGaussian,
            torch.randn(4, 3),
            {"leapfrog": 2.5},
            "leapfrog of at least 1, got leapfrog=2.5; give a whole",
        ),
        (LinearGaussian, torch.randn(0, 3), {}, r"anneal expects data .* at least one value, got shape \[0, 3\]; give"),
        (LinearGaussian, [1.0], {}, "anneal expects data as a tensor .* got list; convert it by torch.as_tensor"),
        (LinearGaussian, torch.full((4, 3), math.nan), {}, "NaN or infinite; remove or impute them"),
    ],
)
def test_what_annealing_refuses(build, x, options, message):
    with pytest.raises(ValueError, match=message):
        anneal(build(), x, **({"chains": 2, "steps": 2} | options))
