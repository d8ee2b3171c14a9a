"""The laboratory: its figures against exact ones, its cost against what is counted, its manners."""

import itertools
import math

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, LinearGaussian, TwoLatents
from exact import Coins, Mixture, OneLatent, at_nodes
from pieces import small_data, small_vae
from zoo import ALL, vae_for

import pyrovae as pv
from pyrovae.lab.contenders import contenders, read_objective, split_objectives
from pyrovae.lab.cost import ModelRows, peak_memory
from pyrovae.objectives import (
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    REBAR,
    BetaELBO,
    DisARM,
    Estimate,
    Objective,
    PyroELBO,
    WakeSleep,
    Weighted,
    Weights,
)

QUIET = {"progress": False}


def compare(vae, x, objectives, particles=None, draws=40, **options):
    return pv.lab.compare(vae, x, objectives, draws, particles=particles, **options, **QUIET)


def row(table, group="guide", **known):
    for column, value in known.items():
        table = table[table[column] == value]
    (found,) = table[table.group == group].to_dict("records")
    return found


def inside(found, name, value):
    return found[f"{name}_low"] <= value <= found[f"{name}_high"]


# Figures against exact ones


def single_gradients(vae, x, objective_of):
    """Σ_g share_g · (gradient, its square) over all nodes of a guide of one draw: exact mean and variance, by group."""
    d, log_node = at_nodes(vae, x, 20)
    surrogate = objective_of(d)  # [G, 1]
    share = log_node.exp()[:, 0].detach()
    rows = [torch.autograd.grad(s, (vae.theta, vae.phi), retain_graph=True) for s in surrogate[:, 0]]
    exact = {}
    for group, g in zip(("model", "guide"), zip(*rows, strict=True), strict=True):
        g = torch.stack(g)
        mean = share @ g
        exact[group] = float(mean.norm()), float(share @ g.square().sum(1) - mean.square().sum())
    return exact


@pytest.mark.parametrize("case", ["pathwise", "stl", "score", "score of coins"])
def test_length_variance_and_signal_to_noise_are_the_exact_ones(case):
    """By quadrature over the draw, or a sum over its values, to five standard errors: wrong once in 1e5."""
    vae = Coins() if "coins" in case else OneLatent()
    x = vae.data(1)
    surrogates = {
        "pathwise": (ELBO(), lambda d: d.log_weight),
        "stl": (ELBO(gradient="stl"), lambda d: d.log_weight + d.log_score),
        "score": (
            ELBO(gradient="score"),
            lambda d: still_joint(vae, x, d) + d.log_weight.detach() * d.log_score,
        ),
        "score of coins": (
            ELBO(gradient="score"),
            lambda d: d.log_joint + d.log_weight.detach() * d.log_posterior,
        ),
    }
    objective, surrogate = surrogates[case]
    exact = single_gradients(vae, x, surrogate)
    table = compare(vae, x, {"o": objective}, draws=1500)
    for group, (length, variance) in exact.items():
        found = row(table, group)
        for name, value in {
            "gradient": length,
            "variance": variance,
            "snr": length / math.sqrt(variance),
        }.items():
            width = found[f"{name}_high"] - found[f"{name}_low"]
            assert abs(found[name] - value) < 1.25 * width, (group, name, value, found[name])
            assert width < 0.5 * value or name != "variance", (group, name)


def still_joint(vae, x, d):
    """log p(x, z) with the draws held fixed, [G, B]."""
    given = {n: s.value.detach() for n, s in d.posterior.items()}
    return pv.densities(vae, x, d.shape[0], given=given).log_joint


