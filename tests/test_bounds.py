"""Bounds: what each is equal to, in value and gradient, under one seed; how they are ordered; where they are exact."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import F64, FREE, TIGHT, LinearGaussian, TwoLatents, gradients, run, z_test
from exact import Coins, Masked, OneLatent, at_nodes
from pieces import small_data, small_vae

import pyrovae as pv
from pyrovae.objectives import (
    CIWAE,
    CUBO,
    DIPVAE,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    REBAR,
    TVO,
    VRIWAE,
    BetaTCVAE,
    DisARM,
    InfoVAE,
    Renyi,
    TailAdaptive,
    VRMax,
    WakeSleep,
)
from pyrovae.objectives.importance import leave_one_out, stratified
from pyrovae.objectives.weights import Weighted, Weights, power_mean, shares, surrogate


def check_same(a, b, vae, x, names=None, **tolerance):
    """Equal bounds, and equal gradients for these parameters."""
    ea, eb = run(a, vae, x), run(b, vae, x)
    if names is None:
        torch.testing.assert_close(ea.bound, eb.bound, **(tolerance or TIGHT))
    ga, gb = (torch.autograd.grad(e.surrogate.mean(), [*vae.parameters()], allow_unused=True) for e in (ea, eb))
    for (name, _), left, right in zip(vae.named_parameters(), ga, gb, strict=True):
        if names is None or name in names:
            torch.testing.assert_close(left, right, **(tolerance or TIGHT), msg=lambda m, n=name: f"{n}: {m}")


# Each is a special case of another

SAME = {
    "MIWAE of single particles": (lambda: MIWAE(4, 1), lambda: ELBO(4)),
    "MIWAE dreg of single particles": (lambda: MIWAE(4, 1, "dreg"), lambda: ELBO(4, gradient="stl")),
    "MIWAE of one group": (lambda: MIWAE(1, 4), lambda: IWAE(4)),
    "MIWAE dreg of one group": (lambda: MIWAE(1, 4, "dreg"), lambda: IWAE(4, "dreg")),
    "PIWAE of one group": (lambda: PIWAE(1, 4), lambda: IWAE(4)),
    "IWAE of one, stl": (lambda: IWAE(1, "stl"), lambda: ELBO(gradient="stl")),
    "IWAE of one, dreg": (lambda: IWAE(1, "dreg"), lambda: ELBO(gradient="stl")),
    "CIWAE of 0": (lambda: CIWAE(4, 0), lambda: IWAE(4)),
    "CIWAE of 1": (lambda: CIWAE(4, 1), lambda: ELBO(4)),
    "CIWAE dreg of 0": (lambda: CIWAE(4, 0, "dreg"), lambda: IWAE(4, "dreg")),
    "CIWAE dreg of 1": (lambda: CIWAE(4, 1, "dreg"), lambda: ELBO(4, gradient="stl")),
    "CIWAE stl of 0": (lambda: CIWAE(4, 0, "stl"), lambda: IWAE(4, "stl")),
    "Renyi of 0": (lambda: Renyi(4, 0), lambda: IWAE(4)),
    "Renyi of 1": (lambda: Renyi(4, 1), lambda: ELBO(4)),
    "VRIWAE": (lambda: VRIWAE(4, 0.3), lambda: Renyi(4, 0.3)),
    "VRIWAE of 0, dreg": (lambda: VRIWAE(4, 0, "dreg"), lambda: IWAE(4, "dreg")),
    "VRIWAE of 0, stl": (lambda: VRIWAE(4, 0, "stl"), lambda: IWAE(4, "stl")),
    "beta-TC of ones": (lambda: BetaTCVAE(1.0, particles=4), lambda: ELBO(4)),
    "InfoVAE of the rate": (lambda: InfoVAE(0.0, scale=0.0, particles=4), lambda: ELBO(4)),
}


@pytest.mark.parametrize("model", [*FREE, "masked"])
@pytest.mark.parametrize("case", SAME)
def test_special_cases(case, model):
    vae = Masked() if model == "masked" else FREE[model]()
    a, b = SAME[case]
    check_same(a(), b(), vae, vae.data(5))


@pytest.mark.parametrize("model", FREE)
def test_dip_of_the_rate_follows_the_elbo(model):
    vae = FREE[model]()
    names = [n for n, _ in vae.named_parameters()]
    check_same(DIPVAE(0.0, 0.0, particles=4), ELBO(4, kl="analytic"), vae, vae.data(5), names)


def test_tvo_of_one_part_is_the_elbo_with_the_others_as_baseline():
    """But for −∂ log q of every draw, whose mean is zero."""
    w = some_weights()
    bound, weights = TVO(4, 1).weigh(w, torch.full_like(w, -math.log(4)))
    torch.testing.assert_close(bound, w.mean(0), **TIGHT)
    torch.testing.assert_close(4 * weights.model, torch.ones_like(w), **TIGHT)
    others = (w.sum(0) - w) / 3
    torch.testing.assert_close(4 * weights.score + 1, w - others, **TIGHT)


@pytest.mark.parametrize("alpha", [1 - 1e-6, 1 + 1e-6])
def test_renyi_tends_to_the_elbo(alpha):
    vae = LinearGaussian(guide="free")
    check_same(Renyi(4, alpha), ELBO(4), vae, vae.data(5), rtol=1e-4, atol=1e-4)


def test_renyi_tends_to_vr_max():
    vae = LinearGaussian(guide="free")
    check_same(Renyi(4, -1e6), VRMax(4), vae, vae.data(5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradient", PIWAE.gradients)
def test_piwae_is_iwae_for_the_model_and_miwae_for_the_guide(gradient):
    vae = OneLatent()
    x = vae.data(5)
    check_same(PIWAE(2, 3, gradient), IWAE(6), vae, x, names=["theta"])
    check_same(PIWAE(2, 3, gradient), MIWAE(2, 3, gradient), vae, x, names=["phi"])
    torch.testing.assert_close(run(PIWAE(2, 3), vae, x).bound, run(IWAE(6), vae, x).bound, **TIGHT)


@pytest.mark.parametrize("objective", [WakeSleep, TailAdaptive, CUBO, lambda k: IWAE(k, "vimco")])
def test_the_model_follows_iwae(objective):
    vae = OneLatent()
    check_same(objective(4), IWAE(4), vae, vae.data(5), names=["theta"])


# Where the guide is the posterior


def with_posterior(model):
    """A guide of parameters of its own, at the exact posterior."""
    if model == "two latents":
        vae = TwoLatents("up")
        with torch.no_grad():
            vae.phi.copy_(torch.stack(vae.true_phi()))
        return vae, [vae.phi]
    vae = LinearGaussian(latent=1, event=2, guide="free")
    with torch.no_grad():
        variance = vae.true_posterior(vae.data(1)).covariance_matrix[0, 0]
        vae.a.copy_(variance * vae.w.T / (2 * vae.log_sigma).exp())
        vae.c.copy_(-vae.a @ vae.b)
        vae.log_s.copy_(variance.log() / 2)
    return vae, [vae.a, vae.c, vae.log_s]


STILL = {
    "ELBO stl": lambda: ELBO(3, gradient="stl"),
    "IWAE stl": lambda: IWAE(3, "stl"),
    "IWAE dreg": lambda: IWAE(3, "dreg"),
    "IWAE dreg backward": lambda: IWAE(3, "dreg", backward_particles=2),
    "MIWAE dreg": lambda: MIWAE(2, 3, "dreg"),
    "PIWAE dreg": lambda: PIWAE(2, 3, "dreg"),
    "CIWAE dreg": lambda: CIWAE(3, 0.3, "dreg"),
    "VRIWAE dreg": lambda: VRIWAE(3, 0.3, "dreg"),
    "CUBO": lambda: CUBO(3),
    "tail-adaptive": lambda: TailAdaptive(3),
}


@pytest.mark.parametrize("model", ["one latent", "two latents"])
@pytest.mark.parametrize("name", STILL)
def test_no_gradient_of_the_guide_at_the_posterior(name, model):
    """Not small: zero, for every draw."""
    vae, guide = with_posterior(model)
    e = STILL[name]()(vae, vae.data(5))
    for g in torch.autograd.grad(e.surrogate.mean(), guide):
        assert g.abs().max() < 1e-10


def test_the_plain_gradient_is_not_zero_there():
    vae, guide = with_posterior("one latent")
    for objective in (ELBO(3), IWAE(3), MIWAE(2, 3)):
        for g in torch.autograd.grad(objective(vae, vae.data(5)).surrogate.mean(), guide):
            assert g.abs().max() > 1e-3


# Order


def test_bounds_of_the_same_draws_are_ordered():
    """For every datum and draw, as power means are; TVO lies between, as its integral is IWAE's."""
    vae = OneLatent()
    x = vae.data(50)
    order = [Renyi(6, 2.5), ELBO(6), TVO(6, 5), IWAE(6), Renyi(6, -1.0), Renyi(6, -20.0), VRMax(6)]
    between = [CIWAE(6, 0.5), VRIWAE(6, 0.5), MIWAE(2, 3), TVO(6, 5, "linear"), TVO(6, 5, "moments")]
    bounds = [run(o, vae, x).bound for o in order]
    for low, high in itertools.pairwise(bounds):
        assert (low < high).all()
    for o in between:
        bound = run(o, vae, x).bound
        assert (bounds[1] < bound).all()
        assert (bound < bounds[3]).all()


