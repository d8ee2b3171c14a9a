"""The command line, as a person meets it: what it prints, what it leaves, how it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.training.adam import FusedAdam

SMALL = ["--latent", "2", "--hidden", "[16]", "--epochs", "2", "--test_particles", "5"]
EXAMPLE = Path(__file__).parents[1] / "examples" / "own_model.py"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(here, capsys):
    assert main(["train", *SMALL, "--run_dir", "run"]) == 0
    capsys.readouterr()
    return here / "run"


def refused(words, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("pyrovae: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_training_leaves_a_folder_a_person_enjoys(here, capsys):
    assert main(["train", *SMALL]) == 0
    printed = capsys.readouterr().out
    for word in ("log evidence", "ELBO", "rate", "distortion", "active units", "nats per datum", "runs/vae-digits"):
        assert word in printed
    folder = here / "runs" / "vae-digits"
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml",
        "weights.safetensors",
        "state.pt",
        "history.csv",
        "metrics.json",
        "figures",
    }
    pictures = {"history", "samples", "reconstructions", "latent_map", "traversal", "interpolation"}
    assert {p.stem for p in (folder / "figures").iterdir()} == pictures
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["particles"] == 5
    assert metrics["test"]["protocol"]["name"] == "digits"
    assert metrics["training"]["epochs"] == 2
    assert isinstance(pv.load(folder), pv.models.VAE)
    assert main(["train", *SMALL]) == 0  # the next run has a folder of its own
    assert (here / "runs" / "vae-digits-2").is_dir()


def test_the_config_of_a_run_repeats_it(trained, capsys):
    assert main(["train", "--config", str(trained / "config.yaml"), "--run_dir", "again"]) == 0
    a, b = (pv.load(f).state_dict() for f in (trained, "again"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert main(["train", "--config", str(trained / "config.yaml"), "--run_dir", "third", "--latent", "3"]) == 0
    assert pv.load("third").prior.latent == 3


def test_the_python_calls_of_the_readme_equal_the_command(trained):
    data = pv.data.load("digits")
    torch.manual_seed(0)
    vae = pv.models.VAE.build(data, latent=2, hidden=[16])
    run = pv.fit(vae, data, epochs=2, progress=False)
    loaded = pv.load(trained)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), loaded.parameters(), strict=True))


def test_objectives_and_parts_are_chosen_by_name_and_option(here, capsys):
    words = ["--objective", "IWAE", "--objective.particles", "3", "--likelihood", "Normal", "--likelihood.scale", "4.0"]
    assert main(["train", *SMALL, *words, "--network", "conv", "--hidden", "[4]", "--run_dir", "r"]) == 0
    settings = yaml.safe_load((here / "r" / "config.yaml").read_text())
    assert settings["objective"]["init_args"]["particles"] == 3
    vae = pv.load(here / "r")
    assert type(vae.likelihood).__name__ == "Normal"
    assert vae.likelihood.scale == 4.0
    assert type(vae.posterior.network.then).__name__ == "Conv"


@pytest.mark.parametrize("network", ["gru", "transformer"])
def test_sequences(network, here, capsys):
    np.savez(here / "x.npz", train=np.random.default_rng(0).normal(size=(60, 6, 2)))
    words = ["--data", "x.npz", "--network", network, "--hidden", "[8]", "--likelihood", "Normal"]
    assert main(["train", *SMALL, *words, "--likelihood.scale", "per_pixel", "--run_dir", "r"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert len(list((here / "r" / "figures").iterdir())) == 6
    assert main(["generate", "r", "--n", "3"]) == 0
    assert np.load(here / "r" / "generated.npy").shape == (3, 6, 2)


def test_parts_and_data_may_come_from_a_users_own_files(here, capsys):
    (here / "mine.py").write_text(
        "import pyro.distributions as dist, torch\n"
        "from pyrovae.priors import Prior\n"
        "from pyrovae.objectives import IWAE\n"
        "class Wide(Prior):\n"
        "    def __init__(self, latent, width: float = 2.0):\n"
        "        super().__init__(latent)\n"
        "        self.width = width\n"
        "    def forward(self):\n"
        "        return dist.Normal(torch.zeros(self.latent), self.width).to_event(1)\n"
        "class Two(IWAE):\n"
        "    def __init__(self):\n"
        "        super().__init__(2)\n"
        "class Some(IWAE):\n"
        "    def __init__(self, particles: int):\n"
        "        super().__init__(particles)\n"
    )
    np.savez(here / "x.npz", train=np.random.default_rng(0).normal(size=(60, 5)))
    words = ["--data", "x.npz", "--prior", "mine.py:Wide", "--prior.width", "3", "--objective", "mine.py:Two"]
    assert main(["train", *SMALL, *words, "--run_dir", "r"]) == 0
    assert pv.load(here / "r").prior.width == 3.0
    assert main(["evaluate", "r", "--particles", "3", "--split", "validation"]) == 0
    assert "validation: " in capsys.readouterr().out
    message = refused(["train", *SMALL, "--objective", "mine.py:Some"], capsys)
    assert "Some needs particles; give --objective.particles" in message


def test_a_users_own_model_file_trains_is_loaded_evaluated_and_generates(here, capsys):
    words = ["train", f"{EXAMPLE}:StyleAndTone", "--style", "2", "--epochs", "2", "--test_particles", "5"]
    assert main([*words, "--run_dir", "r"]) == 0
    vae = pv.load(here / "r")
    assert (type(vae).__name__, vae.style) == ("StyleAndTone", 2)
    assert main(["evaluate", "r", "--particles", "7"]) == 0
    assert json.loads((here / "r" / "metrics.json").read_text())["test"]["particles"] == 7
    assert main(["generate", "r", "--n", "5"]) == 0
    assert np.load(here / "r" / "generated.npy").shape == (5, 1, 8, 8)


def test_help_of_a_users_own_model_names_its_options(capsys):
    assert main(["train", f"{EXAMPLE}:StyleAndTone", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--style" in printed
    assert "number of latent dimensions of the style" in printed
    assert "--latent" not in printed


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_reads_well(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(("usage: pyrovae", "pyrovae 0."))
    assert max(map(len, printed.splitlines())) <= 120


def test_print_config_prints_what_config_takes(here, capsys):
    assert main(["train", *SMALL, "--print_config"]) == 0
    printed = capsys.readouterr().out
    (here / "c.yaml").write_text(printed)
    assert main(["train", "--config", "c.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == printed


def test_resume_goes_on_and_extends(trained, capsys):
    assert main(["train", "--resume", "--run_dir", str(trained), "--epochs", "4"]) == 0
    assert (trained / "history.csv").read_text().count("\n") == 5
    assert yaml.safe_load((trained / "config.yaml").read_text())["epochs"] == 4


def test_generate_is_seeded(trained, capsys):
    assert main(["generate", str(trained), "--n", "3", "--output", "a.npy"]) == 0
    assert main(["generate", str(trained), "--n", "3", "--output", "b.npy"]) == 0
    assert main(["generate", str(trained), "--n", "3", "--output", "c.npy", "--seed", "1"]) == 0
    a, b, c = (np.load(f"{n}.npy") for n in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert Path("a.png").exists()


TERMINAL = """
import signal, sys
from pyrovae.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_a_run_cleanly_and_it_resumes(here):
    words = ["train", *SMALL, "--epochs", "3000", "--run_dir", "r"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    while not (here / "r" / "history.csv").exists():
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert b"pyrovae train --resume --run_dir r" in out
    assert (here / "r" / "figures" / "history.png").exists()
    done = (here / "r" / "history.csv").read_text().count("\n") - 1
    assert pv.load(here / "r") is not None
    assert main(["train", "--resume", "--run_dir", "r", "--epochs", str(done + 1)]) == 0
    assert (here / "r" / "history.csv").read_text().count("\n") == done + 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "VEA"], "unknown model 'VEA'; did you mean 'VAE'?"),
        (["train", "--latnt", "3"], "unknown option '--latnt'; did you mean '--latent'? See `pyrovae train --help`"),
        (["train", "--latent", "many"], "option 'latent' expects int, got many"),
        (["train", "--likelihood.scale", "2"], "need its class as well: --likelihood NAME"),
        (["train", "--hidden", "wide"], "option 'hidden' expects"),
        (["train", "HierarchicalVAE", "--latents", "[4,b]"], "option 'latents' expects int, got b. See"),
        (["train", "HierarchicalVAE", "--latents", "4"], "expects latents as the sizes of two layers or more, got [4]"),
        (["train", "--schedule", "cosin"], "unknown schedule 'cosin'; did you mean 'cosine'?"),
        (["train", "--test_particles", "0"], "test_particles of at least 1, got 0"),
        (["train", "--objective", "PyroELBO"], "give that to pv.fit"),
        (["train", "--run_dir", __file__], "is a file; choose another --run_dir"),
        (["train", "--latent", "0"], "VAE.build expects latent of at least 1, got 0"),
        (["train", "--prior", "StandadNormal"], "unknown prior 'StandadNormal'; did you mean 'StandardNormal'?"),
        (["train", "--likelihood", "Bernouli"], "unknown likelihood 'Bernouli'; did you mean 'Bernoulli'?"),
        (["train", "--posterior", "Diagonal"], "unknown posterior 'Diagonal'; did you mean 'DiagonalNormal'?"),
        (["train", "--objective", "IWEA"], "unknown objective 'IWEA'; did you mean 'IWAE'?"),
        (["train", "--objective", "IWAE", "--objective.particle", "3"], "IWAE has no option 'particle'"),
        (["train", "--network", "mpl"], "unknown network 'mpl'; did you mean 'mlp'?"),
        (["train", "--activation", "rleu"], "unknown activation 'rleu'; did you mean 'relu'?"),
        (["train", "--data", "minst"], "'minst' is not known; did you mean 'mnist'?"),
        (["train", "--data", "nowhere.npz"], "nowhere.npz"),
        (["train", "--device", "gpu"], "unknown device 'gpu'"),
        (["train", "--likelihood", "Bernoulli"], "likelihood Bernoulli expects values in {0, 1}"),
        (["train", "nowhere.py:Model"], "model file 'nowhere.py' does not exist"),
        (["train", f"{EXAMPLE}:StyleAndTune"], "did you mean 'StyleAndTone'?"),
        (["train", "--config", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["train", "--resume"], "--resume needs the run to go on with"),
        (["train", "--resume", "--run_dir", "."], "is not a run folder"),
        (["evaluate", "nowhere"], "'nowhere' is not a run folder"),
        (["evaluate"], "the following arguments are required: run"),
        (["generate", "."], "'.' is not a run folder"),
    ],
    ids=lambda w: " ".join(w)[-40:] if isinstance(w, list) else "",
)
def test_bad_words_get_one_sentence(here, capsys, words, message):
    assert message in refused(words, capsys)
    assert not (here / "runs").exists()  # a refused run leaves nothing


