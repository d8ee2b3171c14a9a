"""Likelihoods: one table of constructors (pieces.LIKELIHOODS), one suite of properties."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import reached, z_test
from pieces import (
    EVENT,
    F64,
    LEADING,
    LIKELIHOODS,
    LINES,
    L,
    Output,
    Toy,
    small_data,
    small_likelihood,
    small_network,
    small_vae,
)
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.config import construct, describe
from pyrovae.distributions import continuous, counts


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihoods:
    @pytest.mark.parametrize("leading", LEADING)
    def test_shapes_and_support(self, name, leading):
        p = small_likelihood(name).double()(torch.randn(*leading, L, dtype=F64))
        assert (p.batch_shape, p.event_shape) == (leading, tuple(EVENT))
        x = p.sample()
        assert x.shape == (*leading, *EVENT)
        assert x.dtype == F64
        assert p.support.check(x).all()
        assert p.log_prob(x).shape == leading

    @pytest.mark.parametrize("event", [[6], [2, 3], [3, 2, 2]])
    def test_any_event(self, name, event):
        p = small_likelihood(name, event)(torch.randn(3, 4, L))
        assert (p.batch_shape, p.event_shape) == ((3, 4), tuple(event))

    def test_leading_dimensions_are_rows(self, name):
        p, z = small_likelihood(name).double(), torch.randn(3, 4, L, dtype=F64)
        x = small_data(name, 4)
        torch.testing.assert_close(p(z).log_prob(x), torch.stack([p(row).log_prob(x) for row in z]))

    def test_samples_have_the_mean(self, name):
        p = small_likelihood(name).double()(torch.randn(1, L, dtype=F64))
        draws = p.sample((4000,))[:, 0]
        error = (draws.mean(0) - p.mean[0]) / (draws.std(0) / math.sqrt(len(draws)))
        assert error.abs().max() < 6  # fails once in 1e7

    def test_gradient_reaches_every_parameter(self, name):
        module = small_likelihood(name)
        reached(module, module(torch.randn(3, 4, L)).log_prob(small_data(name, dtype=torch.float32)).sum())

    def test_gradient_reaches_the_latent(self, name):
        z = torch.randn(4, L, requires_grad=True)
        small_likelihood(name)(z).log_prob(small_data(name, dtype=torch.float32)).sum().backward()
        assert (z.grad != 0).all()

    def test_round_trip(self, name):
        module, z, x = small_likelihood(name), torch.randn(4, L), small_data(name, dtype=torch.float32)
        again = construct(describe(module))
        again.load_state_dict(module.state_dict())
        assert torch.equal(again(z).log_prob(x), module(z).log_prob(x))

    def test_decoder_in_lower_precision(self, name):
        """Under autocast the decoder may return half precision: densities are still taken in full."""
        cls, options, *_ = LIKELIHOODS[name]
        net = small_network(L, cls.decoded(EVENT, **options))
        half = nn.Sequential(net)
        half.register_forward_hook(lambda m, i, out: out.bfloat16())
        assert cls(half, **options)(torch.randn(4, L)).log_prob(small_data(name, dtype=torch.float32)).dtype is (
            torch.float32
        )


def test_a_decoder_begins_at_the_mean():
    told = []
    for name in LIKELIHOODS:
        p, x = small_likelihood(name).double(), small_data(name, 50)
        start = p.start(x.mean(0))
        if start is None:
            continue
        told.append(type(p))
        begun = p.distribution(start, len(EVENT))
        torch.testing.assert_close(begun.mean, x.mean(0), atol=0.01 * x.max().item(), rtol=0.0)  # moved away from 0, 1
    assert set(told) == {likelihoods.Bernoulli, likelihoods.Binomial}


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


def test_the_mean_of_the_continuous_bernoulli_is_accurate_in_float32():
    logits = torch.cat([s * torch.logspace(-6, 3, 2001, dtype=F64) for s in (-1, 1)] + [torch.zeros(1, dtype=F64)])
    y = logits.clone().requires_grad_()
    mean = likelihoods.ContinuousBernoulli(Output(y))(torch.zeros(1, L, dtype=F64)).mean
    short = likelihoods.ContinuousBernoulli(Output(y.detach().float()))(torch.zeros(1, L)).mean
    torch.testing.assert_close(short.double(), mean.detach(), rtol=0.0, atol=3e-7)
    (slope,) = torch.autograd.grad(mean.sum(), y)  # of the mean by the logit: the variance of x
    variance = 1 / logits.square() - 0.25 / torch.sinh(logits / 2).square()
    torch.testing.assert_close(slope[logits.abs() > 0.1], variance[logits.abs() > 0.1], rtol=1e-6, atol=1e-12)
    assert slope[logits == 0] == pytest.approx(1 / 12)
    # Gauss-Legendre on pieces that shrink towards both ends, where large logits have their mass
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(40))
    for logit in (-30.0, -0.99, -0.01, 0.5, 1.01, 12.0):
        p = likelihoods.ContinuousBernoulli(Output(torch.tensor([logit])))(torch.zeros(1, L, dtype=F64))
        total = 0.0
        for a, b in itertools.pairwise(torch.tensor([0, 0.02, 0.1, 0.5, 0.9, 0.98, 1], dtype=F64)):
            x = (a + b) / 2 + (b - a) / 2 * nodes
            total += ((b - a) / 2 * weights * x * p.log_prob(x[:, None]).exp()).sum()
        assert total == pytest.approx(p.mean.item(), abs=1e-8)


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
    cls, options, *_ = LIKELIHOODS[name]
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


class Rows(nn.Module):
    """A decoder whose output is given for every row."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y

    def forward(self, z: Tensor) -> Tensor:
        return self.y