def test_upper_and_lower_bounds_enclose_the_evidence():
    """Five standard errors apart; the guide is wide, so that w² has a variance."""
    vae = OneLatent()
    x = vae.data(1)
    d, log_node = at_nodes(vae, x, 60)
    evidence = (d.log_weight + log_node).logsumexp(0).item()
    with torch.no_grad():
        lower = [ELBO(5), CIWAE(5), VRIWAE(5), Renyi(5, 2.0), TVO(5), MIWAE(3, 5), IWAE(2), IWAE(5, "dreg")]
        upper = [CUBO(100), CUBO(100, 1.5), CUBO(100, 4.0), Renyi(100, -1.0), Renyi(100, -3.0)]
        for side, objectives, rows in ((1, lower, 50_000), (-1, upper, 10_000)):
            for o in objectives:
                gap = side * (evidence - o(vae, x.expand(rows, -1)).bound)
                assert gap.mean() > 5 * gap.std() / math.sqrt(len(gap)), o
                assert o.lower == (side == 1)


def test_weights_do_not_overflow():
    """Log weights of −1e4, as of images: every bound and gradient stays finite, in float32 too."""
    vae = small_vae()
    with torch.no_grad():
        for p in vae.likelihood.parameters():
            p.mul_(1e3)
    x = small_data(dtype=torch.float32)
    score = [IWAE(5, "vimco"), IWAE(5, "score"), TVO(5), WakeSleep(5)]
    for o in (IWAE(5), IWAE(5, "dreg"), MIWAE(2, 5), CUBO(5), Renyi(5, -3), Renyi(5, 3), TailAdaptive(5), *score):
        e = o(vae, x)
        assert (e.bound < -1000).all()
        assert torch.isfinite(e.bound).all()
        for g in gradients(vae, e.surrogate.mean()).values():
            assert torch.isfinite(g).all(), o


