"""Likelihoods: one table of constructors (pieces.LIKELIHOODS), one suite of properties."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import reached
from pieces import (
    EVENT,
    F64,
    LEADING,
    LIKELIHOODS,
    L,
    Output,
    small_data,
    small_likelihood,
    small_network,
)
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae import likelihoods
from pyrovae.config import construct, describe


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
        cls, options, _ = LIKELIHOODS[name]
        net = small_network(L, cls.decoded(EVENT, **options))
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
