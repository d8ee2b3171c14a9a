"""Objectives: identities, the same numbers as Pyro, unbiased gradients, tracing and placement."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import (
    EXACT,
    F64,
    FREE,
    TIGHT,
    Global,
    LinearGaussian,
    TwoLatents,
    check_device,
    check_trace,
    gradients,
    reached,
    run,
    z_test,
)
from exact import EVERY, SOME, Mixture, masked_within
from pieces import PAIRS, small_data, small_vae
from pyro.infer import (
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)
from zoo import ALL, OBJECTIVES, holds_draws, vae_for

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE, BetaELBO, PyroELBO
from pyrovae.objectives.elbo import rate
from pyrovae.objectives.weights import power_mean


@pytest.mark.parametrize("name", ALL)
class TestObjectives:
    def test_estimate(self, name):
        vae, x = vae_for(name).double(), small_data()
        e = run(ALL[name](), vae, x)
        assert e.bound.shape == e.surrogate.shape == (4,)
        assert e.bound.dtype == e.surrogate.dtype == F64
        assert not e.bound.requires_grad
        assert torch.equal(run(ALL[name](), vae, x).bound, e.bound)
        reached(vae, e.surrogate.mean())

    def test_state_round_trip(self, name):
        objective, vae, x = ALL[name](), vae_for(name).double(), small_data()
        objective.advance(0.5)
        run(objective, vae, x)
        again = ALL[name]()
        again.load_state_dict(objective.state_dict())
        assert torch.equal(run(again, vae, x).surrogate, run(objective, vae, x).surrogate)

    def test_no_gradient_needed(self, name):
        with torch.no_grad():
            assert torch.isfinite(ALL[name]()(vae_for(name).double(), small_data()).bound).all()

    def test_traces_whole(self, name):
        check_trace(vae_for(name), ALL[name](), small_data(dtype=torch.float32))

    def test_stays_on_its_device(self, name):
        check_device(lambda: vae_for(name), ALL[name], small_data)

    def test_fits(self, name):
        """Two epochs, a ragged last batch among them; the objective that was given is left as it was."""
        vae, objective = vae_for(name), ALL[name]()
        before, state = [p.detach().clone() for p in vae.parameters()], copy.deepcopy(objective.state_dict())
        run = pv.fit(vae, small_data(n=10, dtype=torch.float32), objective, epochs=2, batch_size=4, progress=False)
        assert np.isfinite(run.history["bound"]).all()
        assert all(not torch.equal(p, q) for p, q in zip(vae.parameters(), before, strict=True))
        assert all(torch.equal(v, objective.state_dict()[k]) for k, v in state.items())


# The temperatures of TVO by moments are those of the batch, as the paper has it
@pytest.mark.parametrize("name", [n for n in ALL if n != "TVO moments"])
def test_rows_are_independent(name):
    """A datum's bound does not depend on its neighbours; the guide's noise is held fixed."""
    vae, x = vae_for(name).double(), small_data(n=3)
    for p in vae.posterior.parameters():
        nn.init.zeros_(p)
    whole = run(ALL[name](), vae, x).bound
    other = run(ALL[name](), vae, torch.cat([x[:2], 1 - x[2:]])).bound
    torch.testing.assert_close(whole[:2], other[:2], **TIGHT)
    assert whole[2] != other[2]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_latent_sites(name):
    """Bound and gradients of a program with a hierarchy, and its capture."""
    vae = TwoLatents("down")
    x = vae.data(5)
    e = run(OBJECTIVES[name](), vae, x)
    assert e.bound.shape == (5,)
    reached(vae, e.surrogate.mean())
    check_trace(vae, OBJECTIVES[name](), x)


# A rate in closed form leaves the noise of the rest; a full covariance has no closed form with the prior
EXACT_CASES = [
    (n, m)
    for n, m in itertools.product(OBJECTIVES, EXACT)
    if (m == "one latent" or vars(OBJECTIVES[n]()).get("kl") != "analytic")
    and n != "beta-TC"  # a full covariance has no total correlation by dimension
]


CLOSED = ("ELBO analytic", "ELBO analytic 3", "beta", "warm-up", "free bits")  # of the rate of a full normal


@pytest.mark.parametrize("name", CLOSED)
def test_bound_by_a_closed_form_is_tight_in_the_mean(name):
    """Its draws are of log p(x | z) alone, so that each of them is off at the exact posterior too."""
    vae = EXACT["one latent"]()
    x = vae.data(1).expand(5000, -1)
    z_test(OBJECTIVES[name]()(vae, x).bound[:, None].detach(), vae.log_evidence(x[:1]).detach())


@pytest.mark.parametrize(("name", "model"), [c for c in EXACT_CASES if c not in [(n, "one latent") for n in CLOSED]])
def test_bound_is_tight_at_the_exact_posterior(name, model):
    """Bound = log p(x), for any number of particles and any β."""
    vae = EXACT[model]()
    x = vae.data(5)
    torch.testing.assert_close(OBJECTIVES[name]()(vae, x).bound, vae.log_evidence(x).detach(), **TIGHT)


@pytest.mark.parametrize(("likelihood", "network"), PAIRS)
def test_every_vae(likelihood, network):
    vae, data = small_vae(likelihood, network).double(), functools.partial(small_data, likelihood, network=network)
    reached(vae, ELBO(2)(vae, data()).surrogate.mean())
    check_trace(small_vae(likelihood, network), IWAE(3), data(dtype=torch.float32))
    check_device(lambda: small_vae(likelihood, network), lambda: IWAE(3), data)


# Against Pyro, under one seed

ONE_SEED = {
    "ELBO, K=1": (lambda: ELBO(1), lambda: Trace_ELBO(max_plate_nesting=1)),
    "ELBO, K=4": (lambda: ELBO(4), lambda: Trace_ELBO(4, max_plate_nesting=1, vectorize_particles=True)),
    "analytic, K=1": (lambda: ELBO(1, "analytic"), lambda: TraceMeanField_ELBO(max_plate_nesting=1)),
    "analytic, K=4": (
        lambda: ELBO(4, "analytic"),
        lambda: TraceMeanField_ELBO(4, max_plate_nesting=1, vectorize_particles=True),
    ),
    "beta=1, K=4": (
        lambda: BetaELBO(particles=4),
        lambda: TraceMeanField_ELBO(4, max_plate_nesting=1, vectorize_particles=True),
    ),
    "IWAE, K=1": (lambda: IWAE(1), lambda: Trace_ELBO(max_plate_nesting=1)),
    "IWAE, K=4": (lambda: IWAE(4), lambda: RenyiELBO(0, 4, max_plate_nesting=1, vectorize_particles=True)),
}
MODELS = {**FREE, "vae": lambda: small_vae().double(), "conv": lambda: small_vae("Binomial", "conv").double()}


def some(vae, name="Bernoulli", n=4):
    if not isinstance(vae, pv.models.VAE):
        return vae.data(n)
    return small_data(type(vae.likelihood).__name__, n)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", ONE_SEED)
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store:UserWarning")
def test_equals_pyro(case, model):
    """Loss and every gradient; Pyro's loss is the sum over the batch."""
    ours, theirs = ONE_SEED[case]
    if model == "two latents" and isinstance(theirs(), TraceMeanField_ELBO):
        model = "two latents, downwards"  # Pyro's closed form is for guides in the order of the model
    vae = MODELS[model]()
    x, other = some(vae), copy.deepcopy(vae)
    e = run(ours(), vae, x)
    (-e.surrogate.sum()).backward()
    torch.manual_seed(5)
    loss = theirs().loss_and_grads(*pv.to_pyro(other), x)
    assert -e.bound.sum().item() == pytest.approx(loss, rel=1e-10)
    for (name, a), b in zip(vae.named_parameters(), other.parameters(), strict=True):
        assert a.grad.abs().max() > 0, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("size", [None, 40])