class Plain(Weighted):
    """The plain derivative of 1/2 log 1/K Σ w², downwards for the guide: what CUBO does not follow."""

    def weigh(self, log_weight, log_mass):
        v = shares(log_weight, log_mass, 2)
        return power_mean(log_weight, log_mass, 2), Weights(shares(log_weight, log_mass, 1), -v, v)


def test_cubo_finds_the_posterior_from_a_narrow_guide():
    """The plain derivative leads away without end: the estimate is least where no draw meets the posterior."""
    distance = {}
    for objective in (CUBO(5), Plain(5)):
        torch.manual_seed(0)
        vae = OneLatent()
        with torch.no_grad():
            vae.phi[3] -= 1.5  # log σ
        x, optimiser = vae.data(50), torch.optim.Adam([vae.phi], 0.05)
        for _ in range(300):
            optimiser.zero_grad()
            (-objective(vae, x).surrogate.mean()).backward()
            optimiser.step()
        d, log_node = at_nodes(vae, x, 60)
        gap = (d.log_weight + log_node).logsumexp(0) - (log_node.exp() * d.log_weight).sum(0)
        distance[type(objective)] = gap.mean().item()
    assert distance[CUBO] < 1e-3
    assert distance[Plain] > 0.5


# Formulae written out in loops


def some_weights(k=4, b=3):
    return 3 * torch.randn(k, b, dtype=F64)


def test_power_mean():
    w, mass = some_weights(), torch.full((4, 3), math.log(1 / 4), dtype=F64)
    for t in (-2.0, 0.5, 1.0, 3.0):
        torch.testing.assert_close(power_mean(w, mass, t), (w.exp() ** t).mean(0).log() / t, **TIGHT)
    torch.testing.assert_close(power_mean(w, mass, 0), w.mean(0), **TIGHT)
    assert torch.equal(power_mean(w, mass, math.inf), w.max(0).values)


def test_vimco_s_baseline():
    """log 1/K (Σ_{j≠k} w_j + geometric mean of them), whatever w_k is."""
    w = some_weights()
    k, b = w.shape
    found = leave_one_out(w, torch.full_like(w, -math.log(k)))
    for i, j in itertools.product(range(k), range(b)):
        others = torch.cat([w[:i, j], w[i + 1 :, j]])
        expected = ((others.exp().sum() + others.mean().exp()) / k).log()
        assert found[i, j].item() == pytest.approx(expected.item(), rel=1e-12)
    one = torch.tensor([[0.0], [-60.0], [-61.0]], dtype=F64)  # one weight in front: the others' must not cancel
    found = leave_one_out(one, torch.full_like(one, -math.log(3)))[0, 0].item()
    expected = -60 + math.log((1 + math.exp(-1) + math.exp(-0.5)) / 3)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", ["log", "linear", "moments"])
