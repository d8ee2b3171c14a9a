"""Copies of training data are found, and so is noise; pictures of both."""

import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64

import pyrovae as pv
from pyrovae.evaluation import novelty
from pyrovae.evaluation.novelty import Novelty, _nearest


class Maker:
    """Makes what it is told to, in turn."""

    def __init__(self, x):
        self.x = x

    def model(self, x):
        made = self.x[torch.arange(len(x)) % len(self.x)]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0).expand([len(x)]))
            loc = made + 0 * z.view(-1, *[1] * (made.dim() - 1))
            pyro.sample("x", dist.Normal(loc, 1e-6).to_event(made.dim() - 1), obs=made)


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


def test_a_model_that_gives_back_training_data_is_found(digits):
    found = novelty(Maker(digits.train[40:70]), digits, n=30)
    assert found.verdicts == ["memorised"] * 30
    assert found.nearest.tolist() == list(range(40, 70))
    assert float(found.distance.max()) < 1e-3
    assert found.shares == {"memorised": 1.0, "novel": 0.0, "off the data": 0.0}


def test_noise_is_off_the_data_and_held_out_data_are_novel(digits):
    assert novelty(Maker(16 * torch.rand(20, 1, 8, 8)), digits, n=20).shares["off the data"] == 1
    found = novelty(Maker(digits.test), digits, n=len(digits.test))
    assert found.shares["novel"] == pytest.approx(0.98, abs=0.01)
    torch.testing.assert_close(found.held_out.sort()[0], found.distance.sort()[0], rtol=0, atol=1e-3)


def test_the_verdicts_follow_the_rule():
    d = torch.tensor([0.5, 1.0, 2.0, 3.0, 3.5])
    found = Novelty(torch.zeros(5, 2), d, torch.zeros(5, dtype=torch.long), d, d, 1.0, 3.0)
    assert found.verdicts == ["memorised", "novel", "novel", "novel", "off the data"]
    assert found.shares == {"memorised": 0.2, "novel": 0.6, "off the data": 0.2}


@pytest.mark.parametrize("pairs", [1, 2**22])
def test_nearest_neighbours_are_those_of_all_pairs(monkeypatch, pairs):
    module = sys.modules["pyrovae.evaluation.novelty"]
    monkeypatch.setattr(module, "_PAIRS", pairs)
    x, among = torch.randn(7, 2, 3, dtype=F64), torch.randn(11, 2, 3, dtype=F64)
    all_pairs = (x[:, None] - among).flatten(2).norm(dim=2)
    distance, nearest = _nearest(x, among)
    torch.testing.assert_close(distance, all_pairs.amin(1))
    assert torch.equal(nearest, all_pairs.argmin(1))
    own = torch.tensor([3, 8])
    distance, nearest = _nearest(among[own], among, own)
    within = (among[own][:, None] - among).flatten(2).norm(dim=2)
    within[[0, 1], own] = torch.inf
    torch.testing.assert_close(distance, within.amin(1))
    assert torch.equal(nearest, within.argmin(1))


def test_training_data_are_as_far_from_each_other_as_held_out_data_are(digits):
    found = novelty(Maker(digits.test), digits, n=5)
    assert float(found.training.min()) > 0
    assert float(found.training.mean() / found.held_out.mean()) == pytest.approx(1, abs=0.1)


def test_draws_are_compared_by_default_and_means_on_request():
    x = (torch.rand(60, 6) < 0.5).float()
    data = pv.data.from_arrays(x[:40], test=x[40:])
    vae = pv.models.VAE.build(data, latent=1, hidden=[4])
    draws, means = novelty(vae, data, n=8), novelty(vae, data, n=8, mean=True)
    assert set(draws.generated.unique().tolist()) <= {0.0, 1.0}
    assert 0 < float(means.generated.min()) < float(means.generated.max()) < 1
    assert torch.equal(draws.distance, novelty(vae, data, n=8).distance)
    assert not torch.equal(draws.generated, novelty(vae, data, n=8, seed=1).generated)


def test_mistakes_are_refused_in_a_sentence(digits):
    vae = pv.models.VAE.build(digits, latent=2)
    with pytest.raises(ValueError, match="expects a Dataset"):
        novelty(vae, digits.train)
    with pytest.raises(ValueError, match="a test split"):
        novelty(vae, pv.data.from_arrays(digits.train))
    with pytest.raises(ValueError, match="n of at least 1"):
        novelty(vae, digits, n=0)
    with pytest.raises(ValueError, match=r"shape \[3\], got \[1, 8, 8\]"):
        novelty(vae, pv.data.from_arrays(torch.rand(9, 3), test=torch.rand(9, 3)))
    x = torch.randn(9, 3)
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="without NaN"):
        novelty(vae, pv.data.from_arrays(x, test=x, missing=True))


def test_pictures(digits):
    found = novelty(Maker(digits.train[:30]), digits, n=30)
    text = " ".join(t.get_text() for t in pv.plots.nearest_pairs(found, digits, n=12).axes[0].texts)
    assert text.count("copy") == 12
    words = [t.get_text() for t in pv.plots.distances(found).axes[0].texts]
    assert words == ["memorised\n100%", "novel\n0%", "off the data\n0%"]
    with pytest.raises(ValueError, match="at least 1"):
        pv.plots.nearest_pairs(found, digits, n=0)
    x = torch.randn(30, 3)
    data = pv.data.from_arrays(x[:20], test=x[20:])
    assert pv.plots.nearest_pairs(novelty(Maker(x), data, n=5), data).axes
