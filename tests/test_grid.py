"""The posterior and evidence on a grid against closed forms; the rate's two parts; pictures of both."""

import math
import types

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64, Global, LinearGaussian, TwoLatents, z_test

import pyrovae as pv
from pyrovae.evaluation import aggregate, exact_posterior, grid
from pyrovae.program import evaluating, seeded


class GammaPoisson:
    """z ~ Gamma(3, 2), x ~ Poisson(z): p(x) is negative binomial, and p(z | x) Gamma(3 + x, 3)."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(3.0), 2.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2 + x, 2.0))


@pytest.mark.parametrize("latent", [1, 2])
def test_evidence_posterior_and_divergence_of_the_linear_gaussian_model(latent):
    vae = LinearGaussian(latent, guide="free")
    x = 2 * vae.data(6)
    found = grid.resolved(vae, x, None, 1e-3, 0, "test", guide=True)
    torch.testing.assert_close(exact_posterior(vae, x).log_evidence, vae.log_evidence(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_evidence, vae.log_evidence(x), rtol=0, atol=1e-10)
    assert float(found.error.max()) < 1e-8
    posterior = vae.true_posterior(x)
    torch.testing.assert_close(found.log_posterior, posterior.log_prob(found.z[:, None]), rtol=0, atol=1e-9)
    q = vae.posterior(x)
    torch.testing.assert_close(found.log_guide, q.log_prob(found.z[:, None]), rtol=0, atol=1e-9)
    full = torch.distributions.MultivariateNormal(q.mean, q.variance.diag_embed())
    kl = torch.distributions.kl_divergence(full, posterior)
    torch.testing.assert_close(found.divergence(found.log_guide), kl, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.elbo(found.log_guide), found.log_evidence - kl, rtol=0, atol=1e-9)
    mean = torch.stack([found.mean(found.z[:, i, None]) for i in range(latent)], -1)
    torch.testing.assert_close(mean, posterior.mean, rtol=0, atol=1e-9)


def test_two_sites_of_one_dimension():
    vae = TwoLatents("down")
    x = vae.data(5)
    found = exact_posterior(vae, x)
    assert found.names == ("z2", "z1")
    torch.testing.assert_close(found.log_evidence, vae.log_evidence(x), rtol=0, atol=1e-10)


def test_a_positive_latent_is_on_a_grid_of_its_logarithm():
    torch.set_default_dtype(F64)  # the program has no parameters to tell
    x = torch.tensor([0.0, 1.0, 4.0, 30.0], dtype=F64)
    found = exact_posterior(GammaPoisson(), x)
    assert float(found.z.min()) > 0
    evidence = dist.NegativeBinomial(3.0, probs=torch.tensor(1 / 3, dtype=F64)).log_prob(x)
    torch.testing.assert_close(found.log_evidence, evidence, rtol=0, atol=1e-8)
    own = dist.Gamma(3 + x, torch.tensor(3.0, dtype=F64)).log_prob(found.z)
    torch.testing.assert_close(found.log_posterior, own, rtol=0, atol=1e-8)


def test_a_posterior_far_from_the_prior_and_narrow_is_found():
    class Far(LinearGaussian):
        def guide(self, x):  # says nothing of where it is
            with self.plate(x):
                pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1).expand([len(x)]))

    vae = Far()
    with torch.no_grad():
        vae.log_sigma.fill_(-4.0)
    x = 12 * vae.data(1)
    found = exact_posterior(vae, x)
    torch.testing.assert_close(found.log_evidence, vae.log_evidence(x), rtol=1e-9, atol=1e-6)


def test_a_model_that_sums_over_a_site_of_its_own():
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(x.new_tensor(0.3)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(6 * y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.tensor([-1.0, 3.0, 7.0], dtype=F64)
    found = exact_posterior(pv.Program(model, guide), x)
    parts = torch.stack([dist.Normal(m, 2**0.5).log_prob(x) + math.log(p) for m, p in ((0.0, 0.7), (6.0, 0.3))])
    torch.testing.assert_close(found.log_evidence, parts.logsumexp(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("elements", [2000, 2**20])
def test_a_decoder_that_takes_rows_alone_and_chunks_change_nothing(monkeypatch, elements):
    monkeypatch.setattr(grid, "_ELEMENTS", elements)
    monkeypatch.setattr(grid, "BATCH", 3)
    torch.manual_seed(1)
    vae = pv.models.VAE.build(pv.data.load("digits"), latent=1, hidden=[5]).double()
    x = pv.data.load("digits").test[:4].double()
    shared = exact_posterior(vae, x, points=65, tolerance=math.inf)
    monkeypatch.setattr(grid, "_common", lambda *_: False)
    alone = exact_posterior(vae, x, points=65, tolerance=math.inf)
    torch.testing.assert_close(shared.log_joint, alone.log_joint, rtol=0, atol=1e-9)


def test_the_evidence_of_a_network_is_the_mean_over_the_prior():
    """E p(x | z) over 40 samples of 5,000 draws, for four data: a z-test that fails one time in 10^6."""
    vae = pv.models.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(pv.networks.MLP([2], [6], [8], activation="tanh")),
        pv.posteriors.DiagonalNormal(pv.networks.MLP([6], [4], [8])),
    ).double()
    with torch.no_grad():
        for p in vae.likelihood.parameters():
            p.mul_(3)
    x = torch.rand(4, 6, dtype=F64).round()
    found = exact_posterior(vae, x, tolerance=1e-4)
    z = torch.randn(40 * 5000, 2, dtype=F64)
    with torch.no_grad():
        draws = (vae.likelihood(z[:, None]).log_prob(x) - found.log_evidence).exp().view(40, 5000, 4).mean(1)
    z_test(draws, torch.ones(4, dtype=F64))
    assert draws.std(0).max() < 0.05


def test_what_cannot_be_trusted_is_refused():
    vae = LinearGaussian()
    x = vae.data(3)
    with pytest.raises(ValueError, match="on 5 points an axis the error at datum"):
        exact_posterior(vae, x, points=5)
    assert float(exact_posterior(vae, x, points=5, tolerance=math.inf).error.max()) > 0.01


def test_mistakes_are_refused_in_a_sentence():
    data, x = pv.data.load("digits"), pv.data.load("digits").test[:3]
    for vae, message in (
        (pv.models.VAE.build(data, latent=3), "one or two dimensions in all.*latent=2"),
        (pv.models.VAE.build(data, latent=2, prior="Bernoulli", posterior="Bernoulli"), "discrete"),
        (pv.models.Autoencoder.build(data, latent=2), "point"),
        (pv.models.VAE.build(data, latent=2, prior="Dirichlet", posterior="Dirichlet"), "coordinates|bound one"),
    ):
        with pytest.raises(ValueError, match=message):
            exact_posterior(vae, x)
    with pytest.raises(ValueError, match="outside"):
        exact_posterior(Global(5), torch.randn(5, dtype=F64))
    for points in (4, 6, 2.5):
        with pytest.raises(ValueError, match="points as an odd number"):
            exact_posterior(pv.models.VAE.build(data, latent=2), x, points=points)
    with pytest.raises(ValueError, match="data as a tensor"):
        exact_posterior(pv.models.VAE.build(data, latent=2), data)


# The rate's two parts


def two_codes(shift):
    """z ~ 𝒩(0, 1), x ~ 𝒩(z, 1), q(z | x) = 𝒩(shift · x, 1/4)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shift * x, 0.5))

    return types.SimpleNamespace(model=model, guide=guide)


