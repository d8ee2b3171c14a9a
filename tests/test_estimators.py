"""Details of the estimators, one at a time: what each row counts, what is drawn once, what reaches whom."""

from __future__ import annotations

import math
import types

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TIGHT, Global, LinearGaussian, TwoLatents, gradients, run
from exact import Mixture, OneLatent
from pieces import small_data, small_vae
from pyro import poutine
from test_unbiased import gradient

import pyrovae as pv
from pyrovae.distributions import relaxed
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
    BetaELBO,
    BetaTCVAE,
    Capacity,
    DisARM,
    InfoVAE,
    Renyi,
    VRMax,
    WakeSleep,
)
from pyrovae.objectives.aggregate import _prior_draws
from pyrovae.objectives.baselines import NetworkBaseline
from pyrovae.objectives.bernoulli import _Relaxed
from pyrovae.objectives.elbo import rate
from pyrovae.objectives.importance import stratified
from pyrovae.objectives.inclusive import dream
from pyrovae.objectives.weights import Weights, surrogate
from pyrovae.program.enumeration import support

MARK = {"enumerate": "parallel"}


def some_weights(k=4, b=3):
    return 3 * torch.randn(k, b, dtype=F64)


@pytest.mark.parametrize(("phase", "share"), [("wake", 1), ("both", 0.5), ("sleep", 0)])
def test_the_guide_follows_wake_and_sleep_in_their_shares(phase, share):
    """The model follows the waking phase alone, that is IWAE."""
    vae = TwoLatents("down")
    x, parameters = vae.data(5), (vae.theta, vae.phi)
    torch.manual_seed(5)
    awake = torch.autograd.grad(WakeSleep(3)(vae, x).surrogate.mean(), parameters)
    (asleep,) = torch.autograd.grad(dream(vae, x).mean(), [vae.phi])
    model, guide = torch.autograd.grad(run(WakeSleep(3, phase), vae, x).surrogate.mean(), parameters)
    torch.testing.assert_close(model, awake[0], **TIGHT)
    torch.testing.assert_close(guide, share * awake[1] + (1 - share) * asleep, **TIGHT)


def test_dreams_are_of_every_site():
    """log q of both latents given dreamt data, at the draws of the model under the same seed."""
    vae = TwoLatents("down")
    x = vae.data(5)
    found = run(dream, vae, x)
    torch.manual_seed(5)
    drawn = poutine.trace(poutine.uncondition(vae.model)).get_trace(x).nodes
    z2, z1, dreamt = (drawn[n]["value"] for n in ("z2", "z1", "x"))
    a, c, p, r = vae.phi
    log_q = dist.Normal(a * dreamt, p).log_prob(z2) + dist.Normal(c * (dreamt + z2), r).log_prob(z1)
    torch.testing.assert_close(found, log_q[:, 0], **TIGHT)


@pytest.mark.parametrize("objective", [IWAE(4, "vimco"), TVO(4, 5), TVO(4, 5, "moments"), WakeSleep(4)])
def test_score_weights_do_not_depend_on_the_level(objective):
    """A constant added to every log w moves the bound by as much and no weight: what a baseline is for."""
    w = some_weights()
    mass = torch.full_like(w, -math.log(4))
    (bound, weights), (higher, same) = objective.weigh(w, mass), objective.weigh(w + 100, mass)
    torch.testing.assert_close(higher, bound + 100, **TIGHT)
    torch.testing.assert_close(same.model, weights.model, **TIGHT)
    torch.testing.assert_close(same.score, weights.score, **TIGHT)


def test_which_are_lower_bounds():
    assert all(o.lower for o in (Renyi(3, 0), Renyi(3, 2.0), VRIWAE(3, 0), IWAE(3)))
    assert not any(o.lower for o in (Renyi(3, -1e-3), VRMax(3), CUBO(3)))


