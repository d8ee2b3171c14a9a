"""The examples run, and what they compute by hand is what the library computes."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyrovae as pv

SCRIPT = Path(__file__).parents[1] / "examples" / "vae_from_scratch.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("vae_from_scratch", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def vae(example):
    """Its VAE in double precision, its prior included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield example.VAE()
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def x():
    return pv.data.load("digits").test[:37].flatten(1).double()


@pytest.mark.parametrize("particles", [1, 2, 7])
def test_its_elbo_is_that_of_the_library(example, vae, x, particles):
    torch.manual_seed(1)
    by_hand = example.elbo(vae, x, particles)
    torch.manual_seed(1)
    ours = pv.objectives.ELBO(particles=particles, kl="sampled")(vae, x).bound
    assert torch.allclose(by_hand, ours, rtol=1e-6)
    assert torch.allclose(by_hand.mean(), ours.mean(), rtol=1e-6)


@pytest.mark.parametrize("particles", [1, 2, 50])
def test_its_log_evidence_is_the_iwae_bound_of_the_library(example, vae, x, particles):
    torch.manual_seed(2)
    by_hand = example.log_evidence(vae, x, particles)
    torch.manual_seed(2)
    ours = pv.objectives.IWAE(particles=particles)(vae, x).bound
    assert torch.allclose(by_hand, ours, rtol=1e-6)


def test_its_gradient_is_that_of_the_library(example, vae, x):
    parameters = list(vae.parameters())
    torch.manual_seed(3)
    by_hand = torch.autograd.grad(example.elbo(vae, x).mean(), parameters)
    torch.manual_seed(3)
    ours = torch.autograd.grad(pv.objectives.ELBO(kl="sampled")(vae, x).surrogate.mean(), parameters)
    assert all(torch.allclose(a, b) for a, b in zip(by_hand, ours, strict=True))


def test_its_weights_are_those_of_the_library(example, vae, x):
    torch.manual_seed(4)
    by_hand = example.log_weight(vae, x, 5)
    torch.manual_seed(4)
    assert torch.allclose(by_hand, pv.densities(vae, x, particles=5).log_weight)


def test_a_short_training_raises_the_bound(example, capsys):
    torch.manual_seed(0)
    vae = example.VAE()
    data = pv.data.load("digits").train.flatten(1)
    bounds = example.train(vae, data, epochs=5)
    assert len(bounds) == 5
    assert bounds[-1] > bounds[0] + 50  # nats per image; −370 to −190
    assert capsys.readouterr().out.count("nats per image") == 2


def test_the_library_trains_it_as_it_stands(example):
    data = pv.data.from_arrays(pv.data.load("digits").train.flatten(1))
    torch.manual_seed(0)
    history = pv.fit(example.VAE(), data, epochs=2, progress=False).history
    assert history["bound"].iloc[-1] > history["bound"].iloc[0]


def test_a_drawing_has_two_letters_a_pixel(example):
    full, empty = torch.full((64,), 16.0), torch.zeros(64)
    lines = example.draw(torch.stack([full, empty])).split("\n")
    assert lines == ["@" * 16 + "   " + " " * 16] * 8


def test_the_script_runs():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}  # any terminal can show it
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--epochs", "2"], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if line.startswith("  ELBO"))
    assert math.isfinite(float(found["ELBO"]))
    assert "New digits" in done.stdout


LABORATORY = {
    "tighter_bounds": (["--draws", "4", "--data", "8", "--particles", "2", "4"], "slopes of log signal-to-noise"),
    "sticking_the_landing": (["--draws", "4"], "figure: "),
    "score_and_pathwise": (["--draws", "4", "--latent", "1", "3"], "variance of the guide's gradient"),
    "discrete_latents": (["--draws", "4", "--epochs", "1", "--latent", "3"], "straight-through"),
    "race_mnist": (["--data", "digits", "--epochs", "5", "--points", "1"], "IWAE(gradient=dreg)"),
}


@pytest.mark.parametrize("name", LABORATORY)
def test_the_laboratory_s_examples_run(name, tmp_path):
    words, said = LABORATORY[name]
    script = SCRIPT.with_name(f"{name}.py")
    folder = ["--folder", str(tmp_path)] if name != "discrete_latents" else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *words, *folder], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert "Warning" not in done.stderr
    assert not folder or list(tmp_path.rglob("*.png"))


def test_tighter_bounds_drown_the_guide_and_dreg_does_not():
    """The paper's slopes, at a sixth of the example's cost; bars wider than the example's own by the noise of that."""
    spec = importlib.util.spec_from_file_location("tighter_bounds", SCRIPT.with_name("tighter_bounds.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    x = torch.randn(20) + math.sqrt(2) * torch.randn(128, 20)
    objectives = {"IWAE": "IWAE", "DReG": "IWAE(gradient=dreg)"}
    options = {"particles": [8, 32, 128], "draws": 120, "bias": False, "progress": False}
    table = pv.lab.compare(module.Toy(x), x, objectives, **options)
    slope = pv.lab.slopes(table).set_index(["objective", "group"]).slope
    assert -0.65 < slope["IWAE", "guide"] < -0.3
    assert slope["DReG", "guide"] > 0.2
    later = pv.lab.slopes(table, fit_from=32).set_index(["objective", "group"]).slope
    assert 0.35 < later["IWAE", "model"] < 0.6
    gaps = table[(table.objective == "IWAE") & (table.group == "guide")].gap.tolist()
    assert gaps[0] > gaps[1] > gaps[2] > 0  # tighter all the same
