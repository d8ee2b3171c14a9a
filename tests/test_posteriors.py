"""Posteriors: one table of constructors (pieces.POSTERIORS), one suite of properties."""

from __future__ import annotations

import math
import re

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import check_device, check_trace, reached, z_test
from pieces import (
    EVENT,
    F64,
    LEADING,
    POSTERIORS,
    PRIORS,
    SPACES,
    L,
    Output,
    Toy,
    attached,
    code,
    small_data,
    small_network,
    small_posterior,
    small_vae,
    some_functions,
    unit_with_ends,
)
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import posteriors, priors
from pyrovae.attached import Attached
from pyrovae.config import construct, describe
from pyrovae.distributions import continuous, low_rank, relaxed, simplex
from pyrovae.distributions.mixtures import NormalMixture
from pyrovae.objectives.closed_forms import closed_kl

SPACES_OF = {name: PRIORS[case.prior].space for name, case in POSTERIORS.items()}


@pytest.mark.parametrize("name", POSTERIORS)
class TestPosteriors:
    @pytest.mark.parametrize("leading", LEADING)
    def test_shapes(self, name, leading):
        q = small_posterior(name)(torch.rand(*leading, *EVENT, dtype=F64))
        assert (q.batch_shape, q.event_shape) == (leading, (L,))
        assert q.has_rsample == POSTERIORS[name].pathwise
        for z in (q(), q.sample()):  # as pyro.sample draws, and without a gradient
            assert z.shape == (*leading, L)
            assert z.dtype == (torch.int64 if SPACES_OF[name] == "categories" else F64)
            assert q.support.check(z).all()
            assert q.log_prob(z).shape == leading
        assert not z.requires_grad

    def test_leading_dimensions_are_rows(self, name):
        q, x = small_posterior(name), torch.rand(3, 4, *EVENT, dtype=F64)
        z = q(x).sample()
        rows = torch.stack([q(row).log_prob(v) for row, v in zip(x, z, strict=True)])
        torch.testing.assert_close(q(x).log_prob(z), rows)

    def test_density_belongs_to_the_sampler(self, name):
        """It integrates to one, and so it does times f to the mean of f over draws."""
        case = POSTERIORS[name]
        q = small_posterior(name)(torch.rand(1, *EVENT, dtype=F64))
        z, w = SPACES[PRIORS[case.prior].space]()
        w = w * q.log_prob(z[:, None])[:, 0].exp()
        assert w.sum().item() == pytest.approx(1, abs=case.accuracy)
        z_test(some_functions(q.sample((20000,))[:, 0]).detach(), (w @ some_functions(z)).detach())

    def test_gradient_reaches_every_parameter(self, name):
        module = small_posterior(name, dtype=torch.float32)
        q = module(torch.rand(4, *EVENT))
        reached(module, q.log_prob(q.sample()).sum())
        if q.has_rsample:
            reached(module, module(torch.rand(4, *EVENT)).rsample().square().sum())

    def test_expand_keeps_everything(self, name):
        """As a particle plate does it: draws, their gradient and their density are those of K draws."""
        module, x = small_posterior(name), torch.rand(4, *EVENT, dtype=F64)
        if hasattr(module, "temperature"):
            module.temperature = 0.37
        found = []
        for expanded in (False, True):
            q, shape = module(x), (3,)
            if expanded:
                q, shape = q.expand((3, 4)), ()
                assert q.batch_shape == (3, 4)
            torch.manual_seed(1)
            if q.has_rsample or not expanded:  # torch's multinomial draws in another order
                z = q.rsample(shape) if q.has_rsample else q.sample(shape)
            assert q().shape == (*q.batch_shape, L)
            log_q = q.log_prob(z)
            loss = log_q.sum() + z.pow(3).sum()
            found.append((z, log_q, *torch.autograd.grad(loss, list(module.parameters()))))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)

    def test_round_trip(self, name):
        module, x = small_posterior(name, dtype=torch.float32), torch.rand(4, *EVENT)
        again = construct(describe(module))
        again.load_state_dict(module.state_dict())
        if isinstance(module, Attached):
            again.attach(module._model[0])
        z = module(x).sample()
        assert torch.equal(again(x).log_prob(z), module(x).log_prob(z))

    def test_closed_form_rate_is_that_of_the_draws(self, name):
        vae, x = small_vae(posterior=name).double(), small_data()
        d = pv.densities(vae, x, 4000, aligned=True)
        q, p = d.posterior["z"].distribution, d.prior["z"].distribution
        if POSTERIORS[name].closed:
            z_test((d.log_posterior - d.log_prior).detach(), closed_kl(q, p)[0].detach())
        else:
            with pytest.raises(NotImplementedError):
                closed_kl(q, p)

    def test_named_in_build(self, name):
        case = POSTERIORS[name]
        q, p = case.cls.__name__, type(PRIORS[case.prior].build(3)).__name__
        spec = {"class_path": q, "init_args": case.options}
        vae = pv.models.VAE.build(Toy(), latent=3, hidden=[4], prior=p, posterior=spec)
        assert (type(vae.prior).__name__, type(vae.posterior).__name__, vae.posterior.latent) == (p, q, 3)
        x = vae.likelihood(vae.prior().sample((5,))).sample()
        assert torch.isfinite(pv.densities(vae, x, 2).log_weight).all()
        assert describe(construct(describe(vae))) == describe(vae)

    def test_refuses_an_encoder_of_another_size(self, name):
        with pytest.raises(
            ValueError, match=f"{POSTERIORS[name].cls.__name__} expects an encoder with as many outputs"
        ):
            attached(POSTERIORS[name], small_network(EVENT, [7, 2]))

    def test_step_is_captured(self, name):
        """No value is read back, the noise is drawn anew, and the gradient is in the graph."""
        vae, x = small_vae(posterior=name), small_data(dtype=torch.float32)
        objectives = [pv.objectives.IWAE(3) if POSTERIORS[name].pathwise else pv.objectives.IWAE(3, "vimco")]
        if POSTERIORS[name].pathwise:
            objectives.append(pv.objectives.ELBO(kl="analytic"))
        for objective in objectives:
            check_trace(vae, objective, x)

    def test_stays_on_the_device(self, name):
        objectives = [pv.objectives.IWAE(3) if POSTERIORS[name].pathwise else pv.objectives.IWAE(3, "vimco")]
        objectives += [pv.objectives.ELBO(kl="analytic")] if POSTERIORS[name].pathwise else []
        for objective in objectives:
            check_device(lambda: without_steps(small_vae(posterior=name)), lambda o=objective: o, small_data)


