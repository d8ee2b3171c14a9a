"""Models with exact answers: against identities, sums, quadrature and draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
import yaml
from conftest import F64, TIGHT, check_device, check_trace, fake_cuda, gradients, reached, z_test
from pieces import PAIRS, small_data, small_vae
from torch.distributions import kl_divergence
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv
from benchmarks.gallery.baselines import probabilistic_pca
from pyrovae import posteriors, priors
from pyrovae.cli import main
from pyrovae.models import EnumerableVAE, LinearGaussian
from pyrovae.networks import MLP

SHAPE, L = [1, 2, 3], 2


class Full(nn.Module):
    """A q(z | x) with a covariance, of full or of low rank."""

    def __init__(self, event=SHAPE, latent=L, low_rank=False):
        super().__init__()
        self.network, self.low_rank = MLP(event, [latent], hidden=[]), low_rank
        self.root = nn.Parameter(torch.eye(latent) + 0.3 * torch.ones(latent, latent).tril())

    def forward(self, x):
        loc = self.network(x)
        if self.low_rank:
            return dist.LowRankMultivariateNormal(loc, self.root[:, :1], self.root.diagonal())
        return dist.MultivariateNormal(loc, scale_tril=self.root.tril())


QS = {
    "exact": lambda event, latent: None,
    "diagonal": lambda event, latent: posteriors.DiagonalNormal(MLP(event, [2 * latent], hidden=[])),
    "full": Full,
    "low rank": lambda event, latent: Full(event, latent, low_rank=True),
}


def gaussian(noise="isotropic", q="exact", event=SHAPE, latent=L):
    """A model with all parameters away from where they begin."""
    vae = LinearGaussian(event, latent, noise, QS[q](event, latent)).double()
    with torch.no_grad():
        for p in (vae.weight, vae.bias, vae.log_scale):
            p.normal_()
        vae.log_scale.mul_(0.4)
    return vae


def data(n=4, dtype=F64):
    return torch.randn(n, *SHAPE, dtype=dtype)


def dense(vae):
    """p(x) as it is written: 𝒩(b, W Wᵀ + diag σ²) over [D]."""
    noise = (2 * vae.log_scale).exp() * torch.ones(len(vae.bias), dtype=F64)
    return dist.MultivariateNormal(vae.bias, vae.weight @ vae.weight.mT + noise.diag())


def grid(n, latent):
    """Nodes [n^L, L] and weights [n^L] of Gauss and Hermite for 𝒩(0, I): n nodes are exact for degree 2n − 1."""
    x, w = (torch.as_tensor(v) for v in np.polynomial.hermite_e.hermegauss(n))
    nodes, weights = (torch.cartesian_prod(*[v] * latent).reshape(-1, latent) for v in (x, w))
    return nodes, weights.prod(-1) / (2 * math.pi) ** (latent / 2)


def log_joint(vae, x, z):
    return vae.prior().log_prob(z) + vae.likelihood(z).log_prob(x)


def covariance(q):
    return q.covariance_matrix if hasattr(q, "covariance_matrix") else q.variance.diag_embed()


CASES = list(itertools.product(["isotropic", "diagonal"], QS))


@pytest.mark.parametrize(("noise", "q"), CASES)
class TestLinearGaussian:
    def test_evidence_is_that_of_the_dense_gaussian(self, noise, q):
        vae, x = gaussian(noise, q), data()
        assert vae.log_evidence(x).shape == (4,)
        torch.testing.assert_close(vae.log_evidence(x), dense(vae).log_prob(x.flatten(1)), **TIGHT)

    def test_posterior_times_evidence_is_the_joint(self, noise, q):
        vae, x = gaussian(noise, q), data()
        z = torch.randn(3, 4, L, dtype=F64)
        found = vae.true_posterior(x).log_prob(z) + vae.log_evidence(x)
        assert found.shape == (3, 4)
        torch.testing.assert_close(found, log_joint(vae, x, z), **TIGHT)

    def test_posterior_is_the_dense_gaussian_conditioned_on_x(self, noise, q):
        vae, x = gaussian(noise, q), data()
        gain = torch.linalg.solve(dense(vae).covariance_matrix, vae.weight).mT  # Wᵀ Σ⁻¹
        posterior = vae.true_posterior(x)
        torch.testing.assert_close(posterior.mean, (x.flatten(1) - vae.bias) @ gain.mT, **TIGHT)
        expected = torch.eye(L, dtype=F64) - gain @ vae.weight
        torch.testing.assert_close(posterior.covariance_matrix, expected.expand(4, L, L), **TIGHT)

    def test_likelihood_element_by_element(self, noise, q):
        vae, x = gaussian(noise, q), data()
        z = torch.randn(3, 4, L, dtype=F64)
        p = vae.likelihood(z)
        assert (p.batch_shape, p.event_shape) == ((3, 4), tuple(SHAPE))
        scale = vae.log_scale.exp() * torch.ones(6, dtype=F64)
        for k, b in itertools.product(range(3), range(4)):
            terms = [
                dist.Normal(vae.weight[d] @ z[k, b] + vae.bias[d], scale[d]).log_prob(x[b].flatten()[d])
                for d in range(6)
            ]
            torch.testing.assert_close(p.log_prob(x)[k, b], torch.stack(terms).sum(), **TIGHT)

    def test_evidence_minus_elbo_is_the_divergence_from_the_posterior(self, noise, q):
        vae, x = gaussian(noise, q), data()
        own = vae.true_posterior(x) if q == "exact" else vae.posterior(x)
        gap = kl_divergence(dist.MultivariateNormal(own.mean, covariance(own)), vae.true_posterior(x))
        assert vae.elbo(x).shape == (4,)
        torch.testing.assert_close(vae.log_evidence(x) - vae.elbo(x), gap, **TIGHT)

    def test_elbo_and_its_gradient_by_quadrature(self, noise, q):
        """log w is quadratic in the noise of the draw, so that three nodes a dimension are exact."""
        vae, x = gaussian(noise, q), data()
        nodes, weights = grid(3, L)
        own = vae.true_posterior(x) if q == "exact" else vae.posterior(x)
        root = torch.linalg.cholesky(covariance(own))  # [B, L, L]
        z = own.mean + (root @ nodes[:, None, :, None]).squeeze(-1)  # [9, B, L]
        expected = weights @ (log_joint(vae, x, z) - own.log_prob(z))
        torch.testing.assert_close(vae.elbo(x), expected, **TIGHT)
        found, expected = gradients(vae, vae.elbo(x).sum()), gradients(vae, expected.sum())
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], **TIGHT)

    def test_elbo_is_the_mean_of_log_weights(self, noise, q):
        vae, x = gaussian(noise, q), data()
        log_weight = pv.densities(vae, x, 2000).log_weight.detach()
        if q == "exact":
            torch.testing.assert_close(log_weight, vae.elbo(x).expand(2000, 4), **TIGHT)
        else:
            z_test(log_weight, vae.elbo(x).detach(), failure_rate=1e-6)

    def test_gradient_reaches_every_parameter(self, noise, q):
        vae, x = gaussian(noise, q), data()
        reached(vae, vae.elbo(x).mean())
        reached(vae, pv.objectives.IWAE(3)(vae, x).surrogate.mean())

    def test_any_leading_dimensions(self, noise, q):
        vae, x = gaussian(noise, q), torch.randn(3, 4, *SHAPE, dtype=F64)
        for f in (vae.log_evidence, vae.elbo):
            torch.testing.assert_close(f(x), torch.stack([f(row) for row in x]), **TIGHT)
            torch.testing.assert_close(f(x[0, 0]), f(x)[0, 0], **TIGHT)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_exact_guide_weighs_every_particle_by_the_evidence(noise):
    vae, x = gaussian(noise), data()
    log_weight = pv.densities(vae, x, particles=7).log_weight
    torch.testing.assert_close(log_weight, vae.log_evidence(x).expand(7, 4), **TIGHT)
    found = gradients(vae, pv.objectives.IWAE(5)(vae, x).surrogate.sum())
    expected = gradients(vae, vae.log_evidence(x).sum())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **TIGHT)


@pytest.mark.parametrize("q", ["exact", "diagonal"])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_round_trip(noise, q, tmp_path):
    vae, x = gaussian(noise, q), data()
    pv.save(vae, tmp_path)
    again = pv.load(tmp_path)
    assert (again.event, again.latent, again.noise) == (tuple(SHAPE), L, noise)
    assert torch.equal(again.log_evidence(x), vae.log_evidence(x))
    assert torch.equal(again.elbo(x), vae.elbo(x))


def test_evidence_by_quadrature():
    """p(x) = ∫ p(x, z) dz over z of one dimension, by the trapezoidal rule."""
    vae = gaussian("diagonal", latent=1)
    x, z = data(), torch.linspace(-9, 9, 4001, dtype=F64)
    expected = log_joint(vae, x, z[:, None, None]).exp().sum(0) * (z[1] - z[0])
    torch.testing.assert_close(vae.log_evidence(x).exp(), expected, **TIGHT)


def test_evidence_is_accurate_in_float32():
    """Against float64 at the same rounded numbers; torch's low-rank Gaussian is 0.3 nats off here."""
    torch.manual_seed(0)
    vae = gaussian(event=[784], latent=20)
    with torch.no_grad():
        vae.log_scale.fill_(math.log(0.1))
    x = vae.likelihood(torch.randn(50, 20, dtype=F64)).sample().float()
    found = vae.float().log_evidence(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), vae.double().log_evidence(x.double()), rtol=0, atol=5e-3)


