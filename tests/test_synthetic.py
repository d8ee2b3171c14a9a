"""Drawn data sets are what their rules say, the same under every seed."""

import numpy as np
import pytest
import torch
from conftest import F64, z_test
from scipy.stats import chi2

import pyrovae as pv
from pyrovae.data.synthetic import cells, topics


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