def test_minibatch_equals_pyro(size, particles):
    """N times the mean over a minibatch is Pyro's total under its own plate scale."""
    vae = LinearGaussian(guide="free", size=size)
    x = vae.data(4)
    mean = run(ELBO(particles), vae, x).surrogate.mean()
    torch.manual_seed(5)
    pyro_elbo = Trace_ELBO(particles, max_plate_nesting=1, vectorize_particles=particles > 1)
    loss = pyro_elbo.differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(-mean * (size or 4), loss, **TIGHT)
    ours, theirs = gradients(vae, -mean * (size or 4)), gradients(vae, loss)
    for name, g in ours.items():
        torch.testing.assert_close(g, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("objective", [ELBO, lambda k: BetaELBO(particles=k, kl="sampled")])
def test_global_latent_is_counted_once(objective, particles):
    """N times the mean over a minibatch is Pyro's total, in which θ stands once and the data N / B times."""
    vae, x = Global(40), torch.randn(4, dtype=F64)
    e = run(objective(particles), vae, x)
    torch.manual_seed(5)
    pyro_elbo = Trace_ELBO(particles, max_plate_nesting=1, vectorize_particles=particles > 1)
    loss = pyro_elbo.differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(-40 * e.bound.mean(), loss.detach(), **TIGHT)
    ours, theirs = gradients(vae, -40 * e.surrogate.mean()), gradients(vae, loss)
    for name, g in ours.items():
        torch.testing.assert_close(g, theirs[name], **TIGHT, msg=name)


@pytest.mark.parametrize("particles", [1, 4])
def test_iwae_refuses_a_global_latent(particles):
    with pytest.raises(ValueError, match=r"IWAE weighs particles datum by datum.* 'theta' is outside it. Use .*ELBO"):
        IWAE(particles)(Global(40), torch.randn(4, dtype=F64))


# Identities


@pytest.mark.parametrize("model", MODELS)
def test_one_particle_is_the_elbo(model):
    vae = MODELS[model]()
    x = some(vae)
    a, b = run(IWAE(1), vae, x), run(ELBO(1), vae, x)
    torch.testing.assert_close(a.bound, b.bound, **TIGHT)
    ga, gb = gradients(vae, a.surrogate.mean()), gradients(vae, b.surrogate.mean())
    for name, g in ga.items():
        torch.testing.assert_close(g, gb[name], **TIGHT)


@pytest.mark.parametrize("model", FREE)
def test_bounds_are_functions_of_the_weights(model):
    vae = FREE[model]()
    x = vae.data(5)
    torch.manual_seed(5)
    w = pv.densities(vae, x, 4).log_weight.detach()
    torch.testing.assert_close(run(ELBO(4), vae, x).bound, w.mean(0), **TIGHT)
    torch.testing.assert_close(run(IWAE(4), vae, x).bound, w.exp().mean(0).log(), **TIGHT)


def test_log_mean_exp_does_not_overflow():
    w = torch.tensor([[1000.0, -1000.0], [1000.0, -1002.0]], dtype=F64)
    expected = torch.tensor([1000.0, -1000 + math.log((1 + math.exp(-2)) / 2)], dtype=F64)
    torch.testing.assert_close(power_mean(w, torch.full_like(w, -math.log(2)), 1), expected, **TIGHT)


@pytest.mark.parametrize("model", FREE)
def test_analytic_rate(model):
    """The closed form is the mean of log q − log p over draws: a z-test, wrong once in 1e6."""
    vae = FREE[model]()
    with torch.no_grad():
        d = pv.densities(vae, vae.data(3), 20_000)
        difference = rate(d, "sampled") - rate(d, "analytic")
    assert difference.std() > 0.1
    z_test(difference, torch.zeros(3, dtype=F64))


def test_analytic_rate_by_hand():
    """KL(𝒩(μ, s²) ‖ 𝒩(0, 1)) = Σ (s² + μ² − 1) / 2 − log s."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    d = pv.densities(vae, x, 3)
    mu, s = x @ vae.a.T + vae.c, vae.log_s.exp()
    kl = ((s**2 + mu**2 - 1) / 2 - s.log()).sum(-1)
    torch.testing.assert_close(rate(d, "analytic"), kl.expand(3, 5), **TIGHT)


def test_analytic_elbo_beside_a_folded_model():
    """A decoder that takes no particles: the closed form still compares distributions of one shape."""

    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1)).double()
            self.encoder = nn.Linear(3, 2).double()

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))

    vae, x = Softmax(), torch.randn(5, 3, dtype=F64)
    kl = (0.25 + vae.encoder(x).square() - 1).sum(-1) / 2 - 2 * math.log(0.5)
    for objective in (ELBO(4, "analytic"), BetaELBO(particles=4), BetaELBO(particles=4, free_bits=1e-9)):
        e = run(objective, vae, x)
        torch.manual_seed(5)
        d = pv.densities(vae, x, 4, aligned=True)
        torch.testing.assert_close(e.surrogate, d.log_likelihood.mean(0) - kl, **TIGHT)
        reached(vae, e.surrogate.mean())


@pytest.mark.parametrize("model", FREE)
def test_iwae_rises_to_the_evidence(model):
    """𝓛_1 < 𝓛_3 < 𝓛_30 < log p(x) on average, each gap five standard errors wide."""
    vae = FREE[model]()
    x = vae.data(1).expand(20_000, -1)
    with torch.no_grad():
        bounds = [IWAE(k)(vae, x).bound for k in (1, 3, 30)] + [vae.log_evidence(x)]
    for a, b in itertools.pairwise(bounds):
        gap = b - a
        assert gap.mean() > 5 * gap.std() / math.sqrt(len(gap))


def test_weights_average_to_the_evidence():
    """E_q[w] = p(x): a z-test, wrong once in 1e6, for a guide wide enough to give w a variance."""
    vae = TwoLatents()
    with torch.no_grad():
        vae.phi[2:] = 1.2
        x = vae.data(3)
        w = (pv.densities(vae, x, 50_000).log_weight - vae.log_evidence(x)).exp()
    z_test(w, torch.ones(3, dtype=F64))


# BetaELBO


@pytest.mark.parametrize("model", FREE)
@pytest.mark.parametrize("kl", ["sampled", "analytic"])
def test_beta_of_one_is_the_elbo(kl, model):
    vae = FREE[model]()
    x = vae.data(5)
    a, b = run(BetaELBO(beta=1, particles=3, kl=kl), vae, x), run(ELBO(3, kl), vae, x)
    torch.testing.assert_close(a.bound, b.bound, **TIGHT)
    torch.testing.assert_close(a.surrogate, b.surrogate, **TIGHT)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("kl", ["sampled", "analytic"])
def test_beta_weighs_the_rate_alone(kl, beta):
    """Surrogate −(D + βR), bound −(D + R)."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    e = run(BetaELBO(beta=beta, particles=3, kl=kl), vae, x)
    torch.manual_seed(5)
    d = pv.densities(vae, x, 3)
    distortion, r = -d.log_likelihood, rate(d, kl)
    torch.testing.assert_close(e.surrogate, -(distortion + beta * r).mean(0), **TIGHT)
    torch.testing.assert_close(e.bound, -(distortion + r).mean(0).detach(), **TIGHT)


@pytest.mark.parametrize(("start", "betas"), [(0, (0, 1, 2, 4, 4)), (12, (12, 10, 8, 4, 4))])
def test_warm_up(start, betas):
    """β moves linearly, up or down, and stays; the bound that is reported does not change."""
    vae = LinearGaussian(guide="free")
    x, objective = vae.data(5), BetaELBO(beta=4, warmup=10, start=start)
    bound = run(objective, vae, x).bound
    for epochs, beta in zip((0, 2.5, 2.5, 5, 5), betas, strict=True):
        objective.advance(epochs)
        e = run(objective, vae, x)
        torch.testing.assert_close(e.surrogate, run(BetaELBO(beta=beta), vae, x).surrogate, **TIGHT)
        assert torch.equal(e.bound, bound)


def test_warm_up_is_saved():
    objective = BetaELBO(warmup=10)
    objective.advance(3)
    again = BetaELBO(warmup=10)
    again.load_state_dict(objective.state_dict())
    assert again.epoch.item() == 3


def two_rates():
    """A guide whose first dimension is the prior (rate 0), the second far from it."""
    vae = LinearGaussian(guide="free")
    with torch.no_grad():
        vae.a[0], vae.c[0], vae.log_s[0] = 0, 0, 0
        vae.c[1] = 3.0
    return vae


@pytest.mark.parametrize("particles", [1, 3])
def test_free_bits_hold_each_dimension(particles):
    """max(λ, mean KL_j) takes the place of KL_j, and no gradient passes where λ holds."""
    vae, floor = two_rates(), 0.25
    x = vae.data(5)
    e = run(BetaELBO(beta=2, free_bits=floor, particles=particles), vae, x)
    torch.manual_seed(5)
    d = pv.densities(vae, x, particles)
    second = rate(d, "analytic")  # that of the first dimension is 0
    expected = d.log_likelihood - 2 * (floor + second)
    torch.testing.assert_close(e.surrogate, expected.mean(0), **TIGHT)
    torch.testing.assert_close(e.bound, (d.log_likelihood - second).mean(0).detach(), **TIGHT)
    free = gradients(vae, e.surrogate.mean())
    none = gradients(vae, run(BetaELBO(beta=0, particles=particles), vae, x).surrogate.mean())
    whole = gradients(vae, run(BetaELBO(beta=2, particles=particles), vae, x).surrogate.mean())
    for name in ("a", "c", "log_s"):
        torch.testing.assert_close(free[name][0], none[name][0], **TIGHT)
        torch.testing.assert_close(free[name][1], whole[name][1], **TIGHT)
    assert free["c"][1] != none["c"][1]


def test_free_bits_compare_means():
    """A dimension whose mean is above λ is left alone, also in rows where it is below."""
    vae, floor = LinearGaussian(guide="free"), 0.5
    with torch.no_grad():
        vae.a.copy_(torch.tensor([[1.0, 0, 0], [0.2, 0, 0]]))
        vae.c.zero_()
        vae.log_s.zero_()
    x = torch.tensor([0.0, 0.5, 2.0], dtype=F64)[:, None] * torch.ones(3, dtype=F64)
    e = run(BetaELBO(free_bits=floor), vae, x)
    torch.manual_seed(5)
    d = pv.densities(vae, x)
    kl = (x @ vae.a.T).square() / 2  # [B, L]
    assert kl[0, 0] < floor < kl[:, 0].mean()
    assert kl[:, 1].mean() < floor
    torch.testing.assert_close(e.surrogate, d.log_likelihood[0] - kl[:, 0] - floor, **TIGHT)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("model", FREE)
def test_free_bits_below_the_rate_do_nothing(kl, model):
    vae = FREE[model]()
    x = vae.data(50)
    a, b = run(BetaELBO(free_bits=1e-9, kl=kl), vae, x), run(BetaELBO(kl=kl), vae, x)
    torch.testing.assert_close(a.surrogate, b.surrogate, **TIGHT)


def test_free_bits_of_a_site_that_is_masked_on_one_side():
    """Below the rate they do nothing here either: there is no closed form, of the site or of its dimensions."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x > 0):
            pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 0.1).to_event(1))

    vae, x = types.SimpleNamespace(model=model, guide=guide), torch.randn(50, dtype=F64)
    a, b = run(BetaELBO(free_bits=1e-9), vae, x), run(BetaELBO(), vae, x)
    torch.testing.assert_close(a.surrogate, b.surrogate, **TIGHT)


@pytest.mark.parametrize(("of_guide", "of_model"), [(SOME, SOME), (SOME, EVERY), (EVERY, SOME)])
@pytest.mark.parametrize("objective", [ELBO(4000, kl="analytic"), BetaELBO(particles=4000, free_bits=1e-9)])
def test_a_mask_within_a_distribution(objective, of_guide, of_model):
    """−(distortion + rate) is the mean of log w, whichever form the rate has: six standard errors."""
    vae, x = masked_within(of_guide, of_model), torch.randn(3, dtype=F64)
    with torch.no_grad():
        draws = pv.densities(vae, x, 20_000).log_weight
        error = (draws.var(0) / 20_000 + draws.var(0) / 4000).sqrt()
        assert ((objective(vae, x).surrogate - draws.mean(0)).abs() < 6 * error).all()


def test_free_bits_hold_whole_sites_of_draws():
    vae, x = two_rates(), two_rates().data(5)
    held = run(BetaELBO(free_bits=100.0, kl="sampled"), vae, x)
    torch.manual_seed(5)
    d = pv.densities(vae, x)
    torch.testing.assert_close(held.surrogate, d.log_likelihood[0] - 100.0, **TIGHT)


def test_free_bits_by_site():
    """Each of two sites has its own floor."""
    vae = TwoLatents()
    x = vae.data(5)
    e = run(BetaELBO(free_bits=100.0), vae, x)
    torch.manual_seed(5)
    torch.testing.assert_close(e.surrogate, pv.densities(vae, x).log_likelihood[0] - 200.0, **TIGHT)


def test_free_bits_of_latents_in_two_dimensions():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2, 3), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(z.sum((-1, -2)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None, None].expand(-1, 2, 3), 1.0).to_event(2))

    x, vae = torch.randn(5, dtype=F64), types.SimpleNamespace(model=model, guide=guide)
    e = run(BetaELBO(free_bits=100.0, particles=3), vae, x)
    torch.manual_seed(5)
    torch.testing.assert_close(e.surrogate, pv.densities(vae, x, 3).log_likelihood.mean(0) - 600.0, **TIGHT)


# What is refused


class Discrete(nn.Module):
    """z ~ Bernoulli(½), x ~ 𝒩(z, 1), with the exact posterior."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.5, dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((), 0.5)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x - self.shift))


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if holds_draws(OBJECTIVES[n]())])
def test_discrete_guide_of_the_score_function(name):
    """log w is constant at the exact posterior: every bound is the evidence, and the guide has a gradient off it."""
    vae, x = Discrete(), torch.randn(5, dtype=F64)
    zero = x.new_zeros(())
    evidence = torch.logaddexp(dist.Normal(zero, 1.0).log_prob(x), dist.Normal(zero + 1, 1.0).log_prob(x)) - math.log(2)
    torch.testing.assert_close(OBJECTIVES[name]()(vae, x).bound, evidence, **TIGHT)
    with torch.no_grad():
        vae.shift.add_(1)
    reached(vae, OBJECTIVES[name]()(vae, x.expand(40, -1).flatten()).surrogate.mean())


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if not holds_draws(OBJECTIVES[n]())])
def test_discrete_guide(name):
    vae, x = Discrete(), torch.randn(5, dtype=F64)
    with pytest.raises(ValueError, match=r"site 'z' is Bernoulli, which has no reparametrised sampler.*zero without"):
        OBJECTIVES[name]()(vae, x)
    zero = x.new_zeros(())
    evidence = torch.logaddexp(dist.Normal(zero, 1.0).log_prob(x), dist.Normal(zero + 1, 1.0).log_prob(x)) - math.log(2)
    with torch.no_grad():
        bound = OBJECTIVES[name]()(vae, x).bound
    if name.startswith(("IWAE", "MIWAE", "PIWAE", "CIWAE", "Renyi", "VR", "CUBO")) or name in (
        "ELBO",
        "ELBO 3",
        "beta sampled 3",
    ):
        torch.testing.assert_close(bound, evidence, **TIGHT)


