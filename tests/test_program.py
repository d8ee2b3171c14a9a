"""Plain Pyro functions as a program that keeps its parameters to itself."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TIGHT, LinearGaussian, fake_cuda
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE, BetaELBO


def plain(slope=0.5, module="decoder"):
    """A model with a module, a guide with two parameters, under names that another program may also have."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()

    def model(x):
        pyro.module(module, net)
        sigma = pyro.param("sigma", torch.tensor(0.7, dtype=F64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), sigma).to_event(1), obs=x)

    def guide(x):
        a = pyro.param("guide.slope", lambda: torch.full((3, 2), slope, dtype=F64))
        s = pyro.param("guide.scale", torch.tensor([0.6, 0.8], dtype=F64), constraint=constraints.interval(0.1, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ a, s).to_event(1))

    return pv.Program(model, guide)


def data(n=4):
    return torch.randn(n, 3, dtype=F64)


def store():
    return list(pyro.get_param_store().keys())


def test_same_densities_as_the_functions():
    """The same numbers as the functions under Pyro's own store."""
    program, x = plain(), data()
    torch.manual_seed(5)
    ours = pv.densities(program, x).log_weight[0]
    torch.manual_seed(5)
    model, guide = program._functions.values()
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x)
    assert store()  # the functions alone do use it
    for t in (guide_trace, model_trace):
        t.compute_log_prob()
    expected = sum(model_trace.nodes[n]["log_prob"] for n in ("z", "x")) - guide_trace.nodes["z"]["log_prob"]
    torch.testing.assert_close(ours, expected, **TIGHT)


def test_parameters_after_one_run():
    program = plain()
    assert list(program.parameters()) == []
    pv.densities(program, data())
    assert store() == []
    names = dict(program.named_parameters())
    assert set(names) == {
        "params.sigma",
        "params.guide/slope",
        "params.guide/scale",
        "owned.decoder.0.weight",
        "owned.decoder.0.bias",
        "owned.decoder.2.weight",
        "owned.decoder.2.bias",
    }
    pv.densities(program, data(), 3)
    assert set(dict(program.named_parameters())) == set(names)
    assert all(a is names[n] for n, a in program.named_parameters())


def test_constraints():
    """Kept unconstrained, given back constrained, at the value that was asked for."""
    program, x = plain(), data()
    pv.densities(program, x)
    scale = pv.densities(program, x).posterior["z"].distribution.base_dist.scale
    torch.testing.assert_close(scale[0], torch.tensor([0.6, 0.8], dtype=F64), **TIGHT)
    torch.testing.assert_close(program.params["sigma"].exp().detach(), torch.tensor(0.7, dtype=F64), **TIGHT)
    with torch.no_grad():
        program.params["guide/scale"].fill_(50.0)
    scale = pv.densities(program, x).posterior["z"].distribution.base_dist.scale
    assert (scale <= 2.0).all()


@pytest.mark.parametrize("objective", [lambda: ELBO(2), lambda: IWAE(3), lambda: BetaELBO(beta=2)])
def test_every_parameter_trains(objective):
    program, x = plain(), data(16)
    pv.densities(program, x)
    before = {n: p.detach().clone() for n, p in program.named_parameters()}
    optimiser = torch.optim.Adam(program.parameters(), 0.05)
    for _ in range(5):
        optimiser.zero_grad()
        (-objective()(program, x).surrogate.mean()).backward()
        optimiser.step()
    for n, p in program.named_parameters():
        assert (p - before[n]).abs().max() > 0.01, n
    assert store() == []


def test_two_programs_of_equal_names():
    """They train side by side as each does alone."""

    def train(*programs):
        x = torch.linspace(-1, 1, 12, dtype=F64).reshape(4, 3)
        for p in programs:
            pv.densities(p, x)
        optimisers = [torch.optim.SGD(p.parameters(), 0.05) for p in programs]
        for _ in range(5):
            for p, o in zip(programs, optimisers, strict=True):
                torch.manual_seed(5)
                o.zero_grad()
                (-ELBO()(p, x).surrogate.mean()).backward()
                o.step()
        return [p.state_dict() for p in programs]

    torch.manual_seed(1)
    a, b = plain(0.5), plain(-0.5)
    torch.manual_seed(1)
    c, d = plain(0.5), plain(-0.5)
    together = train(a, b)
    for one, other in zip(together, (train(c)[0], train(d)[0]), strict=True):
        for n, v in one.items():
            torch.testing.assert_close(v, other[n], **TIGHT, msg=n)
    assert (together[0]["params.guide/slope"] - together[1]["params.guide/slope"]).abs().min() > 0.5
    assert store() == []


