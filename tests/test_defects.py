"""The defects that others have: each is written here as a wrong objective, and fails the check that ours passes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TIGHT, Global, LinearGaussian, gradients, run, z_test
from pieces import small_data, small_vae
from pyro.infer import RenyiELBO
from scipy import stats
from torch.distributions import kl_divergence
from zoo import OBJECTIVES

import pyrovae as pv
from pyrovae.objectives import (
    CIWAE,
    DIPVAE,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    REBAR,
    BetaELBO,
    BetaTCVAE,
    Capacity,
    DisARM,
    Estimate,
    InfoVAE,
    Objective,
    Renyi,
    TailAdaptive,
    WakeSleep,
    Weighted,
    Weights,
)
from pyrovae.objectives.weights import power_mean, shares
from pyrovae.program.handlers import AtMean

GUIDE = ("a", "c", "log_s")  # of LinearGaussian(guide="free")


def fails(check, *wrong):
    with pytest.raises(AssertionError):
        check(*wrong)


def refused(run, *words):
    """A ValueError that says these words."""
    try:
        run()
    except ValueError as error:
        message = str(error)
    else:
        raise AssertionError("not refused")
    assert all(w in message for w in words), message


def at_most(draws, limit, failure_rate=1e-6):
    """The mean of independent draws [n] is not above `limit`: wrong this often for right code."""
    t = (draws.mean() - limit) / (draws.std() / math.sqrt(len(draws)))
    assert t < stats.t.isf(failure_rate, len(draws) - 1), f"t = {t:.2f}"


# One latent dimension, one datum, and the exact values there


def one_latent(width=None, **options):
    """A free guide and its datum; with `width`, that of the exact posterior with so many times its scale."""
    vae, x = LinearGaussian(latent=1, event=2, guide="free", **options), torch.tensor([[0.8, -0.6]], dtype=F64)
    if width is not None:
        with torch.no_grad():
            variance = vae.true_posterior(x).covariance_matrix[0, 0]
            vae.a.copy_(variance * vae.w.T / (2 * vae.log_sigma).exp())
            vae.c.copy_(-vae.a @ vae.b)
            vae.log_s.copy_(variance.log() / 2 + math.log(width))
    return vae, x


def exact_iwae(vae, x, particles):
    """E[log-mean-exp of K log weights] of one datum, by Gauss-Hermite quadrature in each of K dimensions."""
    t, m = (torch.as_tensor(a) for a in np.polynomial.hermite.hermgauss(50))
    noise = torch.cartesian_prod(*[2**0.5 * t] * particles).reshape(-1, particles, 1)  # [G, K, L]
    mass = torch.cartesian_prod(*[m / math.pi**0.5] * particles).reshape(-1, particles).prod(1)  # [G]
    q = vae.posterior(x[0]).base_dist
    z = q.loc + q.scale * noise
    likelihood = dist.Normal(z @ vae.w.T + vae.b, vae.log_sigma.exp()).log_prob(x[0]).sum(-1)
    w = likelihood + (dist.Normal(torch.zeros_like(z), 1.0).log_prob(z) - q.log_prob(z)).sum(-1)  # [G, K]
    return mass @ (w.logsumexp(1) - math.log(particles))


def exact_elbo(vae, x):
    """E_q[log p(x | z)] − KL(q ‖ p) in closed form: [B]."""
    q = vae.posterior(x).base_dist
    sigma = vae.log_sigma.exp()
    spread = (q.scale.square() * vae.w.square().sum(0)).sum(-1) / (2 * sigma**2)
    distortion = spread - dist.Normal(q.loc @ vae.w.T + vae.b, sigma).log_prob(x).sum(-1)
    rate = kl_divergence(q, dist.Normal(torch.zeros_like(q.loc), 1.0)).sum(-1)
    return -(distortion + rate)


def bounds(objective, vae, x, n=20_000):
    """Independent draws of the bound of one datum: [n]."""
    with torch.no_grad():
        return objective(vae, x.expand(n, -1)).bound


def check_gradient(objective, vae, x, exact):
    """The mean of gradients of one datum is the gradient of `exact(vae, x)`: a z-test, wrong once in 1e6."""
    rows = x.expand(1000, *x.shape[1:])
    draws = [gradients(vae, objective(vae, rows).surrogate.mean()) for _ in range(40)]
    found = torch.stack([torch.cat([g.flatten() for g in d.values()]) for d in draws])
    z_test(found, torch.cat([g.flatten() for g in gradients(vae, exact(vae, x)).values()]))


def test_the_exact_values_agree():
    """Quadrature of one particle, the closed form, and log p(x) at the exact posterior."""
    vae, x = one_latent()
    torch.testing.assert_close(exact_iwae(vae, x, 1), exact_elbo(vae, x)[0], **TIGHT)
    vae, x = one_latent(width=1)
    for value in (exact_iwae(vae, x, 1), exact_iwae(vae, x, 3), exact_elbo(vae, x)[0]):
        torch.testing.assert_close(value, vae.log_evidence(x)[0], **TIGHT)


# MIWAE and PIWAE over M instead of K


class MeanOverM(MIWAE):
    """log (1/M Σ_k w_k) in place of 1/K."""

    def weigh(self, log_weight, log_mass):
        bound, weights = super().weigh(log_weight, log_mass)
        return bound + math.log(self.particles / self.groups), weights


class GroupsOfM(MIWAE):
    """K groups of M particles, the other axis of [M, K]."""

    def split(self, t):
        return t.unflatten(0, (self.particles, -1))

    def weigh(self, log_weight, log_mass):
        grouped = self.split(log_weight)
        w = shares(grouped, torch.zeros_like(grouped), 1).flatten(0, 1) / self.particles
        return (grouped.logsumexp(1) - math.log(self.groups)).mean(0), Weights(w, w)


class WeightsOverM(MIWAE):
    """The right bound; its weights normalised over the groups."""

    def weigh(self, log_weight, log_mass):
        w = self.split(log_weight).softmax(0).flatten(0, 1) / self.particles
        return super().weigh(log_weight, log_mass)[0], Weights(w, w)


def check_miwae(objective):
    """In the mean, bound and gradient are those of IWAE(K), by quadrature."""
    vae, x = one_latent()
    exact = partial(exact_iwae, particles=objective.particles)
    z_test(bounds(objective, vae, x)[:, None], exact(vae, x).detach()[None])
    check_gradient(objective, vae, x, exact)


def test_miwae_normalises_over_k():
    check_miwae(MIWAE(4, 2))
    fails(check_miwae, MeanOverM(4, 2))
    fails(check_miwae, GroupsOfM(4, 2))
    fails(check_miwae, WeightsOverM(4, 2))


@pytest.mark.parametrize("wrong", [MeanOverM, GroupsOfM, WeightsOverM])
def test_as_many_groups_as_particles_hide_it(wrong):
    check_miwae(wrong(2, 2))


def piwae_of(guide):
    """PIWAE with this gradient in place of MIWAE's for the guide."""

    class Other(PIWAE):
        def weigh(self, log_weight, log_mass):
            bound, right = super().weigh(log_weight, log_mass)
            wrong = guide(self.groups, self.particles).weigh(log_weight, log_mass)[1]
            return bound, Weights(right.model, wrong.path)

    return Other


