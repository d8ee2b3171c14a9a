"""Clusters and choices: latents that are summed out, and latents of a few values."""

from __future__ import annotations

import itertools

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, gradients, z_test

import pyrovae as pv
from pyrovae.evaluation import clustering_accuracy
from pyrovae.evaluation.matching import best_matching
from pyrovae.models import VAE, DiscreteVAE, EnumerableVAE, GaussianMixtureVAE
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE, REBAR, DisARM
from pyrovae.program import seeded


def binary(n: int = 5) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 7), 0.5, dtype=F64))


# A mixture in the latent space


def mixture(clusters: int = 4, latent: int = 3) -> tuple[GaussianMixtureVAE, torch.Tensor]:
    torch.manual_seed(0)
    x = binary()
    vae = GaussianMixtureVAE.build(x, clusters, latent, equal=False, hidden=[6]).double()
    with torch.no_grad():
        for p in vae.prior.parameters():
            p.normal_().mul_(0.7)
    return vae, x


def log_joint(vae: GaussianMixtureVAE, z: torch.Tensor) -> torch.Tensor:
    """log p(y, z), value by value: [*, C]."""
    logits, loc, scale = vae.prior.logits.log_softmax(0), vae.prior.loc, vae.prior.log_scale.exp()
    return torch.stack(
        [a + dist.Normal(m, s).log_prob(z).sum(-1) for a, m, s in zip(logits, loc, scale, strict=True)], -1
    )


def test_the_cluster_is_summed_out():
    vae, x = mixture()
    d = pv.densities(vae, x, 3)
    z = d.posterior["z"].value
    by_hand = log_joint(vae, z).exp().sum(-1).log() + vae.likelihood(z).log_prob(x) - vae.posterior(x).log_prob(z)
    assert d.log_weight.shape == (3, 5)
    torch.testing.assert_close(d.log_weight, by_hand)


