"""Views of one thing: experts against products and sums written out, exact posteriors, and views that are missing."""

from __future__ import annotations

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import F64

import pyrovae as pv
from benchmarks.gallery.baselines import bernoulli_pixels
from pyrovae.models import MultimodalVAE
from pyrovae.models.experts import EXPERTS, mixture_of_experts, mixture_of_products, product_of_experts

NAN = math.nan


def experts(m=3, latent=2, n=5):
    torch.manual_seed(1)
    return torch.randn(n, m, latent, dtype=F64), 0.5 * torch.randn(n, m, latent, dtype=F64)


def product(loc, log_scale, chosen):
    """log 𝒩(z; 0, I) Π_m 𝒩(z; μ_m, σ_m²), normalised on a grid of z: as a function."""
    parts = [dist.Normal(loc[m], log_scale[m].exp()) for m in chosen]
    grid = torch.linspace(-12, 12, 4001, dtype=F64)[:, None]

    def log_joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z) + sum((p.log_prob(z) for p in parts), torch.zeros_like(z))

    norm = log_joint(grid).logsumexp(0) + math.log(24 / 4000)
    return lambda z: (log_joint(z) - norm).sum(-1)


def test_a_product_is_the_product():
    loc, log_scale = experts()
    there = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    z = torch.randn(5, 2, dtype=F64)
    found = product_of_experts(loc, log_scale, there).log_prob(z)
    for n in range(5):
        by_hand = product(loc[n], log_scale[n], there[n].nonzero()[:, 0].tolist())
        torch.testing.assert_close(found[n], by_hand(z[n]), atol=1e-6, rtol=0)


def test_a_mixture_is_of_the_experts_that_are_there():
    loc, log_scale = experts()
    there = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    z = torch.randn(5, 2, dtype=F64)
    each = dist.Normal(loc, log_scale.exp()).to_event(1).log_prob(z[:, None]).exp()
    mean = (each * there).sum(1) / there.sum(1)
    mean[3] = dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1).log_prob(z[3]).exp()
    torch.testing.assert_close(mixture_of_experts(loc, log_scale, there).log_prob(z), mean.log())


def test_a_mixture_of_products_is_of_every_set():
    loc, log_scale = experts()
    there = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    z = torch.randn(5, 2, dtype=F64)
    found = mixture_of_products(loc, log_scale, there).log_prob(z)
    for n in range(5):
        here = there[n].nonzero()[:, 0].tolist()
        sets = [s for r in range(1, 4) for s in itertools.combinations(here, r)] or [()]
        mean = torch.stack([product(loc[n], log_scale[n], s)(z[n]).exp() for s in sets]).mean()
        torch.testing.assert_close(found[n], mean.log(), atol=1e-6, rtol=0)


class Line(nn.Module):
    """x_m ~ 𝒩(w z, σ²) of one number each."""

    def __init__(self, weight, scale):
        super().__init__()
        self.weight, self.scale = weight, scale

    def forward(self, z):
        return dist.Normal(self.weight * z, self.scale).to_event(1)


class Message(nn.Module):
    """p(x_m | z) as a function of z: 𝒩(z; x / w, (σ / w)²)."""

    def __init__(self, weight, scale):
        super().__init__()
        self.weight, self.scale = weight, scale

    def forward(self, x):
        scale = torch.full_like(x, math.log(self.scale / self.weight))
        return torch.cat([x.nan_to_num() / self.weight, scale], -1)


@pytest.mark.parametrize("missing", [(), (0,), (1,), (0, 1)])
def test_exact_messages_make_an_exact_posterior(missing):
    """All weights are p(x) of what is observed, for every draw."""
    views = [(1.5, 0.5), (0.7, 1.2)]
    likelihoods = [pv.likelihoods.Missing(Line(*v)) for v in views]
    vae = MultimodalVAE(likelihoods, [Message(*v) for v in views], 1, [1, 1], experts="product").double()
    x = torch.randn(6, 2, dtype=F64)
    w, s = (torch.tensor(t, dtype=F64) for t in zip(*views, strict=True))
    here = [m for m in (0, 1) if m not in missing]
    cov = (w[:, None] * w + (s * s).diag())[here][:, here]
    exact = torch.zeros(6, dtype=F64)
    if here:
        exact = dist.MultivariateNormal(torch.zeros(len(here), dtype=F64), cov).log_prob(x[:, here])
    x[:, list(missing)] = NAN
    torch.testing.assert_close(pv.densities(vae, x, 5).log_weight, exact.expand(5, 6))


def halves(**options):
    return pv.data.load("digits", **options)


@pytest.mark.parametrize("kind", EXPERTS)
def test_what_is_missing_is_not_looked_at(kind):
    vae = MultimodalVAE.build(halves(), latent=3, hidden=[8], experts=kind)
    x = halves().test[:6].clone()
    x[:, :, 4:] = NAN
    a = pv.encode(vae, x)
    with torch.no_grad():
        for p in vae.encoders[1].parameters():
            p.normal_()
    assert torch.equal(pv.encode(vae, x), a)


def test_one_half_tells_of_the_other():
    """log p(lower | upper) = log p(both) − log p(upper) is above that of histograms, and so is a picture."""
    data = halves(binarise="threshold")
    torch.manual_seed(0)
    vae = MultimodalVAE.build(data, latent=8, hidden=[100])
    vae = pv.fit(vae, data, epochs=60, batch_size=64, learning_rate=3e-3, progress=False).model
    x = data.test.clone()
    x[:, :, 4:] = NAN
    both, upper = (pv.evaluate(vae, t, particles=200).log_evidence_mean for t in (data.test, x))
    assert both - upper > bernoulli_pixels(data.train[:, :, 4:], data.test[:, :, 4:]) + 1.5
    lower = pv.reconstruct(vae, x)["x2"]
    errors = [F.mse_loss(t, data.test[:, :, 4:]) for t in (lower, data.train[:, :, 4:].mean(0).expand(359, -1, -1, -1))]
    assert errors[0] < 0.85 * errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": "sum"}, r"MultimodalVAE has no experts 'sum'; Known: mixture, mixture_of_products, product"),
        ({"modalities": 3}, r"expects 3 views of equal size, got a datum of 8 along their dimension; give their sizes"),
        ({"sizes": [3, 4]}, r"expects sizes of views that sum up to 8, got \[3, 4\]; change them"),
        ({"modalities": 0}, r"modalities"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        MultimodalVAE.build(halves(), latent=2, **options)


def test_as_many_modules_as_views():
    with pytest.raises(ValueError, match="a likelihood, an encoder and a size for every view, got 1, 1 and 2"):
        MultimodalVAE([Line(1.0, 1.0)], [Message(1.0, 1.0)], 1, [1, 1])
    with pytest.raises(ValueError, match="expects dim from the right"):
        MultimodalVAE([Line(1.0, 1.0)], [Message(1.0, 1.0)], 1, [1], dim=0)
