"""The exact posterior on a grid, and what an ELBO lacks: against closed forms, and A = B + C."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import F64
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.evaluation import exact_posterior, gaps


def linear(latent=2):
    torch.manual_seed(0)
    vae = pv.models.LinearGaussian([5], latent=latent).double()
    with torch.no_grad():
        vae.weight.mul_(8)
    return vae, torch.randn(4, 5, dtype=F64)


def digits(posterior="DiagonalNormal", latent=2):
    torch.manual_seed(0)
    data = pv.data.load("digits")
    return pv.models.VAE.build(data, latent=latent, hidden=[20], posterior=posterior).double(), data.test[:4].double()


@pytest.mark.parametrize("latent", [1, 2])
def test_the_grid_has_the_evidence_and_the_posterior_in_closed_form(latent):
    vae, x = linear(latent)
    grid = exact_posterior(vae, x)
    torch.testing.assert_close(grid.log_evidence, vae.log_evidence(x), rtol=0, atol=1e-9)
    assert (grid.error < 0.01).all()
    mean = torch.stack([grid.mean(z[:, None]) for z in grid.z.unbind(1)], 1)
    exact = vae.true_posterior(x)
    torch.testing.assert_close(mean, exact.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(grid.log_posterior, exact.log_prob(grid.z[:, None]), rtol=1e-6, atol=1e-6)


def test_the_evidence_is_the_elbo_and_a_divergence():
    """A = B + C, each integrated by itself: ∫ q log p(x, z)/q and ∫ q log q/p(z | x), to 1e-3 nats."""
    vae, x = digits()
    grid = exact_posterior(vae, x)
    q = grid.log_guide
    share = (q + grid.log_volume[:, None]).exp()
    elbo = (share * (grid.log_joint - q)).sum(0)
    divergence = (share * (q - grid.log_posterior)).sum(0)
    torch.testing.assert_close(elbo + divergence, grid.log_evidence, rtol=0, atol=1e-3)
    torch.testing.assert_close(grid.elbo(q), elbo, rtol=0, atol=1e-3)
    draws = pv.evaluate(vae, x, 20_000)
    error = (draws.elbo - elbo).abs().max()
    assert error < 0.1


def test_a_full_normal_closes_the_approximation_gap_of_a_linear_model():
    """And a factorised one leaves ½ (Σ log Λ_ll − log det Λ), Λ the precision of the posterior."""
    torch.manual_seed(0)
    x = torch.randn(4, 5, dtype=F64)
    weight, scale = torch.randn(5, 2, dtype=F64), 0.7
    precision = torch.eye(2, dtype=F64) + weight.T @ weight / scale**2
    left = (precision.diagonal().log().sum() - precision.logdet()) / 2

    class Linear(torch.nn.Module):
        def forward(self, z):
            return z @ weight.T

    for name, code, exact in (("FullNormal", 5, 0.0), ("DiagonalNormal", 4, float(left))):
        posterior = getattr(pv.posteriors, name)(pv.networks.MLP([5], [code], hidden=[4]).double())
        vae = pv.models.VAE(
            pv.priors.StandardNormal(2), pv.likelihoods.Normal(Linear(), scale=scale), posterior
        ).double()
        found = gaps(vae, x)
        torch.testing.assert_close(found.approximation, torch.full((4,), exact, dtype=F64), rtol=0, atol=1e-4)
        assert (found.amortisation > 0.01).all()
        assert found.converged.all()
        known = MultivariateNormal(torch.zeros(5, dtype=F64), weight @ weight.T + scale**2 * torch.eye(5, dtype=F64))
        torch.testing.assert_close(found.log_evidence, known.log_prob(x), rtol=0, atol=1e-6)
        total = found.elbo + found.amortisation + found.approximation
        torch.testing.assert_close(total, found.log_evidence)


def test_more_dimensions_are_estimated():
    vae, x = digits(latent=4)
    found = gaps(vae, x, steps=60, particles=500)
    assert (found.amortisation > 0).all()
    assert (found.approximation > -4 * found.approximation_error - 0.01).all()
    assert set(found.to_dict()) >= {"elbo", "best_elbo", "log_evidence", "converged"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact_posterior(*digits(latent=3)), "exact_posterior expects latents of one or two dimensions in all"),
        (lambda: exact_posterior(*linear(), points=100), "points as an odd number, got 100; give 101"),
        (lambda: gaps(*linear(), steps=1), "gaps expects steps of at least 2"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_grid_that_is_too_coarse_is_refused():
    vae, x = digits()
    with pytest.raises(ValueError, match=r"exact_posterior expects log p\(x\) to 0.01 nats, and on 5 points"):
        exact_posterior(vae, x, points=5)
    assert exact_posterior(vae, x, points=5, tolerance=math.inf).error.max() > 0.01
