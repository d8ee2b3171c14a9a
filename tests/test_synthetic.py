"""Drawn data sets are what their rules say, the same under every seed."""

import numpy as np
import pytest
import torch
from conftest import F64, z_test
from scipy.stats import chi2

import pyrovae as pv
from pyrovae.data.synthetic import cells, topics
from pyrovae.data.synthetic.manifolds import MANIFOLDS


def whole(name, **options):
    """Everything that was drawn, in the order of drawing but for what is held out for validation."""
    d = pv.data.load(name, **options)
    return torch.cat([d.train, d.validation, d.test]).double()


@pytest.mark.parametrize("name", ["topics", "cells", "pendulums"])
def test_a_draw_is_the_same_under_every_seed(name):
    missing = name == "pendulums"
    a, b = (pv.data.load(name, missing=missing, seed=seed) for seed in (0, 1))
    assert torch.equal(a.test.nan_to_num(), b.test.nan_to_num())
    assert a.size("train") + a.size("validation") + a.size("test") == (1500 if missing else 3000)


def test_topics_are_documents_of_latent_dirichlet_allocation():
    """E[x_w] = λ φ_w·E[θ] and E[x_w x_v] = λ² φ_wᵀ E[θ θᵀ] φ_v, w ≠ v, for lengths that are Poisson."""
    x = whole("topics").flatten(1)
    words = torch.tensor(topics.topic_words()).flatten(1)  # [K, V]
    torch.testing.assert_close(words.sum(1), torch.ones(topics.TOPICS, dtype=F64))
    k, a = topics.TOPICS, topics.CONCENTRATION
    square = (a * torch.ones(k, k, dtype=F64) + torch.eye(k, dtype=F64)) * a / (k * a * (k * a + 1))  # E[θ θᵀ]
    mean = topics.LENGTH * words.mean(0)
    w, v = torch.triu_indices(len(x[0]), len(x[0]), 1)[:, ::37]
    pairs = topics.LENGTH**2 * (words.T @ square @ words)[w, v]
    draws = torch.cat([x, x[:, w] * x[:, v], x.sum(1, True), x.sum(1, True) ** 2], 1)
    length = torch.tensor([topics.LENGTH, topics.LENGTH + topics.LENGTH**2], dtype=F64)
    z_test(draws, torch.cat([mean, pairs, length]))


def test_the_label_of_a_document_is_its_largest_topic():
    d = pv.data.load("topics")
    words = torch.tensor(topics.topic_words()).flatten(1)
    fit = d.test.flatten(1).double() @ words.log().T  # log likelihood under each topic alone
    assert float((fit.argmax(1) == d.labels["test"]).double().mean()) > 0.9


def test_cells_are_negative_binomials_around_their_states():
    """(x − μ) / √(μ + μ²/r) has mean 0 and variance 1 in every gene; library sizes have their median and deviation."""
    kind, z, depth = cells.states()
    drawn = cells.cells("cells", None)
    x = torch.cat([drawn.splits["train"], drawn.splits["test"]]).double()
    assert torch.equal(torch.cat([drawn.labels["train"], drawn.labels["test"]]), torch.tensor(kind))
    mean = torch.tensor(depth[:, None] * cells.expression(z))
    variance = mean + mean**2 / torch.tensor(cells.rule()["dispersion"])
    score = (x - mean) / variance.sqrt()
    size = (torch.tensor(depth).log() - np.log(cells.DEPTH)) / cells.DEPTH_SPREAD
    within = (torch.tensor(z - cells.rule()["centres"][kind])) / cells.WITHIN
    draws = torch.cat([score, score**2, size[:, None], size[:, None] ** 2, within, within**2], 1)
    n = cells.GENES
    one = torch.cat(
        [torch.full([m], v, dtype=F64) for m, v in [(n, 0.0), (n, 1.0), (1, 0.0), (1, 1.0), (3, 0), (3, 1)]]
    )
    z_test(draws, one)
    counts = np.bincount(kind, minlength=cells.KINDS)
    assert ((counts - 600) ** 2 / 600).sum() < chi2.isf(1e-6, cells.KINDS - 1)


# Manifolds


