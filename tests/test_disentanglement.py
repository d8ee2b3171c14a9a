"""Sprites and their factors; the mutual information gap and DCI on codes with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import z_test
from scipy import stats

import pyrovae as pv
from benchmarks.gallery.baselines import bernoulli_pixels
from pyrovae.data.synthetic.sprites import NEAR, RADII
from pyrovae.evaluation import dci, mig, mutual_information


def every(*sizes: int) -> np.ndarray:
    """All combinations of factors of these sizes, [N, F]."""
    return np.indices(sizes).reshape(len(sizes), -1).T


# The data


def test_sprites_are_drawn_by_their_factors():
    data = pv.data.load("sprites", validation=0)
    x, factors = torch.cat([data.train, data.test]), torch.cat([data.factors["train"], data.factors["test"]])
    assert repr(data) == "Dataset('sprites': 1620 train, 405 test; x [1, 24, 24], binary)"
    assert data.factor_names == ("shape", "size", "x", "y")
    assert data.protocol["factors"] == ["shape", "size", "x", "y"]
    assert sorted(map(tuple, factors.tolist())) == sorted(map(tuple, every(3, 3, 15, 15).tolist()))
    assert len(x.flatten(1).unique(dim=0)) == len(x)
    assert x.unique().tolist() == [0, 1]
    for split in ("train", "test"):
        assert torch.equal(data.labels[split], data.factors[split][:, 0])
    shape, size, across, down = factors.T
    radius = torch.tensor(RADII)[size]
    rows, columns = (x[:, 0].amax(d) for d in (2, 1))  # where there is any ink
    for ink, centre in ((rows, down), (columns, across)):
        place = torch.arange(24.0)
        first, last = ((ink * place + (1 - ink) * outside) for outside in (99.0, -99.0))
        assert torch.equal(first.amin(1), (NEAR + centre - radius).float())
        assert torch.equal(last.amax(1), (NEAR + centre + radius).float())
    area = x.flatten(1).sum(1)
    assert torch.equal(area[shape == 0], ((2 * radius + 1) ** 2).float()[shape == 0])
    assert (x == x.flip(-1)).flatten(1).all(1).sum() == 0  # 24 columns have no middle one: none is its own mirror image


def test_sprites_are_symmetric_about_their_centre():
    data = pv.data.load("sprites", validation=0)
    for image, (shape, _, across, down) in zip(data.train[:, 0], data.factors["train"].tolist(), strict=True):
        cut = image[NEAR + down - 4 : NEAR + down + 5, NEAR + across - 4 : NEAR + across + 5]
        assert torch.equal(cut, cut.flip(1))
        assert torch.equal(cut, cut.flip(0)) == (shape != 2)  # a triangle has its tip above
    triangle = next(x[0] for x, f in zip(data.train, data.factors["train"], strict=True) if f[0] == 2)
    ink = triangle.sum(1)
    assert (ink[ink > 0].diff() >= 0).all()


def test_factors_stay_with_their_rows():
    whole = pv.data.load("sprites", validation=0)
    by_factor = {tuple(f): x for x, f in zip(whole.train, whole.factors["train"].tolist(), strict=True)}
    for seed in (0, 1):
        data = pv.data.load("sprites", seed=seed)
        assert {s: len(f) for s, f in data.factors.items()} == {"train": 1458, "validation": 162, "test": 405}
        assert torch.equal(data.test, whole.test)
        for split in ("train", "validation"):
            for x, f in zip(getattr(data, split)[:50], data.factors[split].tolist(), strict=False):
                assert torch.equal(x, by_factor[tuple(f)])
    assert pv.data.load("digits").factors == {}


def test_independent_pixels_by_hand():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    p = [3 / 5, 1 / 5]  # a zero and a one added to each pixel
    expected = math.log(p[0]) + math.log(p[1])
    assert bernoulli_pixels(train, torch.tensor([[1.0, 1.0]])) == pytest.approx(expected)


# Mutual information


def test_mutual_information_of_a_table_by_hand():
    table = np.array([[3, 1], [0, 4], [2, 2]])
    pairs = np.repeat(np.argwhere(table >= 0), table.ravel(), axis=0)
    joint = table / table.sum()
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    expected = np.where(joint > 0, joint * np.log(np.where(joint > 0, joint, 1) / product), 0).sum()
    assert mutual_information(pairs[:, :1], pairs[:, 1:])[0, 0] == pytest.approx(expected, rel=1e-12)
    scaled = 7.5 - 0.1 * pairs[:, :1]  # values, whatever they are, one to one
    assert mutual_information(scaled, pairs[:, 1:])[0, 0] == pytest.approx(expected, rel=1e-12)


def test_numbers_are_put_into_bins_of_equal_width():
    z = np.linspace(0, 1, 1000)[:, None]
    v = (z > 0.25).astype(int)
    assert mutual_information(z, v, bins=4)[0, 0] == pytest.approx(stats.entropy([0.25, 0.75]), abs=1e-9)
    assert mutual_information(z, v, bins=2)[0, 0] < 0.5 * stats.entropy([0.25, 0.75])


def test_independent_numbers_have_the_bias_that_is_told():
    rng = np.random.default_rng(0)
    n, bins, values = 2000, 5, 4
    draws = [
        mutual_information(rng.integers(0, bins, (n, 1)), rng.integers(0, values, (n, 1)))[0, 0] for _ in range(200)
    ]
    # 2N I is chi-squared with (bins − 1)(values − 1) degrees of freedom, up to terms of order 1/N
    bias = (bins - 1) * (values - 1) / (2 * n)
    z_test(torch.tensor(draws)[:, None], torch.tensor([bias]).double(), failure_rate=1e-6)


# The gap, and DCI


def test_codes_that_are_the_factors():
    v = every(3, 4, 5)
    assert mig(v, v) == pytest.approx(1, abs=1e-12)
    found = dci(v, v)
    assert found.disentanglement == found.completeness == found.informativeness == pytest.approx(1)
    np.testing.assert_allclose(found.importance, np.eye(3), atol=1e-12)


def test_order_sign_and_scale_do_not_matter():
    rng = np.random.default_rng(0)
    v = every(3, 4, 20)
    z = v + rng.normal(scale=0.5, size=v.shape)
    again = z[:, [2, 0, 1]] * np.array([-3.0, 1.0, 0.01]) + 5
    assert mig(again, v) == pytest.approx(mig(z, v), abs=0.05)  # a bin's ends may fall on the other side
    one, other = dci(z, v), dci(again, v)
    assert one.informativeness == pytest.approx(other.informativeness, abs=0.05)
    assert one.disentanglement == pytest.approx(other.disentanglement, abs=0.05)


def test_a_rotation_hides_the_factors():
    """At 45° both numbers know as much of each of two factors, by the symmetry of the square that they fill."""
    v = every(16, 16)
    turned = (v - 7.5) @ (np.array([[1, -1], [1, 1]]) / np.sqrt(2))
    assert mig(turned, v) == pytest.approx(0, abs=1e-9)
    found = dci(turned, v)
    assert found.disentanglement < 0.1
    assert found.completeness < 0.1


def test_noise_knows_nothing():
    v = every(4, 4, 40)
    z = np.random.default_rng(0).normal(size=(len(v), 3))
    assert mig(z, v) < 0.03
    assert dci(z, v).informativeness < 0.3


def test_what_is_complete_need_not_be_disentangled():
    """One number for two factors, a second that says nothing; and two numbers for one factor."""
    v = every(4, 6)
    both = np.stack([v[:, 0] * 6 + v[:, 1], np.zeros(len(v))], 1)
    both, v = np.repeat(both, 20, 0), np.repeat(v, 20, 0)
    found = dci(both, v)
    assert found.completeness == pytest.approx(1)
    assert found.disentanglement == pytest.approx(0, abs=0.01)
    assert found.informativeness == 1
    assert mig(both, v, bins=24) == pytest.approx(1)  # the gap does not see it
    twice = np.stack([v[:, 0], v[:, 0], v[:, 1]], 1)
    assert mig(twice, v) == pytest.approx(0.5)
    assert dci(twice, v).disentanglement == pytest.approx(1)
    assert dci(twice, v).completeness < 0.9


def test_dci_by_hand_from_its_importance():
    rng = np.random.default_rng(1)
    v = np.repeat(every(3, 4), 30, 0)
    z = np.stack([v[:, 0] + 0.4 * v[:, 1], v[:, 1], rng.normal(size=len(v))], 1) + 0.4 * rng.normal(size=(len(v), 3))
    found = dci(z, v)
    r = found.importance
    np.testing.assert_allclose(r.sum(0), 1)
    d = sum(r[i].sum() / r.sum() * (1 - stats.entropy(r[i], base=2)) for i in range(3))
    c = np.mean([1 - stats.entropy(r[:, j], base=3) for j in range(2)])
    assert found.disentanglement == pytest.approx(d)
    assert found.completeness == pytest.approx(c)
    assert dci(z, v).informativeness == found.informativeness
    assert not np.array_equal(dci(z, v, seed=1).importance, r)


def test_codes_of_any_model_are_measured():
    data = pv.data.load("sprites")
    codes = pv.encode(pv.models.VAE.build(data, latent=3, hidden=[8]), data.test)
    assert 0 <= mig(codes, data.factors["test"]) <= 1
    assert mig(codes, data.factors["test"]) == mig(codes.numpy(), data.factors["test"].numpy())


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda z, v: mig(z[:3], v), r"mig expects codes \[N, L\] and factors \[N, F\] .* got \[3, 2\] and \[12, 2\]"),
        (lambda z, v: mig(z[:, 0], v), r"got \[12\] and \[12, 2\]; give a row for each datum"),
        (lambda z, v: mig(z, v + 0.5), "factors as whole numbers, got float64; number their values"),
        (lambda z, v: mig(z * np.nan, v), "mig expects finite codes, got NaN or infinity"),
        (lambda z, v: mig(z, v * [1, 0]), "factors that vary, got one value alone of factor 1; leave it out"),
        (lambda z, v: mutual_information(z, v, bins=1), "mutual_information expects at least 2 bins, got bins=1"),
        (lambda z, v: dci(z[:, :1], v), "at least 2 numbers in a code and 2 factors, got 1 and 2; one alone is always"),
        (lambda z, v: dci(z, v, seed=-1), "dci expects a seed of at least 0, got seed=-1"),
    ],
)
def test_what_makes_no_sense_is_refused(ask, message):
    v = every(3, 4)
    with pytest.raises(ValueError, match=message):
        ask(v.astype(float), v)
