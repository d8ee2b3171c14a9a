"""Priors, posteriors, likelihoods and networks: one table a role, one suite of properties."""

from __future__ import annotations

import copy
import itertools
import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import (
    EVENT,
    F64,
    LIKELIHOODS,
    POSTERIORS,
    PRIORS,
    Toy,
    fake_cuda,
    reached,
    small_data,
    small_vae,
    z_test,
)
from torch.distributions import kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae import likelihoods, networks, posteriors, priors
from pyrovae.config import construct, describe
from pyrovae.distributions import relaxed

LEADING = [(), (4,), (3, 4), (2, 3, 4)]
L = 2


def network(n: int | list[int], m: list[int]) -> networks.MLP:
    return networks.MLP([n] if isinstance(n, int) else n, m, hidden=[5], activation="tanh")


def likelihood(name: str, event: list[int] = EVENT) -> likelihoods.Likelihood:
    cls, options, _ = LIKELIHOODS[name]
    return cls(network(L, cls.decoded(event, **options)), **options)


def posterior(name: str, event: list[int] = EVENT) -> posteriors.Posterior:
    cls, _ = POSTERIORS[name]
    return cls(network(event, cls.code(L)))


def legendre(a: float, b: float, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights of Gauss and Legendre on (a, b)."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(n))
    return (a + b) / 2 + (b - a) / 2 * nodes, (b - a) / 2 * weights


def unit_interval(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights on (0, 1) in the logit, and the two ends, which have a mass."""
    y, weights = legendre(-12, 12, n)
    z = y.sigmoid()
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    return torch.cat([z, ends]), torch.cat([weights * z * (1 - z), torch.ones_like(ends)])


def values(prior: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Values z [n, L] of a prior and weights [n] with which Σ w f(z) is the sum or integral of f."""
    if prior == "OneHotCategorical":
        return torch.eye(L, dtype=F64), torch.ones(L, dtype=F64)
    z, w = {
        "StandardNormal": lambda: legendre(-12, 12, 100),
        "Bernoulli": lambda: (torch.tensor([0.0, 1.0], dtype=F64), torch.ones(2, dtype=F64)),
        "RelaxedBernoulli": lambda: unit_interval(100),
    }[prior]()
    return torch.cartesian_prod(*[z] * L), torch.cartesian_prod(*[w] * L).prod(-1)


class Output(nn.Module):
    """A decoder that ignores the latent: its output is given."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, z):
        return self.y.to(z.dtype).expand(len(z), *self.y.shape)


# Priors


@pytest.mark.parametrize("name", PRIORS)
class TestPriors:
    def test_shapes_and_support(self, name):
        p = PRIORS[name](3).double()()
        assert p.event_shape == (3,)
        z = p.sample((5, 4))
        assert z.shape == (5, 4, 3)
        assert z.dtype == F64
        assert p.support.check(z).all()
        assert p.log_prob(z).shape == (5, 4)

    def test_integrates_to_one(self, name):
        z, w = values(name)
        assert (w @ PRIORS[name](L).double()().log_prob(z).exp()).item() == pytest.approx(1, abs=1e-8)

    def test_gradient_reaches_every_parameter(self, name):
        prior = PRIORS[name](3)
        if list(prior.parameters()):
            reached(prior, prior().log_prob(torch.randn(4, 3)).sum())

    def test_round_trip(self, name):
        prior = PRIORS[name](3)
        again = construct(describe(prior))
        again.load_state_dict(prior.state_dict())
        z = prior().sample((4,))
        assert torch.equal(again().log_prob(z), prior().log_prob(z))

    def test_refuses_no_latents(self, name):
        with pytest.raises(ValueError, match="expects at least one latent dimension, got latent=0"):
            PRIORS[name](0)


def test_standard_normal_is_one():
    z = torch.randn(4, 3, dtype=F64)
    expected = -0.5 * z.square().sum(-1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(priors.StandardNormal(3).double()().log_prob(z), expected)


@pytest.mark.parametrize("name", ["StandardNormal", "Bernoulli", "RelaxedBernoulli", "OneHotCategorical"])
def test_prior_constants_are_not_weights(name):
    assert not PRIORS[name](3).state_dict()


# Posteriors


DISCRETE = ("Bernoulli", "OneHotCategorical")


@pytest.mark.parametrize("name", POSTERIORS)
class TestPosteriors:
    @pytest.mark.parametrize("leading", LEADING)
    def test_shapes(self, name, leading):
        q = posterior(name).double()(torch.rand(*leading, *EVENT, dtype=F64))
        assert (q.batch_shape, q.event_shape) == (leading, (L,))
        assert q.has_rsample == (name not in DISCRETE)
        for z in (q(), q.sample()):  # as pyro.sample draws, and without a gradient
            assert z.shape == (*leading, L)
            assert z.dtype == F64
            assert q.support.check(z).all()
            assert q.log_prob(z).shape == leading
        assert not z.requires_grad

    def test_leading_dimensions_are_rows(self, name):
        q, x = posterior(name).double(), torch.rand(3, 4, *EVENT, dtype=F64)
        z = q(x).sample()
        rows = torch.stack([q(row).log_prob(v) for row, v in zip(x, z, strict=True)])
        torch.testing.assert_close(q(x).log_prob(z), rows)

    def test_density_belongs_to_the_sampler(self, name):
        """It integrates to one, and so it does times f to the mean of f over draws."""
        q = posterior(name).double()(torch.rand(1, *EVENT, dtype=F64))
        z, w = values(POSTERIORS[name][1])
        w = w * q.log_prob(z).exp()
        assert w.sum().item() == pytest.approx(1, abs=1e-8)

        def f(z):
            return torch.cat([z, z.square(), z.prod(-1, keepdim=True), (3 * z.sum(-1, keepdim=True)).tanh()], -1)

        exact = w @ f(z)
        draws = f(q.sample((20000,))[:, 0])
        varied = draws.std(0) > 0  # a product of one-hot components is always 0
        torch.testing.assert_close(exact[~varied], draws[0, ~varied])
        z_test(draws[:, varied], exact[varied].detach())

    def test_gradient_reaches_every_parameter(self, name):
        module = posterior(name)
        q = module(torch.rand(4, *EVENT))
        reached(module, q.log_prob(q.sample()).sum())
        if q.has_rsample:
            reached(module, module(torch.rand(4, *EVENT)).rsample().square().sum())

    def test_expand_keeps_everything(self, name):
        """As a particle plate does it: draws, their gradient and their density are those of K draws."""
        module, x = posterior(name).double(), torch.rand(4, *EVENT, dtype=F64)
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
        module, x = posterior(name), torch.rand(4, *EVENT)
        again = construct(describe(module))
        again.load_state_dict(module.state_dict())
        z = module(x).sample()
        assert torch.equal(again(x).log_prob(z), module(x).log_prob(z))

    def test_closed_form_rate_is_that_of_the_draws(self, name):
        vae, x = small_vae(posterior=name).double(), small_data()
        d = pv.densities(vae, x, 4000, aligned=True)
        rate = kl_divergence(d.posterior["z"].distribution, d.prior["z"].distribution)
        z_test(d.log_posterior - d.log_prior, rate[0].detach())

    def test_named_in_build(self, name):
        own = POSTERIORS[name][1]
        vae = pv.models.VAE.build(Toy(), latent=3, hidden=[4], prior=own, posterior=name)
        assert (type(vae.prior).__name__, type(vae.posterior).__name__) == (own, name)
        x = vae.likelihood(vae.prior().sample((5,))).sample()
        assert torch.isfinite(pv.densities(vae, x, 2).log_weight).all()
        assert describe(construct(describe(vae))) == describe(vae)

    def test_traces(self, name):
        """No value is read back, the noise is drawn anew, and the gradient is in the graph."""
        vae, x = small_vae(posterior=name), small_data(dtype=torch.float32)
        parameters = {n: p.detach() for n, p in vae.named_parameters()}

        class Step(nn.Module):
            def __init__(self):
                super().__init__()
                self.vae = vae

            def forward(self, x):
                d = pv.densities(self.vae, x, 3, aligned=True)
                rate = kl_divergence(d.posterior["z"].distribution, d.prior["z"].distribution)
                return d.log_weight.mean() + rate.mean()

        step = Step()

        def f(parameters):
            leaves = {f"vae.{n}": p.detach().requires_grad_() for n, p in parameters.items()}
            loss = torch.func.functional_call(step, leaves, (x,))
            return loss.detach(), *torch.autograd.grad(loss, list(leaves.values()))

        f(parameters)  # the layout is found once
        with pyro.validation_enabled(False):
            graph = make_fx(f, tracing_mode="fake", _allow_non_fake_inputs=True)(parameters)
        assert "_local_scalar_dense" not in graph.code
        assert "nonzero" not in graph.code
        found = []
        for function in (f, graph, graph):
            torch.manual_seed(5 + len(found) // 2)
            found.append(function(parameters))
        for a, b in zip(*found[:2], strict=True):
            torch.testing.assert_close(a, b)
        assert found[1][0] != found[2][0]

    def test_stays_on_the_device(self, name):
        with fake_cuda():
            with torch.device("cuda"):
                vae, x = small_vae(posterior=name), torch.zeros(5, *EVENT)
            d = pv.densities(vae, x, 3, aligned=True)
            q, p = d.posterior["z"].distribution, d.prior["z"].distribution
            for t in (d.log_weight, kl_divergence(q, p), d.posterior["z"].value, q.sample(), p.sample()):
                assert t.device.type == "cuda"


@pytest.mark.parametrize("name", [n for n in POSTERIORS if n != "DiagonalNormal"])
def test_extreme_logits_in_float32(name):
    y = torch.tensor([[-50.0, 50.0], [200.0, -200.0], [50.0, 50.0], [0.0, 20.0]], requires_grad=True)
    cls, own = POSTERIORS[name]
    q, p = cls(nn.Identity())(y), PRIORS[own](L)().expand([4])
    some = values(own)[0].float()  # the ends included
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
        z = POSTERIORS[name][0](nn.Identity(), temperature)(y).rsample()
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
        q = POSTERIORS[name][0](nn.Identity(), temperature)(y)
        z = q.rsample()
        assert z.requires_grad
        assert ((z == 0) | (z == 1)).all()
        assert q.support.check(z).all()

    def test_density_is_the_discrete_one_and_linear_in_the_value(self, name):
        y = torch.randn(4, 3, dtype=F64)
        q = POSTERIORS[name][0](nn.Identity(), 0.5)(y)
        discrete = POSTERIORS[STRAIGHT[name][0]][0](nn.Identity())(y)
        z = discrete.sample().requires_grad_()
        torch.testing.assert_close(q.log_prob(z), discrete.log_prob(z))
        (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
        torch.testing.assert_close(slope, y if name == "StraightThroughBernoulli" else y.log_softmax(-1))

    def test_bound_is_the_discrete_one(self, name):
        """The mean of its ELBO over draws is the sum over all values, weighed by q."""
        vae, x = small_vae(posterior=name).double(), small_data(n=3)
        z, _ = values(POSTERIORS[name][1])
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
    z = POSTERIORS[name][0](nn.Identity())(y).rsample()
    assert torch.isfinite(z).all()
    assert torch.isfinite(torch.autograd.grad(z.pow(3).sum(), y)[0]).all()


def concrete(logit: float, temperature: float, dtype: torch.dtype = F64) -> relaxed.RelaxedBernoulli:
    return relaxed.RelaxedBernoulli(torch.tensor([logit], dtype=dtype), temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2 / 3, 2.0])
@pytest.mark.parametrize("logit", [-9.0, -1.0, 0.0, 0.29, 3.0, 40.0])
class TestRelaxedBernoulli:
    def test_integrates_to_one(self, logit, temperature):
        z, w = unit_interval(200)
        assert (w @ concrete(logit, temperature).log_prob(z).exp()).item() == pytest.approx(1, abs=1e-9)

    def test_density_is_torchs_within_the_ends(self, logit, temperature):
        z = torch.linspace(-11.9, 11.9, 200, dtype=F64).sigmoid()
        t, y = torch.tensor(temperature, dtype=F64), torch.tensor([logit], dtype=F64)
        torch.testing.assert_close(
            concrete(logit, temperature).log_prob(z), dist.RelaxedBernoulli(t, logits=y).log_prob(z)
        )

    def test_closed_form_rate(self, logit, temperature):
        """Against the integral, with its gradient: [0.29, 0] and [0.29, -1] are on both sides of the series' border."""
        z, w = unit_interval(200)
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
        z, w = unit_interval(200)
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
        z, w = unit_interval(200)
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


# Likelihoods


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihoods:
    @pytest.mark.parametrize("leading", LEADING)
    def test_shapes_and_support(self, name, leading):
        p = likelihood(name).double()(torch.randn(*leading, L, dtype=F64))
        assert (p.batch_shape, p.event_shape) == (leading, tuple(EVENT))
        x = p.sample()
        assert x.shape == (*leading, *EVENT)
        assert x.dtype == F64
        assert p.support.check(x).all()
        assert p.log_prob(x).shape == leading

    @pytest.mark.parametrize("event", [[6], [2, 3], [3, 2, 2]])
    def test_any_event(self, name, event):
        p = likelihood(name, event)(torch.randn(3, 4, L))
        assert (p.batch_shape, p.event_shape) == ((3, 4), tuple(event))

    def test_leading_dimensions_are_rows(self, name):
        p, z = likelihood(name).double(), torch.randn(3, 4, L, dtype=F64)
        x = small_data(name, 4)
        torch.testing.assert_close(p(z).log_prob(x), torch.stack([p(row).log_prob(x) for row in z]))

    def test_samples_have_the_mean(self, name):
        p = likelihood(name).double()(torch.randn(1, L, dtype=F64))
        draws = p.sample((4000,))[:, 0]
        error = (draws.mean(0) - p.mean[0]) / (draws.std(0) / math.sqrt(len(draws)))
        assert error.abs().max() < 6  # fails once in 1e7

    def test_gradient_reaches_every_parameter(self, name):
        module = likelihood(name)
        reached(module, module(torch.randn(3, 4, L)).log_prob(small_data(name, dtype=torch.float32)).sum())

    def test_gradient_reaches_the_latent(self, name):
        z = torch.randn(4, L, requires_grad=True)
        likelihood(name)(z).log_prob(small_data(name, dtype=torch.float32)).sum().backward()
        assert (z.grad != 0).all()

    def test_round_trip(self, name):
        module, z, x = likelihood(name), torch.randn(4, L), small_data(name, dtype=torch.float32)
        again = construct(describe(module))
        again.load_state_dict(module.state_dict())
        assert torch.equal(again(z).log_prob(x), module(z).log_prob(x))

    def test_decoder_in_lower_precision(self, name):
        """Under autocast the decoder may return half precision: densities are still taken in full."""
        cls, options, _ = LIKELIHOODS[name]
        net = network(L, cls.decoded(EVENT, **options))
        half = nn.Sequential(net)
        half.register_forward_hook(lambda m, i, out: out.bfloat16())
        assert cls(half, **options)(torch.randn(4, L)).log_prob(small_data(name, dtype=torch.float32)).dtype is (
            torch.float32
        )


LOGITS = [-40.0, -17.0, -3.0, -0.0101, -0.0099, -1e-3, 0.0, 1e-3, 0.0099, 0.0101, 0.5, 3.0, 17.0, 40.0]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one(logit):
    p = likelihoods.ContinuousBernoulli(Output(torch.tensor([logit])))(torch.zeros(1, L, dtype=F64))
    # Gauss-Legendre on pieces that shrink towards both ends, where large logits have their mass
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(40))
    ends = torch.tensor([0, 0.02, 0.1, 0.5, 0.9, 0.98, 1], dtype=F64)
    total = 0.0
    for a, b in itertools.pairwise(ends):
        x = (a + b) / 2 + (b - a) / 2 * nodes
        total += ((b - a) / 2 * weights * p.log_prob(x[:, None]).exp()).sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_continuous_bernoulli_is_finite_in_float32():
    logits = torch.cat([torch.linspace(-200, 200, 4001), torch.tensor([-88.8, -0.01, 0.0, 1e-30, 0.01, 88.8])])
    for x in (0.0, 0.3, 1.0):
        y = logits.clone().requires_grad_()
        p = likelihoods.ContinuousBernoulli(Output(y))(torch.zeros(1, L))
        value = p.log_prob(torch.full((1, len(logits)), x))
        elementwise = p.base_dist.log_prob(torch.full((1, len(logits)), x))
        (gradient,) = torch.autograd.grad(value.sum(), y)
        assert torch.isfinite(elementwise).all()
        assert torch.isfinite(gradient).all()


def test_continuous_bernoulli_is_accurate_in_float32():
    """Every pixel counts: 784 of them, each wrong by 3e-4, would be a quarter of a nat."""
    logits = torch.cat([s * torch.logspace(-6, 2, 2001, dtype=F64) for s in (-1, 1)])
    found = []
    for dtype in (torch.float32, F64):
        y = logits.to(dtype).requires_grad_()
        value = dist.Bernoulli(logits=y).log_prob(y.new_tensor(0.0))  # of the same rounding
        p = likelihoods.ContinuousBernoulli(Output(y))(torch.zeros(1, L, dtype=dtype))
        norm = p.base_dist.log_prob(y.new_zeros(1, 1))[0] - value
        found.append((norm.detach().double(), torch.autograd.grad(norm.sum(), y)[0].double()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=3e-5)


def test_continuous_bernoulli_samples_at_extremes():
    logits = torch.tensor([-200.0, -40.0, -1e-3, 0.0, 1e-3, 40.0, 200.0])
    p = likelihoods.ContinuousBernoulli(Output(logits))(torch.zeros(1, L))
    x = p.sample((500,))
    assert p.support.check(x).all()
    assert torch.isfinite(p.log_prob(x)).all()
    assert torch.isfinite(p.mean).all()
    assert x[..., 0].mean() < 0.1 < 0.9 < x[..., -1].mean()


def test_continuous_bernoulli_gradient():
    """d/dl log C(l) against the difference quotient, on both sides of the series' border."""
    y = torch.tensor([-30, -2, -0.0101, -0.0099, 0, 1e-3, 0.0099, 0.0101, 2, 30], dtype=F64, requires_grad=True)

    def density(y):
        return likelihoods.ContinuousBernoulli(Output(y))(torch.zeros(1, L, dtype=F64)).log_prob(
            torch.full_like(y, 0.3)
        )

    assert torch.autograd.gradcheck(density, y)
    a, b = (density(torch.tensor([e], dtype=F64)) for e in (0.01 - 1e-9, 0.01 + 1e-9))
    assert (a - b).abs() < 1e-7  # no step at the border


@pytest.mark.parametrize("logit", [-40.0, -2.0, 0.0, 1.0, 40.0])
@pytest.mark.parametrize(("name", "count"), [("Bernoulli", 1), ("Binomial", 16)])
def test_mass_sums_to_one(name, count, logit):
    cls, options, _ = LIKELIHOODS[name]
    p = cls(Output(torch.tensor([logit])), **options)(torch.zeros(1, L, dtype=F64))
    x = torch.arange(count + 1, dtype=F64)[:, None]
    assert p.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-12)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.elements = max(self.elements, out.numel() if isinstance(out, torch.Tensor) else 0)
        return out


def test_counts_are_drawn_in_the_memory_of_the_sample():
    p = likelihoods.Binomial(Output(torch.zeros(3)), total_count=255)(torch.zeros(4, L))
    with Largest() as largest:
        assert p.sample((5,)).shape == (5, 4, 3)
    assert largest.elements == 60


def test_normal_is_the_squared_error():
    """−log p(x | z) = ‖x − μ‖² / 2σ² + D log(σ √2π)."""
    mu, x, sigma = torch.randn(6, dtype=F64), torch.randn(4, 6, dtype=F64), 0.3
    p = likelihoods.Normal(Output(mu), scale=sigma).double()(torch.zeros(4, L, dtype=F64))
    expected = (x - mu).square().sum(-1) / (2 * sigma**2) + 6 * math.log(sigma * math.sqrt(2 * math.pi))
    torch.testing.assert_close(-p.log_prob(x), expected, rtol=1e-6, atol=1e-6)


def test_normal_scale_has_a_floor():
    p = likelihoods.Normal(Output(torch.zeros(3)), minimum_scale=0.1)
    nn.init.constant_(p.raw_scale, -100.0)
    assert p(torch.zeros(1, L)).base_dist.scale.min() >= 0.1
    y = torch.cat([torch.zeros(3), torch.full((3,), -100.0)])
    p = likelihoods.Normal(Output(y), scale="per_pixel", minimum_scale=0.1)(torch.zeros(1, L))
    assert p.event_shape == (3,)
    assert (p.base_dist.loc == 0).all()  # μ, then the raw σ
    torch.testing.assert_close(p.base_dist.scale, torch.full((1, 3), 0.1))


RAW = {
    "linear": lambda: nn.Sequential(nn.Linear(L, 20), nn.Unflatten(1, (1, 5, 4))),
    "transposed": lambda: nn.Sequential(
        nn.Linear(L, 12), nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 1, (4, 3)), nn.Tanh()
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(L, 12), nn.Unflatten(1, (3, 2, 2)), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 1, (4, 3))
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_decoders_take_particles(name):
    decoder = RAW[name]().double()
    other, z, x = copy.deepcopy(decoder), torch.randn(3, 4, L, dtype=F64), small_data("Bernoulli")
    folded = likelihoods.Bernoulli(other)(z.flatten(0, 1)).log_prob(x.repeat(3, 1, 1, 1))
    torch.testing.assert_close(likelihoods.Bernoulli(decoder)(z).log_prob(x), folded.reshape(3, 4))
    for a, b in zip(decoder.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)  # statistics of one pass over K·B rows


# Networks

IMAGES = [[1, 7, 9], [3, 32, 32], [1, 1, 1], [2, 28, 28], [1, 5, 4]]


def centred(event):
    return networks.Standardise(event).to_data(3 + 2 * torch.randn(10, *event), rescale=True)


ENCODERS = {
    "mlp": lambda e: networks.MLP(e, [6], hidden=[5, 4], activation="tanh"),
    "mlp, linear": lambda e: networks.MLP(e, [6], hidden=[]),
    "conv": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.Conv(e, [2, 3], channels=[2], activation="gelu"),
    "conv, three layers": lambda e: networks.Conv(e, [6], channels=[2, 2, 3], activation="silu"),
    "conv, batch norm": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh", batch_norm=True),
    "standardised": lambda e: networks.Chain(centred(e), networks.MLP(e, [6], [5], "tanh")),
}
DECODERS = {
    "mlp": lambda e: networks.MLP([3], e, hidden=[5, 4], activation="tanh"),
    "conv": lambda e: networks.TransposedConv([3], e, channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.TransposedConv([3], e, channels=[2], activation="elu"),
    "conv, batch norm": lambda e: networks.TransposedConv([3], e, [2, 3], activation="tanh", batch_norm=True),
}
NETS = {f"{n} {e}": (f, e, e, None) for n, f in ENCODERS.items() for e in IMAGES}
NETS |= {f"de-{n} {e}": (f, e, [3], e) for n, f in DECODERS.items() for e in IMAGES}


@pytest.mark.parametrize("key", NETS)
class TestNetworks:
    def test_shapes_rows_and_gradient(self, key):
        build, event, inputs, outputs = NETS[key]
        net = build(event).double()
        x = torch.randn(3, 4, *inputs, dtype=F64)
        y = net(x)
        assert y.dtype == F64
        assert y.shape[:2] == (3, 4)
        assert outputs is None or list(y.shape[2:]) == outputs
        reached(net, y.pow(3).sum())
        net.eval()
        y = net(x)
        torch.testing.assert_close(y, torch.stack([net(row) for row in x]))
        torch.testing.assert_close(y[0, 0], net(x[0, 0]))  # no leading dimension at all

    def test_round_trip(self, key):
        build, event, inputs, _ = NETS[key]
        net = build(event)
        again = construct(describe(net))
        again.load_state_dict(net.state_dict())
        x = torch.randn(4, *inputs)
        assert torch.equal(net.eval()(x), again.eval()(x))


def test_particles_are_rows_to_batch_norm():
    net = networks.Conv([1, 7, 9], [6], channels=[2, 3], batch_norm=True).double()
    other, x = copy.deepcopy(net), torch.randn(3, 4, 1, 7, 9, dtype=F64)
    torch.testing.assert_close(net(x), other(x.flatten(0, 1)).reshape(3, 4, 6))
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert net.body[1].num_batches_tracked == 1


@pytest.mark.parametrize("channels", [[2], [2, 3], [2, 3, 4]])
@pytest.mark.parametrize("image", IMAGES)
def test_decoder_mirrors_encoder(image, channels):
    """Images pass through the same sizes both ways."""

    def sizes(net, x, kind):
        found = []
        hooks = [m.register_forward_hook(lambda m, i, o: found.append((i[0].shape[1:], o.shape[1:]))) for m in net.body]
        net(x)
        for h in hooks:
            h.remove()
        return [s for s, m in zip(found, net.body, strict=True) if isinstance(m, kind)]

    inwards = sizes(networks.Conv(image, [4], channels), torch.zeros(2, *image), nn.Conv2d)
    outwards = sizes(networks.TransposedConv([4], image, channels), torch.zeros(2, 4), nn.ConvTranspose2d)
    assert [(o, i) for i, o in outwards[::-1]] == inwards


@pytest.mark.parametrize("name", networks.ACTIVATIONS)
def test_activations(name):
    assert networks.MLP([2], [2], activation=name)(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("rescale", [False, True])
def test_standardise(rescale):
    x = 3 + 2 * torch.randn(50, 2, 3, dtype=F64)
    y = networks.Standardise([2, 3]).double().to_data(x, rescale)(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2, 3, dtype=F64))
    torch.testing.assert_close(
        y.square().mean().sqrt(), x.new_ones(()) if rescale else (x - x.mean(0)).std(correction=0)
    )
    assert not list(networks.Standardise([2, 3]).parameters())


def test_standardise_constant_data():
    x = torch.full((5, 2), 7.0)
    assert torch.isfinite(networks.Standardise([2]).to_data(x, rescale=True)(x)).all()


# VAE.build, configs and messages


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("values", "levels", "expected"),
    [
        ("binary", None, "Bernoulli"),
        ("counts", 16, "Binomial"),
        ("unit", None, "ContinuousBernoulli"),
        ("real", None, "Normal"),
    ],
)
def test_build_fits_the_data(values, levels, expected, kind):
    vae = pv.models.VAE.build(Toy(values, levels=levels), latent=3, hidden=[4], network=kind)
    assert type(vae.likelihood).__name__ == expected
    assert levels is None or vae.likelihood.total_count == levels
    x = vae.likelihood(torch.randn(5, 3)).sample()
    assert x.shape == (5, *EVENT)
    assert pv.densities(vae, x, 2).log_weight.shape == (2, 5)
    assert (vae.posterior.network.first.scale != 1) == (values in ("counts", "real"))


def test_build_with_options():
    spec = {"class_path": "Normal", "init_args": {"scale": "per_pixel"}}
    vae = pv.models.VAE.build(Toy("unit"), latent=3, hidden=[4], likelihood=spec)
    assert vae.likelihood.scale == "per_pixel"
    assert vae.likelihood(torch.zeros(2, 3)).event_shape == tuple(EVENT)
    path = "pyrovae.likelihoods.Binomial"
    spec = {"class_path": path, "init_args": {"total_count": 4}}
    assert pv.models.VAE.build(Toy("counts", levels=16), likelihood=spec).likelihood.total_count == 4


@pytest.mark.parametrize("of", [torch.tensor, np.array])
def test_build_takes_a_tensor_as_fit_does(of):
    x = of([[2.0, 4.0], [4.0, 9.0]])
    vae = pv.models.VAE.build(x, latent=1)
    assert isinstance(vae.likelihood, likelihoods.Normal)
    assert vae.posterior.network.first.loc.tolist() == [3.0, 6.5]


def test_a_checkpoint_keeps_its_names():
    vae = pv.models.VAE.build(Toy(), latent=2, hidden=[3], network="mlp")
    encoder = [n.removeprefix("posterior.network.") for n in vae.state_dict() if n.startswith("posterior")]
    assert encoder == ["first.loc", "first.scale", *(f"then.body.{i}.{p}" for i in (1, 3) for p in ("weight", "bias"))]


def test_hidden_reads_from_the_data_inwards():
    vae = pv.models.VAE.build(Toy(), latent=3, hidden=[7, 5])
    assert [m.out_features for m in vae.posterior.network.then.body if isinstance(m, nn.Linear)] == [7, 5, 6]
    assert [m.out_features for m in vae.likelihood.network.body if isinstance(m, nn.Linear)] == [5, 7, 20]


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_vae_round_trip(name, kind):
    vae, x = small_vae(name, kind).double(), small_data(name)
    again = construct(describe(vae)).double()
    again.load_state_dict(vae.state_dict())
    assert describe(again) == describe(vae)
    outputs = []
    for v in (vae, again):
        torch.manual_seed(3)
        outputs.append(pv.densities(v, x, 3).log_weight)
    assert torch.equal(*outputs)


def test_describe_follows_a_swapped_part():
    vae = small_vae()
    vae.prior = priors.StandardNormal(7)
    assert construct(describe(vae)).prior.latent == 7


MESSAGES = {
    "latent": (lambda: priors.StandardNormal(-1), r"StandardNormal expects at least one .* got latent=-1"),
    "scale": (lambda: likelihoods.Normal(nn.Identity(), scale=-0.5), r"Normal expects a positive scale, got -0.5"),
    "scale, nan": (lambda: likelihoods.Normal(nn.Identity(), scale=math.nan), r"Normal expects a positive scale"),
    "scale, word": (
        lambda: likelihoods.Normal(nn.Identity(), scale="learnt"),
        r"Normal expects scale as a number, 'learned' or 'per_pixel', got 'learnt'",
    ),
    "count": (lambda: likelihoods.Binomial(nn.Identity(), 0), r"Binomial expects total_count of at least 1, got 0"),
    "activation": (
        lambda: networks.MLP([2], [2], activation="rellu"),
        r"unknown activation 'rellu'; did you mean 'relu'\? Known: elu, gelu",
    ),
    "activation, no match": (lambda: networks.MLP([2], [2], activation="x9"), r"unknown activation 'x9'; Known: elu"),
    "network": (
        lambda: pv.models.VAE.build(Toy(), network="cnv"),
        r"unknown network 'cnv'; did you mean 'conv'\? Known: conv, mlp",
    ),
    "likelihood": (
        lambda: pv.models.VAE.build(Toy(), likelihood="bernouli"),
        r"unknown likelihood 'bernouli'; did you mean 'Bernoulli'\? Known: Bernoulli",
    ),
    "prior": (
        lambda: pv.models.VAE.build(Toy(), prior="Standardnormal"),
        r"unknown prior 'Standardnormal'; did you mean 'StandardNormal'\?",
    ),
    "posterior": (
        lambda: pv.models.VAE.build(Toy(), posterior="DiagNormal"),
        r"unknown posterior 'DiagNormal'; did you mean 'DiagonalNormal'\?",
    ),
    "option": (
        lambda: pv.models.VAE.build(
            Toy("counts"), likelihood={"class_path": "Binomial", "init_args": {"count": 3}}, hidden=[3]
        ),
        r"Binomial does not take these options: .*'count'",
    ),
    "not a likelihood": (
        lambda: pv.models.VAE.build(Toy(), likelihood="pyrovae.priors.StandardNormal"),
        r"'pyrovae.priors.StandardNormal' is no likelihood; its class must be a pyrovae.likelihoods.Likelihood",
    ),
    "sizes": (lambda: networks.MLP([0], [2]), r"MLP expects inputs as positive sizes, got \[0\]; give a list"),
    "sizes, none": (
        lambda: networks.MLP([2], []),
        r"MLP expects outputs as positive sizes, got \[\]; give scalars as \[1\]",
    ),
    "sizes, a number": (lambda: networks.MLP(3, [2]), r"MLP expects inputs as positive sizes, got 3; give a list"),
    "sizes, event": (lambda: networks.Standardise([]), r"Standardise expects event as positive sizes, got \[\]"),
    "hidden, a number": (
        lambda: pv.models.VAE.build(Toy(), hidden=5),
        r"MLP expects hidden as positive sizes, got 5; give a list of whole numbers",
    ),
    "hidden, none": (
        lambda: pv.models.VAE.build(Toy(), hidden=[0]),
        r"MLP expects hidden as positive sizes, got \[0\]; give a list of whole numbers",
    ),
    "hidden, conv": (
        lambda: pv.models.VAE.build(Toy(), hidden=[2.5], network="conv"),
        r"Conv expects channels as positive sizes, got \[2.5\]",
    ),
    "channels": (lambda: networks.TransposedConv([2], [1, 4, 4], 3), r"TransposedConv expects channels as .* got 3"),
    "latent, build": (
        lambda: pv.models.VAE.build(Toy(), latent=2.7),
        r"VAE.build expects latent of at least 1, got 2.7; give a whole number",
    ),
    "an object for a name": (
        lambda: pv.models.VAE.build(Toy(), prior=priors.StandardNormal(3)),
        r"VAE.build expects prior as a name or .*, got an object of class StandardNormal; VAE\(prior, .* takes objects",
    ),
    "no class path": (
        lambda: pv.models.VAE.build(Toy(), likelihood={"scale": 1}),
        r"VAE.build expects likelihood as a name or .*, got {'scale': 1}",
    ),
    "no data": (
        lambda: pv.models.VAE.build("digits"),
        r"VAE.build expects data as a Dataset or a tensor \[N, \*event\], got str; make one by pv.data.load",
    ),
    "scalars": (
        lambda: pv.models.VAE.build(torch.randn(9)),
        r"VAE.build expects events of at least one dimension, got scalars \[N\]; give x\[:, None\]",
    ),
    "minimum scale": (
        lambda: likelihoods.Normal(nn.Identity(), minimum_scale=-1),
        r"Normal expects minimum_scale of at least 0, got -1",
    ),
    "no image": (lambda: networks.Conv([20], [2]), r"Conv expects images \[C, H, W\], got events of shape \[20\]"),
    "no image out": (lambda: networks.TransposedConv([2], [20]), r"TransposedConv expects images \[C, H, W\]"),
    "event": (
        lambda: networks.MLP([1, 5, 4], [2])(torch.zeros(3, 1, 4, 5)),
        r"MLP expects events of shape \[1, 5, 4\], got a tensor of shape \[3, 1, 4, 5\]",
    ),
    "describe": (
        lambda: describe(pv.models.VAE(priors.StandardNormal(2), nn.Identity(), nn.Identity())),
        r"model.likelihood is a Identity, which pyrovae cannot rebuild",
    ),
    "construct": (
        lambda: construct({"class_path": "pyrovae.networks.MLP", "init_args": {"inputs": [2], "outs": [2]}}),
        r"model: pyrovae.networks.MLP does not take these arguments",
    ),
    "construct, name": (
        lambda: construct({"class_path": "pyrovae.networks.MPL"}),
        r"'pyrovae.networks.MPL' is not a class; did you mean 'MLP'\?",
    ),
    "construct, module": (lambda: construct({"class_path": "nowhere.MLP"}), r"cannot import 'nowhere.MLP'"),
    "construct, no module": (
        lambda: construct({"class_path": "pathlib.Path", "init_args": {}}),
        r"model names 'pathlib.Path', which is not a torch module",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    build, message = MESSAGES[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_event_shape_of_data():
    with pytest.raises(
        ValueError, match=r"MLP expects events of shape \[1, 5, 4\], got a tensor of shape \[4, 1, 4, 5\]"
    ):
        pv.densities(small_vae().double(), torch.zeros(4, 1, 4, 5, dtype=F64))


def test_the_bernoulli_s_density_takes_every_transform():
    """Second derivatives, and vmap over the logits, the data, or the gradients."""
    logits, x = torch.randn(4, 5, dtype=F64), (torch.rand(4, 5, dtype=F64) < 0.5).to(F64)

    def density(logits, x):
        return likelihoods.Bernoulli(nn.Identity()).distribution(logits, 1).log_prob(x)

    exact = x * logits - torch.nn.functional.softplus(logits)
    slope = torch.diag_embed((x - logits.sigmoid()).flatten()).unflatten(0, (4, 5)).unflatten(-1, (4, 5))
    for over in ((0, 0), (None, 0), (0, None)):
        rows = [t[0] if d is None else t for t, d in zip((logits, x), over, strict=True)]
        found = torch.func.vmap(density, in_dims=over)(*rows)
        torch.testing.assert_close(found, density(*torch.broadcast_tensors(*rows)))
    torch.testing.assert_close(density(logits, x), exact)
    torch.testing.assert_close(torch.func.jacrev(density)(logits, x), slope)
    again = torch.autograd.functional.jacobian(lambda t: density(t, x), logits, vectorize=True)
    torch.testing.assert_close(again, slope)
    torch.autograd.gradgradcheck(lambda t: density(t, x), logits.clone().requires_grad_())