def test_rebar_s_copies_are_of_its_temperature():
    """Cold, both relaxed copies are the hard draw itself; hot, they are ½; between, on the draw's side of it."""
    logits = 3 * torch.randn(1000, dtype=F64)
    for temperature in (1e-9, 0.5, 1e9):
        b, *copies = _Relaxed(temperature).draw(logits)
        for z in copies:
            assert torch.equal((z > 0.5).to(F64), b)
            if temperature != 0.5:
                torch.testing.assert_close(z, b if temperature < 1 else torch.full_like(z, 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("u", [0.0, 1.0])
@pytest.mark.parametrize("v", [0.0, 1.0])
def test_rebar_s_copies_have_finite_gradients(u, v, monkeypatch):
    """Where uniform draws are at their ends, and probabilities at 0 and 1."""
    ends = iter((u, v))
    monkeypatch.setattr(torch, "rand_like", lambda t: torch.full_like(t, next(ends)))
    logits = torch.tensor([-200.0, -12.0, 0.0, 12.0, 200.0], requires_grad=True)
    copies = torch.stack(_Relaxed(0.5).draw(logits)[1:])
    assert torch.isfinite(copies).all()
    assert torch.isfinite(torch.autograd.grad(copies.sum(), logits)[0]).all()


def test_mmd_reaches_a_learned_prior():
    """Without the rate, the prior's mean is in the draws of the prior alone."""
    vae = OneLatent()
    (g,) = torch.autograd.grad(InfoVAE(1.0)(vae, vae.data(6)).surrogate.mean(), [vae.theta])
    assert g[4].abs() > 1e-3


@pytest.mark.parametrize("particles", [1, 4])
def test_stl_beside_a_global_latent(particles):
    """Its own term is differentiated plainly; for the site of each datum the score is dropped, whose mean is zero."""
    vae, x = Global(40), torch.randn(4, dtype=F64)
    plain, stl = run(ELBO(particles), vae, x), run(ELBO(particles, gradient="stl"), vae, x)
    torch.testing.assert_close(plain.bound, stl.bound, **TIGHT)
    a, b = (gradients(vae, e.surrogate.mean()) for e in (plain, stl))
    torch.manual_seed(5)
    (score,) = torch.autograd.grad(pv.densities(vae, x, particles).log_score.mean(), [vae.slope])
    torch.testing.assert_close(a["loc"], b["loc"], **TIGHT)
    torch.testing.assert_close(a["slope"], b["slope"] - score, **TIGHT)


class Rows(nn.Module):
    """z → y → x, y enumerated in the guide; networks of [N, 3] alone, so that guide and model are folded."""

    def __init__(self, fold, size=None):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.w = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=F64))
        self.a = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=F64))
        self.fold, self.size = fold, size
        self.mark = MARK

    def through(self, h, w):
        assert h.dim() == 2 or not self.fold, "not written for particles"
        return h @ w

    def plate(self, x):
        return pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x)) if self.size else None)

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)))
            pyro.sample("x", dist.Normal(self.through(y + z, self.w), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))
            pyro.sample("y", dist.OneHotCategorical(logits=self.through(z, self.a)), infer=self.mark)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(2), IWAE(3), ELBO(2, gradient="stl"), BetaELBO(particles=2)])
def test_folded_guides(objective):
    """A draw that is shared by all values of y, whichever way the particles stand."""
    x, found = torch.randn(6, 3, dtype=F64), []  # a multiple of the values of y: rows in a wrong order are seen
    for vae in (Rows(False), Rows(True), Rows(False, size=50)):
        e = run(objective, vae, x)
        found.append((e.bound, *torch.autograd.grad(e.surrogate.mean(), [vae.w, vae.a])))
    for one, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(one, other, **TIGHT)


