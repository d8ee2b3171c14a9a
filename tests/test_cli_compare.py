"""`pyrovae compare`, as a person meets it."""

import pandas as pd
import pytest
import torch
import yaml
from test_cli import EXAMPLE, here, refused, trained  # noqa: F401

import pyrovae as pv
from pyrovae.cli import main

QUICK = ["--draws", "4", "--data_size", "3", "--reference", "20"]


def test_a_run_is_compared_and_leaves_a_report(trained, capsys):  # noqa: F811
    words = ["compare", "run", "--objectives", "ELBO, IWAE(gradient=dreg), TVO", "--particles", "1,3", *QUICK]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for word in ("log p(x) = ", "importance sampling, 20 particles", "IWAE(gradient=dreg)", "snr guide", "failed:"):
        assert word in printed
    assert "TVO, K = 1: TVO compares particles and expects at least 2, got particles=1" in printed
    folder = trained / "compare"
    assert {p.name for p in folder.iterdir()} == {"compare.csv", "compare.json", "report.html", "figures"}
    assert f"report: {folder.relative_to(trained.parent)}" in printed
    table = pd.read_csv(folder / "compare.csv", keep_default_na=False)
    assert table.objective.tolist() == ["ELBO"] * 4 + ["IWAE(gradient=dreg)"] * 4 + ["TVO"] * 3
    data = pv.data.load("digits")
    by_hand = pv.lab.compare(
        pv.load(trained), data.test[:3], ["ELBO", "IWAE(gradient=dreg)"], 4, 20, particles=[1, 3], progress=False
    )
    assert table.bound[:8].astype(float).tolist() == pytest.approx(by_hand.bound.tolist())
    assert table.snr[:8].astype(float).tolist() == pytest.approx(by_hand.snr.tolist())
    assert main(words) == 0  # the next has a folder of its own
    assert (trained / "compare-2" / "report.html").exists()
    assert main([*words, "--output", "elsewhere"]) == 0
    assert (trained.parent / "elsewhere" / "report.html").exists()


def test_the_usual_objectives_are_compared_where_none_are_named(trained, capsys):  # noqa: F811
    assert main(["compare", "run", "--particles", "2", *QUICK]) == 0
    table = pd.read_csv(trained / "compare" / "compare.csv", keep_default_na=False)
    assert len(set(table.objective)) >= 12
    assert set(table.failed) == {""}


def test_a_model_by_name_is_trained_first_and_kept(here, capsys):  # noqa: F811
    words = ["compare", "VAE", "--latent", "2", "--hidden", "[8]", "--objectives", "ELBO", *QUICK]
    assert main([*words, "--epochs", "1", "--run_dir", "a"]) == 0
    assert "trained for 1 epochs first -> a" in capsys.readouterr().out
    assert main(["compare", "a", "--objectives", "ELBO", *QUICK]) == 0
    one, two = (pd.read_csv(here / "a" / name / "compare.csv").bound.tolist() for name in ("compare", "compare-2"))
    assert one == two
    config = yaml.safe_load((here / "a" / "config.yaml").read_text())
    assert "objectives" not in config
    assert main(["evaluate", "a", "--particles", "2"]) == 0
    assert main([*words, "--epochs", "0", "--run_dir", "b"]) == 0
    assert "not trained -> b" in capsys.readouterr().out
    torch.manual_seed(0)
    vae = pv.models.VAE.build(pv.data.load("digits"), latent=2, hidden=[8])
    assert all(torch.equal(p, q) for p, q in zip(vae.parameters(), pv.load("b").parameters(), strict=True))