def test_the_baseline_is_that_maximum():
    """No other parameters have a larger log density, and gradients come to the same value."""
    x = torch.randn(50, 6, dtype=F64) @ torch.randn(6, 6, dtype=F64)
    best = probabilistic_pca(x, x, L)
    vae = LinearGaussian([6], L).double()
    for _ in range(20):
        with torch.no_grad():
            for p in vae.parameters():
                p.normal_()
            assert float(vae.log_evidence(x).mean()) < best
    optimiser = torch.optim.LBFGS(vae.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -vae.log_evidence(x).mean()
        value.backward()
        return value

    with torch.no_grad():
        vae.bias.copy_(x.mean(0))
        vae.log_scale.fill_(float(x.std().log()))
    optimiser.step(loss)
    assert -loss().item() == pytest.approx(best, abs=1e-5)


def test_probabilistic_pca_has_its_maximum_where_tipping_and_bishop_say():
    """W = U (Λ − σ²)^½ from the largest eigenpairs of the covariance, σ² the mean of the other eigenvalues."""
    x = torch.randn(50, 5, dtype=F64) @ torch.randn(5, 5, dtype=F64)
    vae = gaussian(event=[5])
    values, vectors = torch.linalg.eigh(torch.cov(x.mT, correction=0))  # ascending
    noise = values[:-L].mean()
    with torch.no_grad():
        vae.bias.copy_(x.mean(0))
        vae.log_scale.copy_(noise.log() / 2)
        vae.weight.copy_(vectors[:, -L:] * (values[-L:] - noise).sqrt())
    for g in gradients(vae, vae.log_evidence(x).mean()).values():
        torch.testing.assert_close(g, torch.zeros_like(g), rtol=0, atol=1e-10)


def test_build_begins_at_the_data():
    x = 8 + 4 * torch.randn(200, *SHAPE)
    vae = LinearGaussian.build(x, latent=3, noise="diagonal")
    assert isinstance(vae.posterior, posteriors.DiagonalNormal)
    assert LinearGaussian.build(x, posterior="exact").posterior is None
    assert (vae.weight.shape, vae.log_scale.shape) == ((6, 3), (6,))
    torch.testing.assert_close(vae.bias, x.mean(0).flatten())
    torch.testing.assert_close(vae.log_scale.exp(), (x - x.mean(0)).square().mean().sqrt().expand(6))
    assert 0.05 * 4 < vae.weight.std() < 0.2 * 4
    assert LinearGaussian.build(torch.ones(5, 3)).log_evidence(torch.ones(5, 3)).isfinite().all()  # constant data


@pytest.mark.parametrize(("posterior", "precision"), [("exact", "bfloat16"), ("DiagonalNormal", "float32")])
def test_training_from_build_finds_the_principal_components(posterior, precision):
    x = 3 + torch.randn(500, 2) @ torch.tensor([[2.0, 0, 1, 0, 0], [0, 1.5, 0, 1, 0]]) + 0.3 * torch.randn(500, 5)
    vae = LinearGaussian.build(x, posterior=posterior)
    pv.fit(vae, x, epochs=60, batch_size=50, learning_rate=0.05, precision=precision, progress=False)
    values, vectors = torch.linalg.eigh(torch.cov(x.mT, correction=0))
    best = LinearGaussian([5], 2)
    with torch.no_grad():
        best.bias.copy_(x.mean(0))
        best.log_scale.copy_(values[:-2].mean().log() / 2)
        best.weight.copy_(vectors[:, -2:] * (values[-2:] - values[:-2].mean()).sqrt())
    gap = (best.log_evidence(x) - vae.log_evidence(x)).mean()
    assert -1e-4 < gap < 0.03  # nats; by rounding alone below 0


def test_exact_in_a_bfloat16_run():
    vae, x = gaussian().float(), data(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        log_weight = pv.densities(vae, x, 3).log_weight
    torch.testing.assert_close(log_weight, vae.log_evidence(x).expand(3, 4), rtol=0, atol=1e-4)


# All values of the latent


class Coins(nn.Module):
    """A prior that is not uniform."""

    def __init__(self, latent):
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, latent))

    def forward(self):
        return dist.Bernoulli(logits=self.logits).to_event(1)