@pytest.mark.parametrize("particles", [1, 3])
def test_random_initial_values_follow_the_seed(particles):
    def guide(x):
        loc = pyro.param("loc", lambda: torch.randn((), dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0)), 1.0), obs=x)

    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        program = pv.Program(model, guide)
        pv.densities(program, torch.zeros(3, dtype=F64), particles)
        found.append(program.params["loc"].item())
    assert found[0] == found[2] != found[1]


def test_state_round_trip():
    a, b, x = plain(), plain(0.1), data()
    for p in (a, b):
        pv.densities(p, x)
    b.load_state_dict(a.state_dict())
    values = []
    for p in (a, b):
        torch.manual_seed(5)
        values.append(pv.densities(p, x, 3).log_weight)
    assert torch.equal(*values)


def test_global_store_is_neither_read_nor_written():
    pyro.param("sigma", torch.tensor(3.0, dtype=F64))
    program = plain()
    pv.densities(program, data())
    torch.testing.assert_close(program.params["sigma"].exp().detach(), torch.tensor(0.7, dtype=F64), **TIGHT)
    assert store() == ["sigma"]


@pytest.mark.parametrize("name", ["net", "a.b", "a.b.c"])
def test_module_names(name):
    program = plain(module=name)
    pv.densities(program, data(), 2)
    assert f"owned.{name.replace('.', '/')}.0.weight" in dict(program.named_parameters())


CLASHES = ["values", "keys", "type", "training", "_parameters", "", "x.y", "x/y", "x%2Fy", "values%", "values%25"]


def test_any_name_will_do():
    """Names of torch's own attributes, and names that differ by a separator, are as many parameters and modules."""
    nets = {n: nn.Linear(1, 1).double() for n in CLASHES}

    def model(x):
        for n, net in nets.items():
            pyro.module(n, net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(3), 1.0).to_event(1), obs=x)

    def guide(x):
        for i, n in enumerate(CLASHES):
            assert pyro.param(n, torch.tensor(float(i), dtype=F64)).item() == i, n

    program, x = pv.Program(model, guide), data()
    for _ in range(2):
        pv.densities(program, x)
    assert sorted(p.item() for p in program.params.values()) == list(range(len(CLASHES)))
    assert {id(m) for m in program.owned.values()} == {id(m) for m in nets.values()}
    assert {"params.values%", "params.x/y", "params.x%2Fy", "owned.type%.weight"} <= set(program.state_dict())


def test_born_on_the_device_of_the_data():
    """Wherever it was built, and of the dtype it was given."""
    slope, net = torch.tensor(0.5, dtype=F64), nn.Linear(3, 2)

    def guide(x):
        pyro.module("net", net)
        a = pyro.param("slope", slope)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a * net(x), 1.0).to_event(1))

    program = pv.Program(lambda x: None, guide)
    with pyro.validation_enabled(False):
        program.guide(torch.zeros(4, 3, device="meta"))
    assert {n: (p.device.type, p.dtype) for n, p in program.named_parameters()} == {
        "params.slope": ("meta", F64),
        "owned.net.weight": ("meta", torch.float32),
        "owned.net.bias": ("meta", torch.float32),
    }