def with_output(name: str, y: Tensor, event: list[int] | None = None) -> Any:
    """p(x | z) of the likelihood of this name where the decoder returns y [n, *decoded], in y's dtype."""
    module = small_likelihood(name, event or [1]).to(y.dtype)
    module.network = Rows(y)
    return module(y.new_zeros(len(y), L))


def waves(x: Tensor) -> Tensor:
    """Bounded functions whose means tell the distributions of numbers apart: [*, 1] -> [*, m]."""
    rates = torch.tensor([0.3, 1.0, 2.0, 5.0, 11.0], dtype=x.dtype)
    return torch.cat([(rates * x).sin(), (rates * x).cos()], -1)


LINE_CASES = [name for name, case in LIKELIHOODS.items() if case.space in LINES]
ACCURACY = {"Laplace": 2e-4, "Laplace per pixel": 2e-4}  # of the quadrature, for a density with a kink


@pytest.mark.parametrize("name", LINE_CASES)
class TestDensities:
    def some(self, name: str, n: int = 4) -> Any:
        torch.manual_seed(3)
        module = small_likelihood(name, [1]).double()
        if name == "Beta":  # float64 has no numbers as near to 1 as half the mass of low concentrations is
            module.network.register_forward_hook(lambda m, i, y: y + torch.tensor([0.0, 4.0]))
        return module(2 * torch.randn(n, L, dtype=F64))

    def test_integrates_to_one(self, name):
        x, w = LINES[LIKELIHOODS[name].space]()
        total = w @ self.some(name).log_prob(x[:, None, None]).exp()
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=ACCURACY.get(name, 1e-9))

    def test_draws_have_the_density(self, name):
        """Not their mean alone: sines and cosines of draws against those of the density."""
        x, w = LINES[LIKELIHOODS[name].space]()
        p = self.some(name, 1)
        expected = (w * p.log_prob(x[:, None, None]).exp()[:, 0]) @ waves(x[:, None])
        z_test(waves(p.sample((20_000,))[:, 0]), expected)

    def test_expanded_is_the_same(self, name):
        p = self.some(name)
        many = p.expand([3, 4])
        x = many.sample()
        assert x.shape == (3, 4, 1)
        torch.testing.assert_close(many.log_prob(x), p.log_prob(x), rtol=1e-12, atol=1e-12)
        assert torch.equal(many.mean[1], p.mean)