# name: posterior, L, S
LATENTS = {
    "coins": ("Bernoulli", 3, 8),
    "straight-through coins": ("StraightThroughBernoulli", 3, 8),
    "one of four": ("OneHotCategorical", 4, 4),
    "straight-through one of four": ("StraightThroughOneHotCategorical", 4, 4),
    "unfair coins": ("Bernoulli", 2, 4),
}


def single(name="coins", likelihood="Bernoulli", network="mlp", event=None):
    """A model in float32."""
    q, latent, _ = LATENTS[name]
    parts = small_vae(likelihood, network, posterior=q, latent=latent, event=event)
    prior = Coins(latent) if name == "unfair coins" else parts.prior
    return EnumerableVAE(prior, parts.likelihood, parts.posterior, enumerate=False)


def enumerable(*args, **options):
    return single(*args, **options).double()


def log_mean_exp(log_weight):
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def by_hand(vae, x, particles, bound):
    """`expected` in plain loops, one datum, one value and one tuple at a time."""
    z, q = vae.values(), vae.posterior(x)
    total = []
    for b in range(len(x)):
        one = x[b : b + 1]
        log_q = [vae.posterior(one).log_prob(s[None])[0] for s in z]
        log_w = [log_joint(vae, one, s[None])[0] - lq for s, lq in zip(z, log_q, strict=True)]
        terms = [
            torch.stack([log_q[s] for s in tuple_]).sum().exp() * bound(torch.stack([log_w[s] for s in tuple_]))
            for tuple_ in itertools.product(range(len(z)), repeat=particles)
        ]
        total.append(torch.stack(terms).sum())
    assert q.batch_shape == (len(x),)
    return torch.stack(total)