def without_steps(vae):
    """Without a GPU, autograd has no stream for the gradient that a posterior's own steps take."""
    if hasattr(vae.posterior, "steps") and not torch.cuda.is_available():
        vae.posterior.steps = 0
    return vae


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.3, 2 / 3, 1.5])
@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0], [3.0, -1.0, 0.0], [8.0, 0.0, -8.0]], ids=str)
class TestRelaxedOneHotInFloat32:
    def test_weights_average_to_one(self, logits, temperature):
        """E_q[p / q] = 1, though components of most draws are at the smallest number: those have a mass there."""
        q = simplex.RelaxedOneHotCategorical(torch.tensor(logits), temperature)
        p = simplex.RelaxedOneHotCategorical(torch.tensor([1.0, 0.0, -1.0]) + 0.9 * q.logits, temperature)
        z = q.sample((40_000,))
        assert q.support.check(z).all()
        z_test((p.log_prob(z) - q.log_prob(z)).double().exp()[:, None], torch.ones(1, dtype=F64))

    def test_density_is_torchs(self, logits, temperature):
        """In float64; C = 3 categories, for which the suite has no integral."""
        y, t = torch.tensor(logits, dtype=F64), torch.tensor(temperature, dtype=F64)
        z = torch.distributions.Dirichlet(torch.ones(3, dtype=F64)).sample((200,))
        expected = dist.RelaxedOneHotCategorical(t, logits=y).log_prob(z)
        torch.testing.assert_close(simplex.RelaxedOneHotCategorical(y, temperature).log_prob(z), expected)


def test_relaxed_one_hot_towards_temperature_zero():
    y = torch.tensor([2.0, 0.0, -1.0])
    z = simplex.RelaxedOneHotCategorical(y, 1e-6).sample((100,))
    expected = dist.OneHotCategorical(logits=y).log_prob(z.round())
    torch.testing.assert_close(simplex.RelaxedOneHotCategorical(y, 1e-6).log_prob(z), expected, rtol=1e-3, atol=1e-3)


