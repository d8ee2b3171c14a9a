"""Sites that are summed over: every value once, datum by datum, beside draws, folds, captures and other sites."""

from __future__ import annotations

import math
import types

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TIGHT, check_device, check_trace, run, z_test
from exact import Coins, Mixture, at_nodes
from pieces import small_data, small_vae

import pyrovae as pv
from pyrovae.objectives import CUBO, ELBO, IWAE, MIWAE, TVO, Renyi, TailAdaptive
from pyrovae.program.enumeration import support

MARK = {"enumerate": "parallel"}


# The values of one event


def test_support_of_one_choice():
    assert support("y", dist.Bernoulli(torch.tensor(0.3))).tolist() == [0, 1]
    assert support("y", dist.Categorical(torch.ones(2, 3))).tolist() == [0, 1, 2]
    assert support("y", dist.OneHotCategorical(torch.ones(7, 2, 3))).tolist() == torch.eye(3).tolist()
    assert support("y", dist.Binomial(3, torch.tensor(0.5))).tolist() == [0, 1, 2, 3]


def test_support_of_independent_parts_is_all_combinations():
    values = support("y", dist.Bernoulli(torch.full((5, 2, 2), 0.3)).to_event(2))
    assert values.shape == (16, 2, 2)
    assert len(values.unique(dim=0)) == 16
    values = support("y", dist.OneHotCategorical(torch.ones(5, 3, 2)).to_event(1))
    assert values.shape == (8, 3, 2)
    assert (values.sum(-1) == 1).all()
    assert len(values.unique(dim=0)) == 8


def marked(distribution, inner=None, outer=False):
    """A program with such a site y in its guide, marked."""

    def program(x, guide):
        def y():
            return pyro.sample("y", distribution, infer=MARK)

        if outer:
            y()
        with pyro.plate("data", len(x), dim=-1):
            if inner:
                with pyro.plate("inner", inner, dim=-2):
                    y()
            elif not outer:
                y()
            if not guide:
                pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    return types.SimpleNamespace(model=lambda x: program(x, False), guide=lambda x: program(x, True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: marked(dist.Normal(0.0, 1.0)),
            r"site 'y' is marked for enumeration and Normal has no finite support; take the mark off, or use a Bern",
        ),
        (
            lambda: marked(dist.Bernoulli(torch.full((17,), 0.5)).to_event(1)),
            r"site 'y' is marked for enumeration and has 2\^17 values, more than 65536; draw it \(gradient='score'",
        ),
        (
            lambda: marked(dist.Bernoulli(torch.tensor(0.5)), inner=3),
            r"site 'y' is marked for enumeration and is inside plate 'inner'; .* Declare its other dimensions with",
        ),
        (
            lambda: marked(dist.Bernoulli(torch.tensor(0.5)), outer=True),
            r"site 'y' is marked for enumeration and is outside plate 'data'; sums go over the values of one datum",
        ),
    ],
)
def test_what_cannot_be_enumerated(build, message):
    with pytest.raises(ValueError, match=message):
        ELBO()(build(), torch.randn(4))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (TailAdaptive(3), r"TailAdaptive draws every site of the guide, and 'y' is marked.*leave it out of the"),
        (
            IWAE(3, backward_particles=1),
            r"IWAE with backward_particles draws every site of the guide, and 'y'",
        ),
    ],
)
def test_objectives_that_draw_every_site(objective, message):
    vae = Mixture("yz")
    with pytest.raises(ValueError, match=message):
        objective(vae, vae.data(4))
    summed = Mixture("z")
    assert torch.isfinite(objective(summed, summed.data(4)).bound).all()


# Rows


def test_rows_are_draws_by_values():
    """K = 3 draws of S = 2: y is 0, 1, 0, 1, …; every row has its z where y comes first, else every pair has one."""
    for order in ("yz", "zy"):
        vae = Mixture(order)
        x = vae.data(4)
        d = pv.densities(vae, x, 3, exact=True)
        assert d.shape == (6, 4)
        assert d.posterior["y"].value[:, 0].tolist() == [0, 1, 0, 1, 0, 1]
        z = d.posterior["z"].value
        assert (len(z[:, 0].unique()), d.shared) == ((6, 1) if order == "yz" else (3, 2))
        torch.testing.assert_close(d.log_mass.exp().sum(0), torch.ones(4, dtype=F64), **TIGHT)