MESSAGES = {
    "kl": (
        lambda: ELBO(kl="analytical"),
        r"unknown kl 'analytical'; did you mean 'analytic'\? Known: analytic, sampled",
    ),
    "beta's kl": (lambda: BetaELBO(kl="exact"), r"unknown kl 'exact'"),
    "beta": (lambda: BetaELBO(beta=-1), r"BetaELBO expects beta as a finite number of at least 0, got -1"),
    "warm-up": (lambda: BetaELBO(warmup=-1), r"BetaELBO expects warmup as a finite number of at least 0, got -1"),
    "start": (lambda: BetaELBO(start=5), r"BetaELBO got start=5 without a warm-up to start; give warmup, in epochs"),
    "free bits": (
        lambda: BetaELBO(free_bits=-0.1),
        r"BetaELBO expects free_bits as a finite number of at least 0",
    ),
    "iwae": (lambda: IWAE(0), r"IWAE expects particles as a whole number of at least 1, got particles=0"),
    "elbo": (lambda: ELBO(0), r"ELBO expects particles as a whole number of at least 1, got particles=0"),
    "half a particle": (lambda: ELBO(2.5), r"ELBO expects particles as a whole number of at least 1, got .*=2.5"),
    "beta's particles": (lambda: BetaELBO(particles=0), r"BetaELBO expects particles as a whole number .*=0"),
    "no elbo": (lambda: PyroELBO(Trace_ELBO), r"expects an object such as pyro.infer.Trace_ELBO\(\), got Trace_ELBO"),
    "tail": (
        lambda: PyroELBO(TraceTailAdaptive_ELBO(num_particles=2, vectorize_particles=True)),
        r"pyro.infer.TraceTailAdaptive_ELBO has gradients and no loss.*; use pyrovae.objectives.IWAE or ELBO",
    ),
    "two losses": (lambda: PyroELBO(ReweightedWakeSleep()), r"has two losses .*; use pyrovae.objectives.WakeSleep"),
    "no module": (
        lambda: PyroELBO(TraceGraph_ELBO())(types.SimpleNamespace(), torch.zeros(2)),
        r"pyro.infer.TraceGraph_ELBO leaves gradients at the parameters of a torch module.*pv.Program\(model, guide\)",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    build, message = MESSAGES[case]
    with pytest.raises(ValueError, match=message):
        build()


# Both ways with Pyro


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("model", ["one latent", "two latents, downwards"])
def test_pyro_elbo_is_pyro_s(model, elbo):
    vae = FREE[model]()
    x = vae.data(5)
    e = run(PyroELBO(elbo(max_plate_nesting=1)), vae, x)
    assert e.bound.shape == e.surrogate.shape == (5,)
    torch.manual_seed(5)
    loss = elbo(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(-e.surrogate.sum(), loss, **TIGHT)
    torch.testing.assert_close(-e.bound.sum(), loss.detach(), **TIGHT)
    a, b = gradients(vae, -e.surrogate.sum()), gradients(vae, loss)
    assert all(torch.allclose(g, b[n]) for n, g in a.items())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: RenyiELBO(0, 4, max_plate_nesting=1, vectorize_particles=True), lambda: IWAE(4)),
        (lambda: TraceGraph_ELBO(1, max_plate_nesting=1), lambda: ELBO()),
    ],
    ids=["RenyiELBO", "TraceGraph_ELBO"],
)
def test_pyro_elbos_that_have_only_loss_and_grads(theirs, ours):
    """Their gradient, scaled by what comes after it; what stands at the parameters, and the store, are left alone."""
    vae = FREE["one latent"]()
    x = vae.data(5)
    marks = [torch.full_like(p, 3.0) for p in vae.parameters()]
    for p, mark in zip(vae.parameters(), marks, strict=True):
        p.grad = mark
    e, own = run(PyroELBO(theirs()), vae, x), run(ours(), vae, x)
    torch.testing.assert_close(e.bound.mean(), own.bound.mean(), **TIGHT)
    a, b = gradients(vae, 2 * e.surrogate.mean()), gradients(vae, 2 * own.surrogate.mean())
    for name, g in a.items():
        torch.testing.assert_close(g, b[name], **TIGHT, msg=name)
    assert all(p.grad is mark for p, mark in zip(vae.parameters(), marks, strict=True))
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_trains_under_svi(elbo):
    """Two side by side: every parameter of both moves, and both losses fall."""
    torch.manual_seed(1)
    x, vaes = small_data(n=16), [small_vae().double() for _ in range(2)]
    before = [[p.detach().clone() for p in v.parameters()] for v in vaes]
    svis = [SVI(*pv.to_pyro(v), pyro.optim.Adam({"lr": 0.01}), elbo()) for v in vaes]
    losses = torch.tensor([[svi.step(x) for svi in svis] for _ in range(100)])
    assert (losses[-20:].mean(0) < losses[:20].mean(0) - 10).all()
    for v, old in zip(vaes, before, strict=True):
        assert all((p - o).abs().max() > 0.01 for p, o in zip(v.parameters(), old, strict=True))


