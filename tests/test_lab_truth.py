"""What the laboratory holds objectives against: log p(x), its gradient, the gradient of a bound, and the cost."""

import math
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, LinearGaussian
from exact import Coins, OneLatent
from pieces import small_data, small_vae
from test_lab import compare, row

import pyrovae as pv
from pyrovae.lab import evidence, gradients
from pyrovae.lab.cost import Stopwatch
from pyrovae.objectives import ELBO, IWAE, Estimate, Objective


class Normals(nn.Module):
    """z ~ 𝒩(loc, 1), x ~ 𝒩(z, 1), q(z | x) = 𝒩(slope · x, 1), with what is done to z and x on their way."""

    def __init__(self, between=None):
        super().__init__()
        self.loc, self.slope = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))
        self.between = between or nn.Identity()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(self.between(z), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * self.between(x), 1.0))


# log p(x) and its gradient


@pytest.mark.parametrize("distance", [0.0, 2.0])
def test_the_annealed_gradient_is_the_exact_one(distance):
    """Of a guide that misses the posterior by two of its deviations too, where importance sampling is lost."""
    vae = LinearGaussian(latent=3, event=6, guide="free")
    with torch.no_grad():
        vae.a.copy_(
            vae.true_posterior(torch.eye(6, dtype=F64)).mean.T - vae.true_posterior(x0 := torch.zeros(1, 6)).mean.T
        )
        vae.c.copy_(vae.true_posterior(x0).mean[0] + distance)
    x = vae.data(40)
    model = [vae.w, vae.b, vae.log_sigma]
    exact = evidence.find_evidence(vae, x, model, "exact", 0, False)
    found = evidence.find_evidence(vae, x, model, "ais", 0, False)
    size = float(exact.gradient.norm())
    assert float((found.gradient - exact.gradient).norm()) < 4 * found.gradient_error + 0.02 * size
    assert found.gradient_error < 0.2 * size
    torch.testing.assert_close(
        exact.gradient, torch.cat([g.flatten() for g in torch.autograd.grad(vae.log_evidence(x).mean(), model)])
    )
    assert exact.gradient_error == 0


def test_chains_that_come_apart_give_no_gradient(monkeypatch):
    """Their weights would have to be shared out over all of them; the evidence is told all the same."""
    vae = LinearGaussian(guide="free")
    x = vae.data(3)
    whole = evidence.find_evidence(vae, x, [vae.w], "ais", 0, False)
    monkeypatch.setattr("pyrovae.evaluation.annealed._ROWS", 10)
    apart = evidence.find_evidence(vae, x, [vae.w], "ais", 0, False)
    assert whole.gradient is not None
    assert apart.gradient is None
    assert float(apart.log_evidence.mean()) == pytest.approx(float(whole.log_evidence.mean()), abs=0.5)