def test_tvo(schedule):
    """Bound and weights against loops over partitions and particles."""
    w, objective = some_weights(), TVO(4, 5, schedule)
    mass = torch.full_like(w, math.log(1 / 4))
    betas = objective.betas(w, mass)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (betas.diff() >= 0).all()
    assert len(betas) == 6
    bound, weights = objective.weigh(w, mass)
    for b in range(3):
        total, model, score = 0.0, torch.zeros(4, dtype=F64), torch.zeros(4, dtype=F64)
        for low, high in itertools.pairwise(betas):
            v = (low * w[:, b]).softmax(0)
            mean = (v * w[:, b]).sum()
            total = total + (high - low) * mean
            for k in range(4):
                c = v[k] * (w[k, b] - mean) * 4 / 3
                model[k] += (high - low) * (v[k] + low * c)
                score[k] += (high - low) * ((1 - low) * c - v[k])
        torch.testing.assert_close(bound[b], total, **TIGHT)
        torch.testing.assert_close(weights.model[:, b], model, **TIGHT)
        torch.testing.assert_close(weights.score[:, b], score, **TIGHT)


def test_schedules_of_tvo():
    w, mass = some_weights(50, 7), torch.full((50, 7), -math.log(50), dtype=F64)
    log = TVO(50, 4, "log", first=0.001).betas(w, mass)
    torch.testing.assert_close(log, torch.tensor([0, 0.001, 0.01, 0.1, 1.0], dtype=F64)[[0, 1, 2, 3, 4]])
    assert TVO(50, 1, "log").betas(w, mass).tolist() == [0, 1]
    moments = TVO(50, 4, "moments").betas(w, mass)
    means = torch.stack([((b * w).softmax(0) * w).sum(0).mean() for b in moments])
    torch.testing.assert_close(means.diff(), means.diff().mean().expand(4), rtol=0.1, atol=0)  # of a grid of 101


def test_tail_adaptive_ranks():
    """1 / #{j: w_j ≥ w_k}, normalised: the largest weight counts most."""
    w = some_weights()
    _, weights = TailAdaptive(4).weigh(w, torch.full_like(w, math.log(1 / 4)))
    for b in range(3):
        counts = torch.tensor([sum(bool(o >= v) for o in w[:, b]) for v in w[:, b]], dtype=F64)
        torch.testing.assert_close(weights.path[:, b], 1 / counts / (1 / counts).sum(), **TIGHT)
        assert weights.path[:, b].argmax() == w[:, b].argmax()


def test_wake_weights_are_those_of_the_datum():
    w = some_weights()
    _, weights = WakeSleep(4).weigh(w, torch.full_like(w, math.log(1 / 4)))
    torch.testing.assert_close(weights.score.sum(0), torch.ones(3, dtype=F64), **TIGHT)
    torch.testing.assert_close(weights.score, w.exp() / w.exp().sum(0), **TIGHT)


def test_stratified_draws_have_the_probabilities_of_the_weights():
    """Counts of 2 draws of 4 particles over 50,000 columns: a z-test, wrong once in 1e6; each stratum has one draw."""
    v = torch.tensor([0.5, 0.1, 0.15, 0.25], dtype=F64)
    chosen = stratified(v[:, None].expand(-1, 50_000), 2)
    counts = torch.stack([(chosen == k).sum(0) for k in range(4)], 1).to(F64)
    z_test(counts, 2 * v)
    assert (chosen[0] == 0).all()  # its half of [0, 1)
    assert (chosen[1] != 0).all()


def test_backward_particles_leave_the_bound_alone():
    vae = OneLatent()
    x = vae.data(5)
    for m in (1, 2, 4):
        few, all_of_them = (run(o, vae, x).bound for o in (IWAE(4, backward_particles=m), IWAE(4)))
        torch.testing.assert_close(few, all_of_them, **TIGHT)


def test_backward_particles_of_one_weight_are_the_gradient():
    """At the posterior all weights are equal, and the strata of K draws are the particles."""
    vae, _ = with_posterior("two latents")
    check_same(IWAE(4, backward_particles=4), IWAE(4), vae, vae.data(5))