def test_the_bias_of_sticking_the_landing_in_iwae_is_the_exact_one():
    """What it drops: E[Σ_k w̃_k ∂ log q(z_k | x)], by quadrature over two draws."""
    vae = OneLatent()
    x = vae.data(3)
    exact = dropped_score(vae, x)
    table = compare(vae, x.repeat(20, 1), [IWAE(2, "stl"), IWAE(2), IWAE(2, "dreg"), IWAE(2, "vimco")], draws=400)
    stl = row(table, objective="IWAE(gradient=stl)")
    assert stl["bias_low"] > 0.7 * exact
    assert abs(stl["bias"] - exact) < 2 * (stl["bias_high"] - stl["bias_low"]) < exact
    assert row(table, objective="IWAE")["bias"] == 0
    for unbiased in ("IWAE(gradient=dreg)", "IWAE(gradient=vimco)"):
        assert row(table, objective=unbiased)["bias_low"] < 0.1 * exact
    for name in table.objective.unique():  # the model's gradient has none
        assert row(table, "model", objective=name)["bias"] == 0


def dropped_score(vae, x):
    """‖E[Σ_k w̃_k ∂_φ log q(z_k | x)]‖ for two draws, mean over the data."""
    d, log_node = at_nodes(vae, x, 20)
    log_score = d.log_score
    pairs = list(itertools.product(range(d.shape[0]), repeat=2))
    i, j = torch.tensor(pairs).T
    w = torch.stack([d.log_weight[i], d.log_weight[j]]).detach().softmax(0)
    share = (log_node[i] + log_node[j]).exp().detach()
    value = (share * (w[0] * log_score[i] + w[1] * log_score[j])).sum(0).mean()
    return float(torch.autograd.grad(value, vae.phi)[0].norm())


def test_at_the_exact_posterior_bounds_are_the_evidence_and_landings_are_stuck():
    vae = LinearGaussian()
    x = vae.data(3)
    table = compare(vae, x, [ELBO(3), IWAE(3), ELBO(3, gradient="stl"), CUBO(3)], draws=5)
    assert set(table.group) == {"both"}  # the guide's parameters are those of the model
    assert table.gap.abs().max() < 1e-9
    vae = TwoLatents("up")
    with torch.no_grad():
        vae.phi.copy_(torch.stack(vae.true_phi()))
    x = vae.data(3)
    table = compare(vae, x, {"elbo": ELBO(3), "stl": ELBO(3, gradient="stl"), "dreg": IWAE(3, "dreg")}, draws=20)
    for found in table.to_dict("records"):
        assert found["gap"] == pytest.approx(0, abs=1e-9)
        assert found["bound_error"] < 1e-9
        assert found["evidence_error"] == 0
    for name in ("stl", "dreg"):
        assert row(table, objective=name)["variance"] < 1e-15
    assert row(table, objective="elbo")["variance"] > 0.01
    truth = torch.autograd.grad(vae.log_evidence(x).mean(), vae.theta)[0].norm()
    for found in (row(table, "model", objective=n) for n in ("elbo", "dreg")):
        assert inside(found, "gradient", float(truth))
        assert found["evidence_bias_low"] == 0  # E[∂ log p(x, z)] = ∂ log p(x)


def test_the_models_bias_against_the_evidence_falls_with_the_particles():
    vae = OneLatent()
    vae.log_evidence = lambda x: exact_evidence(vae, x)
    x = vae.data(20)
    table = compare(vae, x, ["IWAE"], particles=[1, 4, 64], draws=300)
    biases = [row(table, "model", particles=k)["evidence_bias"] for k in (1, 4, 64)]
    assert biases[0] > 2 * biases[1] > 8 * biases[2]
    gaps = [row(table, "model", particles=k)["gap"] for k in (1, 4, 64)]
    assert gaps[0] > gaps[1] > gaps[2] > 0


def exact_evidence(vae, x):
    v, b, (m, log_t) = vae.theta.split([2, 2, 2])
    t = (log_t + 0.5).exp()
    return dist.MultivariateNormal(v * m + b, v[:, None] * v + t**2 * torch.eye(2, dtype=F64)).log_prob(x)