EXTREMES = torch.tensor([-1e4, -100.0, -30.0, -9.0, -1.0, -1e-4, 0.0, 1e-3, 2.0, 15.9, 16.1, 30.0, 100.0, 1e4])
ENDS = {
    "reals": [-1e4, 0.0, 1e-6, 1e4],
    "unit": [1e-30, 1e-3, 0.5, 1 - 2**-24],
    "coins": [0.0, 1.0],
    "17 counts": [0.0, 1.0, 16.0],
    "counts": [0.0, 1.0, 7.0, 8.0, 300.0, 1e5, 1e7],
    "documents": [0.0, 1.0, 300.0, 1e5],
    "grey": [0.0, 1 / 16, 1.0],
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_extremes_are_finite_in_float32(name):
    """Any output of a decoder, any datum: the log density and its gradient are numbers, and so are draws and mean."""
    cls, options, _, space = LIKELIHOODS[name]
    size = cls.decoded([1], **options)[0]
    y = EXTREMES[torch.randint(len(EXTREMES), (2000, size))].requires_grad_()
    p = with_output(name, y)
    for x in ENDS[space]:
        log_p = p.log_prob(torch.full((2000, 1), x))
        assert torch.isfinite(log_p).all(), x
        (slope,) = torch.autograd.grad(log_p.sum(), y, retain_graph=True)
        assert torch.isfinite(slope).all(), x
    draws = p.sample()
    assert torch.isfinite(draws).all()
    assert p.support.check(draws).all()
    assert torch.isfinite(p.mean).all()


REFERENCES = {
    "Poisson": lambda y, x: stats.poisson.logpmf(x, np.exp(y)),
    "NegativeBinomial": lambda y, x: stats.nbinom.logpmf(x, R, R / (R + np.exp(y))),
    "ZeroInflatedPoisson": lambda y, x: inflated(x, stats.poisson.logpmf(x, np.exp(y))),
    "ZeroInflatedNegativeBinomial": lambda y, x: inflated(x, stats.nbinom.logpmf(x, R, R / (R + np.exp(y)))),
}


def inflated(x: Any, log_p: Any) -> Any:
    """The log mass with a gate that is open in three cases of ten."""
    return np.where(x == 0, np.log(0.3 + 0.7 * np.exp(log_p)), np.log(0.7) + log_p)


R = math.log(2) + 1e-4  # softplus(0) and the smallest


@pytest.mark.parametrize("name", REFERENCES)
def test_counts_against_scipy(name):
    y, x = torch.meshgrid(torch.linspace(-6, 7, 27, dtype=F64), torch.arange(40, dtype=F64), indexing="ij")
    out = y.reshape(-1, 1)
    if name.startswith("Zero"):
        out = torch.cat([out, torch.full_like(out, math.log(3 / 7))], 1)
    found = with_output(name, out).log_prob(x.reshape(-1, 1))
    expected = torch.as_tensor(REFERENCES[name](y.numpy(), x.numpy())).reshape(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def _accuracy(exact: Any, build: Any, *parameters: Tensor, x: Tensor) -> float:
    """The largest error in float32 of a log density, whose parameters and data are float32 numbers."""
    found = build(*parameters).log_prob(x).double()
    return float((found - torch.as_tensor(exact(*(t.double().numpy() for t in (*parameters, x))))).abs().max())


def test_large_counts_are_accurate_in_float32():
    """Every count counts: a thousand genes, each wrong by 5e-3, would be five nats; torch's are."""
    log_rate = torch.linspace(5, 12, 200)
    x = (log_rate.exp() * (1 + 0.1 * torch.linspace(-1, 1, 200))).round()

    def poisson(log_rate, x):
        return stats.poisson.logpmf(x, np.exp(log_rate))

    def theirs(log_rate):
        return dist.Poisson(log_rate.exp())

    assert _accuracy(poisson, theirs, log_rate, x=x) > 1e-2
    away = (x - log_rate.exp()).abs().max()
    assert _accuracy(poisson, counts.Poisson, log_rate, x=x) < 1e-6 * 12 * away  # what log λ itself is known to
    x = log_rate.exp().round()
    assert _accuracy(poisson, counts.Poisson, log_rate, x=x) < 1e-5
    for r in (0.01, 1.0, 1e3, 1e6):

        def negative_binomial(log_mean, r, x):
            # around the mean, where scipy's own formula is exact enough in float64
            return stats.nbinom.logpmf(x, r, r / (r + np.exp(log_mean)))

        error = _accuracy(negative_binomial, counts.NegativeBinomial, log_rate, torch.full_like(x, r), x=x)
        assert error < 1e-4, r


def test_beta_and_student_are_accurate_in_float32():
    a, b = torch.cartesian_prod(*[torch.logspace(-2, 5, 15)] * 2).T
    x = (a / (a + b)).clamp(0.05, 0.95)

    def beta(a, b, x):
        return stats.beta.logpdf(x, a, b)

    kept = (torch.as_tensor(beta(*(t.double().numpy() for t in (a, b, x)))) > -50).nonzero()[:, 0]
    a, b, x = a[kept], b[kept], x[kept]
    assert _accuracy(beta, dist.Beta, a, b, x=x) > 1e-2
    assert _accuracy(beta, continuous.Beta, a, b, x=x) < 2e-4
    df, y = torch.cartesian_prod(torch.logspace(-1, 6, 15), torch.linspace(-6, 6, 13)).T
    zero, one = torch.zeros_like(df), torch.ones_like(df)

    def student(df, loc, scale, x):
        return stats.t.logpdf(x, df)

    assert _accuracy(student, dist.StudentT, df, zero, one, x=y) > 1e-3
    assert _accuracy(student, continuous.StudentT, df, zero, one, x=y) < 1e-5


@pytest.mark.parametrize("distribution", ["NegativeBinomial", "Beta", "StudentT", "Poisson"])
def test_gradients_of_densities(distribution):
    """Through every branch of the special functions, on both sides of their borders."""
    near = torch.tensor([0.01, 0.7, 3.0, 7.9, 8.1, 40.0, 1e3], dtype=F64)
    a, b = (t.clone().requires_grad_() for t in torch.cartesian_prod(near, near).T)
    x = torch.tensor([0.0, 1.0, 7.0, 8.0, 900.0], dtype=F64)[:, None]
    functions = {
        "NegativeBinomial": lambda a, b: counts.NegativeBinomial(a.log(), b).log_prob(x),
        "Poisson": lambda a, b: counts.Poisson(a.log()).log_prob(x) + 0 * b,
        "Beta": lambda a, b: continuous.Beta(a, b).log_prob((x + 1) / 902),
        "StudentT": lambda a, b: continuous.StudentT(a, b, 1 + b).log_prob(x),
    }
    assert torch.autograd.gradcheck(functions[distribution], (a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [continuous.Beta, lambda a, b: continuous.StudentT(2 + 3 * a, b, a)])
def test_gradients_pass_through_draws(build):
    """d/dθ E[f] by draws against the difference of quadratures."""
    x, w = LINES["unit" if build is continuous.Beta else "reals"]()

    def mean(a, b):
        return w @ (build(a, b).log_prob(x).exp() * (2 * x).sin())

    a, b = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.4, 1.3))
    exact = torch.stack(torch.autograd.grad(mean(a, b), (a, b)))
    many = [t.detach().expand(20_000).clone().requires_grad_() for t in (a, b)]
    draws = build(*many).rsample()
    z_test(torch.stack(torch.autograd.grad((2 * draws).sin().sum(), many), 1), exact)


def test_student_at_its_limits():
    """Gauss's for many degrees of freedom; no mean at one, where a reconstruction is a draw."""
    x, zero = torch.linspace(-5, 5, 11, dtype=F64), torch.zeros((), dtype=F64)
    many = continuous.StudentT(zero + 1e12, zero, zero + 2).log_prob(x)
    torch.testing.assert_close(many, dist.Normal(zero, 2.0).log_prob(x), rtol=1e-9, atol=1e-9)
    cauchy = likelihoods.StudentT(small_network(L, [3]), df=1)(torch.zeros(4, L))
    with pytest.raises(NotImplementedError):
        _ = cauchy.mean


def test_numbers_on_the_ends_have_no_beta_density():
    p = likelihoods.Beta(small_network(L, [6]))(torch.zeros(1, L))
    assert p.support.check(torch.tensor([[0.1, 0.5, 0.9]])).all()
    for end in (0.0, 1.0):
        assert not p.support.check(torch.tensor([[0.1, 0.5, end]])).all()


def test_beta_has_the_mean_and_the_precision_of_the_decoder():
    p = with_output("Beta", torch.tensor([[math.log(3.0), 5.0]], dtype=F64)).base_dist
    torch.testing.assert_close(p.mean.item(), 0.75, rtol=1e-5, atol=0)
    total = p.concentration1 + p.concentration0
    assert total.item() == pytest.approx(math.log1p(math.exp(5)), rel=1e-4)


def test_rates_grow_on_without_overflow():
    """log λ is the output up to 16; there the rate's slope is kept, not its logarithm's."""
    y = torch.tensor([-3.0, 15.9, 16.0, 17.0, 116.0], dtype=F64, requires_grad=True)
    rate = with_output("Poisson", y[:, None]).mean[:, 0]
    expected = [math.exp(-3), math.exp(15.9), *(math.exp(16) * n for n in (1, 2, 101))]
    torch.testing.assert_close(rate, torch.tensor(expected, dtype=F64))
    (slope,) = torch.autograd.grad(rate.log().sum(), y)
    assert (slope > 0).all()


def test_dispersion_per_feature_is_one_for_all_data():
    module = small_likelihood("ZeroInflatedNegativeBinomial", [3, 2])
    assert module.raw_dispersion.shape == (3, 2)
    r = module(torch.randn(5, L)).base_dist.base.dispersion
    assert (r == r[0]).all()
    assert likelihoods.NegativeBinomial(nn.Sequential(small_network(L, [4]))).raw_dispersion.shape == (4,)
    with pytest.raises(ValueError, match=r"NegativeBinomial expects a decoder that tells .* got Linear; use a network"):
        likelihoods.NegativeBinomial(nn.Linear(L, 4))
    assert likelihoods.NegativeBinomial(nn.Linear(L, 4), dispersion="learned")(torch.zeros(3, L)).event_shape == (4,)


# Bags of words


def compositions(total: int, parts: int) -> Tensor:
    """All counts of this many words over this many kinds."""
    grid = torch.cartesian_prod(*[torch.arange(total + 1, dtype=F64)] * parts)
    return grid[grid.sum(-1) == total]


@pytest.mark.parametrize("total", [0, 1, 4, 7])
def test_documents_of_every_length_have_masses_that_sum_to_one(total):
    p = with_output("Multinomial", torch.randn(1, 3, dtype=F64), [3])
    x = compositions(total, 3)
    log_p = p.log_prob(x)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    if total:
        logits = p.logits[0]
        torch.testing.assert_close(log_p, dist.Multinomial(total, logits=logits).log_prob(x))


def test_documents_are_drawn_with_the_masses():
    p = with_output("Multinomial", torch.randn(1, 3, dtype=F64), [3])
    x = compositions(7, 3)
    rates = torch.tensor([[0.3, 1.0, 2.0], [1.0, -0.5, 0.2], [3.0, 2.0, 1.0]], dtype=F64)
    draws = p.sample((20_000,))[:, 0]
    assert (draws.sum(-1) == 7).all()
    z_test((draws @ rates).cos(), p.log_prob(x).exp() @ (x @ rates).cos())


# Levels


def naive(y: Tensor, x: Tensor, levels: int) -> Tensor:
    """The mixture's mass as the paper writes it, by differences of distribution functions, for [3] channels."""
    y = y.unflatten(0, (10, -1))  # [10, K]
    u = 2 * x - 1
    logits, loc, raw, a = y[0], y[1:4], y[4:7], y[7:].tanh()
    floor = math.log(2 / (levels - 1) / 8)
    scale = (floor + torch.nn.functional.softplus(raw - floor)).exp()
    means = [loc[0], loc[1] + a[0] * u[0], loc[2] + a[1] * u[0] + a[2] * u[1]]
    total = torch.ones_like(logits)
    for m, s, v in zip(means, scale, u, strict=True):
        up = torch.where(v > 0.999, 1.0, ((v + 1 / (levels - 1) - m) / s).sigmoid())
        down = torch.where(v < -0.999, 0.0, ((v - 1 / (levels - 1) - m) / s).sigmoid())
        total = total * (up - down)
    return (logits.softmax(0) @ total).log()


def test_mixture_is_the_papers():
    """Three channels, each conditional on those before it, of one component for all of them."""
    y = torch.randn(10 * 4, dtype=F64)
    likelihood = likelihoods.DiscretisedLogisticMixture(Output(y[:, None, None]), components=4, levels=5)
    x = torch.cartesian_prod(*[torch.arange(5, dtype=F64) / 4] * 3)  # one pixel
    log_p = likelihood(torch.zeros(1, L, dtype=F64)).log_prob(x[..., None, None])
    torch.testing.assert_close(log_p, torch.stack([naive(y, row, 5) for row in x]), rtol=1e-9, atol=1e-9)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_mixture_draws_colours_together():
    y = 2 * torch.randn(10 * 4, dtype=F64)
    likelihood = likelihoods.DiscretisedLogisticMixture(Output(y[:, None, None]), components=4, levels=5)
    p = likelihood(torch.zeros(1, L, dtype=F64))
    x = torch.cartesian_prod(*[torch.arange(5, dtype=F64) / 4] * 3)
    rates = torch.randn(3, 6, dtype=F64) * 4
    expected = p.log_prob(x[..., None, None]).exp() @ (x @ rates).cos()
    z_test((p.sample((20_000,))[:, 0, :, 0, 0] @ rates).cos(), expected)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-4), (F64, 1e-10)])