def test_rate_of_beta_in_float32():
    """Large concentrations, where differences of log Γ in float32 are off by hundredths of a nat."""
    found = []
    for dtype in (torch.float32, F64):
        q, p = (continuous.Beta(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype)) for a, b in RATES)
        found.append(kl_divergence(q, p).double())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    same = [torch.distributions.Beta(torch.tensor(a, dtype=F64), torch.tensor(b, dtype=F64)) for a, b in RATES]
    torch.testing.assert_close(found[1], kl_divergence(*same))


RATES = (([1e4, 2.0, 1.5], [2e4, 3.0, 900.0]), ([1e4, 1.0, 1.0], [2.1e4, 1.0, 1.0]))
PATHS = ("DiagonalNormal", "FullNormal", "LowRankNormal", "Gamma", "LogNormal", "Beta", "Dirichlet", "LogisticNormal")


@pytest.mark.parametrize("name", [*PATHS, "RelaxedOneHotCategorical"])
def test_pathwise_gradient_is_that_of_the_integral(name):
    """d/dy E f(z) over draws, y the encoder's output, against ∫ f(z) ∂q(z)/∂y dz."""
    case = POSTERIORS[name]
    cls, n = case.cls, code(name, L)[0]
    y = torch.linspace(-0.8, 1.1, n, dtype=F64)[None].requires_grad_()

    def f(z):
        return torch.sin(2 * z[..., 0] + 0.7 * z[..., 1].square())

    z, w = SPACES[SPACES_OF[name]]()
    density = cls(nn.Identity(), **case.options)(y).log_prob(z[:, None])[:, 0].exp()
    (exact,) = torch.autograd.grad(w * density @ f(z), y)
    many = y.detach().expand(40_000, n).clone().requires_grad_()
    (draws,) = torch.autograd.grad(f(cls(nn.Identity(), **case.options)(many).rsample()).sum(), many)
    z_test(draws, exact[0])


LOGITS = (
    "Bernoulli",
    "StraightThroughBernoulli",
    "RelaxedBernoulli",
    "OneHotCategorical",
    "StraightThroughOneHotCategorical",
)


@pytest.mark.parametrize("name", LOGITS)
def test_extreme_logits_in_float32(name):
    y = torch.tensor([[-50.0, 50.0], [200.0, -200.0], [50.0, 50.0], [0.0, 20.0]], requires_grad=True)
    cls, own = POSTERIORS[name][:2]
    q, p = cls(nn.Identity())(y), PRIORS[own].build(L)().expand([4])
    some = SPACES[PRIORS[own].space]()[0].float()  # the ends included
    for z in (q(), q.sample(), some[:, None]):
        for log_density in (q.log_prob(z), p.log_prob(z), kl_divergence(q, p)):
            assert torch.isfinite(log_density).all()
            if log_density.requires_grad:
                (gradient,) = torch.autograd.grad(log_density.sum(), y, retain_graph=True)
                assert torch.isfinite(gradient).all()


def test_diagonal_normal_reads_location_and_log_scale():
    y = torch.tensor([0.1, 0.2, -1.0, 0.5])
    q = posteriors.DiagonalNormal(Output(y))(torch.zeros(1, 3))
    torch.testing.assert_close(q.base_dist.loc[0], y[:2])
    torch.testing.assert_close(q.base_dist.scale[0], y[2:].exp())


# Straight-through and relaxed posteriors

STRAIGHT = {  # name: of the discrete values, torch's relaxation of them
    "StraightThroughBernoulli": ("Bernoulli", dist.RelaxedBernoulli),
    "StraightThroughOneHotCategorical": ("OneHotCategorical", dist.RelaxedOneHotCategorical),
}