@pytest.mark.parametrize("reference", [4000, "ais"])
def test_an_estimated_reference_agrees_with_the_exact_one(reference):
    vae = OneLatent()
    x = vae.data(20)
    exact = exact_evidence(vae, x)
    estimated = compare(vae, x, [IWAE(4)], draws=200, reference=reference)
    given = compare(vae, x, [IWAE(4)], draws=200, reference=exact.detach())
    a, b = row(estimated), row(given)
    assert a["evidence"] == pytest.approx(b["evidence"], abs=6 * a["evidence_error"])
    assert 0 < a["evidence_error"] < 0.05
    assert b["evidence_error"] == 0
    assert a["gap_error"] == pytest.approx(math.hypot(a["bound_error"], a["evidence_error"]))
    assert a["gap"] == pytest.approx(a["evidence"] - a["bound"])
    vae.log_evidence = lambda x: exact_evidence(vae, x)
    truth = row(compare(vae, x, [IWAE(4)], draws=200), "model")
    found = row(estimated, "model")
    assert found["evidence_bias_low"] <= truth["evidence_bias"] <= found["evidence_bias_high"]
    assert truth["evidence_bias"] > 0
    assert "particles" in estimated.attrs["reference"] or "annealed" in estimated.attrs["reference"]


def test_without_bias_all_else_is_the_same():
    vae = OneLatent()
    x = vae.data(3)
    tables = [compare(vae, x, [IWAE(2, "stl")], draws=10, reference=100, bias=b) for b in (True, False)]
    assert tables[1].bias.isna().all()
    gone = [c for c in tables[0] if c.startswith(("bias", "relative"))] + ["seconds", "snr_per_second"]
    pd.testing.assert_frame_equal(*(t.drop(columns=gone) for t in tables))


def test_discrete_latents_are_held_against_their_own_bound():
    vae = Coins()
    x = vae.data(12)
    table = compare(
        vae,
        x,
        {
            "loo": ELBO(4, gradient="score", baseline="leave_one_out"),
            "disarm": DisARM(),
            "rebar": REBAR(2),
            "vimco": IWAE(4, "vimco"),
            "wake": WakeSleep(4),
            "pathwise": ELBO(),
        },
        draws=400,
    )
    for name in ("loo", "disarm", "rebar", "vimco"):
        found = row(table, objective=name)
        assert found["bias_low"] < 0.35 * found["gradient"] + 1e-9, name
    wake = row(table, objective="wake")
    assert wake["bias_low"] > 0  # it follows another divergence
    (failed,) = table[table.objective == "pathwise"].to_dict("records")
    assert "no reparametrised sampler" in failed["failed"]


def test_enumerated_sites_have_no_variance_of_their_own():
    vae = Coins(mark=True)
    table = compare(vae, vae.data(6), [ELBO(), IWAE(1)], draws=10)
    assert (table.variance < 1e-20).all()
    assert (table.decoder_passes == 4).all()
    assert (table.bias == 0).all()  # and no rounding is told
    mixture = Mixture("yz")
    table = compare(mixture, mixture.data(6), [ELBO(2), IWAE(2, "dreg")], draws=100)
    assert table.failed.eq("").all()
    assert (table.decoder_passes == 4).all()
    assert row(table, objective="ELBO")["bias"] == 0


# Every objective of the table


@pytest.mark.parametrize("name", ALL)
def test_every_objective_says_the_bound_that_it_reports(name):
    """By the weights of the same draws; in the mean, where the bound is taken otherwise."""
    objective, vae = ALL[name](), vae_for(name).double()
    x = small_data(n=400)
    torch.manual_seed(3)
    bound = objective(vae, x).bound
    torch.manual_seed(3)
    d = pv.densities(vae, x, objective.draws, exact=True)
    said = objective.bound_of(d.log_weight, d.log_mass)
    assert said.requires_grad
    exactly = not isinstance(objective, DisARM | REBAR) and getattr(objective, "kl", "sampled") == "sampled"
    if exactly:
        torch.testing.assert_close(said, bound)
    else:
        t = (said - bound).mean() / (said - bound).std() * 20
        assert t.abs() < 6


