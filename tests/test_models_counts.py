"""Models of counts: topics and their documents, cells and what a machine sees of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import F64
from scipy import stats
from scipy.optimize import linear_sum_assignment

import pyrovae as pv
from benchmarks.gallery.baselines import negative_binomials, unigrams
from pyrovae.data.synthetic import cells, topics
from pyrovae.models import CountVAE, TopicModel
from pyrovae.models.topics import MixtureOfTopics, ProductOfTopics


def documents(n=6, words=7):
    return pv.data.from_arrays(torch.randint(0, 5, (n, words)).double() + 1, validation_size=0)


def small(model, **options):
    torch.manual_seed(0)
    data = documents()
    return model.build(data, **options).double(), data.train.double()


# Topics


@pytest.mark.parametrize("mixture", [False, True])
def test_a_topic_model_is_its_formula(mixture):
    vae, x = small(TopicModel, topics=3, hidden=[6], concentration=0.4, mixture=mixture)
    d = pv.densities(vae, x, particles=4)
    z, beta = d.posterior["z"].value, vae.topics.logits
    theta = z.exp() / z.exp().sum(-1, keepdim=True)
    if mixture:
        p = sum(theta[..., k, None] * beta[k].softmax(-1) for k in range(3))
    else:
        p = sum(theta[..., k, None] * beta[k] for k in range(3)).softmax(-1)
    p, x = p.detach().numpy(), x.numpy()
    expected = stats.multinomial.logpmf(x, x.sum(1), p)
    np.testing.assert_allclose(d.log_likelihood.detach(), expected, rtol=1e-9)
    scale = math.sqrt((1 - 1 / 3) / 0.4)
    np.testing.assert_allclose(d.log_prior.detach(), stats.norm.logpdf(z.detach(), 0, scale).sum(-1), rtol=1e-6)


def test_the_prior_is_laplaces_approximation_of_a_dirichlet():
    """In the coordinates of a softmax Dirichlet(α) is Π_k θ_k^α, up to what is constant: its curvature at the mode."""
    alpha, k = 0.3, 5
    vae, _ = small(TopicModel, topics=k, concentration=alpha)
    curvature = torch.autograd.functional.hessian(lambda z: alpha * z.log_softmax(0).sum(), torch.zeros(k, dtype=F64))
    variance = torch.linalg.pinv(-curvature).diagonal()  # z is known up to a constant
    torch.testing.assert_close(vae.scale**2, variance, rtol=1e-6, atol=0)


def test_a_document_on_one_topic_has_its_words_either_way():
    torch.manual_seed(0)
    product, mixture = ProductOfTopics(4, [9]), MixtureOfTopics(4, [9])
    mixture.load_state_dict(product.state_dict())
    for model in (product, mixture):
        torch.testing.assert_close(model(torch.eye(4)).softmax(-1), product.words)


@pytest.mark.parametrize(("mixture", "least"), [(False, 0.95), (True, 0.95)])
def test_topics_are_found_again(mixture, least):
    """Matched one to one by the cosine of their words, with the labels of the documents beside them."""
    data = pv.data.load("topics")
    torch.manual_seed(0)
    vae = TopicModel.build(data, topics=8, mixture=mixture)
    start = cosines(vae)[0].mean()
    pv.fit(vae, data, epochs=30, learning_rate=1e-2, progress=False, check=False)
    found, order = cosines(vae)
    assert found.mean() > least, (start, found)
    right = order[vae.shares(data.test).argmax(-1)] == data.labels["test"].numpy()
    assert right.mean() > 0.9


def cosines(vae):
    """Of learned topics with the true ones that they are matched to, and which these are."""
    unit = torch.nn.functional.normalize
    true = torch.tensor(topics.topic_words(), dtype=torch.float32).flatten(1)
    table = (unit(vae.topics.words.detach().flatten(1), dim=1) @ unit(true, dim=1).T).numpy()
    rows, order = linear_sum_assignment(-table)
    return table[rows, order], order


# Counts


def test_a_count_vae_is_its_formula():
    vae, x = small(CountVAE, latent=2, hidden=[5])
    d = pv.densities(vae, x, particles=4)
    z, size = d.posterior["z"].value, d.posterior["l"].value.detach()
    share = vae.decoder(z).exp()
    mean = (size[..., None] * share / share.sum(-1, keepdim=True)).detach()
    r = (torch.nn.functional.softplus(vae.raw_dispersion) + 1e-4).detach()
    expected = stats.nbinom.logpmf(x, r, r / (r + mean)).sum(-1)
    np.testing.assert_allclose(d.log_likelihood.detach(), expected, rtol=1e-8)
    total = x.sum(1).log()
    m, s = float(total.mean()), float(total.std())
    prior = stats.lognorm.logpdf(size, s, scale=math.exp(m)) + stats.norm.logpdf(z.detach()).sum(-1)
    np.testing.assert_allclose(d.log_prior.detach(), prior, rtol=1e-5)
    loc, raw = vae.library(vae.features(x)).unbind(-1)
    spread = s * (torch.nn.functional.softplus(raw) + 1e-3)
    q = stats.lognorm.logpdf(size, spread.detach(), scale=(m + s * loc).exp().detach())
    np.testing.assert_allclose(d.posterior["l"].log_prob.detach(), q, rtol=1e-5)


def test_images_of_counts_are_shared_out_over_all_pixels():
    data = pv.data.from_arrays(torch.randint(0, 9, (5, 1, 2, 3)).double(), validation_size=0)
    shares = CountVAE.build(data, latent=2).log_shares(torch.randn(4, 5, 2)).exp()
    assert shares.shape == (4, 5, 1, 2, 3)
    torch.testing.assert_close(shares.sum((-1, -2, -3)), torch.ones(4, 5))


def test_cells_are_told_apart_from_how_much_was_seen_of_them():
    """z has the kind of a cell and not its library size, which l has."""
    data = pv.data.load("cells")
    torch.manual_seed(0)
    vae = CountVAE.build(data, latent=5)
    pv.fit(vae, data, epochs=20, learning_rate=1e-2, progress=False, check=False)
    codes, before = pv.encode(vae, data.test), pv.encode(vae, data.train)["z"]
    near = torch.cdist(codes["z"], before).topk(15, largest=False).indices
    kinds = torch.nn.functional.one_hot(data.labels["train"])[near].sum(1).argmax(1)
    assert float((kinds == data.labels["test"]).float().mean()) > 0.85  # the most usual kind: 0.2
    size = torch.tensor(cells.states()[2][2400:]).log().float()
    assert float(torch.corrcoef(torch.stack([size, codes["l"].log()]))[0, 1]) > 0.9
    z = torch.cat([codes["z"], torch.ones(len(size), 1)], 1)
    left = size[:, None] - z @ torch.linalg.lstsq(z, size[:, None]).solution
    assert 1 - float(left.var() / size.var()) < 0.1


# What is refused, and the baselines


@pytest.mark.parametrize("model", [TopicModel, CountVAE])
@pytest.mark.parametrize(
    ("x", "options"),
    [(torch.rand(5, 4), {}), (-torch.ones(5, 4), {}), (torch.tensor([[1.0, math.nan]] * 3), {"missing": True})],
)
def test_what_is_no_count_is_refused(model, x, options):
    data = pv.data.from_arrays(x, validation_size=0, **options)
    with pytest.raises(ValueError, match=rf"{model.__name__}.build expects counts 0, 1, 2, \.\.\."):
        model.build(data)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopicModel.build(documents(), topics=1), "expects topics as a whole number of at least 2, got 1"),
        (lambda: TopicModel.build(documents(), concentration=0.0), "TopicModel expects concentration as a finite"),
        (lambda: CountVAE.build(documents(), hidden=[]), "CountVAE.build expects hidden as at least one width"),
        (lambda: CountVAE.build(documents(), latent=0), "expects latent of at least 1"),
    ],
)
def test_sizes_that_are_none_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unigrams_are_a_multinomial_of_all_words():
    train, test = (torch.tensor(x) for x in ([[3.0, 1.0], [1.0, 2.0]], [[2.0, 1.0]]))
    assert unigrams(train, test) == pytest.approx(stats.multinomial.logpmf([2, 1], 3, [5 / 9, 4 / 9]))


def test_negative_binomials_take_counts_of_any_size():
    x = torch.distributions.NegativeBinomial(4.0, torch.tensor(0.99)).sample((3000, 1))
    best = torch.distributions.NegativeBinomial(4.0, torch.tensor(0.99)).log_prob(x).mean()
    assert negative_binomials(x, x) == pytest.approx(float(best), abs=2e-3)
