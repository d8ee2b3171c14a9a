"""The step of training as a graph, and compiled: equal to Python, with fresh noise, or refused in one line."""

import importlib
import logging
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from pieces import EVENT, small_data, small_vae
from zoo import ALL, vae_for

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.objectives import ELBO, IWAE, PyroELBO
from pyrovae.program.capture import capture
from pyrovae.program.compile import choose_level, compile_graph
from pyrovae.training.step import Step


@pytest.fixture(scope="module")
def data():
    return pv.data.load("digits")


@pytest.fixture
def lines(caplog):
    """What was told."""
    caplog.set_level(logging.INFO, logger="pyrovae")
    return caplog


def ready(vae, objective, x, level="captured"):
    """A step made ready as `fit` does it, Pyro's validation being off."""
    objective(vae, x)
    vae.train()
    step = Step(vae, objective)
    with pyro.validation_enabled(False):
        step.prepare(level, x)
    return step


def gradients(step, function, x, seed=5):
    torch.manual_seed(seed)
    with pyro.validation_enabled(False):
        return [t for t in function(x) if t is not None]


def fitted(data, vae, objective=None, **options):
    torch.manual_seed(0)
    return pv.fit(vae, data, objective, **({"epochs": 2, "batch_size": 300, "progress": False} | options))


def built(data, **options):
    torch.manual_seed(0)
    return pv.models.VAE.build(data, **({"latent": 3, "hidden": [16]} | options))


# One of each kind: all are captured and held against Python in test_objectives, and checked again in every run
KINDS = [
    *("ELBO", "ELBO analytic 3", "ELBO stl", "ELBO network", "free bits", "IWAE dreg", "IWAE vimco", "IWAE backward 2"),
    *("PIWAE dreg", "TVO moments", "wake and sleep", "tail-adaptive", "beta-TC", "InfoVAE", "DisARM", "REBAR"),
]


@pytest.fixture(scope="module")
def machine_code():
    """Gradients of many objectives in one graph, compiled once: by name, in Python and compiled, seed by seed."""
    torch.manual_seed(0)
    x = small_data(dtype=torch.float32)
    steps = {n: Step(vae_for(n), ALL[n]()) for n in KINDS}
    owner = nn.ModuleList(m for s in steps.values() for m in (s.vae, s.objective))
    with pyro.validation_enabled(False):
        for step in steps.values():
            step.objective(step.vae, x)
            step.parameters = step._trained()

        def everything(x):
            return tuple(t for s in steps.values() for t in s._differentiate(x, s._trained()))

        graph = capture(everything, (owner,), x)
        compiled = compile_graph(graph, x)
        before = [b.clone() for b in owner.buffers()]
        found = {}
        for seed in (5, 6):
            for kind, function in (("python", everything), ("compiled", compiled)):
                for b, old in zip(owner.buffers(), before, strict=True):
                    b.copy_(old)
                torch.manual_seed(seed)
                results = iter(function(x))
                found[kind, seed] = {n: [next(results) for _ in range(1 + len(s.parameters))] for n, s in steps.items()}
    return found


@pytest.mark.parametrize("name", KINDS)
def test_machine_code_gives_the_gradients_of_python(name, machine_code):
    for seed in (5, 6):
        for a, b in zip(machine_code["python", seed][name], machine_code["compiled", seed][name], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a.detach(), b, rtol=1e-3, atol=1e-5)
    assert machine_code["compiled", 5][name][0] != machine_code["compiled", 6][name][0]


def test_a_compiled_step_is_that_of_python():
    vae, x = small_vae().float(), small_data(dtype=torch.float32)
    step = ready(vae, IWAE(3, "dreg"), x, "compiled")
    assert step.level == "compiled"
    for seed in (5, 6):
        for a, b in zip(gradients(step, step.python, x, seed), gradients(step, step.run, x, seed), strict=True):
            torch.testing.assert_close(a.detach(), b, rtol=1e-4, atol=1e-6)