@pytest.mark.parametrize("objective", [ELBO(2), IWAE(3), IWAE(3, "dreg")])
def test_bounds_and_gradients_are_those_of_a_mixture_prior(objective):
    vae, x = mixture()
    same, found = VAE(vae.prior, vae.likelihood, vae.posterior), []
    for model in (vae, same):
        with seeded(3):
            e = objective(model, x)
        found.append((e.bound, *(g for _, g in sorted(gradients(model, e.surrogate.sum()).items()))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_cluster_of_a_latent_is_that_of_bayes_rule():
    vae, _ = mixture()
    z = torch.randn(2, 6, 3, dtype=F64)
    p = log_joint(vae, z).exp()
    torch.testing.assert_close(vae.clusters_of(z), p / p.sum(-1, keepdim=True))


class Around(nn.Module):
    """x = z + noise of deviation t."""

    def __init__(self, t: float) -> None:
        super().__init__()
        self.t = t

    def forward(self, z):
        return dist.Normal(z, self.t).to_event(1)


class Wide(nn.Module):
    """A q(z | x) that is not p(z | x)."""

    def forward(self, x):
        return dist.Normal(x + 0.2, 0.9).to_event(1)


def test_the_cluster_of_a_datum_is_that_of_the_exact_posterior():
    """With x = z + noise, p(y | x) ∝ π_y 𝒩(x; m_y, s_y² + t²). The ratio of two means is off by O(1/K), here 1e-4."""
    prior = mixture(3, 2)[0].prior
    vae, x, t = GaussianMixtureVAE(prior, Around(0.8), Wide()), torch.randn(4, 2, dtype=F64), 0.8
    scale = (prior.log_scale.mul(2).exp() + t**2).sqrt()
    exact = (prior.logits.log_softmax(-1) + dist.Normal(prior.loc, scale).log_prob(x[:, None]).sum(-1)).softmax(-1)
    found = torch.stack([vae.clusters(x, 2000) for _ in range(30)])  # [30, 4, 3]
    torch.testing.assert_close(found.sum(-1), torch.ones(30, 4, dtype=F64))
    assert (found.mean(0) - exact).abs().max() < 0.006  # six standard errors of such a mean of 60,000 draws
    plain = vae.clusters_of(Wide()(x).sample([2000])).mean(0)
    assert (plain - exact).abs().max() > 0.02  # that of q(z | x), without weights, is another


def test_the_parts_of_a_mixture_are_recovered():
    """Three clusters in two dimensions, seen through a linear map and noise: found without labels."""
    g = torch.Generator().manual_seed(0)
    loc = torch.tensor([[4.0, 0.0], [-2.0, 3.5], [-2.0, -3.5]])
    share = torch.tensor([0.5, 0.3, 0.2])
    y = torch.multinomial(share, 900, replacement=True, generator=g)
    z = loc[y] + torch.randn(900, 2, generator=g)
    x = z @ torch.randn(2, 6, generator=g) + 0.3 * torch.randn(900, 6, generator=g)
    x = x / x.std()
    found = []
    for seed in range(3):  # a start may end with a cluster in two; the bound knows
        with seeded(seed):
            vae = GaussianMixtureVAE(
                pv.priors.Mixture(2, 3),
                pv.likelihoods.Normal(MLP([2], [6], hidden=[])),
                pv.posteriors.DiagonalNormal(MLP([6], [4], hidden=[])),
            )
        same = VAE(vae.prior, vae.likelihood, vae.posterior)  # at a third of the cost
        run = pv.fit(same, x, epochs=60, batch_size=100, learning_rate=5e-2, seed=seed, progress=False)
        found.append((run.rows[-1]["bound"], vae))
    vae = max(found, key=lambda f: f[0])[1]
    p = vae.clusters(x)
    assert clustering_accuracy(p, y) > 0.98  # with the rule that drew them it is 1
    torch.testing.assert_close(p.mean(0).sort().values, share.sort().values, atol=0.04, rtol=0)
    torch.testing.assert_close(vae.prior.logits.softmax(-1).sort().values, share.sort().values, atol=0.06, rtol=0)


def test_equal_clusters_learn_their_means_alone():
    vae = GaussianMixtureVAE.build(binary(), clusters=4, latent=3)
    assert [n for n, _ in vae.prior.named_parameters()] == ["loc"]
    z = torch.randn(6, 3)
    torch.testing.assert_close(vae.clusters_of(z), (-0.5 * torch.cdist(z, vae.prior.loc) ** 2).softmax(-1))


def test_another_prior_is_refused():
    vae, _ = mixture()
    with pytest.raises(ValueError, match=r"expects prior as a priors.Mixture, got StandardNormal; give"):
        GaussianMixtureVAE(pv.priors.StandardNormal(3), vae.likelihood, vae.posterior)
    with pytest.raises(ValueError, match="clusters as a whole number of at least 1, got 0"):
        GaussianMixtureVAE.build(binary(), clusters=0)
    with pytest.raises(ValueError, match="particles as a whole number of at least 1, got 0"):
        vae.clusters(binary(), 0)


# Clusters against labels


@pytest.mark.parametrize(("clusters", "labels"), [(4, 4), (3, 5), (5, 3), (1, 4), (4, 1)])
def test_accuracy_is_the_best_of_all_matchings(clusters, labels):
    g = torch.Generator().manual_seed(clusters)
    a, b = (torch.randint(0, n, (40,), generator=g) for n in (clusters, labels))
    n = max(clusters, labels)
    best = max(float((torch.tensor(p)[a] == b).double().mean()) for p in itertools.permutations(range(n)))
    assert clustering_accuracy(a, b) == pytest.approx(best)
    assert clustering_accuracy(nn.functional.one_hot(a, clusters).float(), b) == pytest.approx(best)
    assert clustering_accuracy(7 - 3 * a, b + 100) == pytest.approx(best)  # names do not matter
    assert clustering_accuracy(a, a) == 1


def test_a_matching_has_the_largest_sum():
    table = torch.randn(4, 6, dtype=F64)
    rows, columns = best_matching(table)
    best = max(float(table[range(4), p].sum()) for p in map(list, itertools.permutations(range(6), 4)))
    assert rows.tolist() == [0, 1, 2, 3]
    assert len(set(columns)) == 4
    assert float(table[rows, columns].sum()) == pytest.approx(best)


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ValueError, match=r"best_matching expects a table \[rows, columns\] of finite numbers"):
        best_matching([1.0, 2.0])
    with pytest.raises(ValueError, match="best_matching expects"):
        best_matching([[1.0, float("nan")]])
    for clusters, labels in (([0, 1], [0, 1, 2]), ([0.5, 1.0], [0, 1]), ([], [])):
        with pytest.raises(ValueError, match="clustering_accuracy expects clusters as a whole number for each of"):
            clustering_accuracy(torch.tensor(clusters), torch.tensor(labels))


# Choices


def choices(categories: int, temperature: float | None = None) -> tuple[DiscreteVAE, torch.Tensor]:
    torch.manual_seed(0)
    x = binary()
    vae = DiscreteVAE.build(x, latent=3, categories=categories, hidden=[6], temperature=temperature).double()
    with torch.no_grad():
        vae.logits.normal_()
    return vae, x


def every(vae: DiscreteVAE) -> torch.Tensor:
    """Every value of z, as numbers: [C^L, L]."""
    return torch.cartesian_prod(*[torch.arange(vae.categories)] * vae.latent)


def as_values(vae: DiscreteVAE, z: torch.Tensor) -> torch.Tensor:
    """Numbers as the site has them."""
    return z.double() if vae.categories == 2 else nn.functional.one_hot(z, vae.categories).double()


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("categories", [2, 3])
def test_log_weights_of_choices_are_those_written_out_by_hand(categories, temperature):
    vae, x = choices(categories, temperature)
    z = every(vae)
    given = as_values(vae, z)[:, None].expand(-1, 5, *as_values(vae, z).shape[1:])
    d = pv.densities(vae, x, len(z), given={"z": given})
    if categories == 2:  # a logit is that of 1 against 0
        prior, posterior = (torch.stack([torch.zeros_like(t), t], -1) for t in (vae.logits, vae.encoder(x)))
    else:
        prior, posterior = vae.logits, vae.encoder(x).reshape(5, 3, 3)
    prior, posterior = prior.log_softmax(-1), posterior.log_softmax(-1)
    log_prior = torch.stack([sum(prior[i, c] for i, c in enumerate(row)) for row in z])[:, None]
    log_q = torch.stack([sum(posterior[:, i, c] for i, c in enumerate(row)) for row in z])
    logits = vae.likelihood.network(as_values(vae, z).flatten(1))[:, None]
    log_x = (x * logits - nn.functional.softplus(logits)).sum(-1)
    torch.testing.assert_close(d.log_weight, log_prior + log_x - log_q)
    torch.testing.assert_close(d.log_posterior.logsumexp(0), torch.zeros(5, dtype=F64))  # it sums to one
    torch.testing.assert_close(d.log_prior.logsumexp(0), torch.zeros(5, dtype=F64))


def test_two_values_are_those_of_a_vae_of_coins():
    vae, x = choices(2)
    with torch.no_grad():
        vae.logits.zero_()
    exact = EnumerableVAE(pv.priors.Bernoulli(3).double(), vae.likelihood, pv.posteriors.Bernoulli(vae.encoder))
    given = every(vae).double()[:, None].expand(-1, 5, -1)
    d = pv.densities(vae, x, 8, given={"z": given})
    torch.testing.assert_close(d.log_joint.logsumexp(0), exact.log_evidence(x))
    torch.testing.assert_close((d.log_posterior.exp() * d.log_weight).sum(0), exact.elbo(x))


@pytest.mark.parametrize("categories", [2, 3])
def test_draws_of_the_guide_are_choices_with_its_shares(categories):
    vae, x = choices(categories, 0.5)
    q = vae.posterior(x)
    z = q.sample([4000])
    assert ((z == 0) | (z == 1)).all()
    assert q.has_rsample
    assert not choices(categories)[0].posterior(x).has_rsample
    z_test(z.flatten(1), q.mean.flatten().detach())


@pytest.mark.parametrize("categories", [2, 3])
def test_the_code_is_the_most_probable_value(categories):
    vae, x = choices(categories)
    log_q = vae.posterior(x).log_prob(as_values(vae, every(vae))[:, None])  # [C^L, B]
    assert torch.equal(vae.code(x), every(vae)[log_q.argmax(0)])


@pytest.mark.parametrize(
    ("categories", "objective"), [(2, IWAE(3, "vimco")), (3, IWAE(3, "vimco")), (2, DisARM()), (2, REBAR())]
)
def test_without_a_temperature_the_score_reaches_every_parameter(categories, objective):
    vae, x = choices(categories)
    found = {n: torch.zeros_like(p) for n, p in vae.named_parameters()}
    for _ in range(5):
        for n, g in gradients(vae, -objective(vae, x).surrogate.mean()).items():
            found[n] += g.abs()
    assert not [n for n, g in found.items() if g.max() == 0]
    with pytest.raises(ValueError, match="no reparametrised sampler"):
        ELBO()(vae, x)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((0, 2, [2], 2), "expects latent of at least 1, got 0"),
        ((2, 1, [2], 2), "categories as a whole number of at least 2, got 1"),
        ((2, 3, [2], 6), r"expects an encoder that returns \[6\] for 2 latents of 3 values, got \[2\]; build"),
        ((2, 3, [6], 2), r"expects a decoder that takes \[6\]"),
        ((2, 2, [2], 2, -1.0), "temperature as a finite number above 0, got -1.0"),
    ],
)
def test_what_is_no_choice_is_refused(arguments, told):
    latent, categories, code, taken, *temperature = arguments
    likelihood = pv.likelihoods.Bernoulli(MLP([taken], [7]))
    with pytest.raises(ValueError, match=told):
        DiscreteVAE(latent, categories, MLP([7], code), likelihood, *temperature)
