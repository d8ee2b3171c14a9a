"""Priors: one table of constructors (pieces.PRIORS), one suite of properties."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import check_device, check_trace, reached, z_test
from pieces import (
    EVENT,
    F64,
    POSTERIORS,
    PRIORS,
    SPACES,
    Toy,
    small_data,
    small_prior,
    small_vae,
    some_functions,
)

import pyrovae as pv
from pyrovae import priors
from pyrovae.attached import Attached
from pyrovae.config import construct, describe


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


@pytest.mark.parametrize("name", ["StandardNormal", "Bernoulli", "RelaxedBernoulli", "OneHotCategorical"])
def test_prior_constants_are_not_weights(name):
    assert not PRIORS[name].build(3).state_dict()
