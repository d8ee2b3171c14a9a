"""Penalties on the rate and on the aggregate posterior, against their formulae written out."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64, TIGHT, LinearGaussian, TwoLatents, gradients, run, z_test
from exact import SOME, Coins, Mixture, masked_within
from pieces import small_data, small_vae

import pyrovae as pv
from pyrovae.objectives import DIPVAE, ELBO, BetaTCVAE, Capacity, InfoVAE
from pyrovae.objectives.aggregate import aggregate, codes, mmd
from pyrovae.objectives.elbo import rate


def drawn(vae, x, particles, seed=5):
    """The densities that an objective sees under this seed."""
    torch.manual_seed(seed)
    return pv.densities(vae, x, particles)


@pytest.mark.parametrize("objective", [Capacity(3.0), BetaTCVAE(), InfoVAE(), DIPVAE(), DIPVAE(kind=1)])
def test_the_bound_is_the_elbo(objective):
    vae = TwoLatents()
    x = vae.data(5)
    torch.testing.assert_close(run(objective, vae, x).bound, run(ELBO(), vae, x).bound, **TIGHT)


# Capacity


def test_capacity():
    """−D − γ |R − C|, with the mean rate of the batch and C rising over the warm-up."""
    vae = LinearGaussian(guide="free")
    x, objective = vae.data(5), Capacity(capacity=4.0, warmup=10, gamma=7.0, particles=3)
    d = drawn(vae, x, 3)
    r = rate(d, "analytic").mean()
    for epochs, capacity in ((0, 0.0), (5, 2.0), (5, 4.0), (5, 4.0)):
        objective.advance(epochs)
        expected = d.log_likelihood.mean(0) - 7 * (r - capacity).abs()
        torch.testing.assert_close(run(objective, vae, x).surrogate, expected, **TIGHT)


def test_capacity_holds_the_rate():
    """Trained, the rate is at C and not at zero or above."""
    vae = LinearGaussian(guide="free")
    x = vae.data(64) * 3
    pv.fit(vae, x, Capacity(1.5, warmup=0, gamma=30.0), epochs=200, learning_rate=0.02, batch_size=64, progress=False)
    assert rate(pv.densities(vae, x), "analytic").mean().item() == pytest.approx(1.5, abs=0.1)


# Total correlation


@pytest.mark.parametrize("particles", [1, 3])
def test_aggregate_posterior(particles):
    """log q(z) and Σ_j log q(z_j) in loops over draws, posteriors and dimensions."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    d = drawn(vae, x, particles)
    whole, parts = aggregate(vae, x, d)
    z, q = codes(d), vae.posterior(x)
    for k in range(particles):
        for i in range(5):
            each = torch.stack([q.base_dist.log_prob(z[k, i].expand(5, -1))[j] for j in range(5)])  # [B, L]
            expected = each.sum(-1).exp().mean().log()
            torch.testing.assert_close(whole[k, i], expected, **TIGHT)
            torch.testing.assert_close(parts[k, i], each.exp().mean(0).log().sum(), **TIGHT)


def test_aggregate_posterior_of_two_sites():
    """q(z1 | x_j) q(z2 | z1): the density of a draw under the other posteriors depends on both sites."""
    vae = TwoLatents()
    x = vae.data(4)
    d = drawn(vae, x, 2)
    whole, parts = aggregate(vae, x, d)
    a, c, p, r = vae.phi
    z1, z2 = (d.posterior[n].value for n in ("z1", "z2"))  # [K, B, 1]
    first = dist.Normal(a * x[:, 0], p).log_prob(z1)  # [K, B, B]
    second = dist.Normal(c * z1, r).log_prob(z2)  # [K, B, 1]
    torch.testing.assert_close(whole, (first + second).exp().mean(-1).log(), **TIGHT)
    torch.testing.assert_close(parts, first.exp().mean(-1).log() + second[..., 0], **TIGHT)


def test_total_correlation_of_a_known_q():
    """One posterior for all data: q(z) = q(z | x), so that information and total correlation are zero."""
    vae = LinearGaussian(guide="free")
    with torch.no_grad():
        vae.a.zero_()
    x = vae.data(6)
    d = drawn(vae, x, 2)
    for t in aggregate(vae, x, d):
        torch.testing.assert_close(t, d.log_posterior, **TIGHT)


def test_beta_tc_weighs_each_part():
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    d = drawn(vae, x, 3)
    whole, parts = aggregate(vae, x, d)
    information, total, each = d.log_posterior - whole, whole - parts, parts - d.log_prior
    expected = d.log_likelihood - (2 * information + 5 * total + 3 * each)
    found = run(BetaTCVAE(beta=5, alpha=2, gamma=3, particles=3), vae, x)
    torch.testing.assert_close(found.surrogate, expected.mean(0), **TIGHT)