def test_mixture_sums_to_one_over_256_levels(dtype, accuracy):
    """At every mean and scale, the extreme ones, too."""
    loc = torch.tensor([-1e3, -3.0, -1.0, -0.999, -0.3, 0.0, 1 / 255, 0.5, 1.0, 2.0, 1e3], dtype=dtype)
    scale = torch.tensor([-1e3, -7.0, -5.0, -3.0, 0.0, 3.0, 10.0, 50.0, 1e3], dtype=dtype)
    loc, scale = torch.cartesian_prod(loc, scale).T
    y = torch.stack([torch.zeros_like(loc), loc, scale], -1)
    likelihood = likelihoods.DiscretisedLogisticMixture(small_network(L, [3]), components=1)
    likelihood.network = Rows(y)
    p = likelihood(y.new_zeros(len(y), L))
    x = torch.arange(256, dtype=dtype) / 255
    mass = p.log_prob(x[:, None, None]).exp()
    assert torch.isfinite(p.log_prob(x[:, None, None])).all()
    assert (mass.sum(0) - 1).abs().max() < accuracy
    torch.testing.assert_close(p.mean[:, 0], x @ mass, rtol=0, atol=accuracy)


@pytest.mark.parametrize("name", ["Categorical", "DiscretisedLogisticMixture"])
def test_bytes_are_on_the_grid(name):
    """k / 255 as float32 rounds it is a level; half a level more is none."""
    cls = getattr(likelihoods, name)
    p = cls(small_network(L, cls.decoded([256])))(torch.zeros(1, L))
    x = (torch.arange(256, dtype=torch.uint8).to(torch.float32) / 255)[None]
    assert p.support.check(x).all()
    assert not p.support.check(x + 0.5 / 255).all()
    assert not p.support.check(x + 1 / 255).all()
    assert not p.support.check(x * torch.nan).any()