class BothGradients(PIWAE):
    """Two backward passes and no zeroing in between: the guide gets IWAE's gradient and MIWAE's."""

    def weigh(self, log_weight, log_mass):
        bound, right = super().weigh(log_weight, log_mass)
        return bound, Weights(right.model, right.path + right.model)


def check_piwae(objective):
    """Of the same draws, IWAE(M·K)'s gradient for the model and MIWAE(M, K)'s for the guide."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    m, k = objective.groups, objective.particles
    found = [gradients(vae, run(o, vae, x).surrogate.mean()) for o in (objective, IWAE(m * k), MIWAE(m, k))]
    for name, g in found[0].items():
        torch.testing.assert_close(g, found[1 + (name in GUIDE)][name], **TIGHT, msg=name)


def test_piwae_has_a_gradient_each():
    check_piwae(PIWAE(4, 2))
    fails(check_piwae, piwae_of(GroupsOfM)(4, 2))
    fails(check_piwae, piwae_of(WeightsOverM)(4, 2))
    fails(check_piwae, BothGradients(4, 2))
    fails(check_piwae, BothGradients(2, 2))


def test_as_many_groups_as_particles_hide_it_from_piwae_too():
    check_piwae(piwae_of(GroupsOfM)(2, 2))


# IWAE weights with the sign of the loss


class OfTheLoss(IWAE):
    """softmax(−log w)."""

    def weigh(self, log_weight, log_mass):
        v = (-log_weight).softmax(0)
        return super().weigh(log_weight, log_mass)[0], Weights(v, v)


def check_iwae(objective):
    check_gradient(objective, *one_latent(), partial(exact_iwae, particles=objective.particles))


def test_the_best_particle_weighs_most():
    check_iwae(IWAE(2))
    fails(check_iwae, OfTheLoss(2))


# A scale inside the log-mean-exp


def test_a_plate_s_scale_stays_outside():
    """N = 30, B = 3: the mean of p̂(x) over draws is p(x), wrong once in 1e6; Pyro's RenyiELBO averages w¹⁰."""
    vae, _ = one_latent(width=1.5, size=30)
    x = vae.data(3)
    evidence = vae.log_evidence(x).sum().detach()

    def check(totals):
        z_test((torch.stack(totals)[:, None] / 10 - evidence).exp(), torch.ones(1, dtype=F64))

    def pyro_s():
        elbo = RenyiELBO(0, 500, max_plate_nesting=1, vectorize_particles=True)
        return -torch.tensor(elbo.loss(vae.model, vae.guide, x), dtype=F64)

    with torch.no_grad():
        check([30 * IWAE(500)(vae, x).bound.mean() for _ in range(200)])
        totals = [pyro_s() for _ in range(200)]
    fails(check, totals)
    assert torch.stack(totals).mean() > 10 * evidence + 5


