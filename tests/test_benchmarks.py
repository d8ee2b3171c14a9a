"""The comparison of speeds compares one computation, counts its operations rightly, and runs; no time is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import F64, TIGHT, run
from pyro.poutine.messenger import Messenger
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the benchmarks are no installed package

import pyrovae as pv  # noqa: E402
from benchmarks.speed import bars, by_hand, data, flops, networks, ours, report  # noqa: E402
from benchmarks.speed.__main__ import parser  # noqa: E402
from benchmarks.speed.cases import CASES, Case  # noqa: E402
from benchmarks.speed.contenders import CONTENDERS, taking_part  # noqa: E402
from benchmarks.speed.driver import Result  # noqa: E402
from benchmarks.speed.ratios import difference, ratio, spread  # noqa: E402

STEPS = [name for name, case in CASES.items() if case.measure == "step"]


def small(name: str) -> Case:
    """Small, and with widths that are not equal to each other."""
    case = CASES[name].small()
    return replace(case, hidden=tuple(range(5, 5 + len(case.hidden))))


@pytest.mark.parametrize("name", STEPS)
def test_operations(name):
    """Those of the formulae are those that torch counts."""
    case = small(name)
    x = networks.batches(case, data.of(case))[0]
    take = by_hand.trainer(case, compiled=False)
    with FlopCounterMode(display=False) as counter:
        take(x)
    assert flops.step(case) == counter.get_total_flops()


def test_operations_of_few_particles_backward():
    """All particles forward, one of them forward and backward once more, and the encoder twice."""
    case = small("iwae100")
    objective = ours.objective_of(case, 1)
    x = torch.from_numpy(data.of(case))
    vae = ours.build(case, x)
    objective(vae, x[: case.batch])  # what is found out once is no part of a step
    with FlopCounterMode(display=False) as counter:
        objective(vae, x[: case.batch]).surrogate.mean().backward()
    assert flops.of(case, "ours-one-never") == counter.get_total_flops() < flops.of(case, "ours-never")


def test_operations_of_the_evidence_and_of_an_epoch():
    case = small("evidence")
    net, x = networks.Net(case), networks.rows(case, data.of(case))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        by_hand.log_evidence(net, x, case.particles, chunk=2)
    assert flops.evidence(case) == counter.get_total_flops() - len(x) * sum(flops.encoder(case))
    case = small("epoch")
    assert flops.epoch(case) * case.batch == flops.step(case) * case.images


# The same computation


class Drawn(Messenger):
    """The latent drawn with noise that is given."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg):
        if msg["name"] == "z" and not msg["done"]:
            base = msg["fn"].base_dist
            msg["value"], msg["done"] = base.loc + base.scale * self.noise.reshape(msg["fn"].shape()), True


def layers(module):
    """Its layers with weights, in order."""
    return [m for m in module.modules() if hasattr(m, "weight")]


@pytest.mark.parametrize("name", STEPS)
def test_loss_and_gradients(name):
    """By hand and ours: equal at equal weights and noise."""
    case = small(name)
    x = torch.from_numpy(data.of(case)).double()
    vae, net = ours.build(case, x).double(), networks.Net(case).double()
    vae.posterior.network.first.loc.zero_()  # ours alone centres the data
    if case.scale:
        vae.likelihood.fixed_scale.fill_(case.scale)  # it was rounded to single precision
    x = x[: case.batch]
    pairs = [(vae.posterior, net.encoder), (vae.likelihood, net.decoder)]
    both = [(a, b) for theirs, hand in pairs for a, b in zip(layers(theirs), layers(hand), strict=True)]
    for a, b in both:
        b.load_state_dict(a.state_dict())

    noise = torch.randn(*([case.particles] if case.particles else []), case.batch, case.latent, dtype=F64)
    flat = x.flatten(1) if case.network == "mlp" else x
    loss = by_hand.loss_of(case)(net, flat, noise=noise)
    objective = ours.objective_of(case)
    run(objective, vae, x)  # what is found out once, with other draws
    with Drawn(noise):
        estimate = run(objective, vae, x)
    torch.testing.assert_close(loss, -estimate.bound.mean(), **TIGHT)
    loss.backward()
    (-estimate.surrogate.mean()).backward()
    for a, b in both:
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert p.grad.abs().max() > 0
            torch.testing.assert_close(p.grad, q.grad, **TIGHT)


def test_evidence():
    """By hand and ours estimate the same quantity: at one particle and equal noise it is the log weight."""
    case = small("evidence")
    net = networks.Net(case)
    x = networks.rows(case, data.of(case))
    torch.manual_seed(0)
    whole = by_hand.log_evidence(net, x, particles=6, chunk=6)
    torch.manual_seed(0)
    torch.testing.assert_close(whole.mean(), -by_hand.iwae_loss(net, x, 6))
    assert by_hand.log_evidence(net, x, particles=6, chunk=4).shape == whole.shape


# The tables


def result(name, *seconds, **known):
    return Result(name, seconds=list(seconds), **known)


def test_ratios_are_taken_within_a_round():
    """A disturbance of one round falls on both."""
    ours, theirs = result("a", 1.0, 10.0, 1.2), result("b", 2.0, 20.0, 2.4)
    assert ratio(ours, theirs) == spread([0.5])
    assert difference(theirs, ours).median == pytest.approx(1.2)
    assert ratio(result("a", failed="not installed: a"), theirs) is None
    assert ratio(None, theirs) is None
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]).median == 3
    assert spread([]) is None