@pytest.mark.parametrize("name", LATENTS)
class TestEnumerableVAE:
    def test_values(self, name):
        vae, x = enumerable(name), small_data()
        z = vae.values()
        assert z.shape == (LATENTS[name][2], LATENTS[name][1])
        assert len(z.unique(dim=0)) == len(z)
        torch.testing.assert_close(vae.prior().log_prob(z).logsumexp(0), torch.zeros((), dtype=F64), **TIGHT)
        torch.testing.assert_close(vae.log_posterior(x).logsumexp(0), torch.zeros(4, dtype=F64), **TIGHT)

    def test_evidence_sums_to_one_over_all_data(self, name):
        vae = enumerable(name, event=[2, 2])
        x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F64)] * 4).reshape(16, 2, 2)
        torch.testing.assert_close(vae.log_evidence(x).logsumexp(0), torch.zeros((), dtype=F64), **TIGHT)

    def test_posterior_times_evidence_is_the_joint(self, name):
        vae, x = enumerable(name), small_data()
        s = torch.arange(len(vae.values()))[:, None]
        found = vae.true_posterior(x).log_prob(s) + vae.log_evidence(x)
        expected = torch.stack([log_joint(vae, x, z.expand(4, -1)) for z in vae.values()])
        torch.testing.assert_close(vae.log_joint(x), expected, **TIGHT)
        torch.testing.assert_close(found, expected, **TIGHT)

    def test_evidence_minus_elbo_is_the_divergence_from_the_posterior(self, name):
        vae, x = enumerable(name), small_data()
        gap = kl_divergence(dist.Categorical(logits=vae.log_posterior(x).mT), vae.true_posterior(x))
        torch.testing.assert_close(vae.log_evidence(x) - vae.elbo(x), gap, **TIGHT)

    @pytest.mark.parametrize("particles", [1, 2])
    def test_expected_is_the_sum_over_tuples_written_out(self, name, particles):
        vae, x = enumerable(name), small_data(n=2)
        found, expected = vae.expected(x, particles, log_mean_exp), by_hand(vae, x, particles, log_mean_exp)
        torch.testing.assert_close(found, expected, **TIGHT)
        if particles == 1:
            torch.testing.assert_close(vae.elbo(x), expected, **TIGHT)
        for value in (found, vae.elbo(x)) if particles == 1 else (found,):
            a, b = gradients(vae, value.sum()), gradients(vae, by_hand(vae, x, particles, log_mean_exp).sum())
            for parameter in b:
                torch.testing.assert_close(a[parameter], b[parameter], **TIGHT)

    def test_expected_of_three_particles(self, name):
        """A mean of what the particles have each is that of one; the IWAE of three is between that of two and log p."""
        vae, x = enumerable(name), small_data()
        torch.testing.assert_close(vae.expected(x, 3, lambda w: w.mean(0)), vae.elbo(x), **TIGHT)
        torch.testing.assert_close(
            vae.expected(x, 3, lambda w: w.exp().mean(0)), vae.log_evidence(x).exp(), rtol=1e-10, atol=0
        )
        iwae = torch.stack([vae.elbo(x), *(vae.expected(x, k, log_mean_exp) for k in (2, 3)), vae.log_evidence(x)])
        assert (iwae.diff(dim=0) > 0).all()

    def test_elbo_is_the_mean_of_log_weights(self, name):
        vae, x = enumerable(name), small_data()
        z_test(pv.densities(vae, x, 5000).log_weight.detach(), vae.elbo(x).detach(), failure_rate=1e-6)

    def test_iwae_is_the_mean_of_its_bound(self, name):
        vae, x = enumerable(name), small_data()
        bounds = pv.densities(vae, x, 3 * 5000).log_weight.unflatten(0, (3, 5000)).logsumexp(0) - math.log(3)
        z_test(bounds.detach(), vae.expected(x, 3, log_mean_exp).detach(), failure_rate=1e-6)

    def test_gradient_reaches_every_parameter(self, name):
        vae, x = enumerable(name), small_data()
        reached(vae, vae.elbo(x).mean())
        reached(vae, vae.expected(x, 2, log_mean_exp).mean())

    def test_round_trip(self, name, tmp_path):
        vae, x = enumerable(name), small_data()
        pv.save(vae, tmp_path)
        again = pv.load(tmp_path, into=enumerable(name) if name == "unfair coins" else None)
        assert torch.equal(again.log_evidence(x), vae.log_evidence(x))
        assert torch.equal(again.elbo(x), vae.elbo(x))