def test_beta_tc_refuses_what_does_not_factorise():
    vae = LinearGaussian()
    with pytest.raises(ValueError, match=r"BetaTCVAE takes log q\(z_j \| x\) of .*'z' is MultivariateNormal"):
        BetaTCVAE()(vae, vae.data(5))


def test_beta_tc_of_enumerated_latents_has_no_variance():
    """Two seeds, one answer; of ones it is the exact ELBO."""
    vae = Coins(mark=True)
    x = vae.data(5)
    a, b = run(BetaTCVAE(), vae, x, 1), run(BetaTCVAE(), vae, x, 2)
    torch.testing.assert_close(a.surrogate, b.surrogate, **TIGHT)
    torch.testing.assert_close(run(BetaTCVAE(1.0), vae, x).surrogate, run(ELBO(), vae, x).surrogate, **TIGHT)
    torch.testing.assert_close(run(BetaTCVAE(1.0), vae, x).bound, run(ELBO(), vae, x).bound, **TIGHT)


# MMD


def test_mmd_by_hand():
    a, b = torch.randn(3, 2, dtype=F64), torch.randn(4, 2, dtype=F64)

    def kernel(u, v):
        return sum(4 * c / (4 * c + float((u - v).square().sum())) for c in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))

    aa = np.mean([kernel(a[i], a[j]) for i in range(3) for j in range(3) if i != j])
    bb = np.mean([kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j])
    ab = np.mean([kernel(u, v) for u in a for v in b])
    assert mmd(a, b).item() == pytest.approx(aa + bb - 2 * ab, rel=1e-12)


