"""Gradients: the mean of 100,000 single ones against the exact gradient, for model and guide apart.

Every test is two z-tests, one over the parameters of the model and one over those of the guide, each wrong once in 1e6
for right code. Data are five or so, each with K draws of its own, so that K, M and B differ.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import F64, z_test
from exact import Coins, Masked, Mixture, OneLatent, at_nodes, both, elbo, expected, iwae, power, weighed

from pyrovae.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    REBAR,
    TVO,
    VRIWAE,
    BetaELBO,
    DisARM,
    Renyi,
    TailAdaptive,
    VRMax,
    WakeSleep,
)


def gradient(value, vae):
    """By theta and by phi; zero where it is not reached."""
    parameters = vae.theta, vae.phi
    return torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


def estimates(objective, vae, x, rows=1000, batches=100):
    """Means of `rows` single gradients each, by theta and by phi: [batches, parameters]."""
    many = x.repeat(rows // len(x), *[1] * (x.dim() - 1))
    found = [gradient(objective(vae, many).surrogate.mean(), vae) for _ in range(batches)]
    return [torch.stack(g) for g in zip(*found, strict=True)]


def check(objective, vae, x, model, guide, **options):
    """`model` and `guide` are exact values to differentiate; None for one that the estimator is not unbiased for."""
    by_theta, by_phi = estimates(objective, vae, x, **options)
    if model is not None:
        z_test(by_theta, gradient(model.mean(), vae)[0])
    if guide is not None:
        z_test(by_phi, gradient(guide.mean(), vae)[1])


# name: objective, K and the function of K draws whose expectation it follows: for the model, and for the guide
REPARAMETRISED = {
    "ELBO": (ELBO, 1, elbo, elbo),
    "ELBO 3": (lambda: ELBO(3), 1, elbo, elbo),
    "ELBO analytic": (lambda: ELBO(3, "analytic"), 1, elbo, elbo),
    "ELBO stl": (lambda: ELBO(3, gradient="stl"), 1, elbo, elbo),
    "ELBO score": (lambda: ELBO(3, gradient="score"), 1, elbo, elbo),
    "beta": (lambda: BetaELBO(4.0), 1, weighed(4), weighed(4)),
    "beta sampled": (lambda: BetaELBO(0.5, 3, kl="sampled"), 1, weighed(0.5), weighed(0.5)),
    "IWAE": (lambda: IWAE(3), 3, iwae, iwae),
    "IWAE stl": (lambda: IWAE(3, "stl"), 3, iwae, None),
    "IWAE dreg": (lambda: IWAE(3, "dreg"), 3, iwae, iwae),
    "IWAE score": (lambda: IWAE(3, "score"), 3, iwae, iwae),
    "IWAE vimco": (lambda: IWAE(3, "vimco"), 3, iwae, iwae),
    "IWAE backward 1": (lambda: IWAE(3, backward_particles=1), 3, iwae, iwae),
    "IWAE dreg backward 2": (lambda: IWAE(3, "dreg", backward_particles=2), 3, iwae, iwae),
    "MIWAE": (lambda: MIWAE(2, 3), 3, iwae, iwae),
    "MIWAE dreg": (lambda: MIWAE(2, 3, "dreg"), 3, iwae, iwae),
    "CIWAE": (lambda: CIWAE(3, 0.3), 3, both(0.3), both(0.3)),
    "CIWAE dreg": (lambda: CIWAE(3, 0.3, "dreg"), 3, both(0.3), both(0.3)),
    "Renyi": (lambda: Renyi(3, 0.5), 3, power(0.5), power(0.5)),
    "Renyi of 1": (lambda: Renyi(3, 1.0), 3, elbo, elbo),
    "Renyi below 0": (lambda: Renyi(3, -1.0), 3, power(2), power(2)),
    "Renyi above 1": (lambda: Renyi(3, 2.5), 3, power(-1.5), power(-1.5)),
    "VRIWAE": (lambda: VRIWAE(3, 0.4), 3, power(0.6), power(0.6)),
    "VRIWAE dreg": (lambda: VRIWAE(3, 0.4, "dreg"), 3, power(0.6), power(0.6)),
    "CUBO's model": (lambda: CUBO(3), 3, iwae, None),
    "tail-adaptive's model": (lambda: TailAdaptive(3), 3, iwae, None),
    "TVO of one part": (lambda: TVO(3, 1), 1, elbo, elbo),
    "wake": (lambda: WakeSleep(3), 3, iwae, None),
}


@pytest.mark.parametrize("name", REPARAMETRISED)
def test_two_latents_and_a_masked_observation(name):
    build, particles, model, guide = REPARAMETRISED[name]
    vae = Masked()
    x = vae.data(5)

    def exact(value):
        return None if value is None else expected(vae, x, particles, value, points=11)

    check(build(), vae, x, exact(model), exact(guide))


def test_the_nodes_are_many_enough():
    """The reference itself: more nodes move no gradient by a third of the standard errors in these tests."""
    vae = Masked()
    x = vae.data(5)
    for objective, value in ((IWAE(3), iwae), (Renyi(3, -1.0), power(2)), (Renyi(3, 2.5), power(-1.5))):
        few, many = (gradient(expected(vae, x, 3, value, n).mean(), vae) for n in (11, 13))
        for a, b, draws in zip(few, many, estimates(objective, vae, x), strict=True):
            assert ((a - b).abs() < draws.std(0) / math.sqrt(len(draws)) / 3).all()


def test_the_tests_have_power():
    """Sticking the landing is biased for the guide of IWAE(3), by about a tenth of its gradient: seen."""
    vae = Masked()
    x = vae.data(5)
    with pytest.raises(AssertionError, match="over the limit"):
        check(IWAE(3, "stl"), vae, x, None, expected(vae, x, 3, iwae, points=11))


def test_piwae():
    """The model's gradient is that of IWAE(M·K), the guide's that of IWAE(K)."""
    vae = OneLatent()
    x = vae.data(4)
    for gradient_of_guide in ("pathwise", "dreg"):
        model, guide = expected(vae, x, 6, iwae, points=12), expected(vae, x, 3, iwae)
        check(PIWAE(2, 3, gradient_of_guide), vae, x, model, guide)


def test_vr_max():
    """max log w has a kink, for which nodes are too few: with K = 1000 equal weights of a fine grid."""
    vae = OneLatent()
    x = vae.data(4)
    check(VRMax(2), vae, x, *2 * [expected(vae, x, 2, lambda p, r, q: (p + r - q).amax(0), points=150)])


DISCRETE = {
    "ELBO score": (lambda: ELBO(gradient="score"), 1, elbo, elbo),
    "ELBO mean": (lambda: ELBO(2, gradient="score", baseline="mean"), 1, elbo, elbo),
    "ELBO network": (lambda: ELBO(2, gradient="score", baseline="network"), 1, elbo, elbo),
    "ELBO leave one out": (lambda: ELBO(3, gradient="score", baseline="leave_one_out"), 1, elbo, elbo),
    "IWAE score": (lambda: IWAE(3, "score"), 3, iwae, iwae),
    "IWAE vimco": (lambda: IWAE(3, "vimco"), 3, iwae, iwae),
    "TVO of one part": (lambda: TVO(3, 1), 1, elbo, elbo),
    "wake": (lambda: WakeSleep(3), 3, iwae, None),
    "DisARM": (DisARM, 1, elbo, elbo),
    "DisARM of two pairs": (lambda: DisARM(2), 1, elbo, elbo),
    "REBAR": (REBAR, 1, elbo, elbo),
    "REBAR hot": (lambda: REBAR(2, temperature=2.0, scale=0.7), 1, elbo, elbo),
    "REBAR without relaxation": (lambda: REBAR(scale=0.0), 1, elbo, elbo),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_latents(name):
    build, particles, model, guide = DISCRETE[name]
    vae = Coins()
    x = vae.data(5)
    check(build(), vae, x, expected(vae, x, particles, model), guide and expected(vae, x, particles, guide))


def test_sleep():
    """∂ E_p(z, x)[log q(z | x)], summed over all z and x."""
    vae = Coins()
    x = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1.0], dtype=F64)])  # [8, 3]
    d, _ = at_nodes(vae, x, 1)
    value = (d.log_joint.detach().exp() * d.log_posterior).sum()
    check(WakeSleep(1, "sleep"), vae, vae.data(5), None, value)


# Enumerated sites: y is summed over beside a z that is drawn, so that a bound has K·S terms

ENUMERATED = {  # name: objective, whose bound is of K = 1 draw, as a function of log w and log mass [S, ..., B]
    "ELBO": (lambda: ELBO(), 0),
    "ELBO analytic": (lambda: ELBO(kl="analytic"), 0),
    "ELBO stl": (lambda: ELBO(gradient="stl"), 0),
    "ELBO score": (lambda: ELBO(gradient="score"), 0),
    "ELBO mean": (lambda: ELBO(2, gradient="score", baseline="mean"), 0),
    "ELBO leave one out": (lambda: ELBO(2, gradient="score", baseline="leave_one_out"), 0),
    "beta": (lambda: BetaELBO(kl="sampled"), 0),
    "IWAE": (lambda: IWAE(1), 1),
    "IWAE dreg": (lambda: IWAE(1, "dreg"), 1),
    "IWAE score": (lambda: IWAE(1, "score"), 1),
    "MIWAE": (lambda: MIWAE(3, 1), 1),
    "MIWAE dreg": (lambda: MIWAE(3, 1, "dreg"), 1),
    "PIWAE": (lambda: PIWAE(1, 1), 1),
    "CIWAE": (lambda: CIWAE(1, 0.0), 1),
    "CIWAE of 1": (lambda: CIWAE(2, 1.0), 0),
    "Renyi": (lambda: Renyi(1, 0.3), 0.7),
    "Renyi below 0": (lambda: Renyi(1, -1.0), 2),
    "Renyi above 1": (lambda: Renyi(1, 2.5), -1.5),
    "VRIWAE dreg": (lambda: VRIWAE(1, 0.3, "dreg"), 0.7),
    "TVO of one part": (lambda: TVO(2, 1), 0),
}


def of_rows(vae, x, t, points=80):
    """E[1/t log Σ_y q(y) w_y^t], where every y has a z of its own, or all have the one drawn before them: [B]."""
    d, log_node = at_nodes(vae, x, points)
    log_mass = d.posterior["y"].log_prob
    if vae.order == "yz":

        def arrange(a):
            low, high = a.unflatten(0, (2, points))  # [n, B]
            return torch.stack([low[:, None].expand(-1, points, -1), high.expand(points, -1, -1)]).flatten(1, 2)
    else:

        def arrange(a):
            return a.unflatten(0, (points, 2)).movedim(1, 0)  # [S, n, B]

    log_weight, mass, share = arrange(d.log_weight), arrange(log_mass), arrange(log_node - log_mass)
    share = share.sum(0) if vae.order == "yz" else share[0]
    value = (mass.exp() * log_weight).sum(0) if t == 0 else (mass + t * log_weight).logsumexp(0) / t
    return (share.exp() * value).sum(0)


@pytest.mark.parametrize("order", ["yz", "zy"])
@pytest.mark.parametrize("name", ENUMERATED)
def test_enumerated_sites_of_the_guide(name, order):
    build, t = ENUMERATED[name]
    vae = Mixture(order)
    x = vae.data(5)
    if order == "zy" and getattr(build(), "gradient", None) in getattr(build(), "independent", ()):
        with pytest.raises(ValueError, match=r"expects enumerated sites before those that are drawn.* before 'y'"):
            build()(vae, x)
        return
    check(build(), vae, x, *2 * [of_rows(vae, x, t)])


@pytest.mark.parametrize("name", ["ELBO", "IWAE", "IWAE dreg", "IWAE vimco", "IWAE backward 1", "MIWAE", "Renyi"])
def test_sites_that_the_model_sums_over(name):
    """q(z | x) alone, and w = Σ_y p(x, y, z) / q(z | x)."""
    build, particles, model, guide = REPARAMETRISED[name]
    vae = Mixture("z")
    x = vae.data(5)
    check(build(), vae, x, *(expected(vae, x, particles, f) for f in (model, guide)))


def test_a_whole_site_enumerated_has_no_variance():
    """All 4 values of z: bound and gradient are exact in one evaluation, whatever the estimator."""
    vae, marked = Coins(), Coins(mark=True)
    x = vae.data(5)
    evidence = expected(vae, x, 1, lambda p, r, q: (p + r - q).exp().mean(0)).log()
    exact = {0.0: expected(vae, x, 1, elbo), 1.0: evidence}
    d, log_node = at_nodes(vae, x, 1)
    exact |= {t: (t * d.log_weight + log_node).logsumexp(0) / t for t in (0.6, 2.0)}
    for objective, t in (
        (ELBO(), 0),
        (ELBO(2, gradient="score"), 0),
        (BetaELBO(), 0),
        (IWAE(2), 1),
        (IWAE(3, "vimco"), 1),
        (MIWAE(2, 3), 1),
        (Renyi(2, 0.4), 0.6),
        (Renyi(2, -1.0), 2),
        (VRIWAE(2, 0.4, "dreg"), 0.6),
        (WakeSleep(2), 1),
    ):
        e = objective(marked, x)
        torch.testing.assert_close(e.bound, exact[t].detach(), rtol=1e-10, atol=1e-10)
        if not isinstance(objective, WakeSleep):
            for a, b in zip(gradient(e.surrogate.mean(), marked), gradient(exact[t].mean(), vae), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    upper = CUBO(2, 2.0)(marked, x)
    torch.testing.assert_close(upper.bound, exact[2.0].detach(), rtol=1e-10, atol=1e-10)
    a, b = gradient(upper.surrogate.mean(), marked)[1], gradient(-exact[2.0].mean(), vae)[1]
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


# Estimators of a consistent gradient: K large, so that the bias of order 1/K is far below the standard error


def log_integral(d, log_node):
    return (d.log_weight + log_node).logsumexp(0)  # log p(x)


def tempered(betas):
    """Σ_j (β_{j+1} − β_j) E_π[log w], with nodes for draws."""

    def value(d, log_node):
        total = torch.zeros((), dtype=F64)
        for low, high in itertools.pairwise(betas):
            pi = (low * d.log_weight + log_node).softmax(0)
            total = total + (high - low) * (pi * d.log_weight).sum(0)
        return total

    return value


def inclusive(d, log_node):
    """−KL(p ‖ q) but for a constant: Σ p(z | x) log q(z | x) at fixed z."""
    posterior = (d.log_weight + log_node).softmax(0).detach()
    return (posterior * d.log_score).sum(0)


def chi(n):
    return lambda d, log_node: -(n * d.log_weight + log_node).logsumexp(0) / n


CONSISTENT = {
    "TVO": (lambda k: TVO(k, 3, "linear"), tempered([0, 1 / 3, 2 / 3, 1]), tempered([0, 1 / 3, 2 / 3, 1])),
    "TVO log": (lambda k: TVO(k, 3, first=0.04), tempered([0, 0.04, 0.2, 1]), tempered([0, 0.04, 0.2, 1])),
    "wake": (WakeSleep, log_integral, inclusive),
    "CUBO": (lambda k: CUBO(k, 2.0), log_integral, chi(2)),
    "CUBO 1.5": (lambda k: CUBO(k, 1.5), log_integral, chi(1.5)),
}


CASES = [  # CUBO differentiates its draws
    (name, model)
    for name in CONSISTENT
    for model in ("normal", "coins", "enumerated")
    if not (name.startswith("CUBO") and model == "coins")
]


@pytest.mark.parametrize(("name", "model"), CASES)
def test_consistent_gradients(name, model):
    """Where all is enumerated, of any number of draws and without an error."""
    build, of_model, of_guide = CONSISTENT[name]
    vae = OneLatent() if model == "normal" else Coins(mark=model == "enumerated")
    x = vae.data(3)
    d, log_node = at_nodes(vae, x, 60)
    assert ((2 * d.log_weight + log_node).logsumexp(0) < 2 * (d.log_weight + log_node).logsumexp(0) + 2).all()
    objective = build(3 if model == "enumerated" else 20_000)
    check(objective, vae, x, of_model(d, log_node), of_guide(d, log_node), rows=3, batches=30)


def test_the_constants_are_not_zero():
    """A gradient that is zero would pass for any estimator that is zero: every exact one here is far from it."""
    vae = Masked()
    x = vae.data(5)
    for value in (elbo, iwae, power(2)):
        for g in gradient(expected(vae, x, 1 if value is elbo else 3, value, 11).mean(), vae):
            assert g.abs().max() > 0.05
    assert math.isfinite(sum(p.sum().item() for p in vae.parameters()))