@pytest.mark.parametrize(("likelihood", "network"), PAIRS)
def test_sums_are_over_the_densities_of_draws(likelihood, network):
    """Each draw's log p(x, z) and log q(z | x) stand in the tables, at the row of its value."""
    vae, x = enumerable("coins", likelihood, network), small_data(likelihood, network=network)
    d = pv.densities(vae, x, 5)
    row = (d.posterior["z"].value[..., None, :] == vae.values()).all(-1).long().argmax(-1)  # [K, B]
    torch.testing.assert_close(vae.log_joint(x).gather(0, row), d.log_joint, **TIGHT)
    torch.testing.assert_close(vae.log_posterior(x).gather(0, row), d.log_posterior, **TIGHT)


class Truth(nn.Module):
    """The exact posterior of a model whose latent is one-hot."""

    def __init__(self, vae):
        super().__init__()
        self.vae = [vae]  # no submodule: it would own this one

    def forward(self, x):
        return dist.OneHotCategorical(logits=self.vae[0].log_joint(x).mT)


def test_exact_guide_of_one_hot_latents_weighs_every_particle_by_the_evidence():
    vae, x = enumerable("one of four"), small_data()
    vae.posterior = Truth(vae)
    log_weight = pv.densities(vae, x, particles=7).log_weight
    torch.testing.assert_close(log_weight, vae.log_evidence(x).expand(7, 4), **TIGHT)
    torch.testing.assert_close(vae.elbo(x), vae.log_evidence(x), **TIGHT)