def test_colours_have_no_mean_and_are_drawn_instead():
    cls, options = likelihoods.DiscretisedLogisticMixture, {"components": 2, "levels": 4}
    event = [3, 2, 2]
    module = cls(small_network(L, cls.decoded(event, **options)), **options)
    with pytest.raises(NotImplementedError):
        _ = module(torch.zeros(1, L)).mean
    posterior = pv.posteriors.DiagonalNormal(small_network(event, [2 * L]))
    vae = pv.models.VAE(pv.priors.StandardNormal(L), module, posterior)
    x = (4 * torch.rand(5, *event)).floor() / 3
    again = pv.reconstruct(vae, x)
    assert module(torch.zeros(1, L)).support.check(again).all()
    assert torch.equal(again, pv.reconstruct(vae, x))
    assert not torch.equal(again, pv.reconstruct(vae, x, seed=1))


def test_a_decoder_of_another_size_is_refused():
    module = likelihoods.DiscretisedLogisticMixture(small_network(L, [35, 2, 2]))
    with pytest.raises(ValueError, match=r"expects a decoder's output of shape decoded\(event\), .*got 7 times"):
        module(torch.zeros(1, L))


BITS = {"Categorical": True, "DiscretisedLogisticMixture": True, "Binomial": False, "Normal learned": False}