PASSES = {
    "ELBO 3": 3,
    "IWAE 3": 3,
    "IWAE backward 1": 4,
    "MIWAE": 6,
    "PIWAE": 6,
    "wake and sleep": 4,
    "DisARM of two pairs": 4,
    "REBAR": 9,
    "TVO": 3,
    "CUBO": 3,
}


@pytest.mark.parametrize("name", PASSES)
def test_decoder_passes_are_counted(name):
    vae = vae_for(name)
    x = small_data(n=5, dtype=torch.float32)
    table = compare(vae, x, {name: ALL[name]()}, draws=2, reference=10)
    assert set(table.decoder_passes) == {PASSES[name]}


def test_passes_of_several_observed_sites_are_those_of_one_model():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("a", dist.Normal(z, 1.0), obs=x)
            pyro.sample("b", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    program = pv.Program(model, guide)
    IWAE(7)(program, torch.randn(5))  # looks at the program
    with ModelRows() as rows:
        IWAE(7)(program, torch.randn(5))
    assert rows.passes(5) == 7


def test_peak_memory_is_what_is_held_at_once():
    def two_at_once():
        a = torch.ones(1000, dtype=F64)
        a = a + 1  # the first is free after this
        return a * 2

    assert peak_memory(two_at_once, torch.device("cpu")) == 16_000
    kept = []
    assert peak_memory(lambda: kept.extend(torch.ones(1000) for _ in range(5)), torch.device("cpu")) == 20_000
    x = torch.ones(1000)
    assert peak_memory(lambda: x.view(10, 100).add_(1), torch.device("cpu")) == 0  # made before
    vae, x = small_vae(), small_data(dtype=torch.float32)
    table = compare(vae, x, ["IWAE"], particles=[10, 1000], draws=2, reference=10)
    few, many = (row(table, particles=k)["peak_memory"] for k in (10, 1000))
    assert 30 < many / few < 110


# Manners


def test_one_seed_gives_one_table_and_a_row_does_not_hang_on_the_others():
    vae, x = small_vae(), small_data(dtype=torch.float32)
    clock = ["seconds", "snr_per_second"]
    objectives = [ELBO(2), IWAE(3, "dreg"), WakeSleep(2, "both"), IWAE(4, backward_particles=1)]
    a, b = (compare(vae, x, objectives, seed=7, reference=50).drop(columns=clock) for _ in range(2))
    pd.testing.assert_frame_equal(a, b)
    alone = compare(vae, x, objectives[1:2], seed=7, reference=50).drop(columns=clock)
    pd.testing.assert_frame_equal(alone, a[a.objective == alone.objective[0]].reset_index(drop=True))
    other = compare(vae, x, objectives, seed=8, reference=50)
    assert (other.bound != a.bound).all()


def test_nothing_of_the_callers_is_changed():
    vae, x = small_vae(), small_data(dtype=torch.float32)
    vae.train()
    objective = ELBO(gradient="score", baseline="mean")
    warm = BetaELBO(warmup=10)
    warm.advance(5)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    torch.manual_seed(1)
    compare(vae, x, {"mean": objective, "warm": warm}, particles=[1, 2], reference=20)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    assert vae.training
    assert all(p.grad is None for p in vae.parameters())
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert not list(objective.state_dict().values()) or all(not t.any() for t in objective.state_dict().values())
    rebuilt = contenders([warm], [3])[0].make()
    assert isinstance(rebuilt, BetaELBO)
    assert (rebuilt.particles, float(rebuilt.epoch)) == (3, 5)


class Broken(Objective):
    """Fails in a way of its own."""

    def __init__(self, how="error", after=0):
        super().__init__()
        self.how, self.after, self.calls = how, after, 0

    def forward(self, vae, x):
        self.calls += 1
        e = ELBO()(vae, x)
        if self.calls <= self.after:
            return e
        if self.how == "error":
            raise RuntimeError("my own\n  mistake")
        if self.how == "stop":
            raise KeyboardInterrupt
        if self.how == "shape":
            return Estimate(e.bound.mean(), e.surrogate)
        bad = torch.full_like(e.bound, math.nan)
        return Estimate(bad, e.surrogate) if self.how == "bound" else Estimate(e.bound, e.surrogate * bad)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("error", "RuntimeError: my own mistake"),
        ("shape", "Broken is to return its bound per datum"),
        ("bound", "the bound of draw 6 is NaN or infinite"),
        ("gradient", "the gradient of draw 6 is NaN or infinite"),
    ],
)
def test_an_objective_that_fails_is_one_marked_row(how, said):
    vae, x = small_vae(), small_data(dtype=torch.float32)
    after = 8 if how in ("bound", "gradient") else 0  # it is called three times before the draws
    table = compare(vae, x, {"a": ELBO(), "b": Broken(how, after), "c": IWAE(2)}, reference=20)
    assert table.objective.tolist() == ["a", "a", "b", "c", "c"]
    failed = table.iloc[2]
    assert said in failed.failed
    assert failed.group == ""
    assert math.isnan(failed.bound)
    assert table.failed.eq("").sum() == 4
    assert table.iloc[3:].bound.notna().all()