# Σ w̃ log w reported for IWAE


class WeightedMean(IWAE):
    """Σ w̃ log w as the bound."""

    def weigh(self, log_weight, log_mass):
        return (log_weight.softmax(0) * log_weight).sum(0), super().weigh(log_weight, log_mass)[1]


def check_below_the_evidence(objective):
    vae, x = one_latent()
    at_most(bounds(objective, vae, x), vae.log_evidence(x).item())


def check_picks_the_better(objective):
    """Of two guides, the exact one and one of three times its scale."""
    good, bad = (bounds(objective, *one_latent(width)).mean() for width in (1, 3))
    assert good > bad


def test_iwae_reports_its_bound():
    for check in (check_below_the_evidence, check_picks_the_better):
        check(IWAE(20))
        fails(check, WeightedMean(20))


def test_the_weighted_mean_is_off_by_a_divergence():
    """Σ w̃ log w − log-mean-exp = KL(w̃ ‖ uniform) ≥ 0."""
    vae, x = one_latent()
    a, b = run(WeightedMean(20), vae, x).bound, run(IWAE(20), vae, x).bound
    torch.manual_seed(5)
    w = pv.densities(vae, x, 20).log_weight.detach().softmax(0)
    torch.testing.assert_close(a - b, (w * (20 * w).log()).sum(0), **TIGHT)


# A closed-form rate inside IWAE


class AnalyticIWAE(Objective):
    """log-mean-exp of log p(x | z), less KL(q ‖ p)."""

    def __init__(self, particles=5, kl="sampled"):
        super().__init__()
        self.particles, self.kl = particles, kl

    def forward(self, vae, x):
        d = pv.densities(vae, x, self.particles)
        if self.kl == "sampled":
            bound = power_mean(d.log_weight, d.log_mass, 1)
        else:
            (q,), (p,) = d.posterior.values(), d.prior.values()
            rate = kl_divergence(q.distribution, p.distribution).mean(0)
            bound = power_mean(d.log_likelihood, d.log_mass, 1) - rate
        return Estimate(bound.detach(), bound)


