"""A model file of one's own: written by `new`, looked at by `check`, trained with a guide that is derived."""

from __future__ import annotations

import json

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
import yaml

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.config import construct, describe

STORY = '''
import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn

class Story(nn.Module):
    """A story."""

    def __init__(self, style: int = 3):
        super().__init__()
        self.style = style
        self.decoder = nn.Linear(style, 64)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([self.style]).to_event(1))
            logits = self.decoder(z).unflatten(-1, (1, 8, 8))
            pyro.sample("x", dist.Binomial(16, logits=logits).to_event(3), obs=x)

decoder = nn.Linear(2, 64)

def tones(x):
    """A plain function."""
    pyro.module("decoder", decoder)
    centre = pyro.param("centre", torch.zeros(64))
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        logits = (centre + decoder(z)).unflatten(-1, (1, 8, 8))
        pyro.sample("x", dist.Binomial(16, logits=logits).to_event(3), obs=x)

class Coins(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(8, 64)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(8)).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=self.decoder(z).unflatten(-1, (1, 8, 8))).to_event(3), obs=x)

class Nothing(nn.Module):
    pass

class Guided(Story):
    def guide(self, x):
        pass

class Clash(Story):
    def __init__(self, epochs: int = 3):
        super().__init__()

def two(x, y):
    pass

class Narrow(Story):
    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.style + 1), 1.0).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=self.decoder(z).unflatten(-1, (1, 8, 8))).to_event(3), obs=x)

class Forgotten(Story):
    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.style), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z).unflatten(-1, (1, 8, 8))).to_event(3), obs=x)
'''


@pytest.fixture
def story(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "story.py"
    path.write_text(STORY)
    return path


def test_a_new_file_trains_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_model.py"]) == 0
    assert "pyrovae train my_model.py:Story" in capsys.readouterr().out
    before = (tmp_path / "my_model.py").read_text()
    assert "pyrovae train my_model.py:Story" in before
    assert "{" not in before.split('"""')[1]
    assert main(["train", "my_model.py:Story", "--epochs", "1", "--test_particles", "5"]) == 0
    assert (tmp_path / "my_model.py").read_text() == before
    assert "guide derived from the model: q(" in capsys.readouterr().out


def test_a_new_file_has_no_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["new", "my_model.py"])
    assert main(["check", "my_model.py:Story"]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "story.py"], "'story.py' is there already and is left as it is"),
        (["new", "story.txt"], "expects a Python file"),
        (["new", "nowhere/story.py"], "folder 'nowhere' does not exist"),
        (["new"], "file"),
        (["train", "story.py:Stroy"], "is not a class or a function; did you mean 'Story'"),
        (["train", "story.py:Nothing"], "expects a method model"),
        (["train", "story.py:Story", "--guide.family", "norml"], "no family 'norml'; did you mean 'normal'"),
        (["train", "story.py:Story", "--posterior", "FullNormal"], "posterior"),
        (["check", "story.py:Guided", "--guide.family", "full"], "Guided has a guide of its own, and --guide options"),
        (["check", "story.py:Clash"], "Clash has an argument 'epochs', which is an option of every model"),
        (["check", "story.py:two"], "'story.py:two' expects a function of x alone, got two(x, y)"),
    ],
)
def test_what_is_refused(story, words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert story.read_text() == STORY


def test_a_mistake_in_a_network_is_one_sentence_without_the_table_of_shapes(story, capsys):
    assert main(["check", "story.py:Narrow"]) == 1
    err = capsys.readouterr().err
    assert "shapes cannot be multiplied" in err
    assert "Trace Shapes" not in err


def test_check_says_what_is_wrong(story, capsys):
    assert main(["check", "story.py:Forgotten"]) == 1
    out = capsys.readouterr().out
    assert "Bernoulli expects values in {0, 1}" in out
    assert main(["check", "story.py:Story"]) == 0
    assert "p(x, z) = p(z) p(x | z)" in capsys.readouterr().out
    assert main(["check", "story.py:tones"]) == 0
    assert main(["check"]) == 0


def test_check_is_for_the_objective_that_is_named(story, capsys):
    assert main(["check", "story.py:Coins"]) == 1
    assert "no reparametrised sampler" in capsys.readouterr().out
    assert main(["check", "story.py:Coins", "--objective", "ELBO", "--objective.gradient", "score"]) == 0


@pytest.mark.parametrize("name", ["Story", "tones"])
def test_a_story_without_a_guide_trains_and_comes_back(story, name, capsys):
    words = ["train", f"story.py:{name}", "--guide.hidden", "50", "--guide.family", "full", "--test_particles", "20"]
    assert main([*words, "--epochs", "2", "--run_dir", "whole"]) == 0
    assert main([*words, "--epochs", "1", "--schedule", "constant", "--run_dir", "run"]) == 0
    assert main(["train", "--resume", "--run_dir", "run", "--epochs", "2"]) == 0
    config = yaml.safe_load((story.parent / "run" / "config.yaml").read_text())
    assert config["guide"]["family"] == "full"
    before = json.loads((story.parent / "run" / "metrics.json").read_text())["test"]
    assert main(["evaluate", "run", "--particles", "20"]) == 0
    assert json.loads((story.parent / "run" / "metrics.json").read_text())["test"] == before
    assert main(["generate", "run", "--n", "3"]) == 0
    vae = pv.load("run")
    assert isinstance(vae, pv.Program)
    assert vae.params.keys() == ({"centre"} if name == "tones" else set())
    assert pyro.get_param_store().keys() == set() or not list(pyro.get_param_store().keys())


def some_function(x):
    slope = pyro.param("slope", torch.ones(()))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(slope * z, 1.0), obs=x)