@pytest.mark.parametrize("name", STRAIGHT)
class TestStraightThrough:
    @pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
    def test_hard_value_and_the_gradient_of_the_relaxed_one(self, name, temperature):
        y, w = torch.randn(50, 4, dtype=F64, requires_grad=True), torch.randn(50, 4, dtype=F64)
        torch.manual_seed(2)
        z = POSTERIORS[name].cls(nn.Identity(), temperature)(y).rsample()
        torch.manual_seed(2)
        soft = STRAIGHT[name][1](torch.tensor(temperature, dtype=F64), logits=y).rsample()
        assert not torch.equal(soft, soft.round())
        if name == "StraightThroughBernoulli":
            assert torch.equal(z, soft.round())
        else:
            assert torch.equal(z.argmax(-1), soft.argmax(-1))
        torch.testing.assert_close(*(torch.autograd.grad((w * v).sum(), y)[0] for v in (z, soft)))

    @pytest.mark.parametrize("temperature", [1e-3, 0.3, 1.0, 10.0])
    def test_values_are_exact_in_float32(self, name, temperature):
        """Not off by a rounding, which Pyro's validation would refuse."""
        y = torch.randn(100_000, 2).mul(5).requires_grad_()
        q = POSTERIORS[name].cls(nn.Identity(), temperature)(y)
        z = q.rsample()
        assert z.requires_grad
        assert ((z == 0) | (z == 1)).all()
        assert q.support.check(z).all()

    def test_density_is_the_discrete_one_and_linear_in_the_value(self, name):
        y = torch.randn(4, 3, dtype=F64)
        q = POSTERIORS[name].cls(nn.Identity(), 0.5)(y)
        discrete = POSTERIORS[STRAIGHT[name][0]].cls(nn.Identity())(y)
        z = discrete.sample().requires_grad_()
        torch.testing.assert_close(q.log_prob(z), discrete.log_prob(z))
        (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
        torch.testing.assert_close(slope, y if name == "StraightThroughBernoulli" else y.log_softmax(-1))

    def test_bound_is_the_discrete_one(self, name):
        """The mean of its ELBO over draws is the sum over all values, weighed by q."""
        vae, x = small_vae(posterior=name).double(), small_data(n=3)
        z, _ = SPACES[PRIORS[POSTERIORS[name].prior].space]()
        log_q = vae.posterior(x).log_prob(z[:, None])  # [n, B]
        elbo = log_q.exp() * (vae.prior().log_prob(z)[:, None] + vae.likelihood(z[:, None]).log_prob(x) - log_q)
        z_test(pv.densities(vae, x, 5000).log_weight.detach(), elbo.sum(0).detach())

    def test_trains_from_either_form_of_the_rate(self, name):
        for kl in ("analytic", "sampled"):
            vae = small_vae(posterior=name).double()
            reached(vae, pv.objectives.ELBO(2, kl=kl)(vae, small_data()).surrogate.mean())


@pytest.mark.parametrize("name", [n for n in POSTERIORS if hasattr(relaxed, n)])
def test_noise_at_its_border(name, monkeypatch):
    """torch.rand may return 0, though seldom."""
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.zeros(*size, **options))
    y = torch.zeros(3, L, requires_grad=True)
    z = POSTERIORS[name].cls(nn.Identity())(y).rsample()
    assert torch.isfinite(z).all()
    assert torch.isfinite(torch.autograd.grad(z.pow(3).sum(), y)[0]).all()


def concrete(logit: float, temperature: float, dtype: torch.dtype = F64) -> relaxed.RelaxedBernoulli:
    return relaxed.RelaxedBernoulli(torch.tensor([logit], dtype=dtype), temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2 / 3, 2.0])
@pytest.mark.parametrize("logit", [-9.0, -1.0, 0.0, 0.29, 3.0, 40.0])
class TestRelaxedBernoulli:
    def test_integrates_to_one(self, logit, temperature):
        z, w = unit_with_ends(200)
        assert (w @ concrete(logit, temperature).log_prob(z).exp()).item() == pytest.approx(1, abs=1e-9)

    def test_density_is_torchs_within_the_ends(self, logit, temperature):
        z = torch.linspace(-11.9, 11.9, 200, dtype=F64).sigmoid()
        t, y = torch.tensor(temperature, dtype=F64), torch.tensor([logit], dtype=F64)
        torch.testing.assert_close(
            concrete(logit, temperature).log_prob(z), dist.RelaxedBernoulli(t, logits=y).log_prob(z)
        )

    def test_closed_form_rate(self, logit, temperature):
        """Against the integral, with its gradient: [0.29, 0] and [0.29, -1] are on both sides of the series' border."""
        z, w = unit_with_ends(200)
        for other in (0.0, 0.3, -1.0):
            y = torch.tensor([logit], dtype=F64, requires_grad=True)
            q, p = relaxed.RelaxedBernoulli(y, temperature), concrete(other, temperature)
            log_q = q.log_prob(z)
            rates = kl_divergence(q, p)[0], w @ (log_q.exp() * (log_q - p.log_prob(z)))
            torch.testing.assert_close(*rates, rtol=1e-8, atol=1e-9)
            gradients = [torch.autograd.grad(r, y, retain_graph=True)[0] for r in rates]
            torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)
            low = kl_divergence(
                concrete(logit, temperature, torch.float32), concrete(other, temperature, torch.float32)
            )
            torch.testing.assert_close(low.double(), rates[0][None].detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2 / 3, 2.0])