def check_no_closed_form(build):
    refused(lambda: build(particles=5, kl="analytic"), "ELBO(kl='analytic')")


@pytest.mark.parametrize("build", [IWAE, CIWAE, MIWAE, PIWAE, Renyi])
def test_a_closed_form_rate_is_refused(build):
    check_no_closed_form(build)


def test_a_closed_form_rate_makes_no_bound():
    """It is above log p(x) at the exact posterior, where every bound is log p(x)."""
    fails(check_no_closed_form, AnalyticIWAE)
    vae, x = one_latent(width=1)
    evidence = vae.log_evidence(x).item()
    torch.testing.assert_close(bounds(AnalyticIWAE(5), vae, x), torch.full((20_000,), evidence, dtype=F64), **TIGHT)
    fails(at_most, bounds(AnalyticIWAE(5, "analytic"), vae, x), evidence)


# A site outside the data plate


class WholeBatch(IWAE):
    """The weights of all data and of the global latents multiplied together."""

    def forward(self, vae, x):
        d = pv.densities(vae, x, self.particles)
        total = d.log_weight.sum(1) + d.log_global
        bound = ((total.logsumexp(0) - math.log(self.particles)) / len(x)).expand(len(x))
        return Estimate(bound.detach(), bound)


def check_refuses_a_global_latent(objective):
    refused(lambda: objective(Global(40), torch.randn(40, dtype=F64)), "'theta' is outside it", "objectives.ELBO")


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if isinstance(OBJECTIVES[n](), Weighted)])
def test_a_site_outside_the_data_plate_is_refused(name):
    check_refuses_a_global_latent(OBJECTIVES[name]())


def test_whole_batch_weights_are_far_from_the_evidence():
    """As Pyro's RenyiELBO has them: a thousand particles of 40 data and θ together are few."""
    fails(check_refuses_a_global_latent, WholeBatch())
    vae = Global(40)
    with torch.no_grad():
        vae.slope.fill_(0.0)
    x = 3 * torch.randn(40, dtype=F64)
    evidence = dist.MultivariateNormal(torch.zeros_like(x), 2 * torch.eye(40, dtype=F64) + 1).log_prob(x)
    elbo = RenyiELBO(0, 1000, max_plate_nesting=1, vectorize_particles=True)
    with torch.no_grad():
        values = [torch.tensor(-elbo.loss(vae.model, vae.guide, x)), 40 * WholeBatch(1000)(vae, x).bound.mean()]
    assert max(values) < evidence - 10


# A weighted rate reported as the bound


class ReportsBeta(BetaELBO):
    """−(D + βR) as the bound."""

    def forward(self, vae, x):
        e = super().forward(vae, x)
        return Estimate(e.surrogate.detach(), e.surrogate)


def check_reports_the_elbo(objective):
    """The mean of the bound is the exact ELBO: a z-test, wrong once in 1e6."""
    vae, x = one_latent()
    draws = torch.stack([bounds(objective, vae, x, 300).mean() for _ in range(30)])
    z_test(draws[:, None], exact_elbo(vae, x).detach())


REPORT = {
    "beta": lambda: BetaELBO(beta=0.1),
    "beta, sampled": lambda: BetaELBO(beta=0.1, kl="sampled"),
    "free bits": lambda: BetaELBO(free_bits=3.0),
    "warm-up": lambda: BetaELBO(warmup=10),
    "capacity": Capacity,
    "beta-TC": BetaTCVAE,
    "InfoVAE": InfoVAE,
    "DIP": DIPVAE,
    "analytic": lambda: ELBO(kl="analytic"),
}


@pytest.mark.parametrize("name", REPORT)
def test_the_elbo_is_reported(name):
    check_reports_the_elbo(REPORT[name]())


def test_a_small_beta_is_no_bound():
    """At the exact posterior −(D + R/10) is above log p(x)."""
    fails(check_reports_the_elbo, ReportsBeta(beta=0.1))
    vae, x = one_latent(width=1)
    at_most(bounds(BetaELBO(beta=0.1), vae, x), vae.log_evidence(x).item())
    fails(at_most, bounds(ReportsBeta(beta=0.1), vae, x), vae.log_evidence(x).item())