def test_a_stopped_comparison_keeps_the_rows_that_are_done(tmp_path):
    vae, x = small_vae(), small_data(dtype=torch.float32)
    table = compare(vae, x, {"a": ELBO(), "b": Broken("stop", 10), "c": IWAE(2)}, reference=20, folder=tmp_path)
    assert table.objective.tolist() == ["a", "a"]
    assert table.attrs["interrupted"]
    kept = pd.read_csv(tmp_path / "compare.csv", keep_default_na=False)
    assert kept.objective.tolist() == ["a", "a"]
    assert kept.bound.astype(float).tolist() == table.bound.tolist()
    assert "Stopped by hand" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_are_on_disk_as_soon_as_they_are_done(tmp_path):
    vae, x = small_vae(), small_data(dtype=torch.float32)
    seen = []

    class Looks(Broken):
        def forward(self, vae, x):
            path = tmp_path / "compare.csv"
            seen.append(pd.read_csv(path).objective.tolist() if path.exists() else [])
            return ELBO()(vae, x)

    compare(vae, x, {"a": ELBO(), "b": Looks()}, draws=3, reference=20, folder=tmp_path)
    assert seen[0] == ["a", "a"]


def test_a_model_and_an_objective_of_ones_own():
    class Jackknife(Objective):
        def __init__(self, particles: int = 3, power: float = 1.0):
            super().__init__()
            self.particles, self.power = particles, power

        def forward(self, vae, x):
            w = pv.densities(vae, x, self.particles).log_weight
            bound = w.logsumexp(0) - math.log(len(w))
            return Estimate(bound.detach(), bound)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.slope = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))
            self.unused, self.frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3), requires_grad=False)

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, self.shared.exp()))
                pyro.sample("x", dist.Normal(z + self.frozen.sum(), 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.slope * x, self.shared.exp()))

    table = compare(Own(), torch.randn(6), [Jackknife, IWAE], particles=[2, 3], reference=100)
    assert table.group.tolist() == ["guide", "both"] * 4
    assert table.parameters.tolist() == [1, 1] * 4
    own, iwae = table[table.objective == "Jackknife"], table[table.objective == "IWAE"]
    assert own.snr.tolist() == pytest.approx(iwae.snr.tolist(), rel=1e-4)
    assert own.bias.isna().all()  # it does not say its bound
    assert iwae.bias.notna().all()


def test_a_class_of_weights_alone_takes_its_particles():
    class Own(Weighted):
        def weigh(self, log_weight, log_mass):
            v = (log_weight + log_mass).softmax(0)
            return (log_weight + log_mass).logsumexp(0), Weights(v, v)

    vae, x = small_vae(), small_data(dtype=torch.float32)
    table = compare(vae, x, [Own, "IWAE"], particles=[1, 4], draws=3, reference=20)
    assert table[table.group == "guide"].particles.tolist() == [1, 4, 1, 4]
    assert table.snr[:4].tolist() == pytest.approx(table.snr[4:].tolist(), rel=1e-3)