def test_a_program_without_a_guide_derives_one_at_the_first_data():
    program = pv.Program(some_function)
    x = torch.randn(50)
    assert not list(program.parameters())
    d = pv.densities(program, x, particles=3)
    assert d.log_weight.shape == (3, 50)
    assert "slope" in program.params
    assert str(program.parts["guide"]) == "q(z | x)"
    assert not list(pyro.get_param_store().keys())
    run = pv.fit(program, x[:, None].squeeze(-1), epochs=2, progress=False)
    assert run.rows[1]["bound"] > run.rows[0]["bound"]


def test_a_program_is_rebuilt_with_its_parameters(tmp_path):
    program = pv.Program(some_function)
    x = torch.randn(50)
    pv.densities(program, x)
    with torch.no_grad():
        program.params["slope"].fill_(3.0)
    pv.save(program, tmp_path / "kept")
    again = pv.load(tmp_path / "kept")
    torch.manual_seed(1)
    before = pv.densities(program, x, particles=2).log_weight
    torch.manual_seed(1)
    assert torch.equal(pv.densities(again, x, particles=2).log_weight, before)


def test_a_program_of_modules_has_their_parameters_and_config():
    vae = pv.models.VAE.build(pv.data.load("digits"), latent=2)
    program = pv.Program(vae)
    pv.densities(program, pv.data.load("digits").test[:5])
    assert {id(p) for p in vae.prior.parameters()} <= {id(p) for p in program.parameters()}
    again = construct(describe(program))
    assert again.state_dict().keys() == program.state_dict().keys()


def test_a_function_inside_of_another_is_not_written_down(tmp_path):
    def inner(x):
        some_function(x)

    with pytest.raises(ValueError, match="cannot rebuild"):
        describe(pv.Program(inner))


@pytest.mark.parametrize("what", [3, "model", None])
def test_a_program_takes_functions_and_modules(what):
    with pytest.raises(ValueError, match="Program expects model as a function of x"):
        pv.Program(what)


def test_two_modules_of_one_architecture_do_not_share():
    a, b = pv.Program(some_function), pv.Program(some_function)
    for p in (a, b):
        pv.densities(p, torch.randn(5))
    assert a.params["slope"] is not b.params["slope"]
    assert isinstance(a.parts["guide"], nn.Module)
    assert a.parts["guide"] is not b.parts["guide"]