class Steps(Rows):
    """z1 → z2 → x, both normal, and the guide in this order."""

    def model(self, x):
        with self.plate(x):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(self.through(z1, self.w), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z2, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with self.plate(x):
            z1 = pyro.sample("z1", dist.Normal(x / 2, 0.7).to_event(1))
            pyro.sample("z2", dist.Normal(self.through(z1, self.a), 0.7).to_event(1))


@pytest.mark.parametrize(
    "objective",
    [
        IWAE(4, backward_particles=2),
        IWAE(4, "dreg", backward_particles=2),
        IWAE(4, "dreg"),
        IWAE(4, backward_particles=1),
    ],
)
def test_folded_guide_with_few_backward(objective):
    x, found = torch.randn(6, 3, dtype=F64), []  # a multiple of the values of y: rows in a wrong order are seen
    for vae in (Steps(False), Steps(True)):
        e = run(objective, vae, x)
        found.append((e.bound, *torch.autograd.grad(e.surrogate.mean(), [vae.w, vae.a])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


def test_still_keeps_no_graph_of_the_model():
    """The guide's values keep their path, to be selected."""
    vae = OneLatent()
    d = pv.densities(vae, vae.data(5), 3, still=True)
    assert not d.prior["z"].value.requires_grad
    assert not d.likelihood["x"].distribution.mean.requires_grad
    assert d.posterior["z"].value.requires_grad


def test_strata_end_within_the_particles(monkeypatch):
    """Where u or the sum of the weights is off by a rounding."""
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.ones(*size, **options))
    v = torch.tensor([0.2, 0.3, 0.5])[:, None]
    assert stratified(v, 2)[:, 0].tolist() == [2, 2]


def test_the_network_is_trained_by_least_squares_alone():
    """It adds to the running mean; no gradient comes through b itself, which would be that of log q."""
    baseline, x = NetworkBaseline().double(), torch.randn(3, 2, dtype=F64)
    for _ in range(3):
        value = torch.randn(4, 3, dtype=F64) - 50
        with torch.no_grad():
            mean, _ = baseline.mean(x, value)
        b, own = baseline(x, value)
        assert not b.requires_grad
        torch.testing.assert_close(b, mean + baseline.network(x)[:, 0].detach(), **TIGHT)
        torch.testing.assert_close(own, -(value - mean - baseline.network(x)[:, 0]).square().mean(0), **TIGHT)
        assert own.requires_grad


def test_capacity_is_of_the_batch():
    """Where its mean rate is C, the penalty is zero, though that of no datum is."""
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    d = pv.densities(vae, x)
    objective = Capacity(rate(d, "analytic").mean().item(), warmup=0)
    torch.testing.assert_close(run(objective, vae, x).surrogate, run(BetaELBO(0.0), vae, x).surrogate, **TIGHT)


def beside():
    """y ~ Bernoulli(½), z ~ 𝒩(0, I₂), x | y, z; q(y) is 0.9 and enumerated, and q(z | y) = 𝒩(2 y, I)."""

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(x.new_full((), 0.5)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) + y, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(x.new_full((), 0.9)), infer=MARK)
            pyro.sample("z", dist.Normal(2 * y[..., None].expand(*y.shape, 2), 1.0).to_event(1))

    return types.SimpleNamespace(model=model, guide=guide)


RATE = 0.1 * math.log(0.2) + 0.9 * math.log(1.8)  # of y; that of each z is 0 or 2, 1.8 in the mean


def test_capacity_beside_an_enumerated_site():
    """Rows count by their masses: at the mean rate the penalty is zero."""
    vae, x = beside(), torch.randn(5, dtype=F64)
    found, none = run(Capacity(RATE + 3.6, warmup=0), vae, x), run(BetaELBO(0.0), vae, x)
    torch.testing.assert_close(found.surrogate, none.surrogate, **TIGHT)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("floor", [0.2, 1.5, 1.9])
def test_free_bits_beside_an_enumerated_site(floor, kl):
    """Rows count by their masses in the means that are compared, too."""
    vae, x = beside(), torch.randn(5, dtype=F64)
    found, none = run(BetaELBO(free_bits=floor, kl=kl), vae, x), run(BetaELBO(0.0), vae, x)
    if kl == "analytic":
        held = max(floor, RATE) + 2 * max(floor, 1.8)
        torch.testing.assert_close(found.surrogate, none.surrogate - held, **TIGHT)


@pytest.mark.parametrize("objective", [Capacity(0.0, gamma=1.0, particles=4), DIPVAE(0.0, 0.0, particles=4)])
def test_closed_forms_beside_a_folded_model(objective):
    x, found = torch.randn(5, 3, dtype=F64), []
    for fold in (False, True):
        found.append(run(objective, Steps(fold), x).surrogate)
    torch.testing.assert_close(*found, **TIGHT)


class Decoder(Rows):
    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.through(z, self.w), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with self.plate(x):
            pyro.sample("z", dist.Normal(x @ self.a, 0.7).to_event(1))


@pytest.mark.parametrize(
    "objective",
    [Capacity(0.0, gamma=1.0, particles=4), DIPVAE(particles=4), InfoVAE(particles=4), BetaTCVAE(particles=4)],
)
def test_penalties_beside_a_folded_model(objective):
    """A decoder that takes no particles: closed forms still compare distributions of one shape."""
    x = torch.randn(5, 3, dtype=F64)
    plain, folded = (run(objective, Decoder(fold), x).surrogate for fold in (False, True))
    torch.testing.assert_close(plain, folded, **TIGHT)


class Inner(nn.Module):
    """Three z in a plate to the left of the data, and u near their sum."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("inner", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            u = pyro.sample("u", dist.Normal(z.sum(-2), 1e-3))
            pyro.sample("x", dist.Normal(u, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("inner", 3, dim=-2):
                pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("u", dist.Normal(x, 1.0))


def test_draws_of_the_prior_in_an_inner_plate():
    """The draws of the model keep to their datum: z is left of the data plate, u is near the sum of the datum's z."""
    x = torch.randn(5, dtype=F64)
    z, u = _prior_draws(Inner(), x, pv.densities(Inner(), x)).split([3, 1], 1)
    assert (z.sum(1) - u[:, 0]).abs().max() < 0.01


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("particles", [1, 3])
def test_free_bits_of_a_model_that_sums(particles, kl):
    """Its rate, log q(z | x) − log p(z), has no parts and is held as a whole."""
    vae = Mixture("z")
    x = vae.data(5)
    for floor in (1e-9, 100.0):
        found = run(BetaELBO(free_bits=floor, particles=particles, kl=kl), vae, x).surrogate
        d = run(lambda vae, x: pv.densities(vae, x, particles), vae, x)
        held = d.log_posterior - d.log_prior if floor < 1 else torch.tensor(100.0, dtype=F64)
        torch.testing.assert_close(found, (d.log_likelihood - held).mean(0), **TIGHT)


@pytest.mark.parametrize("objective", [DisARM(), REBAR()])
def test_a_bernoulli_site_outside_the_data_plate_is_refused(objective):
    def guide(x):
        pyro.sample("z", dist.Bernoulli(x.new_full((), 0.5)))

    def model(x):
        guide(x)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    with pytest.raises(ValueError, match=r"weighs particles datum by datum.*'z' is outside it"):
        objective(types.SimpleNamespace(model=model, guide=guide), torch.randn(3))


ROWS = [IWAE(4), MIWAE(2, 2), PIWAE(2, 2), CIWAE(4), CIWAE(4, 1.0), Renyi(4), Renyi(4, 3.0), CUBO(4), WakeSleep(4)]


@pytest.mark.parametrize("objective", [*ROWS, TVO(4, 5), TVO(4, 5, "linear"), TVO(4, 5, "moments")], ids=repr)
def test_rows_count_by_their_mass(objective):
    """A draw in three rows, two with one log w and its mass between them, a third of no mass: as the draw alone."""
    w, other = some_weights(), some_weights()
    mass = torch.full_like(w, -math.log(4))
    bound, whole = objective.weigh(w, mass)
    rows = torch.stack([w, w, other], 1).flatten(0, 1)  # [K·3, B]
    shares = torch.tensor([0.3, 0.7, 1e-300], dtype=F64).log().repeat(4)[:, None]
    found, parts = objective.weigh(rows, mass.repeat_interleave(3, 0) + shares)
    torch.testing.assert_close(found, bound, **TIGHT)
    for name, expected in vars(whole).items():
        if expected is not None:
            sums = getattr(parts, name).unflatten(0, (4, 3)).sum(1)
            torch.testing.assert_close(sums, expected, **TIGHT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 1.0, 1e9])