def test_relative_bias_is_resampled_with_the_gradient():
    """A gradient twice its bound's is off by half of itself, in every resample."""

    class Double(ELBO):
        def forward(self, vae, x):
            e = super().forward(vae, x)
            return Estimate(e.bound, 2 * e.surrogate)

    vae = OneLatent()
    for found in compare(vae, vae.data(3), [Double()], draws=100, reference=50).to_dict("records"):
        assert found["relative_bias_low"] == pytest.approx(0.5)
        assert found["relative_bias_high"] == pytest.approx(0.5)
        assert found["bias_high"] - found["bias_low"] > 0.01


def test_what_claims_no_lower_bound_is_marked():
    vae = OneLatent()
    table = compare(vae, vae.data(3), [IWAE(2), CUBO(2), "TVO(1)"], draws=3, reference=50)
    assert table.lower.tolist()[:4] == [True, True, False, False]
    told = pv.lab.summary(table)
    assert "CUBO *" in told
    assert "IWAE *" not in told
    assert "no lower bounds: CUBO" in pv.plots.bounds(table).axes[0].get_title(loc="left")


def test_programs_of_plain_functions():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.4)) * x, 0.8))

    table = compare(pv.Program(model, guide), torch.randn(5), [ELBO(), IWAE(3)], reference=100)
    assert table.group.tolist() == ["model", "guide"] * 2
    assert table.failed.eq("").all()


def test_latents_of_the_whole_data_set_have_an_elbo_and_no_evidence():
    from conftest import Global

    vae = Global(5)
    table = compare(vae, torch.randn(5, dtype=F64), [ELBO(2), IWAE(2)])
    assert table.group.tolist() == ["guide", ""]
    assert table.evidence.isna().all()
    assert table.bound[0] == table.bound[0]
    assert "outside" in table.failed[1]


# Pyro's own


def test_pyros_elbos_stand_beside_ours():
    vae = TwoLatents("down")
    x = vae.data(4)
    options = {"max_plate_nesting": 1, "vectorize_particles": True}
    table = compare(
        vae,
        x,
        {
            "ours": ELBO(4),
            "pyro": pyro.infer.Trace_ELBO(4, **options),
            "wrapped": PyroELBO(pyro.infer.TraceMeanField_ELBO(4, **options)),
            "graph": pyro.infer.TraceGraph_ELBO(4, **options),
            "iwae": IWAE(4),
            "renyi": pyro.infer.RenyiELBO(0, 4, **options),
            "text": "pyro.infer.Trace_ELBO(num_particles=4, max_plate_nesting=1, vectorize_particles=True)",
        },
        draws=100,
    )
    assert table.failed.eq("").all(), table.failed.tolist()
    assert table.particles.eq(4).all()
    assert table.decoder_passes.eq(4).all()
    for group in ("model", "guide"):
        ours, text = row(table, group, objective="ours"), row(table, group, objective="text")
        assert text["bound"] == pytest.approx(ours["bound"])
        assert text["snr"] == pytest.approx(ours["snr"])  # the same draws
        for name in ("pyro", "graph"):
            theirs = row(table, group, objective=name)
            error = math.hypot(ours["bound_error"], theirs["bound_error"])
            assert abs(ours["bound"] - theirs["bound"]) < 6 * error
            assert theirs["bias_low"] < 0.3 * theirs["gradient"]
        iwae, renyi = row(table, group, objective="iwae"), row(table, group, objective="renyi")
        assert iwae["bound"] == pytest.approx(renyi["bound"])
        assert iwae["gradient"] == pytest.approx(renyi["gradient"])
        assert math.isnan(renyi["bias"])


# Names and refusals