def test_two_data_by_hand():
    """Codes far apart tell all, log 2 nats; equal ones nothing, and the rate is that of one normal."""
    torch.set_default_dtype(F64)
    x = torch.tensor([-1.0, 1.0], dtype=F64)
    apart, equal = aggregate(two_codes(50.0), x, 100), aggregate(two_codes(0.0), x, 100)
    assert apart.mutual_information == pytest.approx(math.log(2), abs=1e-9) == apart.most_information
    assert equal.mutual_information == pytest.approx(0, abs=1e-12)
    kl = 0.125 - 0.5 + math.log(2)  # of 𝒩(0, 1/4) from 𝒩(0, 1)
    assert abs(equal.rate - kl) < 5 * equal.rate_error
    assert abs(apart.rate - kl - 50**2 / 2) < 5 * apart.rate_error
    assert equal.marginal_kl == pytest.approx(equal.rate, abs=1e-12)


def test_the_parts_are_the_rate_and_the_integrals_of_the_mixture():
    """Against a quadrature of the mixture of five normals, at five standard errors: fails one time in 10^6."""
    torch.set_default_dtype(F64)
    x, vae = torch.linspace(-2, 2, 5), two_codes(0.6)
    found = aggregate(vae, x, 5000)
    assert found.rate == pytest.approx(found.mutual_information + found.marginal_kl, abs=1e-12)
    z = torch.linspace(-8, 8, 4001, dtype=F64)[:, None]
    q = dist.Normal(0.6 * x, 0.5).log_prob(z)
    mixture = q.logsumexp(1) - math.log(5)
    marginal = (mixture.exp() * (mixture - dist.Normal(0.0, 1.0).log_prob(z)[:, 0])).sum() * 16 / 4000
    information = (q.exp() * (q - mixture[:, None])).sum() * 16 / 4000 / 5
    assert abs(found.marginal_kl - float(marginal)) < 5 * found.marginal_kl_error
    assert abs(found.mutual_information - float(information)) < 5 * found.mutual_information_error
    assert found.mutual_information_error < 0.02


