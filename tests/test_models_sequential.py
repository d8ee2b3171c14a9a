"""Series: the deep Markov model's densities written out, ends that add nothing, and the baseline."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from conftest import F64

import pyrovae as pv
from benchmarks.gallery.baselines import autoregression
from pyrovae.models import SequentialVAE
from pyrovae.objectives import ELBO


def ragged(lengths=(1, 3, 4, 4), steps=4, features=2):
    x = torch.randn(len(lengths), steps, features, dtype=F64)
    return x.where((torch.arange(steps) < torch.tensor(lengths)[:, None])[..., None], torch.nan)


def small(x, missing=True, latent=3):
    torch.manual_seed(0)
    data = pv.data.from_arrays(x.float(), validation_size=0, missing=missing)
    vae = SequentialVAE.build(data, latent=latent, hidden=5).double()
    torch.nn.init.normal_(vae.start)
    return vae


def linear(layer, z):
    return z @ layer.weight.T + layer.bias


def normal(z, loc, scale):
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def transition(p, z):
    gate, proposal = linear(p.hidden, z).clamp(min=0).split(5, -1)
    g, h = 1 / (1 + (-linear(p.gate, gate)).exp()), linear(p.proposal, proposal)
    return (1 - g) * linear(p.straight, z) + g * h, linear(p.scale, h.clamp(min=0)).exp().log1p() + 1e-3


def test_densities_are_those_written_out_series_by_series():
    x = ragged()
    vae = small(x)
    d = pv.densities(vae, x, 2)
    z = torch.stack([d.posterior[f"z_{t}"].value for t in range(1, 5)], -2)  # [K, B, T, L]
    y, summary, combiner = vae.centre(x), vae.summary, vae.combiner
    for b, length in enumerate((1, 3, 4, 4)):
        codes = {}
        for t in reversed(range(length)):  # a recurrent network from the last step that is there
            codes[t] = summary(torch.stack([y[b, s] for s in range(length - 1, t - 1, -1)])[None])[:, -1]
        log_p, log_q, log_x = 0.0, 0.0, 0.0
        for t in range(4):
            before = z[:, b, t - 1] if t else vae.start
            rule = normal(z[:, b, t], *transition(vae.transition, before))
            log_p = log_p + rule
            if t >= length:
                log_q = log_q + rule
                continue
            loc, raw = linear(combiner.code, (linear(combiner.state, before).tanh() + codes[t]) / 2).split(3, -1)
            log_q = log_q + normal(z[:, b, t], loc, raw.exp().log1p() + 1e-3)
            log_x = log_x + vae.likelihood.likelihood(z[:, b, t]).log_prob(x[b, t])
        for ours, theirs in ((d.log_prior, log_p), (d.log_posterior, log_q), (d.log_likelihood, log_x)):
            torch.testing.assert_close(ours[:, b], theirs)


@pytest.mark.parametrize("kl", ["sampled", "analytic"])
def test_steps_behind_the_end_of_every_series_add_nothing(kl):
    """The model of four steps at series of three is the model of three steps, at equal noise."""
    x = ragged((2, 3, 3))
    vae = small(x)
    shorter = SequentialVAE(
        vae.transition, vae.likelihood, vae.combiner, vae.summary, vae.centre, latent=3, steps=3
    ).double()
    shorter.start = vae.start
    bounds = []
    for program, data in ((vae, x), (shorter, x[:, :3])):
        torch.manual_seed(0)
        bounds.append(ELBO(kl=kl)(program, data).bound)
    torch.testing.assert_close(*bounds)


def test_the_guide_of_a_step_sees_that_step_and_later_ones():
    x = ragged((4, 4))
    vae = small(x)
    h, _ = vae.look_back(x)
    for t in range(4):
        other = x.clone()
        other[:, t] += 1.0
        changed = (vae.look_back(other)[0] != h).any(-1).all(0)
        assert changed.tolist() == [s <= t for s in range(4)]


def test_a_series_with_holes_lasts_until_its_last_step():
    x = ragged((4, 4))
    x[0, 1], x[1, 2, 0], x[1, 3] = torch.nan, torch.nan, torch.nan
    vae = small(x)
    assert vae.look_back(x)[1].tolist() == [[True] * 4, [True] * 3 + [False]]
    assert ELBO()(vae, x).bound.isfinite().all()


def test_whole_series_take_the_same_way():
    x = ragged((4, 4, 4))
    a, b = small(x), small(x, missing=False)
    b.load_state_dict({k.replace("likelihood.likelihood", "likelihood"): v for k, v in a.state_dict().items()})
    bounds = []
    for vae in (a, b):
        torch.manual_seed(0)
        bounds.append(ELBO()(vae, x).bound)
    torch.testing.assert_close(*bounds)


def test_a_reconstruction_goes_on_as_a_forecast():
    """Behind the end the mean of the next state is the transition's at the mean of the last."""
    x = ragged((2, 3))
    vae = small(x)
    codes = pv.encode(vae, x)
    torch.testing.assert_close(codes["z_4"], transition(vae.transition, codes["z_3"])[0])
    made = pv.reconstruct(vae, x)
    torch.testing.assert_close(made[:, 3], vae.likelihood(codes["z_4"]).mean)
    assert pv.generate(vae, 6).shape == (6, 4, 2)


def test_data_that_are_no_series_are_refused():
    with pytest.raises(ValueError, match=r"expects series \[T, D\], got events of shape \[1, 8, 8\]; give"):
        SequentialVAE.build(pv.data.load("digits"))
    with pytest.raises(ValueError, match=r"expects series \[T, D\], got events of shape \[12\]; give a series of"):
        SequentialVAE.build(pv.data.load("oscillations", missing=True))


# What it is held against


def process(order, n=3000):
    """x_t = A x_{t−1} (+ B x_{t−2}) + 0.1 ε_t, D = 2, and its exact mean log density from step `order` on."""
    a = torch.tensor([[0.5, 0.4], [-0.4, 0.5]], dtype=F64)
    b = -0.5 * torch.eye(2, dtype=F64)
    x = [torch.randn(n, 2, dtype=F64) for _ in range(order)]
    while len(x) < 6:
        x.append(x[-1] @ a + (x[-2] @ b if order == 2 else 0) + 0.1 * torch.randn(n, 2, dtype=F64))
    return torch.stack(x, 1)


@pytest.mark.parametrize("order", [1, 2])
def test_an_autoregression_is_the_density_of_a_process_of_its_order(order):
    torch.manual_seed(0)
    x = process(order)
    entropy = math.log(2 * math.pi * math.e)  # of a standard normal of two dimensions
    truth = -6 * entropy + (6 - order) * 2 * math.log(10)
    assert autoregression(x, x) == pytest.approx(truth, abs=0.1)
    x[:, 4:] = torch.nan
    truth = -4 * entropy + (4 - order) * 2 * math.log(10)
    assert autoregression(x, x) == pytest.approx(truth, abs=0.1)


def test_the_choice_of_the_order_is_made_in_training():
    torch.manual_seed(0)
    first, second = process(1), process(2)
    assert autoregression(second, first) < autoregression(first, first) - 10
    white = dist.Normal(0.0, 1.0).sample((3000, 6, 2)).double()
    assert autoregression(white, white) == pytest.approx(-6 * math.log(2 * math.pi * math.e), abs=0.05)