def test_contenders_have_names_and_numbers():
    given = [IWAE(1), IWAE(5), IWAE(5, "dreg"), ELBO, pyro.infer.Trace_ELBO, DisARM(), "MIWAE(3)", "CUBO(7)"]
    found = [(c.name, c.particles) for c in contenders(given)]
    assert found == [
        ("IWAE", 1),
        ("IWAE", 5),
        ("IWAE(gradient=dreg)", 5),
        ("ELBO", 1),
        ("pyro.infer.Trace_ELBO", 1),
        ("DisARM", None),
        ("MIWAE(groups=3)", 5),
        ("CUBO", 7),
    ]
    swept = contenders(
        {"m": lambda k: MIWAE(2, k), "b": BetaELBO(4.0), "d": DisARM(), "c": "CUBO(particles=7)"}, [2, 3]
    )
    assert [(c.name, c.particles) for c in swept] == [
        ("m", 2),
        ("m", 3),
        ("b", 2),
        ("b", 3),
        ("d", None),
        ("c", 7),
    ]
    assert [c.make().draws for c in swept] == [4, 6, 2, 3, 2, 7]


def test_objectives_are_read_from_text(tmp_path):
    made = read_objective("IWAE(3, gradient=dreg)")()
    assert (made.particles, made.gradient) == (3, "dreg")
    assert read_objective(" BetaELBO( beta = 2.5 , kl='sampled')")().beta == 2.5
    (tmp_path / "own.py").write_text(
        "from pyrovae.objectives import IWAE\nclass Mine(IWAE):\n    def __init__(self, particles=2, tag='a'):\n"
        "        super().__init__(particles)\n"
    )
    assert read_objective(f"{tmp_path}/own.py:Mine(tag=b)")().particles == 2
    assert split_objectives("ELBO, IWAE(gradient=dreg, particles=3),TVO(schedule='log'),") == [
        "ELBO",
        "IWAE(gradient=dreg, particles=3)",
        "TVO(schedule='log')",
    ]


class Bare(nn.Module):
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))


REFUSED = {
    "no objectives": ({"objectives": []}, "at least one objective"),
    "a function in a list": ({"objectives": [lambda k: IWAE(k)]}, "cannot name a function; give a dict"),
    "a function without a number": ({"objectives": {"a": lambda k: IWAE(k)}}, r"particles=\[...\] for 'a'"),
    "no objective": ({"objectives": [3]}, "expected an objective .* got int"),
    "twice": ({"objectives": [ELBO(), ELBO()]}, "two objectives called 'ELBO'"),
    "a wrong name": ({"objectives": ["IWAA"]}, "did you mean 'IWAE'"),
    "an open bracket": ({"objectives": ["IWAE(("]}, "cannot read the objective"),
    "a wrong option": ({"objectives": ["IWAE(gradiant=dreg)"]}, "no option 'gradiant'; did you mean 'gradient'"),
    "no ELBO of Pyro's": ({"objectives": ["pyro.infer.SVI"]}, "is no ELBO of pyro.infer"),
    "particles": ({"particles": [0]}, "particles"),
    "no particles": ({"particles": 0}, "particles"),
    "half a particle": ({"particles": 2.5}, "particles as a whole number"),
    "a seed": ({"seed": -1}, "a seed of at least 0, got seed=-1"),
    "draws": ({"draws": 1}, "at least 2 draws, got draws=1"),
    "a reference": ({"reference": "best"}, "'auto', 'exact', 'ais'"),
    "no exact reference": ({"reference": "exact"}, "has no log_evidence"),
    "a reference of another shape": ({"reference": torch.zeros(3)}, r"\[4\], got shape \[3\]"),
    "no data": ({"x": torch.zeros(0, 3)}, "at least one value"),
    "no parameters": ({"vae": Bare(), "x": torch.zeros(3)}, "Bare has no parameters"),
    "a file for a folder": ({"folder": __file__}, "is a file; choose another"),
    "no module": ({"vae": object()}, "expects a torch module"),
    "data outside the support": ({"x": 0.5 * torch.ones(4, 1, 5, 4)}, "Binarise"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_at_once(case):
    change, said = REFUSED[case]
    given = {"vae": small_vae(), "x": small_data(dtype=torch.float32), "objectives": [ELBO()], "draws": 3} | change
    with pytest.raises(ValueError, match=said):
        pv.lab.compare(**given, **QUIET)