@pytest.mark.parametrize("name", ["coins", "one of four"])
def test_enumerated_bounds_are_the_sums(name):
    """Value and gradient, whatever the number of particles; a draw of the same model is neither."""
    vae, x = enumerable(name), small_data()
    for objective, exact in (
        (pv.objectives.ELBO(2), vae.elbo),
        (pv.objectives.ELBO(kl="analytic"), vae.elbo),
        (pv.objectives.IWAE(2), vae.log_evidence),
        (pv.objectives.Renyi(2, 1.0), vae.elbo),
    ):
        vae.enumerate = True
        e, value = objective(vae, x), exact(x)
        torch.testing.assert_close(e.bound, value.detach(), **TIGHT)
        parameters = list(vae.parameters())
        pairs = [
            torch.autograd.grad(t.mean(), parameters, allow_unused=True, materialize_grads=True)
            for t in (e.surrogate, value)
        ]
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, **TIGHT)
        vae.enumerate = False
        with torch.no_grad():
            assert not torch.allclose(objective(vae, x).bound, e.bound)


def test_enumerable_build_fits_the_data():
    vae = EnumerableVAE.build(pv.data.load("digits"), latent=4, hidden=[8])
    assert vae.values().shape == (16, 4)
    assert vae.likelihood.total_count == 16
    assert vae.log_evidence(pv.data.load("digits").test[:3]).dtype == torch.float32


# Both


BOTH = {
    "exact": (lambda: LinearGaussian(SHAPE, L), data),
    "free": (lambda: LinearGaussian(SHAPE, L, "diagonal", QS["diagonal"](SHAPE, L)), data),
    "coins": (single, small_data),
    "one of four": (lambda: single("one of four"), small_data),
}


def objective(name):
    return pv.objectives.ELBO(3, gradient="pathwise" if name in ("exact", "free") else "score")


class Call(nn.Module):
    """A function of a model and data, as a module."""

    def __init__(self, vae, function):
        super().__init__()
        self.vae, self.function = vae, function

    def forward(self, x):
        return self.function(self.vae, x)


