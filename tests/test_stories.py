"""The stories of examples/stories: each trains by one command, without a guide, and beats a model without latents."""

import ast
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrovae as pv
from benchmarks.gallery.baselines import LEVELS, columns, first_order, negative_binomials, pixels, pixels_of_a_class
from pyrovae.cli import main

FOLDER = Path(__file__).parents[1] / "examples" / "stories"


FAST, FASTER = ["--learning_rate", "0.003"], ["--learning_rate", "0.01"]
STORIES = {  # file: (class or function, its data, other options, epochs of the test, baseline)
    "contrast": ("Contrast", "digits", FAST, 32, pixels),
    "clusters": ("Clusters", "digits", FASTER, 25, pixels),
    "shared_strokes": ("SharedStrokes", "digits", ["--learning_rate", "0.03"], 35, pixels),
    "oscillation": ("Oscillation", "oscillations", ["--missing", "true", *FASTER], 10, first_order),
    "overdispersed": ("Overdispersed", "digits", ["--learning_rate", "0.005"], 50, negative_binomials),
    "labelled": ("Labelled", "digits", ["--labelled", "true", *FASTER], 25, pixels_of_a_class),
    "heavy_tails": ("HeavyTails", "breast_cancer", [], 80, functools.partial(columns, family="t")),
    "plain_function": ("wine", "wine", FASTER, 100, functools.partial(columns, family="lognorm")),
    "two_layers": ("TwoLayers", "digits", FAST, 25, pixels),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story_beats_a_model_without_latents(name, tmp_path, capsys):
    story, data, options, epochs, baseline = STORIES[name]
    run = str(tmp_path / "run")
    words = ["train", f"{FOLDER / name}.py:{story}", "--data", data, *options, "--epochs", str(epochs)]
    assert main([*words, "--test_particles", "100", "--run_dir", run]) == 0, capsys.readouterr().err
    assert "guide derived from the model: q(" in capsys.readouterr().out
    x = pv.data.load(data, missing="--missing" in options, labelled="--labelled" in options)
    reached = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["log_evidence"]
    assert reached > baseline(x.train, x.test)
    assert main(["evaluate", run, "--particles", "10", "--split", "validation"]) == 0, capsys.readouterr().err
    assert "validation" in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert main(["generate", run, "--n", "3"]) == 0, capsys.readouterr().err
    made = [np.load(path) for path in (tmp_path / "run").glob("generated*.npy")]
    assert made
    assert all(len(x) == 3 and np.isfinite(x).all() for x in made)


def test_every_story_is_told_and_tested():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in FOLDER.glob("*.py")} == set(STORIES)
    for name, (story, *_) in STORIES.items():
        assert f"{name}.py:{story}" in table


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_short_and_has_no_guide(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert text.count("\n") <= 60
    tree = ast.parse(text)
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions in (["__init__", "model"], [STORIES[name][0]])
    assert "--epochs" in (ast.get_docstring(tree) or "")  # the command, with the figures


# The baselines are what they are called


def test_a_histogram_is_a_mass_over_the_levels():
    train = torch.randint(0, LEVELS, (50, 1, 1, 1))
    every = torch.arange(LEVELS).view(-1, 1, 1, 1)
    masses = [np.exp(pixels(train, x[None])) for x in every]
    assert sum(masses) == pytest.approx(1.0)


def test_labels_help_where_pixels_follow_them():
    y = torch.arange(400) % 10
    x = torch.stack([y, y], 1)
    assert pixels_of_a_class(x, x) == pytest.approx(np.log(0.1 * 41 / 57))
    assert pixels_of_a_class(x, x) > pixels(x, x)
    assert pixels_of_a_class(x, x, given=True) == pytest.approx(np.log(41 / 57))


def test_negative_binomials_find_their_mean_and_shape():
    r, p = 2.0, torch.tensor(0.6)
    of = torch.distributions.NegativeBinomial(r, p)
    x = of.sample((4000, 1)).clamp(max=16)
    assert negative_binomials(x, x) >= float(of.log_prob(x).mean()) - 1e-3


def test_first_order_is_the_density_of_a_process_of_first_order():
    x = torch.randn(2000, 5, dtype=torch.float64)
    for t in range(1, 5):
        x[:, t] = 0.5 * x[:, t - 1] + 0.1 * x[:, t]
    truth = -0.5 * np.log(2 * np.pi * np.e) * 5 + 4 * np.log(10)
    assert first_order(x, x) == pytest.approx(truth, abs=0.1)
    x[:, 3:] = torch.nan
    assert first_order(x, x) == pytest.approx(-0.5 * np.log(2 * np.pi * np.e) * 3 + 2 * np.log(10), abs=0.1)