def test_mmd_is_unbiased():
    """Of two samples of one distribution its mean is zero: a z-test, wrong once in 1e6. Of two others it is not."""
    same = torch.stack([mmd(*torch.randn(2, 8, 2, dtype=F64)) for _ in range(4000)])
    z_test(same[:, None], torch.zeros(1, dtype=F64))
    assert (same < 0).any()  # as an unbiased estimate of zero has to be
    other = torch.stack([mmd(torch.randn(8, 2, dtype=F64), torch.randn(8, 2, dtype=F64) + 0.7) for _ in range(400)])
    assert other.mean() > 10 * other.std() / 20


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_info_vae(alpha):
    """−D − (1 − α) R − λ' MMD², with draws of the prior after those of the guide."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    d = drawn(vae, x, 2)
    prior = torch.randn(2, 5, 2, dtype=F64)[0]
    penalty = (1 - alpha) * rate(d, "sampled") + 3 * mmd(codes(d)[0], prior)
    found = run(InfoVAE(alpha, scale=3.0, particles=2), vae, x)
    torch.testing.assert_close(found.surrogate, (d.log_likelihood - penalty).mean(0), **TIGHT)


def test_info_vae_draws_a_hierarchy_from_the_model():
    """Prior and guide in the same order of sites: at the posterior, over many data of the model, MMD² is near 0."""
    vae = TwoLatents("exact")
    with torch.no_grad():
        vae.theta[2] = 2.0  # the spread of z1 given z2, so that the two differ
    w, v, s, t = vae.theta.detach()
    z1 = w * torch.randn(1000, 1, dtype=F64) + s * torch.randn(1000, 1, dtype=F64)
    x = v * z1 + t * torch.randn(1000, 1, dtype=F64)
    e = run(InfoVAE(1.0, scale=1.0), vae, x)
    with torch.no_grad():
        distance = (drawn(vae, x, 1).log_likelihood[0] - e.surrogate)[0]
        swapped = mmd(codes(drawn(vae, x, 1))[0].flip(-1), codes(drawn(vae, x, 1, seed=6))[0])
    assert abs(distance) < 0.02 < swapped


def test_wasserstein_trains_the_aggregate_posterior():
    """The gradient of MMD² reaches the guide, and moves q(z) towards p(z)."""
    vae = small_vae(latent=2)
    x = small_data(n=64, dtype=torch.float32)
    with torch.no_grad():
        for p in vae.posterior.network.parameters():
            p.mul_(3)
    before = mmd(codes(pv.densities(vae, x))[0], torch.randn(64, 2))
    pv.fit(vae, x, InfoVAE(1.0, scale=100.0), epochs=100, learning_rate=0.01, progress=False)
    after = mmd(codes(pv.densities(vae, x))[0], torch.randn(64, 2))
    assert after < before / 2


# DIP


@pytest.mark.parametrize("kind", [1, 2])
def test_dip(kind):
    vae = LinearGaussian(guide="free")
    x = vae.data(6)
    d = drawn(vae, x, 3)
    q = vae.posterior(x)
    c = torch.cov(q.mean.T, correction=0)
    if kind == 2:
        c = c + q.variance.mean(0).diag()
    off = sum(c[i, j] ** 2 for i in range(2) for j in range(2) if i != j)
    on = sum((c[i, i] - 1) ** 2 for i in range(2))
    expected = (d.log_likelihood - rate(d, "analytic")).mean(0) - 3 * off - 5 * on
    found = run(DIPVAE(3.0, 5.0, kind, particles=3), vae, x)
    torch.testing.assert_close(found.surrogate, expected, **TIGHT)


def test_dip_of_dependent_dimensions_and_of_a_hierarchy():
    """Kind 2 is the covariance of q(z): of the draws, where the variances of one factorised site are not all of it."""

    class Dependent(LinearGaussian):
        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(x[:, :2] * self.a[0, 0], scale_tril=self.factor))

        factor = torch.tensor([[1.0, 0.0], [0.9, 0.3]], dtype=F64)

    for vae in (Dependent(guide="free"), TwoLatents("up")):
        x = vae.data(500)
        d = drawn(vae, x, 4)
        c = torch.cov(codes(d).flatten(0, 1).T, correction=0)
        off, on = 2 * c[0, 1] ** 2, (c.diagonal() - 1).square().sum()
        assert off > 0.01
        expected = (d.log_likelihood - rate(d, "analytic")).mean(0) - 3 * off - 5 * on
        found = run(DIPVAE(3.0, 5.0, 2, particles=4), vae, x)
        torch.testing.assert_close(found.surrogate, expected, **TIGHT)


def test_dip_of_relaxed_coins():
    """Whose moments have no closed form: kind 2 goes by draws, kind 1 says so."""
    vae, x = small_vae(posterior="RelaxedBernoulli"), small_data(dtype=torch.float32)
    assert torch.isfinite(DIPVAE(kind=2)(vae, x).surrogate).all()
    with pytest.raises(ValueError, match=r"kind 1 takes the means of q\(z \| x\), and RelaxedBernoulli has none"):
        DIPVAE(kind=1)(vae, x)


# What is refused


@pytest.mark.parametrize("objective", [InfoVAE(), DIPVAE()])
def test_a_batch_of_draws_is_needed(objective):
    who, vae = type(objective).__name__, LinearGaussian(guide="free")
    with pytest.raises(ValueError, match=rf"{who} compares the codes of a batch and needs at least two data, got 1"):
        objective(vae, vae.data(1))
    marked = Mixture("yz")
    with pytest.raises(ValueError, match=rf"{who} draws every site of the guide, and 'y' is marked.*relaxed posterior"):
        objective(marked, marked.data(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Capacity(-1.0), "Capacity expects capacity as a finite number of at least 0, got -1"),
        (lambda: Capacity(gamma=math.nan), "Capacity expects gamma as a finite number of at least 0, got nan"),
        (lambda: BetaTCVAE(-1.0), "BetaTCVAE expects beta as a finite number of at least 0, got -1"),
        (lambda: InfoVAE(1.5), "InfoVAE expects alpha of at most 1, got 1.5: the rate must not be rewarded"),
        (lambda: InfoVAE(scale=-1.0), "InfoVAE expects scale as a finite number of at least 0, got -1"),
        (lambda: DIPVAE(kind=3), r"DIPVAE expects kind 1 \(means\) or 2 \(draws\), got 3"),
        (lambda: DIPVAE(particles=0), "DIPVAE expects particles as a whole number of at least 1, got particles=0"),
    ],
)
def test_messages(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_every_parameter_is_reached():
    vae = TwoLatents("down")
    for objective in (BetaTCVAE(), InfoVAE(), DIPVAE(), Capacity(1.0, warmup=0)):
        for name, g in gradients(vae, objective(vae, vae.data(6)).surrogate.mean()).items():
            assert g.abs().max() > 0, name


@pytest.mark.parametrize("objective", [InfoVAE(), DIPVAE(), Capacity(), BetaTCVAE()])
def test_validation_takes_a_batch_of_one(objective):
    """The bound is of each datum; the penalty, which is of a batch, is not taken."""
    vae = LinearGaussian(guide="free")
    x = vae.data(1)
    with torch.no_grad():
        torch.testing.assert_close(run(objective, vae, x).bound, run(ELBO(), vae, x).bound, **TIGHT)


def test_aggregate_posterior_of_a_masked_dimension():
    """What is masked counts neither in log q(z) nor in Σ_j log q(z_j): equal where all have one posterior."""
    vae, x = masked_within(SOME, SOME), torch.zeros(4, dtype=F64)
    whole, parts = aggregate(vae, x, pv.densities(vae, x))
    torch.testing.assert_close(whole, parts, **TIGHT)