# The rate counted twice, or otherwise in training than in validation


class Twice(ELBO):
    """log w has the rate already."""

    def forward(self, vae, x):
        d = pv.densities(vae, x, self.particles)
        bound = d.mean(d.log_weight - (d.log_posterior - d.log_prior))
        return Estimate(bound.detach(), bound)


class TwoWeights(ELBO):
    """A tenth of the rate in training, all of it in validation."""

    def forward(self, vae, x):
        d = pv.densities(vae, x, self.particles)
        beta = 0.1 if torch.is_grad_enabled() else 1.0
        bound = d.mean(d.log_likelihood - beta * (d.log_posterior - d.log_prior))
        return Estimate(bound.detach(), bound)


def test_the_rate_is_counted_once():
    check_reports_the_elbo(ELBO())
    fails(check_reports_the_elbo, Twice())


def check_one_bound(objective, posterior="DiagonalNormal"):
    """Under one seed, training and validation report the same."""
    vae, x = small_vae(posterior=posterior).double(), small_data()
    training = run(objective, vae, x).bound
    with torch.no_grad():
        assert torch.equal(run(objective, vae, x).bound, training)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_and_validation_report_the_same(name):
    check_one_bound(OBJECTIVES[name]())


@pytest.mark.parametrize("objective", [DisARM, REBAR])
def test_training_and_validation_report_the_same_of_bernoulli_latents(objective):
    check_one_bound(objective(), "Bernoulli")


def test_two_weights_of_the_rate_are_seen():
    fails(check_one_bound, TwoWeights())


# Wake-sleep with the weights of the whole batch


class JointWake(WakeSleep):
    """Weights of all data multiplied together."""

    def weigh(self, log_weight, log_mass):
        v = log_weight.sum(1, keepdim=True).softmax(0).expand_as(log_weight)
        return super().weigh(log_weight, log_mass)[0], Weights(v, None, v)


def check_neighbours(objective):
    """The gradient of one datum is the same beside another neighbour, the noise held fixed."""
    vae = LinearGaussian(guide="free")
    x = vae.data(2)
    other = torch.cat([x[:1], x[1:] + 1])
    a, b = (gradients(vae, run(objective, vae, batch).surrogate[0]) for batch in (x, other))
    for name, g in a.items():
        torch.testing.assert_close(g, b[name], **TIGHT, msg=name)


def test_a_datum_has_weights_of_its_own():
    for objective in (WakeSleep(5), TailAdaptive(5), IWAE(5)):
        check_neighbours(objective)
    fails(check_neighbours, JointWake(5))


# Tail-adaptive ranks reversed


class Reversed(TailAdaptive):
    """Rank 1 for the smallest weight."""

    def weigh(self, log_weight, log_mass):
        bound, right = super().weigh(log_weight, log_mass)
        path = 1 / (log_weight.argsort(0).argsort(0) + 1.0)
        return bound, Weights(right.model, path / path.sum(0), right.score)


def check_ranks(objective):
    """The larger the weight, the more it counts."""
    log_weight = torch.randn(objective.particles, 50, dtype=F64)
    path = objective.weigh(log_weight, torch.full_like(log_weight, -math.log(len(log_weight))))[1].path
    order = log_weight.argsort(0)
    assert (path.gather(0, order).diff(dim=0) > 0).all()


def check_covers_the_tail(objective):
    """From the factorised guide of the best ELBO, narrower than a correlated posterior, both scales grow."""
    vae = LinearGaussian(latent=2, event=1, guide="free")
    x = vae.data(1)
    with torch.no_grad():
        vae.w.copy_(torch.tensor([[1.5, 1.0]]))
        precision = torch.eye(2, dtype=F64) + vae.w.T @ vae.w / (2 * vae.log_sigma).exp()
        vae.a.copy_(torch.linalg.solve(precision, vae.w.T) / (2 * vae.log_sigma).exp())
        vae.c.copy_(-vae.a @ vae.b)
        vae.log_s.copy_(-precision.diagonal().log() / 2)
    rows = x.expand(500, -1)
    draws = [gradients(vae, objective(vae, rows).surrogate.mean())["log_s"] for _ in range(30)]
    for grows in torch.stack(draws).T:
        at_most(-grows, -0.05)