def test_large_data_have_their_chains_together():
    """Colour images of 3 × 32 × 32: all 16 chains of a datum in one chunk, so that its gradient has an error."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.at = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc, 1.0))
                pyro.sample(
                    "x", dist.Normal(z[..., None, None, None].expand(*z.shape, 3, 32, 32), 9.0).to_event(3), obs=x
                )

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.at * x.mean((1, 2, 3)), 0.5))

    found = evidence.find_evidence(vae := Wide(), torch.randn(30, 3, 32, 32), [vae.loc], "ais", 0, False)
    assert found.gradient_error > 0


def test_a_gradient_of_few_effective_particles_is_not_told():
    vae = LinearGaussian(latent=3, event=6, guide="free")
    x = vae.data(20)
    few = evidence.find_evidence(vae, x, [vae.w], 200, 0, False)
    assert few.gradient is None
    assert "200 particles, an effective 1 for the worst datum" in few.by
    assert math.isnan(row(compare(vae, x, [ELBO()], draws=3, reference=200), "model")["evidence_bias"])


class Apart(nn.Module):
    """x does not hang on z, so that every particle has the same ∂ log p(x, z), whatever its weight."""

    def __init__(self):
        super().__init__()
        self.loc, self.slope = nn.Parameter(torch.tensor(0.3, dtype=F64)), nn.Parameter(torch.tensor(0.5, dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, 2.0))


def test_weights_of_the_evidences_gradient_sum_to_one():
    """Both passes have the same draws: else Σ w is not 1."""
    vae, x = Apart(), torch.randn(4, dtype=F64)
    with torch.no_grad():
        parts = list(evidence.sampled_gradients(vae, x, [vae.loc], 28, 0))
    assert len(parts) == evidence.PARTS
    for part in parts:
        torch.testing.assert_close(part, (x - vae.loc).mean().detach()[None])


def test_no_seed_is_used_twice_for_the_evidences_gradient(monkeypatch):
    vae, x, seeds = OneLatent(), OneLatent().data(4), []
    seeded = evidence.seeded
    monkeypatch.setattr(evidence, "seeded", lambda s, d: seeds.append(s) or seeded(s, d))
    monkeypatch.setattr(evidence, "ROWS", 40)
    with torch.no_grad():
        parts = list(evidence.sampled_gradients(vae, x, [vae.theta], 200, 0))  # of 25 in each part: 10 + 10 + 5
    assert sorted(seeds) == sorted(2 * list(range(3 * evidence.PARTS)))
    assert not torch.equal(parts[0], parts[1])


def test_the_error_of_the_evidences_gradient_is_in_the_interval(monkeypatch):
    vae, x = Normals(), torch.randn(5)
    known = evidence.find_evidence(vae, x, [vae.loc], 500, 0, False)
    high = {}
    for error in (0.0, 0.5):
        told = evidence.replace(known, gradient_error=error)
        monkeypatch.setattr("pyrovae.lab.bench.find_evidence", lambda *_, told=told: told)
        high[error] = row(compare(vae, x, [ELBO()], draws=50), "model")["evidence_bias_high"]
    assert high[0.5] > high[0.0] + 0.2


def test_what_a_model_says_of_its_evidence_is_looked_at():
    vae, x = Normals(), torch.randn(5)
    vae.log_evidence = lambda x: dist.Normal(vae.loc, 2**0.5).log_prob(x).sum()
    with pytest.raises(ValueError, match=r"log_evidence\(x\) of Normals for each datum, \[5\], got shape \[\]"):
        compare(vae, x, [ELBO()])
    vae.log_evidence = torch.no_grad()(lambda x: dist.Normal(vae.loc, 2**0.5).log_prob(x))
    found = row(compare(vae, x, [ELBO()], draws=3), "model")
    assert found["evidence_error"] == 0
    assert math.isnan(found["evidence_bias"])


def test_discrete_latents_are_sampled_where_annealing_is_impossible():
    vae = Coins()
    assert "5,000 particles" in compare(vae, vae.data(3), [IWAE(2, "vimco")], draws=2).attrs["reference"]


class Whole(nn.Module):
    """A latent of the whole data set, and parameters on both sides."""

    def __init__(self):
        super().__init__()
        self.loc, self.at = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))

    def model(self, x):
        w = pyro.sample("w", dist.Normal(self.loc, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.at, 0.5))


def test_latents_of_the_whole_data_set_have_nothing_to_be_held_against():
    table = compare(Whole(), torch.randn(5), [ELBO(2)], draws=5)
    assert table.group.tolist() == ["model", "guide"]
    assert table[["bias", "evidence_bias"]].isna().all(axis=None)


# The gradient of a bound


class Double(ELBO):
    """Its gradient is twice that of its bound."""

    def forward(self, vae, x):
        e = super().forward(vae, x)
        return Estimate(e.bound, 2 * e.surrogate)


def test_a_gradient_and_its_bounds_own_have_the_same_noise():
    table = compare(small_vae(), small_data(dtype=torch.float32), {"a": Double()}, draws=20, reference=20)
    for found in table.to_dict("records"):
        assert found["bias"] == pytest.approx(found["gradient"] / 2, rel=1e-3)


GUIDES = {
    "normal": (lambda x: dist.Normal(x, 1.0), True),
    "no sampler with a path": (lambda x: dist.VonMises(x, 1.0), False),
    "straight through": (lambda x: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=x), False),
    "discrete with a path": (lambda x: dist.OneHotCategoricalStraightThrough(logits=torch.stack([x, -x], -1)), False),
    "relaxed": (lambda x: dist.RelaxedBernoulli(torch.tensor(0.5), logits=x), True),
}


@pytest.mark.parametrize("case", GUIDES)
def test_paths_of_a_guide_are_those_that_are_true(case):
    of, expected = GUIDES[case]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", of(x))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", of(torch.zeros_like(x)))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pyro.validation_enabled(False):
        assert gradients.has_paths(pv.Program(model, guide), torch.randn(4)) == expected


class Mixed(nn.Module):
    """A coin, and a latent that hangs on it and could be reparametrised."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.5, 1.5]))
        self.phi = nn.Parameter(torch.tensor([0.3, 0.8, 0.4, -0.5]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(logits=self.theta[0]))
            z = pyro.sample("z", dist.Normal(c * self.theta[1], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(logits=self.phi[0] * x))
            pyro.sample("z", dist.Normal(self.phi[1] * c + self.phi[2] * x, self.phi[3].exp()))


def test_a_score_twin_has_no_paths_left():
    loo = ELBO(4, gradient="score", baseline="leave_one_out")
    found = row(compare(Mixed(), torch.randn(50), [loo], draws=150, reference=20))
    assert found["bias_low"] < 0.1 * found["gradient"]


class Late(nn.Module):
    """A coin that is drawn, and after it one that is summed over."""

    def __init__(self):
        super().__init__()
        self.theta, self.phi = nn.Parameter(torch.tensor([0.5, 1.0])), nn.Parameter(torch.tensor([0.3, 0.2]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=self.theta[0]))
            b = pyro.sample("b", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(self.theta[1] * (a + b), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=self.phi[0] * x))
            pyro.sample("b", dist.Bernoulli(logits=self.phi[1] * x + a), infer={"enumerate": "parallel"})


def test_rows_that_share_a_draw_have_no_score_twin():
    table = compare(Late(), torch.randn(4), [ELBO(2, gradient="score")], draws=4, reference=20)
    assert table.failed.eq("").all()
    assert table.bias.isna().all()


def test_parameters_of_a_point_estimate_are_the_guides():
    class Point(Normals):
        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(self.slope * x))

    groups = gradients.parameter_groups(vae := Point(), torch.randn(3))
    assert groups["model"] == [vae.loc]
    assert groups["guide"] == [vae.slope]


# The state that is measured


def test_figures_are_those_of_evaluation_mode():
    vae, x = Normals(nn.Dropout()), torch.randn(5)
    a, b = (compare(vae.train(mode), x, [ELBO(2)], draws=5, reference=20).bound.tolist() for mode in (True, False))
    assert a == b


class Threads(Objective):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, vae, x):
        self.seen.append(torch.get_num_threads())
        return ELBO()(vae, x)