@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.0])
class TestRelaxedDraws:
    def test_weights_average_to_the_evidence(self, logit, temperature):
        """E_q[p(z) f(z) / q(z)] = E_p[f(z)] in float32, where most draws may be at the ends; f is a likelihood."""
        z, w = unit_with_ends(200)
        exact = w @ (concrete(0.0, temperature).log_prob(z).exp() * torch.exp(-2 * z))
        q, p = concrete(logit, temperature, torch.float32), concrete(0.0, temperature, torch.float32)
        z = q.sample((40000,))
        z_test((p.log_prob(z) - q.log_prob(z) - 2 * z).exp().double(), exact[None])

    def test_draws_in_the_halves_and_at_the_ends(self, logit, temperature):
        """P(z > ½) = σ(l) at every temperature, and the ends are as frequent as their masses say."""
        q = concrete(logit, temperature, torch.float32)
        ends = torch.tensor([q.LOW, q.HIGH])
        mass = torch.cat([q.logits.sigmoid(), q.log_prob(ends).exp()])
        z = q.sample((40000,))
        often = mass > 1e-2
        z_test(torch.cat([z > 0.5, z == ends], -1).double()[:, often], mass[often].double())

    def test_pathwise_gradient(self, logit, temperature):
        """d/dl E f(z) over draws is that of the integral, for a continuous f."""
        z, w = unit_with_ends(200)
        y = torch.tensor([logit], dtype=F64, requires_grad=True)
        exact = w @ (relaxed.RelaxedBernoulli(y, temperature).log_prob(z).exp() * torch.sin(3 * z))
        (exact,) = torch.autograd.grad(exact, y)
        y = torch.full((20000,), logit, dtype=F64, requires_grad=True)
        z = relaxed.RelaxedBernoulli(y, temperature).rsample()
        z_test(torch.autograd.grad(torch.sin(3 * z).sum(), y)[0][:, None], exact)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_relaxed_bernoulli_towards_temperature_zero(dtype):
    """Draws are hard, with the masses and the rate of the Bernoulli."""
    y = torch.tensor([-30.0, -2.0, 0.0, 0.1, 4.0], dtype=dtype)
    q, p = relaxed.RelaxedBernoulli(y, 1e-8), relaxed.RelaxedBernoulli(torch.zeros_like(y), 1e-8)
    hard = dist.Bernoulli(logits=y)
    z = q.sample((5000,))
    ends = z.new_tensor([relaxed.RelaxedBernoulli.LOW, relaxed.RelaxedBernoulli.HIGH])
    assert ((z == ends[0]) | (z == ends[1])).all()
    torch.testing.assert_close(q.log_prob(z), hard.log_prob(z.round()), rtol=1e-5, atol=1e-5)
    rate = kl_divergence(hard, dist.Bernoulli(logits=torch.zeros_like(y)))
    torch.testing.assert_close(kl_divergence(q, p), rate, rtol=1e-5, atol=1e-5)
    z_test(z[:, 1:].round().double(), hard.probs[1:].double())


def test_relaxed_bernoulli_of_two_temperatures_has_no_closed_form():
    vae, x = small_vae(posterior="RelaxedBernoulli").double(), small_data()
    vae.prior = priors.RelaxedBernoulli(2, temperature=0.4).double()
    with pytest.raises(NotImplementedError):
        kl_divergence(vae.posterior(x), vae.prior())
    reached(vae, pv.objectives.ELBO(2, kl="analytic")(vae, x).surrogate.mean())


def test_temperature_from_options():
    spec = {"class_path": "RelaxedBernoulli", "init_args": {"temperature": 0.3}}
    vae = pv.models.VAE.build(Toy(), latent=3, hidden=[4], prior=spec, posterior=spec)
    for v in (vae, construct(describe(vae))):
        assert v.prior().base_dist.temperature == v.posterior(torch.zeros(2, *EVENT)).base_dist.temperature == 0.3


