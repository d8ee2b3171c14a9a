"""Priors: one table of constructors (pieces.PRIORS), one suite of properties."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from conftest import check_device, check_trace, reached, z_test
from pieces import (
    EVENT,
    F64,
    POSTERIORS,
    PRIORS,
    SPACES,
    Output,
    Toy,
    as_dtype,
    attached_vamp,
    small_data,
    small_prior,
    small_vae,
    some_functions,
)
from scipy import stats

import pyrovae as pv
from pyrovae import priors
from pyrovae.attached import Attached
from pyrovae.config import construct, describe
from pyrovae.priors import structured


def objective_for(vae):
    """A bound whose gradient is for the posterior of a VAE."""
    x = torch.zeros(2, *EVENT)
    pathwise = vae.posterior(x.to(next(vae.parameters()).dtype)).has_rsample
    return pv.objectives.IWAE(3) if pathwise else pv.objectives.IWAE(3, "vimco")


@pytest.mark.parametrize("name", PRIORS)
class TestPriors:
    def test_shapes_and_support(self, name):
        prior = small_prior(name, 4)
        p = prior()
        assert (p.batch_shape, p.event_shape, prior.latent) == ((), (4,), 4)
        z = p.sample((5, 4))
        assert z.shape == (5, 4, 4)
        assert z.dtype == (torch.int64 if PRIORS[name].space == "categories" else F64)
        assert prior.support.check(z).all()
        assert p.log_prob(z).shape == (5, 4)

    def test_expanded_as_a_plate_does_it(self, name):
        p = small_prior(name, 4)()
        z = p.expand([5, 3]).sample()
        assert z.shape == (5, 3, 4)
        torch.testing.assert_close(p.expand([5, 3]).log_prob(z), p.log_prob(z))
        torch.testing.assert_close(p.log_prob(z), torch.stack([p.log_prob(row) for row in z]))

    def test_density_belongs_to_the_sampler(self, name):
        """It integrates to one, and so it does times f to the mean of f over draws."""
        p = small_prior(name)()
        z, w = SPACES[PRIORS[name].space]()
        w = w * p.log_prob(z).exp()
        assert w.sum().item() == pytest.approx(1, abs=PRIORS[name].accuracy)
        exact = (w @ some_functions(z)).detach()
        draws = some_functions(p.sample((20000,)))
        z_test(draws, exact)

    def test_gradient_reaches_every_parameter(self, name):
        prior = small_prior(name, 4)
        if list(prior.parameters()):
            reached(prior, (prior().log_prob(prior().sample((6,))) * torch.randn(6, dtype=F64)).sum())

    def test_round_trip(self, name):
        prior = small_prior(name, 4)
        again = construct(describe(prior)).double()
        again.load_state_dict(prior.state_dict())
        if isinstance(prior, Attached):
            again.attach(prior._model[0])
        z = prior().sample((4,))
        assert torch.equal(again().log_prob(z), prior().log_prob(z))

    def test_in_a_saved_vae(self, name, tmp_path):
        vae, x = small_vae(prior=name).double(), small_data()
        pv.save(vae, tmp_path)
        again = pv.load(tmp_path).double()
        found = []
        for v in (vae, again):
            torch.manual_seed(1)
            found.append(pv.densities(v, x, 3).log_weight)
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)  # weights are kept in float32

    def test_named_in_build(self, name):
        if name not in vars(priors):
            return  # a line of the table that is a class with options
        q = PRIORS[name].posterior
        spec = {"class_path": POSTERIORS[q].cls.__name__, "init_args": POSTERIORS[q].options}
        vae = pv.models.VAE.build(Toy(), latent=4, hidden=[4], prior=name, posterior=spec)
        assert type(vae.prior).__name__ == name
        assert pv.generate(vae, 3).shape == (3, *EVENT)
        assert describe(construct(describe(vae))) == describe(vae)

    def test_step_is_captured(self, name):
        vae = small_vae(prior=name)
        check_trace(vae, objective_for(vae), small_data(dtype=torch.float32))

    def test_every_parameter_is_trained(self, name):
        vae = small_vae(prior=name).double()
        reached(vae, objective_for(vae)(vae, small_data()).surrogate.mean())

    def test_stays_on_the_device(self, name):
        check_device(lambda: small_vae(prior=name), lambda: pv.objectives.IWAE(3, "vimco"), small_data)

    def test_refuses_no_latents(self, name):
        with pytest.raises(ValueError, match=r"expects at least one latent dimension, got latent=0|latent"):
            PRIORS[name].build(0)


def test_standard_normal_is_one():
    z = torch.randn(4, 3, dtype=F64)
    expected = -0.5 * z.square().sum(-1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(priors.StandardNormal(3).double()().log_prob(z), expected)


@pytest.mark.parametrize(
    "name", ["StandardNormal", "Laplace", "StudentT", "Bernoulli", "RelaxedBernoulli", "OneHotCategorical"]
)
def test_prior_constants_are_not_weights(name):
    assert not PRIORS[name].build(3).state_dict()


# Mixtures


def vamp_vae(components: int = 6, data=None, **options):
    x = Toy() if data is None else data
    spec = {"class_path": "VampPrior", "init_args": {"components": components}}
    return pv.models.VAE.build(x, latent=2, hidden=[5], prior=spec, **options)


class TestVampPrior:
    @pytest.mark.parametrize("q", ["DiagonalNormal", "FullNormal", "Mixture", "Bernoulli", "StraightThroughBernoulli"])
    def test_is_the_mean_of_the_posteriors_at_the_pseudo_inputs(self, q):
        prior = as_dtype(attached_vamp(3, POSTERIORS[q].cls, **POSTERIORS[q].options), F64)
        posterior = prior._model[0].posterior(prior.pseudo_inputs)
        z = posterior.sample((7,))[:, 0]  # [7, L]
        expected = torch.stack([posterior.log_prob(v) for v in z]).exp().mean(-1).log()
        p = prior().expand([2, 7])
        torch.testing.assert_close(p.log_prob(z), expected.expand(2, 7))
        assert (p.batch_shape, p.event_shape, p.sample().shape) == ((2, 7), (3,), (2, 7, 3))
        assert p.support.check(p.sample()).all()
        assert p.support.is_discrete == posterior.support.is_discrete
        z_test(p.expand([20000, 2, 7]).sample()[:, 0, 0], posterior.mean.mean(0).detach())

    @pytest.mark.parametrize("values", ["binary", "unit", "counts", "real"])
    def test_starts_at_the_data_and_stays_in_their_range(self, values):
        top = {"binary": 1.0, "unit": 1.0, "counts": 4.0, "real": None}[values]
        x = torch.rand(5, 2, 3)
        x = {"binary": (x > 0.5).float(), "unit": x, "counts": (4 * x).round(), "real": 100 * x - 50}[values]
        data = pv.data.from_arrays(x, validation_size=0)
        if values == "counts":
            data = dataclasses.replace(data, values="counts", levels=4)
        assert data.values == values
        prior = priors.VampPrior.for_data(2, data, components=13)
        assert prior.top == top
        gaps = torch.cdist(prior.pseudo_inputs.flatten(1), x.flatten(1)).min(-1)
        assert gaps.values.max() < 0.2 * (top or 30)
        assert (gaps.indices.bincount() >= 2).all()  # every example as often as another
        assert len({tuple(u.flatten().tolist()) for u in prior.pseudo_inputs}) == 13
        with torch.no_grad():
            prior.pseudo_inputs += torch.randn(13, 2, 3) * 1000
        seen = []
        model = torch.nn.Module()
        model.posterior = lambda u: seen.append(u) or POSTERIORS["DiagonalNormal"].cls(Output(torch.zeros(4)))(u)
        prior.attach(model)
        prior()
        if top is None:
            assert torch.equal(seen[0], prior.pseudo_inputs)
        else:
            assert (seen[0].min(), seen[0].max()) == (0, top)

    def test_follows_the_models_posterior(self):
        vae = vamp_vae()
        z = torch.randn(4, 2)
        before = vae.prior().log_prob(z)
        vae.posterior = POSTERIORS["DiagonalNormal"].cls(Output(torch.zeros(4)))
        assert not torch.allclose(vae.prior().log_prob(z), before)
        torch.testing.assert_close(vae.prior().log_prob(z), priors.StandardNormal(2)().log_prob(z))

    @pytest.mark.parametrize("how", ["copied", "loaded"])
    def test_another_vae_looks_at_its_own_posterior(self, how, tmp_path):
        vae = vamp_vae()
        z = torch.randn(4, 2)
        before = vae.prior().log_prob(z)
        if how == "copied":
            other = copy.deepcopy(vae)
        else:
            pv.save(vae, tmp_path)
            other = pv.load(tmp_path)
        torch.testing.assert_close(other.prior().log_prob(z), before)
        with torch.no_grad():
            for p in vae.posterior.parameters():
                p.zero_()
        torch.testing.assert_close(other.prior().log_prob(z), before)
        assert not torch.allclose(vae.prior().log_prob(z), before)
        with torch.no_grad():
            for p in other.posterior.parameters():
                p.zero_()
        assert not torch.allclose(other.prior().log_prob(z), before)

    def test_state_is_the_priors_alone(self):
        assert list(vamp_vae().prior.state_dict()) == ["pseudo_inputs"]

    def test_trains(self):
        """With the fused optimiser."""
        data = pv.data.load("digits")
        vae = vamp_vae(data=data)
        assert vae.prior.top == 16
        before = vae.prior.pseudo_inputs.detach().clone()
        history = pv.fit(vae, data, epochs=2, progress=False).history
        assert (vae.prior.pseudo_inputs != before).float().mean() > 0.5
        assert np.isfinite(history.select_dtypes("number").to_numpy()).all()

    def test_put_in_a_model_by_hand_says_what_it_needs(self):
        vae = small_vae()
        vae.prior = priors.VampPrior(2, EVENT, components=3)
        message = r"VampPrior expects to be part of a model with a posterior, got none; .*call \.attach\(model\)"
        with pytest.raises(ValueError, match=message):
            pv.densities(vae, small_data(dtype=torch.float32))
        vae.prior.attach(vae)
        assert pv.densities(vae, small_data(dtype=torch.float32)).log_weight.isfinite().all()


def test_mixture_density():
    prior = small_prior("Mixture", 4)
    with torch.no_grad():
        for p in prior.parameters():
            p += torch.randn_like(p)
    z = torch.randn(5, 4, dtype=F64)
    each = dist.Normal(prior.loc, prior.log_scale.exp()).to_event(1)
    expected = dist.MixtureSameFamily(dist.Categorical(logits=prior.logits), each)
    torch.testing.assert_close(prior().log_prob(z), expected.log_prob(z))
    torch.testing.assert_close(prior().mean, expected.mean)
    torch.testing.assert_close(prior().variance, expected.variance)
    with pytest.raises(ValueError, match=r"expand expects a batch shape that \[2, 1\] grows to, got \[3, 4\]"):
        prior().expand([2, 1]).expand([3, 4])


# Heavy tails


def test_heavy_tails_are_scipys():
    z = torch.tensor([[-3.0, 0.0], [1e2, 0.2]], dtype=F64)
    for prior, reference in [
        (priors.Laplace(2, scale=0.7), stats.laplace(scale=0.7)),
        (priors.StudentT(2, df=2.5, scale=0.7), stats.t(2.5, scale=0.7)),
    ]:
        log_p = torch.as_tensor(reference.logpdf(z.numpy())).sum(-1)
        torch.testing.assert_close(prior.double()().log_prob(z), log_p, rtol=1e-6, atol=1e-6)  # 0.7 is a float32
        assert torch.isfinite(prior.float()().log_prob(torch.tensor([1e15, -1e15])))


# Structured


def test_hierarchical_rest_given_the_top():
    prior = small_prior("Hierarchical", 5)
    z = torch.randn(3, 5, dtype=F64)
    loc, log_scale = prior.network(z[:, :2]).chunk(2, -1)
    expected = dist.Normal(0.0, 1.0).log_prob(z[:, :2]).sum(-1)
    expected = expected + dist.Normal(loc, log_scale.exp()).log_prob(z[:, 2:]).sum(-1)
    torch.testing.assert_close(prior().log_prob(z), expected)


@pytest.mark.parametrize("family", ["Normal", "Bernoulli"])
@pytest.mark.parametrize("latent", [1, 2, 5])
class TestAutoregressive:
    def test_conditionals_see_what_is_before(self, latent, family):
        prior = priors.Autoregressive(latent, [7, 9], family).double()
        slopes = torch.autograd.functional.jacobian(prior.network(), torch.randn(latent, dtype=F64))
        for per_latent in slopes.unbind(1):  # [L, L]
            assert (per_latent.triu() == 0).all()
            assert (per_latent.tril(-1) != 0).sum() == latent * (latent - 1) // 2

    def test_draws_are_the_conditionals_in_turn(self, latent, family):
        prior = priors.Autoregressive(latent, [7], family).double()
        z = prior().sample((4, 3))
        assert z.shape == (4, 3, latent)
        assert prior.support.check(z).all()
        if family == "Bernoulli":
            every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F64)] * latent).reshape(-1, latent)
            p = prior().log_prob(every).exp()
            assert p.sum().item() == pytest.approx(1)
            draws = prior().sample((20000,))
            z_test((draws[:, None] == every).all(-1).double(), p.detach())
        else:
            draws = prior().rsample((4,))
            reached(prior, draws.sin().sum()) if latent > 1 else None
            assert prior().has_rsample


@pytest.mark.parametrize("kernel", structured.KERNELS)
class TestGaussianProcess:
    def test_covariance(self, kernel):
        prior = priors.GaussianProcess(10, 2, kernel, length_scale=1.5).double()
        d = (torch.arange(5)[:, None] - torch.arange(5)).abs().double() / 1.5
        k = {
            "rbf": torch.exp(-(d**2) / 2),
            "matern12": torch.exp(-d),
            "matern32": (1 + 3**0.5 * d) * torch.exp(-(3**0.5) * d),
            "cauchy": 1 / (1 + d**2),
        }[kernel]
        expected = torch.block_diag(k, k) * 0.999 + 0.001 * torch.eye(10)
        torch.testing.assert_close(prior().covariance_matrix, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("length_scale", [0.1, 10.0, 1e6])
    def test_density_in_float32(self, kernel, length_scale):
        """It and its gradient are those of float64, up to long series that hardly change."""
        found = []
        z = torch.randn(20, 200)
        for dtype in (torch.float32, F64):
            prior = priors.GaussianProcess(200, 1, kernel, length_scale).to(dtype)
            log_p = prior().log_prob(z.to(dtype))
            found.append((log_p.double(), torch.autograd.grad(log_p.sum(), prior.log_length_scale)[0].double()))
        torch.testing.assert_close(*[f[0] for f in found], rtol=2e-3, atol=1e-3)
        torch.testing.assert_close(*[f[1] for f in found], rtol=2e-2, atol=1.0)

    def test_fixed_length_scale_is_no_weight(self, kernel):
        assert not priors.GaussianProcess(4, kernel=kernel, learned=False).state_dict()


BAD = {
    "Laplace": (lambda: priors.Laplace(2, scale=math.nan), "Laplace expects scale as a finite number above 0, got nan"),
    "StudentT df": (lambda: priors.StudentT(2, df=0), "StudentT expects df as a finite number above 0, got 0"),
    "StudentT": (lambda: priors.StudentT(2, scale="1"), "StudentT expects scale as a finite number above 0, got '1'"),
    "Mixture": (lambda: priors.Mixture(2, 0), "Mixture expects components as a whole number of at least 1, got 0"),
    "VampPrior": (lambda: priors.VampPrior(2, EVENT, 2.5), "VampPrior expects components as a whole number .* got 2.5"),
    "VampPrior event": (lambda: priors.VampPrior(2, []), "VampPrior expects event as positive sizes"),
    "VampPrior top": (lambda: priors.VampPrior(2, EVENT, top=0), "VampPrior expects top as a finite number above 0"),
    "Hierarchical": (lambda: priors.Hierarchical(1), "Hierarchical expects at least one latent in the top layer"),
    "Hierarchical top": (lambda: priors.Hierarchical(3, top=3), "got latent=3 with top=3"),
    "Autoregressive": (lambda: priors.Autoregressive(3, family="normal"), "no family 'normal'; did you mean 'Normal'"),
    "Autoregressive hidden": (lambda: priors.Autoregressive(3, [0]), "Autoregressive expects hidden as positive sizes"),
    "GaussianProcess": (lambda: priors.GaussianProcess(5, 2), "multiple of channels=2, got latent=5"),
    "GaussianProcess kernel": (lambda: priors.GaussianProcess(4, kernel="rfb"), "unknown kernel 'rfb'; did you mean"),
    "GaussianProcess length": (lambda: priors.GaussianProcess(4, length_scale=math.inf), "expects length_scale"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_what_is_no_prior(name):
    build, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        build()
