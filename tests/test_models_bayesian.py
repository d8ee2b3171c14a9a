"""A decoder whose weights are latents: what they cost, and what is left of it where they are known."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import F64, z_test
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.models import VAE, BayesianDecoderVAE
from pyrovae.models.bayesian_decoder import decode
from pyrovae.objectives import ELBO, IWAE

NAMES = ("W_1", "b_1", "W_2", "b_2")


def images(n=7):
    return torch.bernoulli(torch.full((n, 1, 2, 3), 0.5, dtype=F64))


def small(x, hidden=(5,), doubt=None):
    """A model of 7 data; weights all over the place, and doubtful by so much."""
    torch.manual_seed(0)
    data = pv.data.from_arrays(images().float(), validation_size=0)
    vae = BayesianDecoderVAE.build(data, latent=2, hidden=list(hidden)).double()
    with torch.no_grad():
        for name in vae.loc:
            vae.loc[name].normal_()
            vae.log_prior_scale[name].normal_()
            vae.log_scale[name].normal_(-1.0, 0.3)
            if doubt is not None:
                vae.log_scale[name].fill_(doubt)
    return vae


def of_known_weights(vae):
    """The VAE whose decoder has the means for weights."""
    plain = VAE(vae.prior, pv.likelihoods.Bernoulli(pv.networks.MLP([2], [1, 2, 3], [5])), vae.posterior).double()
    body = plain.likelihood.network.body
    with torch.no_grad():
        for layer, number in ((body[1], 1), (body[3], 2)):
            layer.weight.copy_(vae.loc[f"W_{number}"].T)
            layer.bias.copy_(vae.loc[f"b_{number}"])
    return plain


def cost(vae):
    """KL(q(W) ‖ p(W)), all weights one by one."""
    total = 0.0
    for name in NAMES:
        q = dist.Normal(vae.loc[name], vae.log_scale[name].exp())
        total = total + kl_divergence(q, dist.Normal(0.0, vae.log_prior_scale[name].exp())).sum()
    return total


def test_with_weights_that_are_known_the_bound_is_that_of_a_vae():
    x = images()
    vae = small(x, doubt=-30.0)
    d, plain = pv.densities(vae, x, 4), of_known_weights(vae)
    given = {"z": d.posterior["z"].value}
    known = pv.densities(plain, x, 4, given=given)
    torch.testing.assert_close(d.log_weight, known.log_weight)
    given = {n: s.value for n, s in pv.densities(vae, x).posterior.items()}
    share = sum(vae.posterior_of(n).log_prob(given[n]) - vae.prior_of(n).log_prob(given[n]) for n in NAMES) / 7
    estimate = pv.densities(vae, x, given=given)
    known = pv.densities(plain, x, given={"z": given["z"]})
    bound = estimate.log_weight + estimate.log_global / estimate.data_size
    torch.testing.assert_close(bound, known.log_weight - share)


def test_the_weights_cost_once_for_all_data():
    """log p(W) − log q(W) has the mean −KL, and a datum the same N-th part of it whatever the batch."""
    x = images()
    vae = small(x)
    for rows in (x, x[:2]):
        torch.manual_seed(0)
        d = pv.densities(vae, rows, 3000)
        z_test(d.log_global[:, None].detach(), -cost(vae)[None].detach())
        torch.manual_seed(0)
        bound = ELBO(3000)(vae, rows).bound
        torch.testing.assert_close(bound, d.log_weight.mean(0) + d.log_global.mean() / 7)


def test_particles_have_weights_of_their_own():
    x = images()
    vae = small(x, hidden=(4, 3))
    d = pv.densities(vae, x, 3)
    weights = [d.posterior[f"{kind}_{layer}"].value for layer in (1, 2, 3) for kind in "Wb"]
    assert weights[0].shape == (3, 1, 2, 3)
    for k in range(3):
        h = d.posterior["z"].value[k]
        for layer in range(3):
            w, b = (t[k, 0] for t in weights[2 * layer : 2 * layer + 2])
            h = torch.stack([sum(v * row for v, row in zip(z, w, strict=True)) + b for z in h])
            h = h.clamp(min=0) if layer < 2 else h
        p = vae.likelihood(h).log_prob(x)
        torch.testing.assert_close(d.log_likelihood[k], p)
        torch.testing.assert_close(decode(d.posterior["z"].value, weights)[k], h)


def test_the_prior_is_learned():
    """Its best scales are the root mean squares of the weights under q."""
    vae = small(images())
    with torch.no_grad():
        for name in NAMES:
            square = vae.loc[name].square() + (2 * vae.log_scale[name]).exp()
            vae.log_prior_scale[name].copy_(square.mean().sqrt().log())
    for g in torch.autograd.grad(cost(vae), [vae.log_prior_scale[name] for name in NAMES]):
        torch.testing.assert_close(g, torch.zeros_like(g), atol=1e-10, rtol=0)


def test_more_data_than_were_trained_on_can_be_judged_and_made():
    vae = small(images())
    x = images(20)
    ev = pv.evaluate(vae, x, particles=50)
    assert ev.global_latents == NAMES
    assert ev.log_evidence.shape == (20,)
    assert pv.generate(vae, 20).shape == pv.reconstruct(vae, x).shape == x.shape


def test_a_run_has_its_traversal(tmp_path, capsys):
    """Along z, not along the weights, which are more numbers and no datum's own."""
    words = ["train", "BayesianDecoderVAE", "--data", "digits", "--hidden", "[8]", "--epochs", "1"]
    assert main([*words, "--test_particles", "2", "--run_dir", str(tmp_path)]) == 0
    assert "left out" not in capsys.readouterr().err
    assert (tmp_path / "figures" / "traversal.png").is_file()


def test_bounds_of_every_datum_alone_are_refused():
    x = images()
    with pytest.raises(ValueError, match=r"'W_1', 'b_1', 'W_2', 'b_2' is outside"):
        IWAE(2)(small(x), x)


def test_sizes_that_are_none_are_refused():
    vae = small(images())
    with pytest.raises(ValueError, match=r"expects widths of at least one layer, \[L, D\], got \[2\]; give the"):
        BayesianDecoderVAE(vae.prior, vae.likelihood, vae.posterior, [2], 7)
    with pytest.raises(ValueError, match="expects size as a whole number of at least 1, got 0; give the number of tr"):
        BayesianDecoderVAE(vae.prior, vae.likelihood, vae.posterior, [2, 6], 0)
