"""The semi-amortised posterior: what its steps reach, and the gradient through them."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn as nn
from conftest import F64, check_trace, fake_cuda, gradients, reached
from pieces import EVENT, PRIORS, small_data, small_network, small_vae

import pyrovae as pv
from pyrovae import networks, posteriors, priors
from pyrovae.posteriors.semi_amortised import signs


def linear(**options) -> pv.models.LinearGaussian:
    """A linear Gaussian model, where the ELBO and p(z | x) are known, and an encoder that knows nothing."""
    q = posteriors.SemiAmortised(networks.MLP([6], [6], [8]), **options)
    vae = pv.models.LinearGaussian([6], 3, posterior=q)
    with torch.no_grad():
        vae.weight.mul_(8)
    q.attach(vae)
    return vae.double()


class TestLinearGaussian:
    @pytest.mark.parametrize("points", [2, 4, 8, 100])
    def test_bound_rises_with_every_step(self, points):
        vae, x = linear(points=points), torch.randn(20, 6, dtype=F64)
        found = []
        for steps in range(12):
            vae.posterior.steps = steps
            code = vae.posterior.refined(x, vae.posterior.network(x))
            found.append(vae.posterior.elbo(x, code))
        found = torch.stack(found)
        assert (found.diff(dim=0) >= 0).all()  # for every datum
        assert (found[-1] - found[0] > 0.1).all()

    def test_bound_is_the_elbo(self):
        """For a quadratic log density the points are exact, up to the constant of the entropy."""
        vae, x = linear(points=8, steps=3), torch.randn(20, 6, dtype=F64)
        code = vae.posterior.refined(x, vae.posterior.network(x))
        torch.testing.assert_close(vae.posterior.elbo(x, code) + 1.5 * math.log(2 * math.pi * math.e), vae.elbo(x))

    def test_many_steps_reach_the_best_gaussian(self):
        """The mean of p(z | x), and the scales of the factorised q that is nearest."""
        vae, x = linear(points=8, steps=200), torch.randn(5, 6, dtype=F64)
        exact, q = vae.true_posterior(x), vae.posterior(x)
        torch.testing.assert_close(q.mean, exact.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            q.variance, 1 / exact.precision_matrix.diagonal(dim1=-2, dim2=-1).expand(5, 3), rtol=1e-6, atol=1e-6
        )

    @pytest.mark.parametrize("step_size", [1e-3, 1.0, 1e3])
    def test_no_step_size_makes_it_worse(self, step_size):
        vae, x = linear(points=8, step_size=step_size, steps=6), torch.randn(20, 6, dtype=F64)
        after = vae.elbo(x)
        vae.posterior.steps = 0
        assert (after >= vae.elbo(x) - 1e-12).all()


def test_refined_bound_is_no_worse_than_the_encoders():
    vae, x = small_vae(posterior="SemiAmortised").double(), small_data(n=30)
    found = []
    for steps in (0, 1, 5):
        vae.posterior.steps = steps
        torch.manual_seed(0)
        found.append(pv.densities(vae, x, 2000).log_weight.mean().item())
    assert found[0] < found[1] < found[2]


def test_gradient_is_the_exact_one():
    """By finite differences of the bound after the steps, for encoder, decoder and what the prior learns."""
    torch.manual_seed(2)
    vae, x = small_vae(posterior="SemiAmortised", event=[3]).double(), small_data(event=[3])
    vae.prior = priors.Flow(2, "MAF", 1, hidden=[3]).double()

    def bound() -> torch.Tensor:
        torch.manual_seed(4)
        return pv.objectives.ELBO(3)(vae, x).bound.sum()

    torch.manual_seed(4)
    found = gradients(vae, pv.objectives.ELBO(3)(vae, x).surrogate.sum())
    for name, p in vae.named_parameters():
        if p.numel() == 0 or not name.endswith(("bias", "2.weight", "3.weight")):
            continue
        step, at = 1e-5, int(found[name].abs().argmax())
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                p.view(-1)[at] += sign * step
                ends.append(bound())
                p.view(-1)[at] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found[name].flatten()[at], slope, rtol=1e-5, atol=1e-7)


def test_steps_are_taken_without_gradients_too():
    vae, x = small_vae(posterior="SemiAmortised").double(), small_data()
    q = vae.posterior(x)
    with torch.no_grad():
        quiet = vae.posterior(x)
    assert q.mean.requires_grad
    assert not quiet.mean.requires_grad
    torch.testing.assert_close(quiet.mean, q.mean)
    torch.testing.assert_close(quiet.stddev, q.stddev)
    vae.requires_grad_(False)
    torch.testing.assert_close(vae.posterior(x).mean, q.mean)


def test_a_frozen_encoder_is_refined_for_a_model_that_learns():
    vae, x = small_vae(posterior="SemiAmortised").double(), small_data()
    vae.posterior.requires_grad_(False)
    loss = pv.objectives.ELBO()(vae, x).surrogate.mean()
    reached(vae.likelihood, loss)


def test_refined_once_for_all_particles(monkeypatch):
    vae, x = small_vae(posterior="SemiAmortised").double(), small_data()
    pv.densities(vae, x, 2)
    rows, original = [], posteriors.SemiAmortised.elbo
    monkeypatch.setattr(
        posteriors.SemiAmortised, "elbo", lambda self, x, code: rows.append(len(code)) or original(self, x, code)
    )
    pv.densities(vae, x, 50)
    assert rows == [len(x)] * (vae.posterior.steps + 1)


def test_step_with_other_priors_is_captured():
    vae = small_vae(posterior="SemiAmortised")
    vae.prior = priors.Flow(2, "RealNVP", 1, hidden=[4])
    check_trace(vae, pv.objectives.IWAE(3, "stl"), small_data(dtype=torch.float32))


@pytest.mark.parametrize("latent", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("points", [2, 4, 6, 1000])
def test_points_have_the_moments_of_normal_draws(latent, points):
    s = signs(points, latent, torch.zeros((), dtype=F64))
    full = 2 * 2 ** math.ceil(math.log2(latent))
    assert s.shape == (min(points, full), latent)
    assert set(s.flatten().tolist()) == {-1.0, 1.0}
    assert (s.mean(0) == 0).all()
    assert (torch.einsum("si,sj,sk->ijk", s, s, s) == 0).all()
    if points >= full:
        assert torch.equal(s.T @ s / len(s), torch.eye(latent, dtype=F64))


def test_everything_is_on_the_device():
    """The bound that the steps climb; without a GPU there is no gradient to be taken there."""
    with fake_cuda():
        with torch.device("cuda"):
            vae, x = small_vae(posterior="SemiAmortised"), small_data(dtype=torch.float32)
        assert vae.posterior.elbo(x, vae.posterior.network(x)).device.type == "cuda"


@pytest.mark.parametrize("size", [1.0, 20.0, -20.0])
def test_extreme_codes_in_float32(size):
    vae, x = small_vae(posterior="SemiAmortised"), small_data(dtype=torch.float32)
    y = torch.full((4, 4), size, requires_grad=True)
    code = vae.posterior.refined(x, y)
    found = torch.autograd.grad(code.sum(), [y, *vae.likelihood.parameters()])
    assert all(torch.isfinite(t).all() for t in (code, *found))


def test_refuses_a_prior_that_is_made_of_it():
    class OfPosteriors(nn.Module):
        def forward(self):
            return vae.posterior(small_data(dtype=torch.float32))

    vae = small_vae(posterior="SemiAmortised")
    vae.prior = OfPosteriors()
    with pytest.raises(ValueError, match="SemiAmortised takes its steps on the prior, and OfPosteriors is made of"):
        vae.posterior(small_data(dtype=torch.float32))
    vae.prior = PRIORS["StandardNormal"].build(2)
    vae.posterior(small_data(dtype=torch.float32))


def test_refuses_to_stand_alone():
    q = posteriors.SemiAmortised(small_network(EVENT, [4]))
    with pytest.raises(ValueError, match="SemiAmortised expects to be part of a model with a likelihood, got none"):
        q(torch.rand(3, *EVENT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "SemiAmortised expects steps as a whole number of at least 0, got -1"),
        ({"steps": 2.0}, "SemiAmortised expects steps as a whole number of at least 0, got 2.0"),
        ({"step_size": 0.0}, "SemiAmortised expects step_size as a finite number above 0, got 0.0"),
        ({"step_size": math.nan}, "SemiAmortised expects step_size as a finite number above 0, got nan"),
        ({"points": 0}, "SemiAmortised expects points as a whole number of at least 2, got 0; give an even number"),
        ({"points": 3}, "SemiAmortised expects points in pairs, got points=3; give an even number"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        posteriors.SemiAmortised(small_network(EVENT, [4]), **options)


def test_in_a_linear_gaussian():
    """That model attaches its posterior, too."""
    x = torch.randn(20, 3)
    vae = pv.models.LinearGaussian.build(x, latent=2, posterior="SemiAmortised")
    assert torch.isfinite(pv.densities(vae, x, 2).log_weight).all()