@pytest.mark.parametrize("particles", [1, 3])
def test_born_on_a_fake_cuda(particles):
    def model(x):
        sigma = pyro.param("sigma", lambda: torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, sigma).to_event(1), obs=x)

    def guide(x):
        a, net = pyro.param("slope", torch.eye(3)), pyro.module("net", linear)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x) @ a, 1.0).to_event(1))

    with fake_cuda():
        with torch.device("cuda"):
            linear = nn.Linear(3, 3)
        program = pv.Program(model, guide)
        weight = pv.densities(program, torch.zeros(4, 3, device="cuda"), particles).log_weight
        assert {p.device.type for p in program.parameters()} == {weight.device.type} == {"cuda"}


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_trains_under_svi(elbo):
    """The same steps as the plain functions take under Pyro's own store, from the first on."""
    losses, x = [], torch.linspace(-1, 1, 48, dtype=F64).reshape(16, 3)
    for wrapped in (False, True):
        torch.manual_seed(1)
        program = plain()
        functions = pv.to_pyro(program) if wrapped else program._functions.values()
        svi = SVI(*functions, pyro.optim.Adam({"lr": 0.05}), elbo())
        losses.append([svi.step(x) for _ in range(20)])
        pyro.clear_param_store()
    assert losses[0][-1] < losses[0][0]
    torch.testing.assert_close(*losses, **TIGHT)


def test_modules_within_modules_and_buffers():
    """A module is owned whole: nested parameters, buffers, modes."""
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3)), nn.Linear(3, 1)).double()

    def model(x):
        pyro.module("deep.net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(1, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    program, x = pv.Program(model, guide), torch.randn(5, 1, dtype=F64)
    IWAE(4)(program, x).surrogate.mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net[0][1].num_batches_tracked == 2  # the first run of all, in which the parameters came into being, and this
    assert program.state_dict()["owned.deep/net.0.1.running_mean"] is not None
    program.eval()
    assert not net[0][1].training


def test_particles_of_a_program():
    """The exact posterior, by way of pyro.param."""
    vae = LinearGaussian()

    def model(x):
        w, b = pyro.param("w", vae.w.detach()), pyro.param("b", vae.b.detach())
        sigma = pyro.param("sigma", vae.log_sigma.exp().detach(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.T + b, sigma).to_event(1), obs=x)

    program, x = pv.Program(model, vae.guide), vae.data(5)
    for k in (1, 4):
        torch.testing.assert_close(IWAE(k)(program, x).bound, vae.log_evidence(x).detach(), **TIGHT)


def test_functional_call():
    """A program is a module like others: its parameters can be given from outside."""
    program, x = plain(), data()
    pv.densities(program, x)
    given = {n: (p.detach() + 0.1).requires_grad_() for n, p in program.named_parameters()}

    class Bound(nn.Module):
        def __init__(self):
            super().__init__()
            self.program = program

        def forward(self, x):
            return ELBO()(self.program, x).bound

    bound = Bound()
    torch.manual_seed(5)
    a = torch.func.functional_call(bound, {f"program.{n}": v for n, v in given.items()}, (x,))
    program.load_state_dict(given)
    torch.manual_seed(5)
    torch.testing.assert_close(a, bound(x), **TIGHT)


MESSAGES = {
    "no initial value": (
        lambda: pv.densities(pv.Program(lambda x: None, lambda x: pyro.param("a")), data()),
        r"pyro.param\('a'\) is read before it has an initial value; give one",
    ),
    "no function": (lambda: pv.Program(3, lambda x: None), r"Program expects model as a function of x, got int"),
    "no guide": (lambda: pv.Program(lambda x: None, "guide"), r"Program expects guide as a function of x, got str"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    build, message = MESSAGES[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_two_modules_of_one_name_are_refused():
    """The second would never train; the same one may be named as often as one likes."""
    nets = [nn.Linear(3, 2).double(), nn.Linear(3, 2).double()]
    chosen = [0, 0]

    def model(x):
        pyro.module("net", nets[chosen[0]])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, True), 1.0).expand(x.shape).to_event(1), obs=x)

    def guide(x):
        net = pyro.module("net", nets[chosen[1]])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    program = pv.Program(model, guide)
    assert torch.isfinite(pv.densities(program, data(), 3).log_weight).all()
    chosen[1] = 1
    with pytest.raises(ValueError, match=r"pyro.module\('net'\) is given another module .*a name of its own"):
        pv.densities(program, data())


def test_a_parameter_of_two_shapes_is_refused():
    """One that follows the batch would keep the shape of the first."""

    def model(x):
        pyro.param("a", torch.zeros(len(x)))

    program = pv.Program(model, model)
    program.model(data(4))
    program.model(data(4))
    with pytest.raises(ValueError, match=r"pyro.param\('a'\) has shape \[4\] and is given .* of shape \[5\]"):
        program.model(data(5))