def test_compiled_training_is_that_of_python(data, lines):
    runs = {c: fitted(data, built(data), compile=c) for c in ("never", "always")}
    assert lines.messages[-1].startswith("compiled in")
    a, b = (runs[c].history["bound"] for c in runs)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for p, q in zip(*(runs[c].model.parameters() for c in runs), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def capturing(monkeypatch):
    monkeypatch.setattr(importlib.import_module("pyrovae.training.fit"), "choose_level", lambda *_: "captured")


@pytest.mark.parametrize(
    "objective", [ELBO(kl="analytic"), ELBO(3, gradient="score", baseline="mean"), IWAE(3, "dreg")]
)
def test_captured_training_is_that_of_python_to_the_bit(data, objective, monkeypatch, lines):
    plain = fitted(data, built(data), objective)
    capturing(monkeypatch)
    captured = fitted(data, built(data), objective)
    assert not [r for r in lines.records if r.levelno >= logging.WARNING]
    assert list(plain.history["bound"]) == list(captured.history["bound"])
    for p, q in zip(plain.model.parameters(), captured.model.parameters(), strict=True):
        assert torch.equal(p, q)


class Normalised(nn.Module):
    """A decoder whose batch norm has running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 20))

    def forward(self, z):
        return self.layers(z).unflatten(-1, EVENT)


@pytest.mark.parametrize("level", ["captured", "compiled"])
def test_buffers_move_as_in_python_and_preparing_moves_none(level):
    def make():
        torch.manual_seed(3)
        vae = small_vae().float()
        vae.likelihood.network = Normalised()
        return vae

    x, states = small_data(n=6, dtype=torch.float32), []
    for kind in ("python", level):
        vae = make()
        step = ready(vae, ELBO(), x, kind)
        norm = vae.likelihood.network.layers[1]
        if kind != "python":
            assert step.level == level
            assert int(norm.num_batches_tracked) == 1  # of the one call in `ready`
        torch.manual_seed(4)
        with pyro.validation_enabled(False):
            for _ in range(3):
                step(x)
        assert int(norm.num_batches_tracked) == 4
        states.append((norm.running_mean.clone(), norm.running_var.clone()))
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a, b)


def test_preparing_draws_nothing():
    vae, x = small_vae().float(), small_data(dtype=torch.float32)
    ELBO()(vae, x)
    before = torch.get_rng_state()
    with pyro.validation_enabled(False):
        Step(vae, ELBO()).prepare("captured", x)
    assert torch.equal(before, torch.get_rng_state())


def test_other_shapes_are_run_as_python():
    vae, x = small_vae().float(), small_data(n=6, dtype=torch.float32)
    step = ready(vae, ELBO(), x)
    calls = []
    step.run.graph = lambda batch, graph=step.run.graph: calls.append(len(batch)) or graph(batch)
    with pyro.validation_enabled(False):
        assert torch.isfinite(step(x[:5]))
        assert calls == []
        step(x)
    assert calls == [6]


def test_unreached_parameters_have_no_gradient():
    vae, x = small_vae().float(), small_data(dtype=torch.float32)
    vae.unused = nn.Parameter(torch.ones(2))
    step = ready(vae, ELBO(), x)
    with pyro.validation_enabled(False):
        step(x)
    assert step.level == "captured"
    assert vae.unused.grad is None
    assert all(p.grad is not None for n, p in vae.named_parameters() if n != "unused")


def test_tied_and_frozen_weights(lines):
    vae, x = small_vae().float(), small_data(dtype=torch.float32)
    vae.tied = vae.likelihood.network
    for p in vae.posterior.parameters():
        p.requires_grad_(False)
    step = ready(vae, IWAE(3), x)
    assert step.level == "captured", lines.text
    assert len(step.parameters) == len(list(vae.likelihood.parameters()))
    assert all(type(p) is nn.Parameter for m in vae.modules() for p in m._parameters.values())
    for a, b in zip(gradients(step, step.python, x), gradients(step, step.run, x), strict=True):
        torch.testing.assert_close(a.detach(), b)


# What cannot be a graph


class Story(nn.Module):
    """A small VAE with something odd in its model."""

    def __init__(self, odd):
        super().__init__()
        self.vae, self.odd, self.calls = small_vae().float(), odd, 0

    def guide(self, x):
        self.vae.guide(x)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.vae.prior())
            pyro.sample("x", self.vae.likelihood(z * self.odd(self, z)), obs=x)


def counts(story, z):
    story.calls += 1
    return 1 + story.calls


ODD = {
    "a branch on a value": (lambda story, z: 1.0 if z.mean() > 0 else 2.0, "reads a value back"),
    "an item": (lambda story, z: z.mean().item(), "reads a value back"),
    "a counter": (counts, "attribute 'calls' of Story changes in Python"),
    "python's random": (lambda story, z: random.random(), "random numbers that are not torch's"),
    "numpy's random": (lambda story, z: float(np.random.rand()), "random numbers that are not torch's"),  # noqa: NPY002
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("compile", ["always", "never"])
def test_what_is_no_graph_is_trained_as_python_and_told(name, compile, lines):
    odd, reason = ODD[name]
    run = pv.fit(Story(odd), small_data(n=8, dtype=torch.float32), ELBO(), 1, 4, compile=compile, progress=False)
    assert np.isfinite(run.history["bound"]).all()
    told = [r.message for r in lines.records if r.levelno >= logging.WARNING]
    assert len(told) == (compile == "always")
    assert all(t.startswith("the step of training stays in Python: ") and reason in t for t in told)


def test_the_line_of_the_model_is_named(lines):
    ready(Story(ODD["an item"][0]), ELBO(), small_data(dtype=torch.float32))
    assert "test_compile.py, line" in lines.text


def test_a_hidden_counter_is_seen_by_its_numbers(lines):
    """Nothing tells of a variable in a closure but the numbers, which differ between two runs."""
    state = [0]

    def hidden(story, z):
        state[0] += 1
        return state[0]

    assert ready(Story(hidden), ELBO(), small_data(dtype=torch.float32)).level == "python"
    assert "other numbers" in lines.text


def test_a_graph_with_wrong_numbers_is_refused(monkeypatch, lines):
    def wrong(graph, x):
        return lambda x: [2 * t for t in graph(x)]

    monkeypatch.setattr("pyrovae.program.compile.compile_graph", wrong)
    step = ready(small_vae().float(), ELBO(), small_data(dtype=torch.float32), "compiled")
    assert step.level == "captured"
    assert "not compiled: as a graph it gives other numbers" in lines.text


def test_without_a_compiler_the_graph_is_run(monkeypatch, lines):
    monkeypatch.setattr("shutil.which", lambda name: None)
    step = ready(small_vae().float(), ELBO(), small_data(dtype=torch.float32), "compiled")
    assert step.level == "captured"
    assert "no C++ compiler" in lines.text


def test_a_compiler_that_fails_is_told_in_a_line(monkeypatch, lines):
    def fails(*_, **__):
        raise RuntimeError("a long\nstory")

    monkeypatch.setattr("torch._inductor.compile", fails)
    step = ready(small_vae().float(), ELBO(), small_data(dtype=torch.float32), "compiled")
    assert step.level == "captured"
    assert lines.messages[-1].endswith("captured and not compiled: RuntimeError: a long story")


def test_a_value_that_changes_between_epochs_ends_the_graph(data, monkeypatch, lines):
    capturing(monkeypatch)
    vae = built(data)
    vae.temperature = 1.0

    def cool(model, epoch):
        model.temperature = 1 / epoch
        return {"temperature": model.temperature}

    assert len(fitted(data, vae, epochs=3, measure=cool).history) == 3
    assert "goes on in Python: attribute 'temperature' of VAE changes" in lines.text


def hold(model, epoch):
    """A figure of nothing."""
    return {"figure": float(epoch)}


def set_buffer(model, epoch):
    model.factor = torch.tensor(1 / epoch)
    return hold(model, epoch)


def set_list(model, epoch):
    model.factors[0] = 1 / epoch
    return hold(model, epoch)


def other_memory(model, epoch):
    model.double()
    model.float()
    return hold(model, epoch)


def hooked(model, epoch):
    model.vae.likelihood.network.register_forward_hook(lambda module, inputs, output: output / 2)
    return hold(model, epoch)


def freeze(model, epoch):
    for p in model.vae.posterior.parameters():
        p.requires_grad_(False)
    return hold(model, epoch)


class Changing(nn.Module):
    """A model that depends on a buffer, a list and a hook."""

    def __init__(self):
        super().__init__()
        self.vae, self.factors = small_vae().float(), [1.0]
        self.register_buffer("factor", torch.ones(()))

    def guide(self, x):
        self.vae.guide(x)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.vae.prior())
            pyro.sample("x", self.vae.likelihood(z * self.factor * self.factors[0]), obs=x)


@pytest.mark.parametrize("change", [set_buffer, set_list, other_memory, hooked, freeze])
def test_what_a_graph_does_not_see_ends_it(change, monkeypatch, lines):
    def trained():
        torch.manual_seed(0)
        x = small_data(n=8, dtype=torch.float32)
        return pv.fit(Changing(), x, ELBO(), epochs=3, batch_size=4, progress=False, measure=change)

    plain = trained()
    capturing(monkeypatch)
    captured = trained()
    assert list(plain.history["bound"]) == list(captured.history["bound"])
    assert "goes on in Python" in lines.text


def test_an_attribute_that_comes_up_is_told(lines):
    def remembers(story, z):
        story.last = None
        return 1.0

    assert ready(Story(remembers), ELBO(), small_data(dtype=torch.float32)).level == "captured"  # of the call before
    story = Story(lambda story, z: setattr(story, "last", z.detach()) or 1.0)
    assert ready(story, ELBO(), small_data(dtype=torch.float32)).level == "python"
    assert "attribute 'last' of Story changes" in lines.text


def test_preparing_leaves_what_it_cannot_capture_as_it_was():
    vae = small_vae().float()
    vae.likelihood.network = Normalised()
    story = Story(counts)
    story.vae = vae
    x, state = small_data(dtype=torch.float32), random.getstate()
    with pyro.validation_enabled(False):
        Step(story, ELBO()).prepare("captured", x)
    assert (story.calls, int(vae.likelihood.network.layers[1].num_batches_tracked)) == (0, 0)
    story.odd = lambda story, z: z.mean().item() + random.random()
    with pyro.validation_enabled(False):
        Step(story, ELBO()).prepare("captured", x)
    assert int(vae.likelihood.network.layers[1].num_batches_tracked) == 0
    assert random.getstate() == state


class Transposed(nn.Module):
    """A decoder whose weights get gradients of another layout, or of one memory together."""

    def __init__(self):
        super().__init__()
        self.w, self.c = nn.Parameter(torch.randn(20, 2)), nn.Parameter(torch.zeros(3))
        self.a, self.b = nn.Parameter(torch.zeros(20)), nn.Parameter(torch.ones(20))

    def forward(self, z):
        return (torch.einsum("...i,oi->...o", z, self.w) + self.a + self.b + self.c.sum()).unflatten(-1, EVENT)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("level", ["python", "captured", "compiled"])
def test_gradients_are_laid_out_like_their_parameters(level, clip, monkeypatch):
    def trained(kind, optimizer):
        monkeypatch.setattr(importlib.import_module("pyrovae.training.fit"), "choose_level", lambda *_: kind)
        torch.manual_seed(0)
        vae = small_vae().float()
        vae.likelihood.network = Transposed()
        x = small_data(n=8, dtype=torch.float32)
        return pv.fit(vae, x, ELBO(), 5, 4, 0.05, optimizer=optimizer, clip=clip, progress=False, schedule="constant")

    ours = trained(level, None)
    theirs = trained("python", lambda p: torch.optim.Adam(p, 0.05, foreach=False))
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


class Scheduled(ELBO):
    """An objective with a schedule in a plain number."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, vae, x):
        e = super().forward(vae, x)
        return pv.objectives.Estimate(e.bound, self.factor * e.surrogate)

    def advance(self, epochs):
        self.factor += epochs


def test_a_schedule_in_python_is_followed(data, monkeypatch, lines):
    plain = fitted(data, built(data), Scheduled())
    capturing(monkeypatch)
    captured = fitted(data, built(data), Scheduled())
    assert list(plain.history["bound"]) == list(captured.history["bound"])
    assert "attribute 'factor' of Scheduled" in lines.text


def test_pyros_own_elbo_reads_values_back_and_is_trained_as_python(data, lines):
    runs = [
        fitted(data, built(data), PyroELBO(pyro.infer.Trace_ELBO()), compile=c, epochs=1) for c in ("never", "always")
    ]
    assert runs[0].history["bound"].equals(runs[1].history["bound"])
    assert "stays in Python: it reads a value back" in lines.text


def test_plain_functions_are_captured():
    def model(x):
        w = pyro.param("w", torch.ones(2, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)

    def guide(x):
        a = pyro.param("a", torch.zeros(3, 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ a, 1.0).to_event(1))

    step = ready(pv.Program(model, guide), IWAE(3), torch.randn(5, 3))
    assert step.level == "captured"
    assert len(step.parameters) == 2


# Which way is taken


def test_few_steps_are_not_worth_a_compiler():
    few, some, many = (choose_level("auto", n, 5e8) for n in (10, 2_000, 100_000))
    assert (few, some, many) == ("python", "captured", "compiled")
    assert choose_level("never", 10**9, 10**9) == "python"
    assert choose_level("always", 1, 1) == "compiled"


def test_the_estimate_is_told(lines):
    choose_level("auto", 100_000, 5e8)
    assert "runs as compiled: estimated for 100,000 of them, in all: python" in lines.text


def test_an_unknown_word_is_answered(data, capsys):
    assert main(["train", "--compile", "allways"]) == 2
    assert "expects one of 'auto', 'never', 'always', got allways" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown compile 'allways'; did you mean 'always'"):
        fitted(data, built(data), compile="allways")
