"""The gaps between ELBO and log p(x): closed forms of the linear Gaussian model, and identities of any other."""

import math

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TwoLatents

import pyrovae as pv
from pyrovae.evaluation import gaps


class ExactEncoder(nn.Module):
    """The code by which FullNormal is p(z | x) of a linear Gaussian model."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)

    def forward(self, x):
        q = self.model[0].true_posterior(x)
        tril = q.scale_tril
        scale = tril.diagonal(dim1=-2, dim2=-1)
        n = tril.shape[-1]
        row, column = torch.tril_indices(n, n, -1)
        below = (tril / scale[..., None])[..., row, column] * math.sqrt(n)
        return torch.cat([q.mean, scale.log(), below], -1)


def linear(latent, posterior, features=5):
    """A linear Gaussian model whose posterior is correlated, with an encoder that is off."""
    vae = pv.models.LinearGaussian([features], latent).double()
    with torch.no_grad():
        vae.weight.copy_(torch.randn(features, 1, dtype=F64) + 0.5 * torch.randn(features, latent, dtype=F64))
    part = getattr(pv.posteriors, posterior)
    vae.posterior = part(nn.Linear(features, part.code(latent)[0])).double()
    with torch.no_grad():
        for p in vae.posterior.parameters():
            p.mul_(0.3)
    return vae, torch.randn(6, features, dtype=F64)


def mean_field_gap(vae, x):
    """KL of the best factorised normal, 𝒩(m, diag 1/M_ii), from 𝒩(m, M⁻¹): (Σ log M_ii − log det M) / 2."""
    m = vae.true_posterior(x).precision_matrix[0].detach()
    return float((m.diagonal().log().sum() - torch.logdet(m)) / 2)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_exact_guide_has_no_gap(latent):
    vae, x = linear(latent, "FullNormal")
    vae.posterior = pv.posteriors.FullNormal(ExactEncoder(vae))
    found = gaps(vae, x)
    for gap in (found.amortisation, found.approximation):
        assert float(gap.abs().max()) < 1e-9
    torch.testing.assert_close(found.elbo, vae.log_evidence(x), rtol=0, atol=1e-9)
    assert found.converged.all()


def test_a_family_that_has_the_posterior_has_no_approximation_gap():
    vae, x = linear(2, "FullNormal")
    found = gaps(vae, x)
    assert float(found.approximation.abs().max()) < 1e-6
    torch.testing.assert_close(found.amortisation, vae.log_evidence(x) - vae.elbo(x), rtol=0, atol=1e-6)
    assert float(found.amortisation.min()) > 0.01
    assert found.converged.all()


@pytest.mark.parametrize("posterior", ["DiagonalNormal", "SemiAmortised"])
def test_the_gap_of_a_factorised_normal_is_known(posterior):
    vae, x = linear(2, "DiagonalNormal")
    if posterior == "SemiAmortised":
        vae.posterior = pv.posteriors.SemiAmortised(vae.posterior.network, steps=2)
        vae.posterior.attach(vae)
    gap = mean_field_gap(vae, x)
    assert gap > 0.01
    found = gaps(vae, x, tolerance=1e-6)
    torch.testing.assert_close(found.approximation, torch.full((6,), gap, dtype=F64), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.elbo, vae.elbo(x).detach(), rtol=0, atol=1e-6)
    assert found.converged.all()


@pytest.mark.parametrize("posterior", ["DiagonalNormal", "FullNormal"])
def test_three_dimensions_by_draws(posterior):
    """Closed forms at five standard errors and the 0.003 nats that the steps may leave: fails one time in 10^5."""
    vae, x = linear(3, posterior)
    found = gaps(vae, x, steps=300)
    assert found.grid is None
    gap = mean_field_gap(vae, x) if posterior == "DiagonalNormal" else 0.0
    assert ((found.approximation - gap).abs() < 5 * found.approximation_error + 0.003).all()
    elbo = vae.elbo(x).detach()
    assert ((found.elbo - elbo).abs() < 5 * found.elbo_error).all()
    assert ((found.log_evidence - vae.log_evidence(x)).abs() < 5 * found.log_evidence_error + 0.003).all()
    amortisation = vae.log_evidence(x) - gap - elbo
    assert ((found.amortisation - amortisation).abs() < 5 * found.amortisation_error + 0.003).all()
    if posterior == "FullNormal":
        assert float(found.approximation_error.max()) < 0.03  # q is all but exact, and its weights all but constant
    annealed = pv.anneal(vae, x, chains=4, steps=20)
    other = gaps(vae, x, steps=2, particles=10, evidence=annealed)
    assert torch.equal(other.log_evidence, annealed.log_evidence)
    assert torch.equal(other.log_evidence_error, annealed.standard_error)


def check_parts(vae, x, **options):
    """log p(x) = ELBO + KL with the KL of densities that the guide itself gives; no gap below 0."""
    found = gaps(vae, x, **options)
    grid = found.grid
    log_q, log_p = grid.log_guide, grid.log_posterior
    volume = grid.log_volume.exp()[:, None]
    kl = (volume * log_q.exp() * (log_q - log_p)).nan_to_num(0.0).sum(0)  # not normalised on the grid
    elbo = (volume * log_q.exp() * (grid.log_joint - log_q)).nan_to_num(0.0).sum(0)
    torch.testing.assert_close(found.elbo, elbo, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.log_evidence - found.elbo, kl, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.amortisation + found.approximation, kl, rtol=0, atol=1e-3)
    assert float(found.amortisation.min()) >= 0
    assert float(found.approximation.min()) >= -1e-9
    best = (volume * found.log_best.exp()).sum(0)
    torch.testing.assert_close(best, torch.ones_like(best), rtol=0, atol=1e-2)
    return found


@pytest.mark.parametrize("epochs", [0, 3])
def test_the_parts_of_digits_add_up(epochs):
    data = pv.data.load("digits")
    vae = pv.models.VAE.build(data, latent=2, hidden=[32])
    if epochs:
        pv.fit(vae, data, epochs=epochs, progress=False)
    found = check_parts(vae, data.test[:3], steps=30)
    ev = pv.evaluate(vae, data.test[:3], particles=5000)
    assert ((ev.elbo - found.elbo).abs() < 0.5).all()
    assert found.to_dict()["elbo"] == pytest.approx(float(found.elbo.mean()))


@pytest.mark.parametrize("posterior", ["Mixture", "Flow", "LowRankNormal"])
def test_other_families_come_nearer(posterior):
    data = pv.data.load("digits")
    vae = pv.models.VAE.build(data, latent=1, hidden=[16], posterior=posterior)
    found = check_parts(vae, data.test[:3], steps=30)
    assert float(found.approximation.max()) < 1
    assert float(found.amortisation.min()) > 0.01


def test_a_positive_latent():
    data = pv.data.load("digits")
    vae = pv.models.VAE.build(data, latent=1, hidden=[16], prior="Gamma", posterior="LogNormal")
    check_parts(vae, data.test[:3], steps=30)


class Folded(nn.Module):
    """x | z ~ 𝒩(3 |z − 0.2|, 1/4): two z for an x, of which the prior prefers the one below 0.2."""

    latent = 1

    def forward(self, z):
        return dist.Normal((z - 0.2).abs() * 3, 0.5).to_event(1)


def test_an_encoder_near_the_lesser_mode_does_not_keep_the_best_q_there():
    posterior = linear(1, "DiagonalNormal", 1)[0].posterior
    with torch.no_grad():
        posterior.network.weight.zero_()
        posterior.network.bias.copy_(torch.tensor([2.2, -1.0]))
    vae = pv.models.VAE(pv.priors.StandardNormal(1), Folded(), posterior).double()
    found = gaps(vae, torch.full((1, 1), 6.0, dtype=F64))
    assert float(found.grid.mean(found.grid.z, found.log_best)) < -1
    share = found.grid.mean((found.grid.z < 0.2).double())  # KL of a q within one of two modes is −log of its share
    assert float(found.approximation) == pytest.approx(-math.log(float(share)), abs=0.01)


def test_what_is_drawn_depends_on_the_seed_alone_and_nothing_is_left_behind():
    vae, x = linear(3, "DiagonalNormal")
    vae.train()
    state = torch.get_rng_state()
    first, second = (gaps(vae, x[:2], steps=10, particles=20) for _ in range(2))
    assert torch.equal(first.best_elbo, second.best_elbo)
    assert not torch.equal(first.best_elbo, gaps(vae, x[:2], steps=10, particles=20, seed=1).best_elbo)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert all(p.grad is None for p in vae.parameters())


def test_mistakes_are_refused_in_a_sentence():
    data = pv.data.load("digits")
    x = data.test[:3]
    for vae, message in (
        (pv.models.LinearGaussian.build(data, latent=2, posterior="exact"), "got posterior of type NoneType"),
        (TwoLatents("up"), "a guide of one latent"),
        (pv.models.VAE.build(data, latent=2, prior="Bernoulli", posterior="Bernoulli"), "is discrete"),
        (pv.models.Autoencoder.build(data, latent=2), "point"),
    ):
        with pytest.raises(ValueError, match=message):
            gaps(vae, x if not isinstance(vae, TwoLatents) else vae.data(3))

    class Another(pv.models.VAE):
        def guide(self, x):
            super().guide(x + 1)

    built = pv.models.VAE.build(data, latent=2)
    with pytest.raises(ValueError, match="this one is another"):
        gaps(Another(built.prior, built.likelihood, built.posterior), x)
    with pytest.raises(ValueError, match="steps of at least 2"):
        gaps(built, x, steps=1)
    vae, y = linear(3, "DiagonalNormal")
    with pytest.raises(ValueError, match="evidence of the same 6 data, got that of 2"):
        gaps(vae, y, evidence=pv.evaluate(vae, y[:2], particles=2))


def test_a_picture_of_the_gaps():
    vae, x = linear(2, "DiagonalNormal")
    found = gaps(vae, x, steps=10)
    ax = pv.plots.gap_bars(found, titles="abcdef").axes[0]
    assert [t.get_text().split()[0] for t in ax.get_xticklabels()] == ["mean", *"abcdef"]
    heights = torch.tensor([bar.get_height() for bar in ax.patches], dtype=F64).view(2, 7)
    torch.testing.assert_close(heights[:, 1:], torch.stack([found.amortisation, found.approximation]))
    assert pv.plots.posteriors(found.grid, found.log_best).axes
    with pytest.raises(ValueError, match="a title for each of 6"):
        pv.plots.gap_bars(found, titles="ab")