def test_small_steps_have_one_thread():
    seen, before = [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        given = {"a": lambda k: Threads(seen)}
        compare(small_vae(), small_data(dtype=torch.float32), given, [1], draws=3, reference=20)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen[-3:] == [1, 1, 1]


def test_a_gradient_that_is_not_finite_in_part_is_a_failure():
    class NaNInPart(Objective):
        def forward(self, vae, x):
            e = ELBO()(vae, x)
            return Estimate(e.bound, e.surrogate + (vae.loc - vae.loc.detach()).abs().sqrt())  # ∞ · 0

    table = compare(Normals(), torch.randn(4), {"a": NaNInPart()}, draws=2, reference=20)
    assert "the gradient of draw 1 is NaN or infinite" in table.failed[0]


# Cost


def test_rows_of_plates_within_a_datum_are_no_passes():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("pixels", 7, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.1)) * x.mean(1, keepdim=True), 1.0))

    elbo = pyro.infer.Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=2)
    table = compare(pv.Program(model, guide), torch.randn(5, 7), {"a": IWAE(3), "b": elbo}, draws=2, reference=20)
    assert table.failed.eq("").all(), table.failed.tolist()
    assert set(table.decoder_passes) == {3}


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        return t.clone()

    @staticmethod
    def backward(ctx, g):
        time.sleep(0.02)
        return g


class SlowGradient(ELBO):
    def forward(self, vae, x):
        e = super().forward(vae, x)
        return Estimate(e.bound, Slow.apply(e.surrogate))


def test_seconds_hold_the_gradient_and_signal_to_noise_is_per_root_of_the_cost():
    x = small_data(dtype=torch.float32)
    table = compare(small_vae(), x, {"a": SlowGradient(), "b": IWAE(4)}, draws=3, reference=20)
    found, other = row(table, objective="a"), row(table, objective="b")
    assert found["seconds"] > 0.02
    assert other["snr_per_pass"] == pytest.approx(other["snr"] / 2)
    assert other["snr_per_second"] == pytest.approx(other["snr"] / math.sqrt(other["seconds"]))


def test_seconds_are_a_median():
    watch = Stopwatch(torch.device("cpu"))
    watch.times.extend([1.0, 2.0, 9.0])
    assert watch.seconds == 2


def test_pyros_bound_of_a_subsampled_plate_is_per_datum():
    """−loss / N: the loss is that of the whole data set."""
    vae = LinearGaussian(guide="free", size=100)
    x = vae.data(6)
    elbos = {"ours": ELBO(2), "pyro": pyro.infer.Trace_ELBO(2, max_plate_nesting=1, vectorize_particles=True)}
    table = compare(vae, x, elbos, draws=100, reference=50)
    ours, theirs = row(table, objective="ours"), row(table, objective="pyro")
    assert theirs["bound"] == pytest.approx(ours["bound"])
    assert theirs["bias"] < 1e-9