def test_a_config_that_is_none_is_refused(here, capsys):
    for text, message in (("a: [1", "not readable YAML"), ("hello", "holds no settings"), ("latnt: 3", "latnt")):
        (here / "c.yaml").write_text(text)
        assert message in refused(["train", "--config", "c.yaml"], capsys)


def test_a_folder_in_use_is_left_alone(trained, capsys):
    before = (trained / "weights.safetensors").read_bytes()
    assert "already holds a run; add --resume" in refused(["train", *SMALL, "--run_dir", str(trained)], capsys)
    assert (trained / "weights.safetensors").read_bytes() == before


def test_evaluating_what_the_data_do_not_have(here, capsys):
    assert main(["train", *SMALL, "--validation", "0", "--run_dir", "r"]) == 0
    capsys.readouterr()
    assert "has no validation data to evaluate on" in refused(["evaluate", "r", "--split", "validation"], capsys)


def test_a_model_file_that_fails_says_where(here, capsys):
    (here / "broken.py").write_text("import nothing_of_this_name\n")
    message = refused(["train", "broken.py:Model"], capsys)
    assert "broken.py' fails when it is run" in message
    assert "nothing_of_this_name" in message


def test_an_unexpected_failure_shows_no_traceback_unless_asked(here, capsys, monkeypatch):
    (here / "odd.py").write_text(
        "import torch.nn as nn, pyro, pyro.distributions as dist\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(3, 3)\n"
        "    def guide(self, x):\n"
        "        pyro.sample('z', dist.Normal(self.layer(x), 1.0))\n"
        "    model = guide\n"
    )
    assert main(["train", "odd.py:Odd"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pyrovae: RuntimeError: ")
    assert "mat1 and mat2" in error  # torch may name the operator before
    assert "PYROVAE_TRACEBACK=1" in error
    monkeypatch.setenv("PYROVAE_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["train", "odd.py:Odd", "--run_dir", "other"])


@pytest.mark.parametrize(
    "words",
    [
        ["--objective", "IWAE"],
        ["--config", "elbo.yaml", "--objective", "IWAE"],
        ["--config", "iwae.yaml"],
    ],
    ids=" ".join,
)
def test_another_class_starts_from_its_own_defaults(here, capsys, words):
    (here / "elbo.yaml").write_text("objective: {class_path: ELBO, init_args: {particles: 1, kl: analytic}}\n")
    (here / "iwae.yaml").write_text("objective: IWAE\n")
    assert main(["train", *SMALL, *words, "--run_dir", "r"]) == 0
    objective = yaml.safe_load((here / "r" / "config.yaml").read_text())["objective"]
    assert objective["class_path"].endswith("IWAE")
    assert objective["init_args"] == {"particles": 5, "gradient": "pathwise", "backward_particles": None}


def test_one_width_and_the_likelihood_of_the_data_may_be_written_short(here, capsys):
    assert main(["train", *SMALL, "--hidden", "7", "--likelihood", "auto", "--run_dir", "r"]) == 0
    vae = pv.load(here / "r")
    assert vae.likelihood.network.body[1].out_features == 7
    assert type(vae.likelihood).__name__ == "Binomial"


def test_a_refused_resume_leaves_a_run_as_it_was(trained, capsys):
    files = {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file()}
    for words, message in (
        (["--latent", "3"], "of another architecture"),
        (["--objective", "BetaELBO"], "another objective or optimizer"),
        (["--epochs", "1"], "has 2 epochs behind it"),
        (["--data_seed", "7"], "the run to resume has data_seed 0, got 7"),
    ):
        assert message in refused(["train", "--resume", "--run_dir", str(trained), *words], capsys)
    assert {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file()} == files


def test_parts_of_a_users_file_are_read_back_by_another_process_elsewhere(here, capsys):
    (here / "mine.py").write_text("from pyrovae.objectives import IWAE\nclass Two(IWAE):\n    pass\n")
    (here / "away").mkdir()
    np.savez(here / "x.npz", train=np.random.default_rng(0).normal(size=(60, 5)))
    words = ["train", *SMALL, "--data", "x.npz", "--objective", "mine.py:Two", "--run_dir", "r"]
    assert main(words) == 0
    again = [sys.executable, "-m", "pyrovae", "train", "--resume", "--run_dir", "../r", "--epochs", "3"]
    done = subprocess.run(again, cwd=here / "away", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "r" / "history.csv").read_text().count("\n") == 4


def test_a_figure_that_cannot_be_drawn_costs_nothing_else(here, capsys):
    (here / "odd.py").write_text(
        "import torch, torch.nn as nn, pyro, pyro.distributions as dist\n"
        "class Scalar(nn.Module):\n"
        "    def __init__(self, width=3):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.zeros(5))\n"
        "    def model(self, x):\n"
        "        n, d = x.shape\n"
        "        with pyro.plate('data', n):\n"
        "            z = pyro.sample('z', dist.Normal(0.0, 1.0))\n"
        "            pyro.sample('x', dist.Normal(z[..., None] * self.w, 1.0).to_event(1), obs=x)\n"
        "    def guide(self, x):\n"
        "        with pyro.plate('data', len(x)):\n"
        "            pyro.sample('z', dist.Normal(x @ self.w, 1.0))\n"
    )
    np.savez(here / "x.npz", train=np.random.default_rng(0).normal(size=(60, 5)))
    words = ["train", "odd.py:Scalar", "--data", "x.npz", "--epochs", "2", "--test_particles", "5", "--run_dir", "r"]
    assert main(words) == 0
    assert "log evidence" in capsys.readouterr().out
    assert main(["generate", "r", "--n", "3"]) == 0  # a model that reads the shape of x
    assert np.load(here / "r" / "generated.npy").shape == (3, 5)


def test_evaluations_of_several_splits_stand_side_by_side(trained, capsys):
    before = json.loads((trained / "metrics.json").read_text())
    assert main(["evaluate", str(trained), "--split", "train", "--particles", "1"]) == 0
    after = json.loads((trained / "metrics.json").read_text())
    assert after["train"]["log_evidence_monte_carlo_error"] is None
    assert {k: v for k, v in after.items() if k != "train"} == before


def test_ctrl_c_in_the_first_epoch_can_be_resumed(here, capsys, monkeypatch):
    def stop(self, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FusedAdam, "step", stop)
        assert main(["train", *SMALL, "--run_dir", "r"]) == 130
    assert "pyrovae train --resume --run_dir r" in capsys.readouterr().out
    assert main(["train", "--resume", "--run_dir", "r"]) == 0
    assert (here / "r" / "history.csv").read_text().count("\n") == 3


def test_options_of_a_default_class_need_no_name(here, capsys):
    assert main(["train", *SMALL, "--objective.particles", "3", "--run_dir", "r"]) == 0
    objective = yaml.safe_load((here / "r" / "config.yaml").read_text())["objective"]
    assert objective["init_args"].items() >= {"particles": 3, "kl": "analytic"}.items()


COUNTS = ["Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial", "Multinomial"]


@pytest.mark.parametrize("likelihood", COUNTS)
def test_counts_of_a_file(likelihood, here, capsys):
    """Counts without a largest one come as real numbers, and the encoder standardises them."""
    x = np.random.default_rng(0).poisson(40.0 * np.arange(1, 7), (100, 6))
    np.savez("counts.npz", train=x, test=x[:20])
    assert main(["train", *SMALL, "--data", "counts.npz", "--likelihood", likelihood, "--run_dir", "run"]) == 0
    printed = capsys.readouterr().out
    assert "log evidence" in printed
    assert "bits per dimension" not in printed
    vae = pv.load("run")
    assert type(vae.likelihood).__name__ == likelihood
    assert vae.posterior.network.first.scale > 5  # deviations around the means
    assert main(["generate", "run", "--n", "3", "--output", "made.npy"]) == 0
    made = np.load("made.npy")
    assert (made == made.round()).all()
    assert made.min() >= 0
    if likelihood == "Multinomial":
        assert (made.sum(1) == vae.likelihood.total_count).all()
        assert abs(vae.likelihood.total_count - 840) < 20


def test_counts_that_are_none(here, capsys):
    np.savez("counts.npz", train=np.random.default_rng(0).normal(size=(30, 3)))
    text = refused(["train", *SMALL, "--data", "counts.npz", "--likelihood", "Poisson"], capsys)
    assert "likelihood Poisson expects counts 0, 1, 2, ..., got values from -" in text


def test_bits_per_dimension_of_levels(here, capsys):
    words = ["--likelihood", "DiscretisedLogisticMixture", "--likelihood.components", "2", "--run_dir", "run"]
    assert main(["train", *SMALL, *words]) == 0
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "bits per dimension" in row)
    figures = json.loads(Path("run/metrics.json").read_text())["test"]
    assert figures["bits_per_dimension"] == pytest.approx(-figures["log_evidence"] / (64 * np.log(2)))
    assert f"{figures['bits_per_dimension']:.3f}  of 64 dimensions" in line
    assert pv.load("run").likelihood.levels == 17
    words = ["--likelihood", "Categorical", "--likelihood.levels", "33", "--run_dir", "halves"]
    assert main(["train", *SMALL, *words]) == 0
    assert (pv.load("halves").likelihood.levels, pv.load("halves").likelihood.maximum) == (33, 16.0)