@pytest.mark.parametrize("name", BITS)
def test_bits_per_dimension(name):
    """−log p(x) / (D log 2), of masses over levels alone."""
    vae, x = small_vae(name), small_data(name, 6, dtype=torch.float32)
    for ev in (pv.evaluate(vae, x, particles=20), pv.anneal(vae, x, chains=2, steps=3)):
        if not BITS[name]:
            assert ev.bits_per_dimension is None
            continue
        assert ev.bits_per_dimension == pytest.approx(-ev.log_evidence_mean / (20 * math.log(2)))
    figures = pv.evaluate(vae, x, particles=20).to_dict()
    assert ("bits_per_dimension" in figures) is BITS[name]


def test_uniform_bytes_are_eight_bits():
    module = likelihoods.Categorical(small_network(L, likelihoods.Categorical.decoded([3])))
    for p in module.parameters():
        nn.init.zeros_(p)
    vae = pv.models.VAE(pv.priors.StandardNormal(L), module, pv.posteriors.DiagonalNormal(small_network([3], [2 * L])))
    x = torch.randint(256, (4, 3)).float() / 255
    assert pv.densities(vae, x, 5).log_likelihood[0, 0].item() == pytest.approx(-3 * 8 * math.log(2), rel=1e-6)


OPTIONS = {
    "counts": {"levels": 17, "maximum": 16.0},
    "unit": {"levels": 256, "maximum": 1.0},
    "binary": {"levels": 2, "maximum": 1.0},
}


@pytest.mark.parametrize("name", ["Categorical", "DiscretisedLogisticMixture"])
@pytest.mark.parametrize("values", OPTIONS)
def test_levels_are_those_of_the_data(name, values):
    data = Toy(values, levels=16 if values == "counts" else None)
    built = pv.models.VAE.build(data, latent=2, hidden=[3], likelihood=name).likelihood
    assert {k: getattr(built, k) for k in ("levels", "maximum")} == OPTIONS[values]
    for given, levels in ((5, 5), (256, 256), (None, OPTIONS[values]["levels"])):
        spec = {"class_path": name, "init_args": {"levels": given}}
        assert pv.models.VAE.build(data, latent=2, hidden=[3], likelihood=spec).likelihood.levels == levels


def test_draws_are_as_long_as_the_documents():
    lengths = torch.tensor([3.0, 8.0, 100.0, 4.0])
    x = torch.stack([lengths, torch.ones(4)], 1)
    assert pv.models.VAE.build(x, latent=2, hidden=[3], likelihood="Multinomial").likelihood.total_count == 30
    assert pv.models.VAE.build(0 * x, latent=2, hidden=[3], likelihood="Multinomial").likelihood.total_count == 1
