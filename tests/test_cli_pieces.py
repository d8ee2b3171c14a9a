"""Every part is trained by name on data that fit it, and its run folder is read back to the same figures."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import pyrovae as pv
from pyrovae import commands, likelihoods, posteriors, priors
from pyrovae.cli import main
from pyrovae.networks.pair import KINDS

N = 60


def draw(kind):
    """Small data of a kind: [N, 5], images [N, C, 6, 5] or sequences [N, 6, 2]."""
    g = np.random.default_rng(0)
    x = {
        "real": lambda: g.normal(size=(N, 5)),
        "open unit": lambda: g.uniform(0.05, 0.95, size=(N, 5)),
        "binary": lambda: g.integers(0, 2, size=(N, 5)),
        "counts": lambda: g.poisson(3.0, size=(N, 5)),
        "grey": lambda: g.integers(0, 256, size=(N, 1, 6, 5)) / 255,
        "colour": lambda: g.integers(0, 256, size=(N, 3, 6, 5)) / 255,
        "sequences": lambda: g.normal(size=(N, 6, 2)),
    }[kind]()
    return x.astype("float32")


DISCRETE = ["--objective", "IWAE", "--objective.gradient", "vimco", "--objective.particles", "3"]
ONE_HOT = ["--posterior", "StraightThroughOneHotCategorical"]
# name: the words that it needs besides its name, and the data
PRIORS = {
    "StandardNormal": ([], "binary"),
    "DiagonalNormal": ([], "binary"),
    "Laplace": (["--prior.scale", "0.7"], "binary"),
    "StudentT": (["--prior.df", "3"], "real"),
    "Mixture": (["--prior.components", "4"], "binary"),
    "VampPrior": (["--prior.components", "7"], "counts"),
    "Hierarchical": (["--prior.top", "1", "--prior.hidden", "[4]"], "binary"),
    "Autoregressive": (["--prior.family", "Bernoulli", "--posterior", "StraightThroughBernoulli"], "binary"),
    "GaussianProcess": (["--prior.kernel", "cauchy", "--prior.length_scale", "3"], "real"),
    "Bernoulli": (["--posterior", "Bernoulli", *DISCRETE], "binary"),
    "RelaxedBernoulli": (["--posterior", "RelaxedBernoulli"], "binary"),
    "OneHotCategorical": (ONE_HOT, "binary"),
}
POSTERIORS = {
    "DiagonalNormal": ([], "binary"),
    "FullNormal": ([], "binary"),
    "LowRankNormal": (["--posterior.rank", "2"], "binary"),
    "Mixture": (["--posterior.components", "3"], "binary"),
    "Bernoulli": (["--prior", "Bernoulli", *DISCRETE], "binary"),
    "StraightThroughBernoulli": (["--prior", "Bernoulli"], "binary"),
    "RelaxedBernoulli": (["--prior", "RelaxedBernoulli"], "binary"),
    "OneHotCategorical": (["--prior", "OneHotCategorical", *DISCRETE], "binary"),
    "StraightThroughOneHotCategorical": (["--prior", "OneHotCategorical"], "binary"),
}
LIKELIHOODS = {
    "Bernoulli": ([], "binary"),
    "ContinuousBernoulli": ([], "grey"),
    "Binomial": (["--likelihood.total_count", "1"], "binary"),
    "Normal": (["--likelihood.scale", "per_pixel"], "real"),
}
NETWORKS = {"mlp": ([], "real"), "conv": ([], "grey")}
TABLES = {"prior": PRIORS, "posterior": POSTERIORS, "likelihood": LIKELIHOODS, "network": NETWORKS}
CASES = [(role, name) for role, table in TABLES.items() for name in table]


@pytest.mark.parametrize(("role", "name"), CASES, ids=lambda v: v)
def test_trained_by_name_and_read_back(role, name, tmp_path, monkeypatch, capsys):
    words, kind = TABLES[role][name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "figures", lambda *a: None)  # drawn in test_cli.py
    np.savez("x.npz", train=draw(kind), test=draw(kind)[:20])
    small = ["--latent", "4", "--hidden", "[6]", "--epochs", "1", "--test_particles", "7", "--compile", "never"]
    assert main(["train", "--data", "x.npz", f"--{role}", name, *words, *small, "--run_dir", "r"]) == 0
    first = json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]
    assert np.isfinite(first["log_evidence"])
    assert main(["evaluate", "r", "--particles", "7", "--compile", "never"]) == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["test"] == first
    if role != "network":
        assert type(getattr(pv.load("r"), role)).__name__ == name
    assert main(["generate", "r", "--n", "3"]) == 0
    assert np.isfinite(np.load("r/generated.npy")).all()
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("room", "table"),
    [(priors, PRIORS), (posteriors, POSTERIORS), (likelihoods, LIKELIHOODS)],
    ids=["prior", "posterior", "likelihood"],
)
def test_no_part_is_left_out(room, table):
    base = next(v for v in vars(room).values() if inspect.isclass(v) and inspect.isabstract(v))
    known = {
        n for n, v in vars(room).items() if inspect.isclass(v) and issubclass(v, base) and not inspect.isabstract(v)
    }
    assert known == set(table)


def test_no_network_is_left_out():
    assert set(KINDS) == set(NETWORKS)