def test_bars():
    """Met, missed, and not to be told."""
    measured = {
        "mlp128": {
            "ours-always": result("ours-always", 0.7, 0.9, 0.7),
            "pytorch": result("pytorch", 1.0, 1.0, 1.0),
            "pyro": result("pyro", 1.0, 1.0, 1.0),
            "numpyro": result("numpyro", failed="not installed: numpyro"),
        }
    }
    verdicts = {what: (told, verdict) for what, _, told, verdict in bars.rows(measured)}
    assert verdicts["step, MLP, B = 128: compiled / by hand"] == ("0.70 (0.70 to 0.80)", "met")
    assert verdicts["step, MLP, B = 128: compiled / Pyro"][1] == "missed"
    assert verdicts["step, MLP, B = 128: compiled / NumPyro's jitted step"] == ("—", "not installed: numpyro")
    assert verdicts["step, MLP, B = 128: not compiled / by hand"] == ("—", "not measured")
    assert len(verdicts) == 4  # of the cases that were run


def test_every_bar_is_of_contenders_that_take_part():
    for bar in bars.BARS:
        known = taking_part(CASES[bar.case]) if CASES[bar.case].measure != "import" else bars.imports.COMMANDS
        assert bar.ours in known, bar
        assert bar.theirs in known, bar
    assert all(name in CONTENDERS for case in CASES.values() if case.measure != "import" for name in taking_part(case))


def test_table():
    """Milliseconds, the ratio, and operations against those of the matmul."""
    case = CASES["mlp128"]
    second = flops.step(case) / 1e11  # at 100 GFLOP/s
    results = {
        "pytorch": result("pytorch", second, second, peak=200.0),
        "ours-never": result("ours-never", 2 * second, 2 * second, note="not compiled"),
        "pythae": result("pythae", failed="not installed: pythae"),
        "matmul": result("matmul", *[2 * 2048**3 / 2e11] * 2),  # at 200
    }
    lines = report.of_case(case, results).splitlines()
    by_title = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines if "|" in line}
    assert by_title["PyTorch by hand"][-2:] == ["100", "0.50"]
    assert by_title['pyrovae, compile="never"'][1].startswith("2 ")
    assert by_title["Pythae's trainer"][0] == "not installed: pythae"
    assert len({len(cells) for cells in by_title.values()}) == 1
    assert lines[-1] == 'pyrovae, compile="never": not compiled.'


def test_smoke(tmp_path):
    """The command runs, and writes a table with its contenders and every round."""
    page = tmp_path / "new" / "speed.md"
    command = [sys.executable, "-m", "benchmarks.speed", "--smoke", "--threads", "1", "--output", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for words in ('pyrovae, compile="never"', "PyTorch by hand", "Pyro, `SVI.step`", "matmul", "## Bars", "torch "):
        assert words in text
    cases = json.loads(page.with_suffix(".json").read_text())["cases"]
    assert list(cases) == ["iwae100"]
    for name, r in cases["iwae100"].items():
        assert not r["failed"], f"{name}: {r['failed']}"
        assert len(r["seconds"]) == 2
        assert min(r["seconds"]) > 0
        assert r["steps"] >= 0  # so small a network may fit into what is there


def test_unknown_names(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "pyrro"])
    assert "unknown pyrro" in capsys.readouterr().err


def test_derived_guides_are_measured_beside_others():
    from benchmarks import derived_guides

    for digits, guides in derived_guides.rows(pv.data.load("digits")).values():
        x = next(digits.batches("train", 8, shuffle=False))
        for build in guides.values():
            assert pv.densities(build(), x, particles=2).log_weight.isfinite().all()
    causes = derived_guides.Causes()
    x = causes.data().test
    cov = causes.a @ causes.a.T + causes.b @ causes.b.T + 0.09 * torch.eye(6)
    torch.testing.assert_close(x.T.cov(), cov, rtol=0.25, atol=0.5)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6), cov).log_prob(x)
    torch.testing.assert_close(causes.log_evidence(x), exact)


def test_the_page_on_stories_has_the_figures_of_its_benchmark():
    measured = (ROOT / "benchmarks" / "results" / "derived-guides.md").read_text(encoding="utf-8").replace("-", "−")
    page = (ROOT / "docs" / "stories.md").read_text(encoding="utf-8")
    figures = re.findall(r"−[\d.]+ ± [\d.]+", measured)
    assert len(figures) == 12
    assert re.findall(r"−[\d.]+ ± [\d.]+", page) == figures


def test_the_pages_have_the_figures_of_their_benchmarks():
    def measured(name):
        return (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")

    models, manifolds = ((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("models", "manifolds"))
    alone, both = zip(*re.findall(r"\| ([\d.]+)% \| ([\d.]+)% \|", measured("semi-supervised")), strict=True)
    assert f"{both[0]}, {both[1]} and {both[2]} %" in models
    assert f"{alone[0]}, {alone[1]} and {alone[2]} % by labels alone" in models
    elbo, penalised = re.findall(r"\| ([\d.]+ ± [\d.]+) \|", measured("disentanglement"))[::2]  # the first of each row
    assert f"{elbo} under the ELBO, and {penalised} with" in " ".join(models.split())
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \|", measured("manifold"))
    assert f"{sum(float(s) for s, _ in rows[1:3]) / 60:.1f} minutes and {rows[-1][1]} GiB" in manifolds