# Capture and placement


def test_a_layout_found_before_is_kept_in_the_graph():
    vae, x = small_vae("Normal learned", "conv"), small_data("Normal learned", dtype=torch.float32)
    IWAE(3)(vae, x)
    check_trace(vae, IWAE(3), x)


@pytest.mark.parametrize("build", [TwoLatents, lambda: Global(40)])
@pytest.mark.parametrize("objective", [lambda: ELBO(3), lambda: BetaELBO(particles=3)])
def test_other_programs_stay_on_their_device(build, objective):
    def data(dtype):
        return torch.randn(4, 1, dtype=F64) if build is TwoLatents else torch.randn(4, dtype=F64)

    check_device(build, objective, data)


def test_fake_cuda_finds_a_stray_tensor():
    """The check itself: a program that builds a CPU constant fails it."""
    vae = small_vae

    def stray():
        built = vae()
        built.prior.scale = built.prior.scale.new_ones(2, device="cpu")
        return built

    with pytest.raises(RuntimeError, match=r"cuda|device"):
        check_device(stray, lambda: ELBO(2), small_data)


# What the table in docs/objectives.md says of cost


def rows_per_datum(vae, objective, x):
    """Rows through encoder and decoder for each datum, forward and backward."""
    seen = {"encoder": 0, "encoder back": 0, "decoder": 0, "decoder back": 0}

    def count(name):
        def hook(module, inputs, output):
            seen[name] += len(output)
            if output.requires_grad:
                output.register_hook(lambda g: seen.__setitem__(f"{name} back", seen[f"{name} back"] + len(g)))

        return hook

    hooks = [
        network.register_forward_hook(count(name))
        for name, network in (("encoder", vae.posterior.network), ("decoder", vae.likelihood.network))
    ]
    objective(vae, x).surrogate.mean().backward()
    for h in hooks:
        h.remove()
    return [n / len(x) for n in seen.values()]


