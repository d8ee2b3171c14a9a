"""Whether what is generated is new, and the rate in its two parts."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64

import pyrovae as pv
from pyrovae.evaluation import aggregate, novelty


class Makes(torch.nn.Module):
    """x = table[z] + noise, z uniform: a model that gives back what it has seen, or noise alone."""

    def __init__(self, table, noise):
        super().__init__()
        self.register_buffer("table", table)
        self.noise = noise

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(self.table.new_ones(len(self.table))))
            pyro.sample("x", dist.Normal(self.table[z], self.noise).to_event(1), obs=x)


def points(n=400):
    torch.manual_seed(0)
    return pv.data.from_arrays(torch.randn(n, 5), test=torch.randn(300, 5), validation_size=0)


def test_copies_novelties_and_noise_are_told_apart():
    data = points()
    copies = novelty(Makes(data.train, 1e-4), data, n=50)
    assert set(copies.verdicts) == {"memorised"}
    assert copies.shares["memorised"] == 1
    assert (copies.generated - data.train[copies.nearest]).norm(dim=1).max() < 1e-2
    noise = novelty(Makes(torch.zeros(1, 5), 50.0), data, n=50)
    assert noise.shares["off the data"] > 0.9
    fresh = novelty(Makes(torch.zeros(1, 5), 1.0), data, n=400, seed=5)  # the data's own distribution
    assert fresh.shares["novel"] > 0.9


def test_the_nearest_is_the_nearest():
    data = points()
    found = novelty(Makes(torch.zeros(1, 5), 1.0), data, n=30)
    every = (found.generated[:, None] - data.train).norm(dim=2)
    assert torch.equal(found.nearest, every.argmin(1))
    torch.testing.assert_close(found.distance, every.amin(1))
    assert (found.training > 0).all()  # a datum is not its own neighbour


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: novelty(Makes(torch.zeros(1, 5), 1.0), torch.zeros(9, 5)), "expects a Dataset with training and test"),
        (
            lambda: novelty(Makes(torch.zeros(1, 5), 1.0), pv.data.from_arrays(torch.zeros(9, 5), validation_size=0)),
            "and a test split",
        ),
        (lambda: novelty(Makes(torch.zeros(1, 4), 1.0), points()), r"makes data of shape \[5\], got \[4\]"),
        (lambda: novelty(Makes(torch.zeros(1, 5), 1.0), points(), n=0), "n of at least 1"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Codes(torch.nn.Module):
    """q(z | x) = 𝒩(x, s²), p(z) = 𝒩(0, 1)."""

    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale, dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, self.scale).to_event(1))


def test_the_rate_is_information_and_the_distance_of_all_codes():
    """Two data far apart: one bit; two that are equal: none. The sum is that of every draw."""
    far, near = torch.tensor([[-9.0], [9.0]], dtype=F64), torch.zeros(2, 1, dtype=F64)
    told = aggregate(Codes(0.5), far, particles=400)
    assert abs(told.mutual_information - math.log(2)) < 1e-7
    assert told.most_information == math.log(2)
    exact = (0.25 + 81 - 1) / 2 - math.log(0.5)
    assert abs(told.rate - exact) < 6 * told.rate_error  # fails once in 10^8
    assert abs(told.rate - told.mutual_information - told.marginal_kl) < 1e-9
    none = aggregate(Codes(0.5), near, particles=400)
    assert abs(none.mutual_information) < 1e-9
    assert abs(none.marginal_kl - none.rate) < 1e-9


def test_every_picture():
    data = pv.data.load("digits")
    for latent in (1, 2):
        torch.manual_seed(0)
        vae = pv.models.VAE.build(data, latent=latent, hidden=[10])
        found = pv.evaluation.gaps(vae, data.test[:2], points=65, tolerance=math.inf)
        for figure in (
            pv.plots.posteriors(found.grid, found.log_best, titles=["a", "b"]),
            pv.plots.gap_bars(found),
            pv.plots.aggregate_map(vae, data.test[:20], points=33),
        ):
            figure.canvas.draw()
    made = novelty(vae, data, n=7)
    for figure in (pv.plots.nearest_pairs(made, data), pv.plots.distances(made)):
        figure.canvas.draw()
    with pytest.raises(ValueError, match="posteriors expects a title for each of 2 data, got 1"):
        pv.plots.posteriors(found.grid, titles=["a"])