@pytest.mark.parametrize("guide", ["up", "down"])
def test_a_hierarchy_and_chunks(monkeypatch, guide):
    vae = TwoLatents(guide)
    x = vae.data(7)
    whole = aggregate(vae, x, 20)
    monkeypatch.setattr(pv.evaluation.surgery, "_ELEMENTS", 40)
    parts = aggregate(vae, x, 20)
    for found in (whole, parts):
        assert found.rate == pytest.approx(found.mutual_information + found.marginal_kl, abs=1e-12)
        assert 0 < found.mutual_information < found.most_information
    assert abs(whole.rate - parts.rate) < 6 * whole.rate_error
    ev = pv.evaluate(vae, x, particles=2000)
    assert abs(whole.rate - float(ev.rate.mean())) < 6 * whole.rate_error


def test_the_rate_of_a_batch_is_that_of_evaluate_and_nothing_is_left_behind():
    data = pv.data.load("digits")
    vae = pv.models.VAE.build(data, latent=2).train()
    state = torch.get_rng_state()
    found = aggregate(vae, data.test[:30], 50)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert found == aggregate(vae, data.test[:30], 50)
    assert abs(found.rate - float(pv.evaluate(vae, data.test[:30], 500).rate.mean())) < 6 * found.rate_error
    with pytest.raises(ValueError, match="at least 2"):
        aggregate(vae, data.test[:3], 1)
    with pytest.raises(ValueError, match="outside"):
        aggregate(Global(5), torch.randn(5, dtype=F64))


# Pictures


@pytest.mark.parametrize("latent", [1, 2])
def test_pictures_of_posteriors_and_of_all_codes(latent):
    data = pv.data.load("digits")
    vae = pv.models.LinearGaussian.build(data, latent=latent, posterior="exact")
    found = exact_posterior(vae, data.test[:3], points=65, tolerance=math.inf)
    figure = pv.plots.posteriors(found, found.log_guide, titles="abc")
    assert [ax.get_title("left") for ax in figure.axes] == ["a", "b", "c"]
    assert pv.plots.aggregate_map(vae, data.test[:20], points=33).axes[0].get_xlabel() == found.names[0]
    with pytest.raises(ValueError, match="a title for each of 3"):
        pv.plots.posteriors(found, titles="ab")
    with pytest.raises(ValueError, match="posteriors expects log_best as `gaps` gives it"):
        pv.plots.posteriors(found, found.log_guide[:4])
    with pytest.raises(ValueError, match="at most 12 data"):
        pv.plots.posteriors(found.of_data([0] * 13))


def test_the_aggregate_of_a_picture_is_the_mixture():
    vae, x = two_codes(0.6), torch.linspace(-2, 2, 5, dtype=F64)
    with evaluating(vae), seeded(0):
        found, codes = grid.prior_on_grid(vae, x, 129, "test")
        log_q = pv.evaluation.surgery.log_aggregate(vae, x, codes)
    mixture = dist.Normal(0.6 * x, 0.5).log_prob(found.z).logsumexp(1) - math.log(5)
    torch.testing.assert_close(log_q, mixture.to(log_q.dtype), rtol=0, atol=1e-5)
    prior = dist.Normal(0.0, 1.0).log_prob(found.z[:, 0])
    torch.testing.assert_close(found.log_joint[:, 0], prior.double(), rtol=0, atol=1e-5)
    assert float(found.log_integral(found.log_joint)[0]) == pytest.approx(0, abs=1e-3)