def test_weights_of_model_and_path_may_be_far_apart(ratio):
    """∂ log p / ∂z is rescaled by their ratio on its way to the guide: each gradient is that of its own weight."""
    vae = OneLatent()
    x, path = vae.data(5), some_weights(3, 5).softmax(0)
    model = ratio * path

    def follow(weights):
        return gradient(surrogate("", run(lambda vae, x: pv.densities(vae, x, 3), vae, x), weights).sum(), vae)

    found, by_theta, by_phi = follow(Weights(model, path)), follow(Weights(model, model)), follow(Weights(path, path))
    torch.testing.assert_close(found[0], by_theta[0], rtol=1e-10, atol=0 if ratio else 1e-10)
    torch.testing.assert_close(found[1], by_phi[1], **TIGHT)


def test_support_of_the_largest_size():
    assert support("y", dist.Bernoulli(torch.full((16,), 0.5)).to_event(1)).shape == (65536, 16)


def decoder_rows(vae, objective, x):
    """Rows through the decoder for each datum, and of these with a graph that is kept."""
    seen = []
    hook = vae.likelihood.network.register_forward_hook(lambda m, i, out: seen.append((len(out), out.requires_grad)))
    objective(vae, x)
    hook.remove()
    return sum(n for n, _ in seen) / len(x), sum(n for n, kept in seen if kept) / len(x)