@pytest.mark.parametrize("name", BOTH)
class TestBoth:
    @pytest.mark.parametrize("method", ["log_evidence", "elbo", "objective"])
    def test_traces(self, name, method):
        """Traced with some parameters, the graph gives the numbers of others."""
        build, some = BOTH[name]
        vae, x = build(), some(dtype=torch.float32)
        if method == "objective" and name != "exact":
            return check_trace(vae, objective(name), x)
        exact = {"objective": lambda v, x: objective(name)(v, x).surrogate}  # of an exact guide: without noise
        call = Call(vae, exact.get(method, lambda v, x: getattr(v, method)(x)))
        tensors = dict(call.named_parameters()) | dict(call.named_buffers())
        tensors = {n: t.detach() for n, t in tensors.items()}
        with pyro.validation_enabled(False):
            graph = make_fx(lambda t, x: functional_call(call, t, (x,)), tracing_mode="fake")(tensors, x)
        assert "_local_scalar_dense" not in graph.code
        other = tensors | {n: p.detach() + 0.1 for n, p in call.named_parameters()}
        torch.testing.assert_close(graph(other, x), functional_call(call, other, (x,)))
        return None

    def test_stays_on_its_device(self, name):
        build, some = BOTH[name]
        check_device(build, lambda: objective(name), some)
        with fake_cuda():
            with torch.device("cuda"):
                vae, x = build(), some(dtype=torch.float32)
            for found in (vae.log_evidence(x), vae.elbo(x)):
                assert found.device.type == "cuda"

    def test_dtype_is_that_of_the_model(self, name):
        build, some = BOTH[name]
        for dtype in (torch.float32, F64):
            vae, x = build().to(dtype), some(dtype=dtype)
            assert vae.log_evidence(x).dtype == vae.elbo(x).dtype == dtype