@pytest.mark.parametrize("name", MANIFOLDS)
def test_tangents_are_those_of_finite_differences(name):
    """In an orthonormal basis, and of the points without noise."""
    surface, told = MANIFOLDS[name], pv.data.manifold(name, n=50, noise=0.1)
    d = told.coordinates.shape[1]
    torch.testing.assert_close(told.tangents.mT @ told.tangents, torch.eye(d, dtype=F64).expand(50, d, d))
    step = 1e-5
    for i in range(d):
        move = step * torch.eye(d, dtype=F64)[i]
        ahead, behind = (torch.stack([surface.point(u + s * move) for u in told.coordinates]) for s in (1, -1))
        slope = ((ahead - behind) / (2 * step)).flatten(1)
        within = (told.tangents @ (told.tangents.mT @ slope[..., None]))[..., 0]
        torch.testing.assert_close(within, slope, rtol=0, atol=1e-8 * slope.abs().max().item() + 1e-8)
        assert (slope.norm(dim=1) > 0.1).all()


def test_points_are_on_their_surface():
    roll, ball, ring = (pv.data.manifold(name, n=200).x for name in ("swiss_roll", "sphere", "torus"))
    torch.testing.assert_close(ball.norm(dim=1), torch.ones(200, dtype=F64))
    tube = (ring[:, :2].norm(dim=1) - 2) ** 2 + ring[:, 2] ** 2
    torch.testing.assert_close(tube, torch.ones(200, dtype=F64))
    t = roll[:, [0, 2]].norm(dim=1)
    torch.testing.assert_close(t * t.cos(), roll[:, 0])


def test_points_are_uniform_by_area():
    """On a sphere by Archimedes; on a torus the inner half, cos tube < 0, has (1/2 − r/(πR)) of the area; on a roll by
    its arc length, whose mean is that of t under the density √(1 + t²)."""
    n = 20_000
    ball = pv.data.manifold("sphere", n=n).x
    ring = pv.data.manifold("torus", n=n).coordinates
    roll = pv.data.manifold("swiss_roll", n=n).coordinates[:, 0]
    grid = torch.linspace(1.5 * np.pi, 4.5 * np.pi, 100_001, dtype=F64)
    density = (1 + grid**2).sqrt()
    mean = float((grid * density).sum() / density.sum())
    draws = torch.stack([*ball.T, *(ball.T**2), (ring[:, 1].cos() < 0).double(), roll], 1)
    z_test(draws, torch.tensor([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0.5 - 1 / (2 * np.pi), mean], dtype=F64))


def test_noise_is_in_every_dimension():
    told = pv.data.manifold("shifted", n=500, noise=0.3, seed=2)
    off = (told.x - told.clean).flatten()
    z_test(torch.stack([off, off**2], 1), torch.tensor([0, 0.09], dtype=F64))


@pytest.mark.parametrize("name", [*MANIFOLDS, "linear_gaussian"])
def test_they_are_loaded_by_name(name):
    d = pv.data.load(name)
    assert d.factors["train"].shape == (d.size("train"), len(d.factor_names))
    if name in MANIFOLDS:
        again = torch.stack([MANIFOLDS[name].point(u) for u in d.factors["test"]])
        torch.testing.assert_close(d.test.double(), again, rtol=0, atol=1e-5)
    vae = pv.models.VAE.build(d, latent=2, hidden=[8])
    assert np.isfinite(pv.fit(vae, d, epochs=1, progress=False).history["validation"].iloc[-1])


def test_linear_gaussian_data_have_the_moments_of_their_rule():
    d, (weight, loc, scale) = pv.data.load("linear_gaussian", validation=0), pv.data.linear_gaussian_truth()
    x, z = (
        torch.cat([t["train"], t["test"]]).double() for t in ({s: getattr(d, s) for s in ("train", "test")}, d.factors)
    )
    rest = (x - z @ weight.T - loc) / scale
    z_test(
        torch.cat([z, z**2, rest, rest**2], 1),
        torch.cat([torch.tensor(v).expand(k) for v, k in ((0.0, 2), (1.0, 2), (0.0, 8), (1.0, 8))]).double(),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "swissroll"}, "manifold 'swissroll' is not known; did you mean 'swiss_roll'"),
        ({"name": "torus", "n": 0}, "manifold expects n of at least 1 and noise of at least 0, got n=0"),
        ({"name": "torus", "noise": -1.0}, "got n=1000, noise=-1.0"),
    ],
)
def test_what_is_no_manifold(options, message):
    with pytest.raises(ValueError, match=message):
        pv.data.manifold(**options)