def test_backward_particles_keep_the_graph_of_the_few():
    """The pass that weighs all particles leaves none, and where no gradient is asked for it is the only one."""
    vae, objective, x = small_vae(), IWAE(3, backward_particles=2), small_data(dtype=torch.float32)
    objective(vae, x)  # what is found out about a program is found once
    assert decoder_rows(vae, objective, x) == (5, 2)
    with torch.no_grad():
        assert decoder_rows(vae, objective, x) == (3, 0)


@pytest.mark.parametrize("logit", [-1e8, 1e8])
def test_closed_form_rate_far_apart(logit):
    """Finite in float32, gradient included, in the branch of the series that is not taken."""
    y = torch.tensor([logit], requires_grad=True)
    r = torch.distributions.kl_divergence(
        relaxed.RelaxedBernoulli(y, 0.5), relaxed.RelaxedBernoulli(torch.zeros(1), 0.5)
    )
    assert torch.isfinite(r).all()
    assert torch.isfinite(torch.autograd.grad(r.sum(), y)[0]).all()


def test_density_beyond_the_ends_has_a_finite_gradient():
    y = torch.tensor([0.3, -2.0], dtype=F64, requires_grad=True)
    z = torch.tensor([0.0, 1.0], dtype=F64, requires_grad=True)
    log_p = relaxed.RelaxedBernoulli(y, 0.5).log_prob(z)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(log_p.sum(), [y, z]))


def test_only_what_is_enumerated_later_shares_a_draw():
    """z1, y1, z2, y2, z3 with 2 and 3 values: z1 has one value in six rows, z2 one in three, z3 one in each."""

    def program(x, guide):
        y = {"infer": MARK} if guide else {}
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("y1", dist.Bernoulli(x.new_full((), 0.5)), **y)
            pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("y2", dist.Categorical(x.new_ones(3)), **y)
            pyro.sample("z3", dist.Normal(x.new_zeros(()), 1.0))
            if not guide:
                pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    vae = types.SimpleNamespace(model=lambda x: program(x, False), guide=lambda x: program(x, True))
    d = pv.densities(vae, torch.randn(4), 2, exact=True)
    for name, rows in (("z1", 6), ("z2", 3), ("z3", 1)):
        blocks = d.posterior[name].value[:, 0].view(-1, rows)
        assert (blocks == blocks[:, :1]).all()
        assert len(blocks.unique()) == len(blocks)
    assert d.shared == 6


@pytest.mark.parametrize(
    "objective",
    [
        IWAE(2, "vimco"),
        IWAE(2, "score"),
        IWAE(2, "dreg"),
        MIWAE(2, 2, "dreg"),
        CIWAE(2, 0.5, "dreg"),
        VRIWAE(2, 0.5, "dreg"),
    ],
)
def test_estimators_for_rows_of_their_own(objective):
    vae = Mixture("zy")
    with pytest.raises(ValueError, match=r"expects enumerated sites before those that are drawn.* before 'y'"):
        objective(vae, vae.data(5))