OTHER_COST = {  # encoder, decoder forward and backward; else 1 and the number of draws
    "IWAE backward 1": (2, 4, 1),
    "IWAE backward 2": (2, 5, 2),
    "wake and sleep": (2, 4, 3),
    "sleep": (2, 2, 1),
    "beta-TC": (2, 3, 3),
    "DisARM": (1, 2, 2),
    "DisARM of two pairs": (1, 4, 4),
    "REBAR": (1, 9, 9),
}


@pytest.mark.parametrize("name", ALL)
def test_cost(name):
    vae, objective, x = vae_for(name), ALL[name](), small_data(dtype=torch.float32)
    objective(vae, x)  # what is found out about a program is found once
    draws = getattr(objective, "draws", getattr(objective, "particles", None))
    encoder, forward, backward = OTHER_COST.get(name, (1, draws, draws))
    assert rows_per_datum(vae, objective, x) == [encoder, encoder, forward, backward]


# What a second look found


class Dropout(nn.Module):
    """Two sites, the second after the first, through a layer of dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).double()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z2.sum(-1, keepdim=True), 1.0).expand_by([]).to_event(1), obs=x[:, :1])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.net(x), 1.0).to_event(1))
            pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))


@pytest.mark.parametrize("name", ["ELBO stl", "IWAE dreg", "IWAE backward 1", "beta-TC"])
def test_dropout_in_a_guide_that_runs_twice(name):
    """Another mask in the second run would be another guide: a biased gradient without a word."""
    vae, x = Dropout(), torch.randn(4, 3, dtype=F64)
    with pytest.raises(
        ValueError, match=r"runs the program twice a step, and dropout or noise \('net.1'\) would make it another"
    ):
        OBJECTIVES[name]()(vae, x).surrogate.mean().backward()
    vae.eval()
    OBJECTIVES[name]()(vae, x).surrogate.mean().backward()
    OBJECTIVES["IWAE 3"]()(vae.train(), x)


class MaskedLatent(nn.Module):
    """z of the second datum is masked in the model, or in both."""

    def __init__(self, both):
        super().__init__()
        self.loc, self.both = nn.Parameter(torch.tensor(0.7, dtype=F64)), both

    def program(self, x, guide):
        mask = (torch.arange(len(x)) != 1) | (guide and not self.both)
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=mask):
                z = pyro.sample("z", dist.Normal(self.loc if guide else x.new_zeros(()), 0.5 if guide else 1.0))
            if not guide:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def model(self, x):
        self.program(x, False)

    def guide(self, x):
        self.program(x, True)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(
    "objective", [ELBO(4000, kl="analytic"), BetaELBO(particles=4000), BetaELBO(1.0, 4000, 0, 1e-9)]
)
def test_a_mask_on_one_side_has_no_closed_form(objective, both):
    vae, x = MaskedLatent(both), torch.randn(3, dtype=F64)
    with torch.no_grad():
        draws = pv.densities(vae, x, 20_000).log_weight
        error = (draws.var(0) / 20_000 + draws.var(0) / 4000).sqrt()
        assert ((objective(vae, x).bound - draws.mean(0)).abs() < 6 * error).all()


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("order", ["guide", "model"])
def test_free_bits_beside_sums(order, kl):
    """The mean of a part that is held is one over draws by their masses: by hand, with a floor between two rates."""
    vae = Mixture("yz" if order == "guide" else "z")
    x = vae.data(6)
    e = run(BetaELBO(free_bits=0.4, particles=3, kl=kl), vae, x)
    torch.manual_seed(5)
    d = pv.densities(vae, x, 3, aligned=kl == "analytic", exact=True)
    mass = d.log_mass.exp()
    if order == "model":
        parts = [d.log_posterior - d.log_prior]
    else:
        q, p = d.posterior, d.prior
        both = [(q[n], p[n]) for n in ("y", "z")]
        closed = torch.distributions.kl_divergence
        parts = [
            closed(a.distribution, b.distribution) if kl == "analytic" else a.log_prob - b.log_prob for a, b in both
        ]
    held = sum(part if (mass * part).sum(0).mean() > 0.4 else torch.full_like(mass, 0.4) for part in parts)
    torch.testing.assert_close(e.surrogate, (mass * (d.log_likelihood - held)).sum(0), **TIGHT)
    reached_floor = [bool((mass * part).sum(0).mean() < 0.4) for part in parts]
    assert any(reached_floor) or order == "model"


class Wrong(pv.objectives.Objective):
    """Returns what it is told to."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, vae, x):
        w = pv.densities(vae, x, 2).log_weight
        return self.make(w)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: w.mean(0), r"Wrong is to return an Estimate\(bound, surrogate\), got Tensor"),
        (lambda w: pv.objectives.Estimate(w.detach(), w), r"its bound per datum, \[4\] for this batch, got \[2, 4\]"),
        (lambda w: pv.objectives.Estimate(w.mean(0).detach(), w.mean()), r"its surrogate per datum, .* got \[\]"),
        (lambda w: pv.objectives.Estimate(w.mean(0), w.mean(0)), r"a bound without gradient \(.detach\(\)\)"),
        (lambda w: pv.objectives.Estimate(w.mean(0).detach(), w.mean(0).detach()), r"and a surrogate with one"),
    ],
)
def test_a_user_s_objective_of_another_shape(make, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(small_vae(), small_data(n=4, dtype=torch.float32), Wrong(make), epochs=1, progress=False)


def test_sleep_of_counts_that_are_integers():
    """A Categorical draws integers; the encoder takes what it takes of the data."""

    class Classes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.logits = nn.Linear(1, 1).double(), nn.Parameter(torch.zeros(3, dtype=F64))

        def model(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                pyro.sample("x", dist.Categorical(logits=self.logits), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x[:, None])[:, 0], 1.0))

    vae, x = Classes(), torch.tensor([0.0, 1, 2, 1], dtype=F64)
    e = pv.objectives.WakeSleep(1, "sleep")(vae, x)
    assert torch.isfinite(torch.autograd.grad(e.surrogate.mean(), vae.net.weight)[0]).all()


def test_a_prior_that_cannot_be_drawn_from():
    """Particles are laid out without a draw from the model."""

    class Improper(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.3, dtype=F64))

        def model(self, x):
            with pyro.plate("data", len(x)):
                flat = dist.ImproperUniform(dist.constraints.real, (), ())
                z = pyro.sample("z", flat)
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc + x, 1.0))

    e = IWAE(3)(Improper(), torch.randn(4, dtype=F64))
    assert torch.isfinite(e.bound).all()


@pytest.mark.parametrize("name", ["beta-TC", "InfoVAE", "DIP 2", "sleep"])
def test_a_program_without_latents(name):
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.3))

        def model(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)

        def guide(self, x):
            pass

    x = torch.randn(4)
    with pytest.raises(ValueError, match=r"none; use .*ELBO"):
        OBJECTIVES[name]()(Nothing(), x)
    torch.testing.assert_close(IWAE(3)(Nothing(), x).bound, dist.Normal(0.3, 1.0).log_prob(x))