TEMPERED = {
    "RelaxedBernoulli prior": lambda t: priors.RelaxedBernoulli(2, temperature=t),
    "RelaxedBernoulli": lambda t: posteriors.RelaxedBernoulli(nn.Identity(), temperature=t),
    "StraightThroughBernoulli": lambda t: posteriors.StraightThroughBernoulli(nn.Identity(), temperature=t),
    "StraightThroughOneHotCategorical": lambda t: posteriors.StraightThroughOneHotCategorical(nn.Identity(), t),
}


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "0.5", None, True, [0.5]], ids=repr)
@pytest.mark.parametrize("name", TEMPERED)
def test_refuses_a_temperature(name, temperature):
    expected = (
        f"{name.split()[0]} expects temperature as a finite number above 0, got {temperature!r}; take one between"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        TEMPERED[name](temperature)


# Normals of full and low rank


class TestCorrelatedNormals:
    def test_full_covariance(self):
        y = torch.randn(2, 9, dtype=F64)
        r = torch.zeros(2, 3, 3, dtype=F64)
        r[:, 1, 0], r[:, 2, 0], r[:, 2, 1] = y[:, 6:].unbind(1)
        c = torch.diag_embed(y[:, 3:6].exp()) @ (torch.eye(3) + r / math.sqrt(3))
        q = posteriors.FullNormal(nn.Identity())(y)
        torch.testing.assert_close(q.mean, y[:, :3])
        torch.testing.assert_close(q.covariance_matrix, c @ c.mT)

    def test_low_rank_covariance(self):
        y = torch.randn(2, 12, dtype=F64)
        w = y[:, 6:].reshape(2, 3, 2)
        scale = torch.diag_embed(y[:, 3:6].exp())
        q = posteriors.LowRankNormal(nn.Identity(), rank=2)(y)
        assert isinstance(q.expand([4, 2]), low_rank.LowRankNormal)
        torch.testing.assert_close(q.mean, y[:, :3])
        torch.testing.assert_close(q.covariance_matrix, scale @ (torch.eye(3) + w @ w.mT) @ scale)
        z = torch.randn(5, 2, 3, dtype=F64)
        torch.testing.assert_close(q.log_prob(z), dist.MultivariateNormal(q.mean, q.covariance_matrix).log_prob(z))

    @pytest.mark.parametrize("prior", ["DiagonalNormal", "GaussianProcess"])
    @pytest.mark.parametrize("name", ["DiagonalNormal", "FullNormal", "LowRankNormal"])
    def test_rate_to_any_normal_prior(self, name, prior):
        """In closed form, as that of two full normals, for K particles of B data."""
        vae, x = small_vae(posterior=name, prior=prior, latent=4).double(), small_data()
        with torch.no_grad():
            for p in vae.prior.parameters():
                p += 0.5 * torch.randn_like(p)
        d = pv.densities(vae, x, 2, aligned=True)
        q, p = d.posterior["z"].distribution, d.prior["z"].distribution
        rate = closed_kl(q, p)
        assert rate.shape == (2, 4)
        full = [dist.MultivariateNormal(v.mean, covariance(v)) for v in (vae.posterior(x), vae.prior())]
        exact = kl_divergence(*full)
        torch.testing.assert_close(rate, exact.expand(2, 4))
        torch.testing.assert_close(
            torch.autograd.grad(rate.sum() / 2, list(vae.prior.parameters())),
            torch.autograd.grad(exact.sum(), list(vae.prior.parameters())),
        )

    @pytest.mark.parametrize("name", ["FullNormal", "LowRankNormal"])
    def test_no_closed_form_to_other_priors(self, name):
        vae, x = small_vae(posterior=name, prior="Laplace").double(), small_data()
        with pytest.raises(NotImplementedError):
            closed_kl(vae.posterior(x), vae.prior())

    @pytest.mark.parametrize("name", ["FullNormal", "LowRankNormal"])
    @pytest.mark.parametrize("log_scale", [-12.0, 0.0, 12.0])
    def test_extremes_in_float32(self, name, log_scale):
        n, cls = 30, POSTERIORS[name].cls
        y = torch.randn(4, *cls.code(n))
        y[:, n : 2 * n] += log_scale
        y[0, 2 * n :] *= 30
        found = []
        for dtype in (torch.float32, F64):
            q = cls(nn.Identity())(y.to(dtype))
            found.append(q.log_prob(q.loc + (0.3 * log_scale + y[:, n : 2 * n]).exp().to(dtype)).double())
        assert torch.isfinite(found[0]).all()
        torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-3, atol=1e-2)


def covariance(p):
    return p.covariance_matrix if hasattr(p, "covariance_matrix") else torch.diag_embed(p.variance)