def train(folder, capsys, *words):
    status = main(["train", *words, "--epochs", "2", "--test_particles", "5", "--run_dir", str(folder)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.mark.parametrize("posterior", ["exact", "DiagonalNormal", None])
def test_linear_gaussian_on_the_command_line(posterior, tmp_path, capsys):
    words = [] if posterior is None else ["--posterior", posterior]
    status, said = train(tmp_path, capsys, "LinearGaussian", "--latent", "3", "--noise", "diagonal", *words)
    assert status == 0, said
    vae = pv.load(tmp_path)
    assert (type(vae), vae.latent, vae.noise) == (LinearGaussian, 3, "diagonal")
    assert (vae.posterior is None) == (posterior == "exact")
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    before = (tmp_path / "weights.safetensors").read_bytes()
    assert main(["train", "--config", str(tmp_path / "config.yaml"), "--run_dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == before  # a config repeats its run
    assert settings["posterior"] == ("exact" if posterior == "exact" else settings["posterior"])
    assert main(["train", "--resume", "--run_dir", str(tmp_path), "--epochs", "3"]) == 0
    assert main(["generate", str(tmp_path), "--n", "2"]) == 0


def test_enumerable_on_the_command_line(tmp_path, capsys):
    words = ["--latent", "2", "--hidden", "[8]"]
    drawn = ["--enumerate", "false", "--objective", "IWAE", "--objective.gradient", "vimco"]
    for folder, more in (("sum", []), ("draws", drawn)):
        status, said = train(tmp_path / folder, capsys, "EnumerableVAE", *words, *more)
        assert status == 0, said
        vae = pv.load(tmp_path / folder)
        assert (type(vae), vae.values().shape, vae.enumerate) == (EnumerableVAE, (4, 2), not more)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["LinearGaussian", "--noise", "isotropc"], "unknown noise 'isotropc'; did you mean 'isotropic'?"),
        (["LinearGaussian", "--posterior", "DiagonalNorma"], "did you mean 'DiagonalNormal'?"),
        (["LinearGaussian", "--posterior", "Bernoulli"], "give prior and posterior the same values"),
        (["LinearGaussian", "--latent", "0"], "LinearGaussian.build expects latent of at least 1, got 0"),
        (["--posterior", "exact"], "unknown posterior 'exact'"),
        (["EnumerableVAE", "--prior", "StandardNormal"], "EnumerableVAE expects a prior over at most 65536 values"),
        (["EnumerableVAE", "--posterior", "exact"], "unknown posterior 'exact'"),
        (["EnumerableVAE", "--posterior.temperature", "2"], "Bernoulli has no option 'temperature'"),
    ],
)
def test_bad_words(words, message, tmp_path, capsys):
    status, said = train(tmp_path / "r", capsys, *words)
    assert status == 2
    assert message in said
    assert not (tmp_path / "r").exists()


def test_help_names_the_model_s_own_defaults(capsys):
    assert main(["train", "EnumerableVAE", "--help"]) == 0
    assert capsys.readouterr().out.count("a class (default: Bernoulli)") == 2


class Laplace(nn.Module):
    def forward(self, x):
        return dist.Laplace(x.new_zeros(len(x), L), 1.0).to_event(1)


class Loose(nn.Module):
    """A Normal whose latent dimensions were not declared."""

    def forward(self, x):
        return dist.Normal(x.new_zeros(len(x), L), 1.0)


REFUSED = {
    r"LinearGaussian expects event as positive sizes, got \[0\]; give a list": lambda: LinearGaussian([0], 1),
    r"LinearGaussian expects event as positive sizes, got \[\]; give scalars as \[1\]": lambda: LinearGaussian([], 1),
    r"LinearGaussian expects latent of at least 1, got 0; give a whole": lambda: LinearGaussian([3], 0),
    r"LinearGaussian expects latent of at least 1, got 1.5": lambda: LinearGaussian([3], 1.5),
    r"unknown noise 'diagnal'; did you mean 'diagonal'": lambda: LinearGaussian([3], 1, "diagnal"),
    r"LinearGaussian expects x of event shape \[3\], got a tensor of shape \[4, 1, 2, 3, 1\]; reshape it": lambda: (
        LinearGaussian([3], 1).log_evidence(torch.zeros(4, 1, 2, 3, 1))
    ),
    r"expects x of event shape \[1, 2, 3\], got a tensor of shape \[4, 6\]": lambda: pv.densities(
        gaussian(), torch.zeros(4, 6, dtype=F64)
    ),
    r"expects z of event shape \[2\], got a tensor of shape \[4, 5\]": lambda: pv.densities(
        LinearGaussian(SHAPE, L, posterior=QS["diagonal"](SHAPE, 5)).double(), data()
    ),
    r"LinearGaussian.elbo expects a Gaussian q\(z \| x\), .*, got Laplace; estimate its bound by draws": lambda: (
        LinearGaussian(SHAPE, L, posterior=Laplace()).double().elbo(data())
    ),
    r"LinearGaussian.elbo expects a Gaussian .* got Normal": lambda: (
        LinearGaussian(SHAPE, L, posterior=Loose()).double().elbo(data())
    ),
    r"LinearGaussian.build expects posterior as a name or .*, got an object of class Laplace; "
    r"LinearGaussian\(event, latent, noise, posterior\) takes objects": lambda: LinearGaussian.build(
        data(), posterior=Laplace()
    ),
    r"LinearGaussian.build expects events of at least one dimension": lambda: LinearGaussian.build(torch.randn(5)),
    r"EnumerableVAE expects a prior over at most 65536 values, got Normal over \[2\]; use priors.Bernoulli": lambda: (
        EnumerableVAE(priors.StandardNormal(2), nn.Identity(), nn.Identity())
    ),
    r"EnumerableVAE expects a prior over at most 65536 values, got Bernoulli over \[17\]": lambda: EnumerableVAE(
        priors.Bernoulli(17), nn.Identity(), nn.Identity()
    ),
    r"EnumerableVAE expects a posterior over at most 65536 values, got Normal over \[3\]": lambda: (
        EnumerableVAE(priors.Bernoulli(3), nn.Identity(), small_vae(latent=3).posterior).double().elbo(small_data())
    ),
    r"EnumerableVAE expects prior and posterior over the same values, got \[4, 2\] .* and \[3, 3\]": lambda: (
        EnumerableVAE(priors.Bernoulli(2), nn.Identity(), small_vae(posterior="OneHotCategorical", latent=3).posterior)
        .double()
        .elbo(small_data())
    ),
    r"EnumerableVAE.expected sums over 8\^7 tuples of particles, more than 1048576; give fewer": lambda: (
        enumerable().expected(small_data(), 7, log_mean_exp)
    ),
    r"EnumerableVAE.expected expects particles as a whole number of at least 1, got particles=0": lambda: (
        enumerable().expected(small_data(), 0, log_mean_exp)
    ),
    r"EnumerableVAE.expected expects bound as .*, got \[\] from \[2, 64, 4\]; take the sum": lambda: (
        enumerable().expected(small_data(), 2, torch.mean)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