class Chain(nn.Module):
    """y1 → z → y2 → x, the guide in the same order: a draw between two enumerated sites of 2 and 3 values."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.3, -0.4, 0.8], dtype=F64))
        self.phi = nn.Parameter(torch.tensor([0.5, 0.2, -0.3, 0.7], dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            y1 = pyro.sample("y1", dist.Bernoulli(logits=self.theta[0]))
            z = pyro.sample("z", dist.Normal(y1 + self.theta[1], 1.0))
            y2 = pyro.sample("y2", dist.Categorical(logits=self.three(self.theta[2] * z)))
            pyro.sample("x", dist.Normal(z + y2, 1.0), obs=x)

    def guide(self, x):
        a, b, c, e = self.phi
        with pyro.plate("data", len(x)):
            y1 = pyro.sample("y1", dist.Bernoulli(logits=a * x), infer=MARK)
            z = pyro.sample("z", dist.Normal(b * x + c * y1, 0.8))
            pyro.sample("y2", dist.Categorical(logits=self.three(e * x - z)), infer=MARK)

    @staticmethod
    def three(t):
        return torch.stack([torch.zeros_like(t), t, 2 * t - 1], -1)


def test_a_draw_between_two_enumerated_sites():
    """Six rows a draw; z has one value for each y1, whatever y2 is, and the densities are those of the values."""
    vae, x = Chain(), torch.randn(4, dtype=F64)
    d = pv.densities(vae, x, 2, exact=True)
    y1, z, y2 = (d.posterior[n].value for n in ("y1", "z", "y2"))
    assert (d.shape, d.shared) == ((12, 4), 3)
    assert y1[:, 0].tolist() == 2 * (3 * [0] + 3 * [1])
    assert y2[:, 0].tolist() == 4 * [0, 1, 2]
    assert all(len(z[3 * i : 3 * i + 3, 0].unique()) == 1 for i in range(4))
    assert len(z[:, 0].unique()) == 4
    a, b, c, e = vae.phi
    log_q = dist.Bernoulli(logits=a * x).log_prob(y1) + dist.Normal(b * x + c * y1, 0.8).log_prob(z)
    log_q = log_q + dist.Categorical(logits=vae.three(e * x - z)).log_prob(y2)
    log_p = dist.Bernoulli(logits=vae.theta[0]).log_prob(y1) + dist.Normal(y1 + vae.theta[1], 1.0).log_prob(z)
    log_p = log_p + dist.Categorical(logits=vae.three(vae.theta[2] * z)).log_prob(y2)
    log_p = log_p + dist.Normal(z + y2, 1.0).log_prob(x)
    torch.testing.assert_close(d.log_weight, log_p - log_q, **TIGHT)
    torch.testing.assert_close(d.log_mass.exp().sum(0), torch.ones(4, dtype=F64), **TIGHT)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(gradient="stl"), ELBO(2, gradient="score"), TVO(2, 1)])
def test_a_draw_between_two_enumerated_sites_is_unbiased(objective):
    """20,000 gradients for model and guide, against nodes for z and sums over y1 and y2: wrong twice in 1e6."""
    vae, x = Chain(), torch.randn(1, dtype=F64)
    parameters = vae.theta, vae.phi
    found = [torch.autograd.grad(objective(vae, x.expand(200)).surrogate.mean(), parameters) for _ in range(100)]
    d, log_node = at_nodes(vae, x, 60)
    exact = torch.autograd.grad((log_node.exp() * d.log_weight).sum(), parameters)
    for draws, g in zip(zip(*found, strict=True), exact, strict=True):
        z_test(torch.stack(draws), g)


@pytest.mark.parametrize("vae", [Coins(mark=True), Mixture("yz"), Mixture("zy"), Mixture("z")], ids=range(4))
def test_the_first_call_is_like_any_other(vae):
    """Marks are found in the first call, at the cost of a run; the numbers that it draws are those of a later call."""
    x = vae.data(4)
    first, second, third = (run(IWAE(3), vae, x).bound for _ in range(3))
    assert torch.equal(first, second)
    assert torch.equal(second, third)


def test_marks_may_come_and_go():
    """A mark taken off leaves no rows behind, and one put back is found."""
    vae = Coins(mark=True)
    x = vae.data(4)
    exact = run(IWAE(2), vae, x).bound
    for mark, rows in ((MARK, 8), ({}, 2), (MARK, 8)):
        vae.infer = mark
        assert pv.densities(vae, x, 2, exact=True).shape == (rows, 4)
        with torch.no_grad():
            assert torch.allclose(run(IWAE(2), vae, x).bound, exact) == bool(mark)


def test_draws_beside_an_objective_that_sums():
    """densities() draws marked sites of the guide unless asked for exact ones, before and after."""
    vae = Coins(mark=True)
    x = vae.data(4)
    assert pv.densities(vae, x, 3).shape == (3, 4)
    assert pv.densities(vae, x, 3, exact=True).shape == (12, 4)
    assert pv.densities(vae, x, 3).shape == (3, 4)


# Beside other parts of the library


class Raw(nn.Module):
    """y marked in the guide or summed by the model; a decoder of [N, 3] alone, so that particles are folded."""

    def __init__(self, fold, guide=True):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.w = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=F64))
        self.fold, self.sums = fold, not guide

    def decode(self, h):
        if self.fold:
            assert h.dim() == 2, "not written for particles"
        return h @ self.w

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)), infer=MARK)
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(y + z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            if not self.sums:
                pyro.sample("y", dist.OneHotCategorical(logits=x[:, :3]), infer=MARK)
            pyro.sample("z", dist.Normal(x[:, :3] / 2, 0.7).to_event(1))


@pytest.mark.parametrize("guide", [True, False])
@pytest.mark.parametrize("objective", [ELBO(2), IWAE(2), IWAE(2, "dreg"), MIWAE(3, 2), Renyi(2, -1.0), CUBO(2)])
def test_folded_programs(objective, guide):
    x = torch.randn(6, 4, dtype=F64)  # a multiple of the values of y: rows in a wrong order are seen
    found = []
    for fold in (False, True):
        vae = Raw(fold, guide)
        e = run(objective, vae, x)
        found.append((e.bound, torch.autograd.grad(e.surrogate.mean(), vae.w)[0]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@pytest.mark.parametrize("objective", [lambda: IWAE(2), lambda: ELBO(gradient="stl"), lambda: TVO(2)])
def test_capture_and_placement(objective):
    for order in ("yz", "z"):
        vae = Mixture(order)
        check_trace(vae, objective() if order == "yz" else IWAE(2), vae.data(4))

    def build():
        parts = small_vae(posterior="Bernoulli")
        return pv.models.EnumerableVAE(parts.prior, parts.likelihood, parts.posterior)

    check_device(build, objective, small_data)


def test_evaluation_of_a_program_that_sums():
    """log p(x) by importance sampling, with y summed out, against quadrature: within four standard errors."""
    vae = Mixture("z")
    x = vae.data(20)
    d, log_node = at_nodes(vae, x, 100)
    exact = (d.log_weight + log_node).logsumexp(0).detach()
    ev = pv.evaluate(vae, x, particles=20_000)
    assert ((ev.log_evidence - exact).abs() < 5 * ev.standard_error + 1e-3).all()
    assert math.isfinite(ev.log_evidence_mean)


def test_training_recovers_a_mixture():
    """Two clusters, y summed out of the model: both are found from a start near the middle."""
    torch.manual_seed(3)
    vae = Mixture("z")
    y = (torch.rand(400, dtype=F64) < 0.3).to(F64)
    x = 6 * y - 3 + 0.5 * torch.randn(400, dtype=F64)
    before = pv.evaluate(vae, x, 200).log_evidence_mean
    pv.fit(vae, x, IWAE(5), epochs=150, batch_size=100, learning_rate=0.03, progress=False)
    after = pv.evaluate(vae, x, 200).log_evidence_mean
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7)) + 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert after > before + 1
    assert after == pytest.approx(-entropy, abs=0.15)
    assert vae.theta[0].sigmoid().item() == pytest.approx(0.3, abs=0.05) or (
        vae.theta[0].sigmoid().item() == pytest.approx(0.7, abs=0.05)
    )


def test_marks_that_change_at_every_run():
    """Refused, not looked for without end."""

    class Restless(Coins):
        def guide(self, x):
            self.infer = {} if self.infer else MARK
            super().guide(x)

    def several_times(vae):
        for _ in range(3):
            pv.densities(vae, vae.data(4), 2, exact=True)

    with pytest.raises(ValueError, match=r"marked for enumeration change from run to run; mark them once"):
        several_times(Restless())