@pytest.mark.parametrize("score", [True, False])
@pytest.mark.parametrize("model", [OneLatent, Masked])
def test_a_surrogate_has_the_gradient_that_its_weights_say(model, score):
    """Any weights, negative ones and zeros among them: each of the three terms differentiated by itself."""
    vae = model()
    x = vae.data(5)
    w = torch.randn(3, 4, 5, dtype=F64)
    w[0, 0], w[0, 1, 2], w[1, 1] = 0, 0, 0
    weights = Weights(w[0], w[1], w[2] if score else None)
    torch.manual_seed(5)
    found = torch.autograd.grad(surrogate("test", pv.densities(vae, x, 4), weights).sum(), (vae.theta, vae.phi))
    torch.manual_seed(5)
    d = pv.densities(vae, x, 4)
    by_model = torch.autograd.grad((w[0] * d.log_joint).sum(), vae.theta, retain_graph=True)[0]
    by_path = w[1] * (d.log_joint - d.log_sampled)  # and its derivative by φ at a fixed draw, to be taken out
    by_score = (w[1] + w[2]) * d.log_score if score else torch.zeros((), dtype=F64)
    by_guide = torch.autograd.grad((by_path + by_score).sum(), vae.phi)[0]
    torch.testing.assert_close(found[0], by_model, rtol=1e-9, atol=1e-9)  # model_k of zero is 1e-12 of path_k
    torch.testing.assert_close(found[1], by_guide, rtol=1e-9, atol=1e-9)


def test_the_score_is_of_the_density_alone():
    """∂_φ log q at the values that were drawn, through no draw, in a guide whose second site depends on the first."""
    vae = TwoLatents("up")
    x = vae.data(5)
    d = pv.densities(vae, x, 4)
    a, c, p, r = vae.phi
    z1, z2 = (d.posterior[n].value.detach() for n in ("z1", "z2"))
    log_q = torch.distributions.Normal(a * x, p).log_prob(z1) + torch.distributions.Normal(c * z1, r).log_prob(z2)
    torch.testing.assert_close(d.log_score, log_q[..., 0], **TIGHT)
    found, expected = (torch.autograd.grad(t.sum(), vae.phi)[0] for t in (d.log_score, log_q))
    torch.testing.assert_close(found, expected, **TIGHT)


# Bernoulli latents


def test_disarm_draws_pairs():
    """Each of a pair is a draw of q; u and 1 − u never both give the less probable value."""
    vae = Coins()
    x = vae.data(1).expand(20_000, -1)
    seen = {}
    original = pv.program.Densities.log_joint.func

    def spy(d):
        seen["z"], seen["p"] = d.posterior["z"].value, d.posterior["z"].distribution.base_dist.probs
        return original(d)

    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pv.program.Densities, "log_joint", property(spy))
        DisARM()(vae, x)
    z, p = seen["z"].detach(), seen["p"].detach()
    for half in z:
        z_test(half, p[0, 0])
    rare = torch.where(p[0] > 0.5, 1 - z, z)
    assert not (rare[0] * rare[1]).any()


@pytest.mark.parametrize("objective", [DisARM(2), REBAR(3)])
def test_bernoulli_estimators_report_the_elbo(objective):
    """Their bound is a mean of log w over draws of q: a z-test, wrong once in 1e6."""
    vae = Coins()
    x = vae.data(3)
    d, log_node = at_nodes(vae, x, 1)
    exact = (log_node.exp() * d.log_weight).sum(0).detach()
    with torch.no_grad():
        bounds = objective(vae, x.repeat(20_000, 1)).bound.view(20_000, 3)
    z_test(bounds, exact)


@pytest.mark.parametrize("t", [1e-6, -1e-6, 1e-4, 0.05, -0.09, 0.11])
def test_power_means_near_the_elbo_in_float32(t):
    """A logarithm of nearly 1, divided by t: exact to the rounding of the weights themselves."""
    w = -100 + 5 * torch.randn(8, 200, dtype=F64, generator=torch.Generator().manual_seed(1))
    mass = torch.full_like(w, -math.log(8))
    c = w.mean(0)
    exact = c + ((t * (w - c)).exp().mean(0)).log() / t if abs(t) > 1e-3 else c + (w - c).square().mean(0) * t / 2
    found = power_mean(w.float(), mass.float(), t)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-4)


@pytest.mark.parametrize("t", [-0.05, 0.05])
def test_power_means_near_the_elbo_of_weights_far_apart(t):
    """10,000 nats: the end that counts is the lower one for t < 0."""
    w = torch.tensor([[-1e4], [-2e4], [-1e4]])
    mass = torch.full_like(w, -math.log(3))
    exact = (t * w.double() + mass.double()).logsumexp(0) / t
    torch.testing.assert_close(power_mean(w, mass, t).double(), exact, rtol=1e-6, atol=0)