def test_the_largest_weight_leads_into_the_tail():
    for check in (check_ranks, check_covers_the_tail):
        check(TailAdaptive(5))
        fails(check, Reversed(5))


# A discrete guide without a gradient


class Coin(nn.Module):
    """z ~ Bernoulli(σ(π)), x ~ 𝒩(z, 1)."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor(0.3, dtype=F64))
        self.slope = nn.Parameter(torch.tensor(0.2, dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=self.prior))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.slope * x))

    def exact(self, x, particles):
        """The expectation of IWAE(K) over all values of K draws, of one datum."""
        z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F64)] * particles).reshape(-1, particles)
        q = dist.Bernoulli(logits=self.slope * x).log_prob(z)
        w = dist.Bernoulli(logits=self.prior).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q
        return q.sum(1).exp() @ (w.logsumexp(1) - math.log(particles))


class NoPath(IWAE):
    """Pathwise, with no path to follow and log q left out."""

    def forward(self, vae, x):
        d = pv.densities(vae, x, self.particles)
        w = d.log_weight.detach()
        return Estimate(power_mean(w, d.log_mass, 1), (w.softmax(0) * (d.log_joint + 0 * d.log_posterior)).sum(0))


def check_coin(objective, particles):
    vae, x = Coin(), torch.tensor([1.3], dtype=F64)
    check_gradient(objective, vae, x, lambda vae, x: vae.exact(x, particles))


def check_refuses_a_coin(objective):
    refused(lambda: objective(Coin(), torch.randn(3, dtype=F64)), "'z' is Bernoulli", "zero without a word", "vimco")


def test_a_discrete_guide_is_refused_or_follows_its_score():
    for objective in (ELBO(), ELBO(gradient="stl"), IWAE(2), IWAE(2, "dreg"), MIWAE(2, 2), TailAdaptive(2)):
        check_refuses_a_coin(objective)
    check_coin(ELBO(gradient="score"), 1)
    check_coin(ELBO(2, gradient="score", baseline="leave_one_out"), 1)
    check_coin(IWAE(2, "score"), 2)
    check_coin(IWAE(2, "vimco"), 2)
    fails(check_refuses_a_coin, NoPath(2))
    fails(check_coin, NoPath(2), 2)


def test_pyro_s_renyi_elbo_leaves_a_discrete_guide_where_it_is():
    vae, x = Coin(), torch.tensor([1.3], dtype=F64)
    elbo = RenyiELBO(0, 2, max_plate_nesting=1, vectorize_particles=True)
    elbo.loss_and_grads(*pv.to_pyro(vae), x)
    assert vae.prior.grad != 0
    assert vae.slope.grad is None or vae.slope.grad == 0
    assert gradients(vae, vae.exact(x, 2))["slope"].abs() > 0.01


# The loss at the mean of the guide


def at_the_mean(vae, x):
    """log w at z = E_q[z]: [N]."""
    return pv.densities(vae, x, drawn=AtMean()).log_weight[0]


def distortion_at_the_mean(vae, x):
    """log p(x | z) at z = E_q[z], less the rate in closed form: [N]."""
    d = pv.densities(vae, x, drawn=AtMean())
    return d.log_likelihood[0] - kl_divergence(d.posterior["z"].distribution, d.prior["z"].distribution)


def check_is_the_elbo(estimate):
    vae, x = one_latent()
    with torch.no_grad():
        z_test(estimate(vae, x.expand(20_000, -1))[:, None], exact_elbo(vae, x))


def test_the_elbo_is_not_taken_at_the_mean():
    check_is_the_elbo(lambda vae, x: pv.evaluate(vae, x, particles=1).elbo)
    check_is_the_elbo(lambda vae, x: pv.evaluate(vae, x, particles=20).elbo)
    fails(check_is_the_elbo, at_the_mean)
    fails(check_is_the_elbo, distortion_at_the_mean)