def test_model_and_objectives_may_come_from_a_users_own_files(here, capsys):  # noqa: F811
    (here / "mine.py").write_text(
        "from pyrovae.objectives import IWAE, ELBO\n"
        "class Mine(IWAE):\n"
        "    def __init__(self, particles: int = 2, tag: str = 'a'):\n"
        "        super().__init__(particles)\n"
        "        self.tag = tag\n"
        "class Fails(ELBO):\n"
        "    def forward(self, vae, x):\n"
        "        raise TypeError('not today')\n"
    )
    words = ["compare", f"{EXAMPLE}:StyleAndTone", "--style", "2", "--hidden", "8", "--epochs", "1", "--run_dir", "r"]
    objectives = "mine.py:Mine(tag=b), mine.py:Fails, pyro.infer.Trace_ELBO, ELBO"
    assert main([*words, "--objectives", objectives, "--particles", "2", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "Mine(tag=b)" in printed
    assert "Fails, K = 2: TypeError: not today" in printed
    assert "pyro.infer.Trace_ELBO" in printed


def test_ctrl_c_keeps_the_rows_that_are_done(trained, capsys):  # noqa: F811
    (trained.parent / "stop.py").write_text(
        "from pyrovae.objectives import ELBO\n"
        "class Stop(ELBO):\n"
        "    def forward(self, vae, x):\n"
        "        raise KeyboardInterrupt\n"
    )
    assert main(["compare", "run", "--objectives", "ELBO, stop.py:Stop, IWAE", "--particles", "2", *QUICK]) == 130
    printed = capsys.readouterr().out
    assert "stopped; the rows that were done are in run/compare" in printed
    assert pd.read_csv(trained / "compare" / "compare.csv").objective.tolist() == ["ELBO", "ELBO"]
    assert "Stopped by hand" in (trained / "compare" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--objectives", "ELBOW"], "did you mean 'ELBO'"),
        (["--objectives", "IWAE(gradient=derg)"], None),  # a marked row
        (["--objectives", ""], "at least one objective"),
        (["--objectives", "none.py:Mine"], "does not exist"),
        (["--particles", "a,b"], "particles as whole numbers between commas, got 'a'"),
        (["--particles", "0"], "particles as a whole number of at least 1"),
        (["--draws", "1"], "at least 2 draws"),
        (["--data_size", "0"], "data_size of at least 1"),
        (["--reference", "truth"], "'auto', 'exact', 'ais'"),
        (["--reference", "exact"], "has no log_evidence"),
        (["--draw", "3"], "unknown option '--draw'"),
        (["--output", "run/config.yaml"], "is a file"),
    ],
)
def test_wrong_words_get_one_sentence(trained, capsys, words, said):  # noqa: F811
    given = ["compare", "run", "--draws", "3", "--data_size", "2", "--particles", "2", "--objectives", "ELBO", *words]
    if said is None:
        assert main([*given, "--reference", "20"]) == 1  # nothing was measured
        assert "IWAE has no gradient 'derg'; did you mean 'dreg'?" in capsys.readouterr().out
    else:
        assert said in refused(given, capsys)


def test_a_run_is_not_written_over(trained, capsys):  # noqa: F811
    before = (trained / "weights.safetensors").read_bytes()
    for epochs in ("0", "1"):
        words = ["compare", "VAE", "--epochs", epochs, "--run_dir", "run", "--objectives", "ELBO"]
        assert "'run' already holds a run; compare that" in refused(words, capsys)
    assert (trained / "weights.safetensors").read_bytes() == before


def test_nothing_is_trained_for_a_comparison_that_cannot_be(here, capsys):  # noqa: F811
    for words in (["--draws", "1"], ["--reference", "truth"], ["--data_size", "0"], ["--objectives", "ELBO(a=1)"]):
        refused(["compare", "VAE", "--run_dir", "r", *words], capsys)
        assert not (here / "r").exists()


def test_a_folder_that_is_no_run_is_said_so(here, capsys):  # noqa: F811
    (here / "empty").mkdir()
    assert "'empty' is not a run folder" in refused(["compare", "empty"], capsys)
    assert "'runs/vea' is not a run folder" in refused(["compare", "runs/vea"], capsys)
    assert "unknown model 'VEA'; did you mean 'VAE'" in refused(["compare", "VEA"], capsys)
