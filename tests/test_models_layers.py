"""Layers of latents: the ladder against products of Gaussians, and both guides where they can be exact."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64
from pieces import Output

import pyrovae as pv
from pyrovae.models.hierarchical import BottomUp, Conditional, HierarchicalVAE, Ladder, product
from pyrovae.options import read_train

W, S, T = 1.5, 0.8, 0.6  # z2 ~ 𝒩(0, 1), z1 | z2 ~ 𝒩(W z2, S²), x | z1 ~ 𝒩(z1, T²)


class Gaussian(nn.Module):
    """𝒩(a z, s²) in every dimension."""

    def __init__(self, a: float, s: float) -> None:
        super().__init__()
        self.a, self.s = a, s

    def forward(self, z):
        return dist.Normal(self.a * z, self.s).to_event(1)


class Says(nn.Module):
    """μ̂ = a d and σ̂ = s of one layer as a ladder has them, beside a model of deviation `expected`."""

    def __init__(self, a: float, s: float, expected: float) -> None:
        super().__init__()
        self.pull, self.log_ratio = a * expected / s**2, math.log(s / expected)

    def forward(self, d):
        pull = self.pull * d[..., :2]
        return torch.cat([pull, torch.full_like(pull, self.log_ratio)], -1)


def linear(posterior: nn.Module) -> HierarchicalVAE:
    """The linear Gaussian model of two layers, two independent dimensions each."""
    return HierarchicalVAE(pv.priors.StandardNormal(2), [Gaussian(W, S)], Gaussian(1.0, T), posterior).double()


def small(posterior: str) -> tuple[HierarchicalVAE, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((5, 7), 0.5, dtype=F64))
    vae = HierarchicalVAE.build(x, latents=[4, 3, 2], hidden=[6], between=[5], posterior=posterior)
    return vae.double(), x


def test_the_product_is_that_of_the_densities():
    m, s, loc, log_scale = (torch.randn(3, 4, dtype=F64) for _ in range(4))
    p = dist.Normal(m, s.exp()).to_event(1)
    z = torch.randn(100, 3, 4, dtype=F64)
    log_product = p.log_prob(z) + dist.Normal(loc, log_scale.exp()).to_event(1).log_prob(z)
    merged = product(p, loc * (s - 2 * log_scale).exp(), log_scale - s)
    log_norm = log_product - merged.log_prob(z)  # the same at every z
    together = dist.Normal(m, (s.mul(2).exp() + log_scale.mul(2).exp()).sqrt()).log_prob(loc).sum(-1)
    torch.testing.assert_close(log_norm, together.expand(100, 3))


def test_data_that_say_nothing_leave_the_prior():
    vae, x = small("ladder")
    silent = [Output(torch.cat([torch.zeros(n), torch.full((n,), 25.0)])) for n in (4, 3, 2)]
    vae.posterior = Ladder(silent)
    d = pv.densities(vae, x, 6)
    for name, q in d.posterior.items():
        torch.testing.assert_close(q.log_prob, d.prior[name].log_prob.expand(6, 5))
    torch.testing.assert_close(d.log_weight, d.log_likelihood)


def test_data_that_are_sure_leave_their_own_mean():
    vae, x = small("ladder")
    loc = [torch.randn(n, dtype=F64) for n in (4, 3, 2)]
    vae.posterior = Ladder([Output(torch.cat([m * math.exp(20), torch.full_like(m, -10.0)])) for m in loc])
    vae.conditionals = nn.ModuleList([Conditional(Output(torch.zeros(2 * n))) for n in (4, 3)])  # s = 1
    for i, m in enumerate(loc, 1):
        torch.testing.assert_close(pv.encode(vae, x)[f"z{i}"], m.expand(5, -1))


@pytest.mark.parametrize("posterior", ["ladder", "bottom_up"])
def test_with_the_right_networks_the_guide_is_exact(posterior):
    """Every draw then has log w = log p(x) = log 𝒩(x; 0, W² + S² + T²)."""
    total, between = W**2 + S**2 + T**2, S**2 + T**2
    if posterior == "ladder":  # of z1 the data say 𝒩(x, T²), of z2 what is left of it with z1 integrated out
        q = Ladder([Says(1.0, T, S), Says(T**2 / S / W, between**0.5 / W, 1.0)])  # the second reads S x / T²
    else:
        one, two = W**2 + S**2, W**2 + S**2
        q = BottomUp([Gaussian(one / total, (one * T**2 / total) ** 0.5), Gaussian(W / two, S / two**0.5)])
    x = 2 * torch.randn(6, 2, dtype=F64)
    exact = dist.Normal(torch.zeros(2, dtype=F64), total**0.5).to_event(1).log_prob(x)
    torch.testing.assert_close(pv.densities(linear(q), x, 20).log_weight, exact.expand(20, 6))


def log_normal(z, loc, log_scale):
    """log 𝒩(z; loc, e^(2 log_scale)), as it is written in books."""
    return (-0.5 * ((z - loc) / log_scale.exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("posterior", ["ladder", "bottom_up"])
def test_log_weights_are_those_written_out_by_hand(posterior):
    vae, x = small(posterior)
    d = pv.densities(vae, x, 3)
    z1, z2, z3 = (d.posterior[f"z{i}"].value for i in (1, 2, 3))
    below = [c.network for c in vae.conditionals]
    (m1, r1), (m2, r2) = below[0](z2).chunk(2, -1), below[1](z3).chunk(2, -1)
    s1, s2 = r1.tanh(), r2.tanh()
    nothing = torch.zeros(2, dtype=F64)
    log_p = log_normal(z3, nothing, nothing) + log_normal(z2, m2, s2) + log_normal(z1, m1, s1)
    logits = vae.likelihood.network(z1)
    log_p = log_p + (x * logits - nn.functional.softplus(logits)).sum(-1)
    if posterior == "bottom_up":
        networks = [q.network for q in vae.posterior.posteriors]
        log_q = sum(
            log_normal(z, *network(h).chunk(2, -1))
            for z, h, network in zip((z1, z2, z3), (x, z1, z2), networks, strict=True)
        )
    else:
        log_q, h = 0.0, x
        for z, m, s, network in zip(
            (z1, z2, z3), (m1, m2, nothing), (s1, s2, nothing), vae.posterior.networks, strict=True
        ):
            h = network(h)
            pull, log_ratio = h.chunk(2, -1)
            log_scale, loc = s + log_ratio, pull * (s + 2 * log_ratio).exp()  # σ̂ and μ̂
            precision = (-2 * s).exp() + (-2 * log_scale).exp()
            mean = (m * (-2 * s).exp() + loc * (-2 * log_scale).exp()) / precision
            log_q = log_q + log_normal(z, mean, -precision.log() / 2)
    torch.testing.assert_close(d.log_weight, log_p - log_q)


def test_sizes_and_sites_are_in_order():
    vae, x = small("ladder")
    assert list(pv.densities(vae, x).prior) == ["z3", "z2", "z1"]
    assert list(pv.densities(small("bottom_up")[0], x).posterior) == ["z1", "z2", "z3"]
    assert {n: list(z.shape) for n, z in pv.encode(vae, x).items()} == {"z1": [5, 4], "z2": [5, 3], "z3": [5, 2]}
    assert pv.generate(vae, 2).shape == (2, 7)


@pytest.mark.parametrize("posterior", ["ladder", "bottom_up"])
def test_the_guide_is_a_word_of_the_command_line(posterior):
    settings = read_train(["HierarchicalVAE", "--posterior", posterior, "--latents", "[6,3]"])
    assert (settings["posterior"], settings["latents"]) == (posterior, [6, 3])


def test_a_chain_of_many_layers_begins_with_finite_densities():
    x = torch.bernoulli(torch.full((50, 7), 0.5))
    for posterior in ("ladder", "bottom_up"):
        vae = HierarchicalVAE.build(x, latents=[8] * 6, hidden=[6], between=[20], posterior=posterior)
        assert pv.check(vae, x) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"latents": [5]}, "expects latents as the sizes of two layers or more, got \\[5\\]; give"),
        ({"latents": [5, 0]}, "expects latent of at least 1, got 0"),
        ({"posterior": "lader"}, "unknown posterior 'lader'; did you mean 'ladder'"),
    ],
)
def test_what_is_no_hierarchy_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        HierarchicalVAE.build(torch.zeros(3, 7), **options)


def test_one_layer_is_refused():
    with pytest.raises(ValueError, match=r"at least one of p\(z1 \| z2\).*use models.VAE"):
        HierarchicalVAE(pv.priors.StandardNormal(2), [], Gaussian(1.0, T), Ladder([Says(1.0, T, S)]))


def test_a_ladder_of_what_is_not_gaussian_is_refused():
    vae = HierarchicalVAE.build(torch.zeros(3, 7), latents=[3, 2], prior="Laplace")
    with pytest.raises(ValueError, match=r"Ladder multiplies Gaussians, got p\(z\) Laplace; use"):
        pv.densities(vae, torch.zeros(3, 7))