# Mixtures


def some_mixture(spread: float, n: int = 0):
    """Parameters of a mixture of three over two dimensions, each n times."""
    g = torch.Generator().manual_seed(3)
    logits, loc, log_scale = (torch.randn(3, *size, dtype=F64, generator=g) for size in ((), (2,), (2,)))
    found = [logits, spread * loc, (0.4 * log_scale).exp()]
    return [t.expand(n, *t.shape).clone().requires_grad_() if n else t.requires_grad_() for t in found]


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5])
def test_gradient_through_the_draws_of_a_mixture(spread):
    """That of the integral, for the weights, means and scales alike."""

    def f(z):
        return torch.sin(1.3 * z[..., 0] + 0.2) * torch.tanh(z[..., 1]) + torch.cos(z.sum(-1))

    z, w = SPACES["fine reals"]()
    parameters = some_mixture(spread)
    exact = torch.autograd.grad(w @ (NormalMixture(*parameters).log_prob(z).exp() * f(z)), parameters)
    each = some_mixture(spread, 40000)
    found = torch.autograd.grad(f(NormalMixture(*each).rsample()).sum(), each)
    z_test(torch.cat([g.flatten(1) for g in found], 1), torch.cat([g.flatten() for g in exact]))


def test_gradient_of_a_mixture_of_equals_is_the_normals():
    """With all components alike a draw has the gradient of one normal's, and the weights have none."""
    y = torch.randn(50, 1 + 2 * 4, dtype=F64)
    y = y[:, None].repeat(1, 3, 1).requires_grad_()  # [B, C, 1 + 2L]
    q = NormalMixture(y[..., 0], y[..., 1:5], y[..., 5:].exp())
    z = q.rsample()
    (gradient,) = torch.autograd.grad(z.sum(), y)
    torch.testing.assert_close(gradient[..., 0], torch.zeros(50, 3, dtype=F64))
    torch.testing.assert_close(gradient[..., 1:5].sum(1), torch.ones(50, 4, dtype=F64))
    torch.testing.assert_close(gradient[..., 5:].sum(1), (z - q.loc[:, 0]).detach())


def test_mixture_draws_are_those_of_the_components():
    y = torch.randn(4, 3 * 5, dtype=F64)
    q = posteriors.Mixture(nn.Identity(), components=3)(y)
    y = y.reshape(4, 3, 5)
    each = dist.Normal(y[..., 1:3], y[..., 3:].exp()).to_event(1)
    expected = dist.MixtureSameFamily(dist.Categorical(logits=y[..., 0]), each)
    z = q.sample((20000,))
    torch.testing.assert_close(q.log_prob(z), expected.log_prob(z))
    z_test(z[:, 0], expected.mean[0])
    z_test((z - q.mean).square()[:, 1], expected.variance[1])


def test_mixture_at_extremes_in_float32():
    """Far apart, in the tails and with weights near 0: finite draws and gradients, near those of float64."""
    loc = torch.tensor([[0.0, 0.0], [30.0, -30.0], [0.0, 1e-6]]).expand(4000, 3, 2)
    scale = torch.tensor([[1e-3, 1.0], [1.0, 1e3], [1e-3, 1.0]]).expand(4000, 3, 2)
    logits = torch.tensor([0.0, -5.0, -80.0]).expand(4000, 3)
    z = NormalMixture(logits, loc, scale).sample()
    found = []
    for dtype in (torch.float32, F64):
        p = [t.to(dtype).clone().requires_grad_() for t in (logits, loc, scale)]
        q = NormalMixture(*p)
        found.append(torch.autograd.grad(q._path(z.to(dtype)).sum(), p))
        assert all(torch.isfinite(g).all() for g in found[-1])
        assert torch.isfinite(q.log_prob(z.to(dtype))).all()
    for low, high in zip(*found, strict=True):
        torch.testing.assert_close(low.double(), high, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2", math.nan], ids=repr)
@pytest.mark.parametrize(("cls", "option"), [("LowRankNormal", "rank"), ("Mixture", "components")])
def test_refuses_a_number_that_is_none(cls, option, number):
    part = getattr(posteriors, cls)
    for build in (lambda: part(nn.Identity(), number), lambda: part.code(2, **{option: number})):
        with pytest.raises(ValueError, match=f"{cls} expects {option} as a whole number of at least 1, got {number!r}"):
            build()
