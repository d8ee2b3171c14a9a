"""Mistakes seeded into tiny programs are each found, by kind and with a remedy; sound programs have none."""

from __future__ import annotations

import logging
import math
import random
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import EXACT, F64, FREE, Global
from exact import Mixture
from pieces import NETWORKS, small_data, small_vae
from pyro import poutine
from test_missing import small_missing_vae, with_gaps
from zoo import ALL, vae_for

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE

D = 3  # of x


class Program(nn.Module):
    """A program of two functions of x, each told its weights."""

    def __init__(self, model: Any, guide: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.functions = model, guide
        self.slope, self.loc = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.zeros(D))
        for name, module in modules.items():
            self.add_module(name, module)

    def model(self, x):
        self.functions[0](self, x)

    def guide(self, x):
        self.functions[1](self, x)


def data(x, size=None, dim=-1, name="data"):
    """The data plate, over as many rows; `size` of another."""
    return pyro.plate(name, size or len(x), dim=dim)


def normal(loc, scale=1.0, event=1):
    return dist.Normal(loc, scale).to_event(event)


def sample_z(v, x, p=None, name="z"):
    return pyro.sample(name, normal(x.new_zeros(D)) if p is None else p)


def observe(v, x, z, name="x"):
    pyro.sample(name, normal(z + v.loc), obs=x)


def model(v, x, p=None):
    with data(x):
        observe(v, x, sample_z(v, x, p))


def guide(v, x, q=None):
    with data(x):
        sample_z(v, x, normal(v.slope * x) if q is None else q)


def latents(*names, observed=True, last="x"):
    """A model of these latents in a chain."""

    def function(v, x):
        with data(x):
            z = x.new_zeros(D)
            for name in names:
                z = sample_z(v, x, normal(z), name)
            if observed:
                observe(v, x, z, last)

    return function


def proposed(*names):
    """A guide of these latents."""

    def function(v, x):
        with data(x):
            for name in names:
                sample_z(v, x, normal(v.slope * x), name)

    return function


def forgotten(v, x):
    with data(x):
        pyro.sample("z", dist.Normal(v.slope * x, 1.0))


def forgotten_model(v, x):
    with data(x):
        observe(v, x, pyro.sample("z", dist.Normal(x.new_zeros(D), 1.0)))


def forgotten_likelihood(v, x):
    with data(x):
        pyro.sample("x", dist.Normal(sample_z(v, x) + v.loc, 1.0), obs=x)


def sized(size):
    def model(v, x):
        with data(x, size):
            observe(v, x, sample_z(v, x))

    return model


def subsampled(v, x):
    with pyro.plate("data", 40, subsample_size=len(x)):
        observe(v, x, sample_z(v, x))


def moved(v, x):
    with data(x, dim=-2):
        sample_z(v, x, normal((v.slope * x)[:, None]))


def outside_guide(v, x):
    sample_z(v, x, normal(v.slope.expand(D)))


def outside_model(v, x):
    z = sample_z(v, x)
    with data(x):
        observe(v, x, z)


def whole(size):
    """A latent for all data, under a plate of this size; None for that of the batch."""

    def model(v, x):
        theta = sample_z(v, x)
        with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
            observe(v, x, theta)

    return model


def reads_batch(v, x):
    sample_z(v, x, normal(v.slope * x.mean(0)))


def bernoulli(v, x):
    with data(x):
        pyro.sample("x", dist.Bernoulli(logits=sample_z(v, x) + v.loc).to_event(1), obs=x)


def gamma(v, x):
    with data(x):
        observe(v, x, pyro.sample("z", dist.Gamma(2.0, 1.0).expand([D]).to_event(1)))


def coins(v, x):
    with data(x):
        observe(v, x, pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(D)).to_event(1)))


def coin_guide(v, x):
    with data(x):
        pyro.sample("z", dist.Bernoulli(logits=v.slope * x).to_event(1))


def twice(v, x):
    with data(x):
        sample_z(v, x)
        observe(v, x, sample_z(v, x))


def one_module_name():
    nets = [nn.Linear(D, D), nn.Linear(D, D)]

    def run(x, which):
        net = pyro.module("net", nets[which])
        with data(x):
            z = pyro.sample("z", normal(net(x) if which else x.new_zeros(D)))
            if not which:
                pyro.sample("x", normal(net(z)), obs=x)

    return pv.Program(lambda x: run(x, 0), lambda x: run(x, 1))


def one_param_name():
    def run(x, which):
        a = pyro.param("a", torch.ones(D) if which else torch.tensor(1.0))
        with data(x):
            z = pyro.sample("z", normal(a * x if which else x.new_zeros(D)))
            if not which:
                pyro.sample("x", normal(a * z), obs=x)

    return pv.Program(lambda x: run(x, 0), lambda x: run(x, 1))


def stored(v, x):
    a = pyro.param("a", torch.tensor(0.5))
    guide(v, x, normal((v.slope + a) * x))


def scaled(function):
    def run(v, x):
        with poutine.scale(scale=0.5):
            function(v, x)

    return run


def dropping():
    def q(v, x):
        guide(v, x, normal(v.net(v.slope * x)))

    return Program(model, q, net=nn.Sequential(nn.Linear(D, D), nn.Dropout(0.5)))


def ignoring(v, x):
    guide(v, x, normal((v.slope + v.loc).expand(len(x), D)))


def unused(v, x):
    with data(x):
        sample_z(v, x, name="u")
        observe(v, x, sample_z(v, x))


def compared(v, x):
    with data(x):
        observe(v, x, (sample_z(v, x) > 0).to(x.dtype) + v.loc)


def looping(observed):
    def run(v, x):
        for i in pyro.plate("data", len(x)):
            z = sample_z(v, x, name=f"z{i}") if observed else sample_z(v, x, normal(v.slope * x[i]), f"z{i}")
            if observed:
                pyro.sample(f"x{i}", normal(z + v.loc), obs=x[i])

    return run


def restless(function):
    """With a site u in half of the runs."""

    def run(v, x):
        with data(x):
            z = sample_z(v, x, normal(v.slope * x) if function is guide else None)
            if torch.rand(()) < 0.5:
                z = sample_z(v, x, normal(v.slope * x) if function is guide else None, "u")
            if function is model:
                observe(v, x, z)

    return run


def two_events(v, x):
    with data(x):
        pyro.sample("z", normal(v.slope * x[:, :2]))


def nan_density(v, x):
    with data(x):
        pyro.sample("x", normal(sample_z(v, x) + v.loc, (x.new_tensor(-1.0)).sqrt()), obs=x)


def observing(v, x):
    with data(x):
        sample_z(v, x, normal(v.slope * x))
        pyro.sample("y", normal(x), obs=x)


def networked(v, x):
    guide(v, x, normal(v.net(x)))


def networks(n):
    return lambda: Program(model, networked, net=nn.Linear(n, D))


def far(v, x):
    guide(v, x, normal(9 + x, 0.1))


def constant(v, x):
    guide(v, x, normal(v.loc))


def named(v, x):
    with data(x, name="rows"):
        observe(v, x, sample_z(v, x))


def named_guide(v, x):
    with data(x, name="rows"):
        sample_z(v, x, normal(v.slope * x))


def unread():
    return Program(model, guide, net=nn.Linear(2, 2))


def killed():
    """A network multiplied by zero."""
    return Program(lambda v, x: model(v, x, normal(0 * v.net(x))), guide, net=nn.Linear(D, D))


def batch(n=4):
    return torch.randn(n, D)


def set_of(n=400):
    return pv.data.from_arrays(torch.randn(n, D), validation_size=0)


def with_nan():
    x = batch()
    x[1, 2] = torch.nan
    return x


# kind of the finding, its site, words of the remedy, program, then data and objective where they are others
BROKEN: dict[str, tuple[Any, ...]] = {
    "missing in the guide": ("missing in guide", "u", "add it to the guide, or give it obs=", latents("u", "z"), guide),
    "missing in the model": ("missing in model", "u", "rename or remove", model, proposed("z", "u")),
    "drawn and observed": ("missing in model", "x", "take it out of the guide", model, proposed("z", "x")),
    "forgotten obs=": (
        "missing in guide",
        "x",
        "give it obs= if it is data",
        latents("z", "x", last="y"),
        guide,
    ),
    "no to_event in the guide": ("to_event", "z", ".to_event(n)", model, forgotten),
    "no to_event in the model": ("to_event", "z", ".to_event(n)", forgotten_model, guide),
    "no to_event in the likelihood": ("to_event", "x", ".to_event(n)", forgotten_likelihood, guide),
    "no to_event, hidden by the sizes": ("to_event", "z", ".to_event(n)", model, forgotten, lambda: batch(D)),
    "data plate of another size": ("plate", "z", "the size len(x)", sized(9), guide),
    "whole plate against the batch's": ("plate", None, "same size", subsampled, guide),
    "data plate in another dim": ("plate", None, "dim=-1 in both", model, moved),
    "normal for a gamma": ("support", "z", "the same values", gamma, guide),
    "normal far from 0 for a gamma": (
        "support",
        "z",
        "same values",
        gamma,
        lambda v, x: guide(v, x, normal(9 + x, 0.1)),
    ),
    "normal for coins": ("support", "z", "the same values", coins, guide),
    "grey pixels": ("data support", "x", "Binarise", bernoulli, guide, lambda: torch.rand(4, D)),
    "grey pixels beyond the first batch": (
        "data support",
        "x",
        "Binarise",
        bernoulli,
        guide,
        lambda: torch.cat([torch.ones(1500, D), torch.rand(1, D)]),
    ),
    "outside in the guide": ("locality", "z", "same side", model, outside_guide),
    "outside in the model": ("locality", "z", "same side", outside_model, guide),
    "global weighed by the batch": ("global weight", "z", "size of the whole set", whole(None), outside_guide, set_of),
    "global weighed by the rows": ("global weight", "z", "size of the whole set", whole(None), outside_guide),
    "global reads the batch": ("global reads data", "z", "parameters of its own", whole(400), reads_batch, set_of),
    "no gradient": ("no gradient", None, "take it out", unread),
    "zero gradient": ("no gradient", None, "requires_grad=False", killed),
    "two sites of a name": ("name clash", "z", "name of its own", twice, guide),
    "two modules of a name": ("name clash", None, "name of its own", one_module_name),
    "a parameter of two shapes": ("name clash", None, "name of its own", one_param_name),
    "a parameter in Pyro's store": ("unowned parameters", None, "nn.Parameter", model, stored),
    "scale on the model": ("scale", "z", "BetaELBO", scaled(model), guide),
    "scale on the guide": ("scale", "z", "BetaELBO", model, scaled(guide)),
    "discrete": ("discrete", "z", "gradient='score'", coins, coin_guide),
    "dropout": ("dropout", None, "take it out, or use", dropping, None, batch, lambda: IWAE(3, backward_particles=1)),
    "guide ignores x": ("guide ignores data", "z", "function of x", model, ignoring),
    "a comparison": ("no gradient", "z", "by a smooth function", compared, guide),
    "unused": ("unused latent", "u", "use it in the likelihood", unused, proposed("u", "z")),
    "nothing observed": ("nothing observed", None, "obs=x", latents("z", observed=False), guide),
    "no data plate": ("no data plate", None, "pyro.plate", named, named_guide),
    "a loop": ("loop", "z0", "with pyro.plate", looping(True), looping(False)),
    "sites that change": ("changing sites", "u", "sample it always", restless(model), guide),
    "events of the network": (
        "event shape",
        None,
        "build the networks",
        lambda: Program(model, networked, net=nn.Linear(5, D)),
    ),
    "events of the latent": ("latent shape", "z", "same latent size", model, two_events),
    "events of the likelihood": (
        "event shape",
        "x",
        "reshape the data",
        model,
        lambda v, x: guide(v, x, normal(v.loc)),
        lambda: torch.ones(4, 1),
    ),
    "double precision": (
        "dtype",
        None,
        "x.to(torch.float32)",
        lambda: Program(model, networked, net=nn.Linear(D, D)),
        None,
        lambda: batch().double(),
    ),
    "NaN in the data": ("NaN in data", None, "impute", model, guide, with_nan),
    "NaN beyond the first batch": (
        "NaN in data",
        None,
        "impute",
        model,
        guide,
        lambda: torch.cat([torch.randn(1500, D), with_nan()]),
    ),
    "NaN densities": ("non-finite", "x", "scales that are not positive", nan_density, guide),
    "observed in the guide": ("guide observes", "y", "leave the site out", model, observing),
}
WARNED = {"no gradient", "guide ignores data", "unused latent", "unowned parameters"}


def case(name):
    """The finding that is due, the program, its data and an objective."""
    kind, site, remedy, first, *rest = BROKEN[name]
    second, x, objective = (*rest, *(None, None, None)[len(rest) :])
    vae = Program(first, second) if second else first()
    return (kind, site, remedy), vae, (x or batch)(), objective and objective()


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_is_found(name):
    (kind, site, remedy), vae, x, objective = case(name)
    found = pv.check(vae, x, objective)
    hits = [f for f in found if f.kind == kind and (site is None or f.site == site)]
    assert hits, [str(f) for f in found]
    assert any(remedy in f.remedy for f in hits), [f.remedy for f in hits]
    for f in found:
        assert f.message[-1] != "."
        assert str(f).startswith(f.message)
        assert str(f).endswith(".")
        assert f.remedy


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_is_the_only_one(name):
    """Findings of other kinds are consequences, which are not to drown the mistake."""
    (kind, *_), vae, x, objective = case(name)
    others = {f.kind for f in pv.check(vae, x, objective)} - {kind}
    allowed = {"drawn and observed": {"guide observes"}, "a loop": set(), "sites that change": {"missing in guide"}}
    assert others <= allowed.get(name, set())


def test_independent_mistakes_are_all_listed():
    found = pv.check(Program(scaled(latents("u", "z")), proposed("z", "v", "w")), batch())
    kinds = [(f.kind, f.site) for f in found]
    assert {("missing in guide", "u"), ("missing in model", "v"), ("missing in model", "w")} <= set(kinds)
    assert {("scale", n) for n in ("u", "z", "x")} <= set(kinds)
    found = pv.check(Program(scaled(named_guide), proposed("z")), batch())
    assert {"nothing observed", "no data plate", "scale"} <= {f.kind for f in found}


# Sound programs


def plain(size=None):
    net = nn.Linear(D, 2 * D)

    def model(x):
        w = pyro.param("w", torch.ones(D))
        with data(x):
            pyro.sample("x", normal(w * pyro.sample("z", normal(x.new_zeros(D)))), obs=x)

    def guide(x):
        loc, scale = pyro.module("net", net)(x).chunk(2, -1)
        with data(x):
            pyro.sample("z", normal(loc, scale.exp()))

    return pv.Program(model, guide)


def exact(name):
    def build():
        vae = EXACT[name]()
        if hasattr(vae, "phi"):
            vae.phi.requires_grad_(False)  # it is for the guides that are free
        return vae, vae.data(4)

    return build


def free(name):
    def build():
        vae = FREE[name]()
        return vae, vae.data(4)

    return build


def small(likelihood="Bernoulli", objective=None, **options):
    def build():
        x = small_data(likelihood, dtype=torch.float32, network=options.get("network", "mlp"))
        return (small_vae(likelihood, **options), x, *((objective(),) if objective else ()))

    return build


def enumerable():
    x = torch.bernoulli(torch.full((5, 6), 0.5))
    return pv.models.EnumerableVAE.build(x, latent=3), x


def own_model():
    script = Path(__file__).parents[1] / "examples" / "own_model.py"
    return runpy.run_path(str(script))["StyleAndTone"](3, 8), pv.data.load("digits")


def missing():
    return small_missing_vae(), with_gaps(small_data("Normal learned", dtype=torch.float32))


def mixture(order):
    def build():
        vae = Mixture(order)
        return vae, vae.data(4)

    return build


SOUND = {
    **{f"exact, {n}": exact(n) for n in EXACT},
    **{f"free, {n}": free(n) for n in FREE},
    "global": lambda: (Global(100), torch.randn(4, dtype=F64)),
    "global of a data set": lambda: (Program(whole(400), outside_guide), set_of(), ELBO()),
    **{f"posterior {n}": small(posterior=n) for n in ("FullNormal", "Mixture", "Flow", "Flow NSF", "SemiAmortised")},
    **{f"posterior {n}": small(posterior=n) for n in ("Gamma", "Dirichlet", "VonMisesFisher", "RelaxedBernoulli")},
    "posterior Bernoulli": small(posterior="Bernoulli", objective=lambda: ELBO(gradient="score")),
    **{f"prior {n}": small(prior=n) for n in ("VampPrior", "Mixture", "Flow", "Hierarchical", "GaussianProcess")},
    **{f"likelihood {n}": small(n) for n in ("Normal learned", "Poisson", "Beta", "Categorical", "Multinomial")},
    **{f"network {n}": small(network=n) for n in NETWORKS},
    "enumerable": enumerable,
    "enumerated in the guide": mixture("yz"),
    "summed over in the model": mixture("z"),
    "plain functions": lambda: (plain(), batch()),
    "own model": own_model,
    "missing": missing,
    "digits": lambda: (pv.models.VAE.build(d := pv.data.load("digits"), latent=2), d),
    "one row": lambda: (Program(model, guide), batch(1)),
    "Pyro's ELBO": lambda: (Program(scaled(named), scaled(named_guide)), batch(), pyro.infer.Trace_ELBO()),
    "double data, no networks": lambda: (Program(model, guide), batch().double()),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_program_has_no_finding(name):
    assert [str(f) for f in pv.check(*SOUND[name]())] == []


@pytest.mark.parametrize("name", ALL)
def test_no_objective_has_a_finding(name):
    """But for sleep alone, which does not train the decoder."""
    found = pv.check(vae_for(name), small_data(dtype=torch.float32), ALL[name]())
    assert {f.kind for f in found} <= ({"no gradient"} if name == "sleep" else set())


# What a check leaves


def state(vae):
    tensors = {**dict(vae.named_parameters()), **dict(vae.named_buffers())}
    return {n: (id(t), t.detach().clone(), t.grad, t.requires_grad) for n, t in tensors.items()}


def streams():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize("kind", ["batch norm", "killed", "dropout", "flow", "plain"])
def test_nothing_is_changed(kind):
    x = batch()
    if kind == "batch norm":
        vae = Program(model, networked, net=nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D)))
    elif kind == "flow":
        vae, x = small_vae(posterior="Flow"), small_data(dtype=torch.float32)
    else:
        vae = {"killed": killed, "dropout": dropping, "plain": plain}[kind]()
    vae.train()
    next(iter(vae.children())).eval()
    for p in vae.parameters():
        p.grad = torch.ones_like(p)
    pyro.param("other", torch.tensor(1.0))
    before, modes, seen = state(vae), [m.training for m in vae.modules()], streams()
    pv.check(vae, x)
    after = state(vae)
    assert before.keys() == after.keys()
    for n in before:
        assert before[n][0] == after[n][0]
        assert torch.equal(before[n][1], after[n][1])
        assert before[n][2] is after[n][2]
        assert before[n][3] == after[n][3]
    assert [m.training for m in vae.modules()] == modes
    assert torch.equal(seen[0], streams()[0])
    assert seen[1:] == streams()[1:]
    assert list(pyro.get_param_store().keys()) == ["other"]


def test_an_objective_is_left_alone():
    objective = ELBO(3, gradient="score", baseline="mean")
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    pv.check(small_vae(), small_data(dtype=torch.float32), objective)
    assert all(torch.equal(v, objective.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((object(), torch.zeros(2, 3)), r"expected something with .model"),
        ((None, [1.0]), r"expected something with .model"),
        ((Program(model, guide), [1.0]), r"expected data as a tensor"),
        ((Program(model, guide), torch.zeros(0, D)), r"at least one row"),
        ((Program(model, guide), batch(), "ELBO"), r"expected an objective"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        pv.check(*arguments)


def test_whatever_a_program_raises_is_a_finding():
    def broken(v, x):
        raise KeyError("a key")

    (found,) = pv.check(Program(model, broken), batch())
    assert (found.kind, found.fatal) == ("error", True)
    assert "KeyError" in found.message


# Training


def train(vae, x, **options):
    return pv.fit(vae, x, **({"epochs": 1, "batch_size": 50, "progress": False} | options))


@pytest.mark.parametrize("name", [n for n, c in BROKEN.items() if c[0] in WARNED and n != "zero gradient"])
def test_training_goes_on_with_one_line(name, caplog):
    _, vae, _, _ = case(name)
    with caplog.at_level(logging.WARNING, logger="pyrovae"):
        train(vae, set_of(100))
        lines = [r.message for r in caplog.records if r.name == "pyrovae"]
        assert len(lines) == 1
        assert lines[0] == str(pv.check(case(name)[1], set_of(100))[0])
        caplog.clear()
        train(case(name)[1], set_of(100), check=False)
    assert not caplog.records


@pytest.mark.parametrize("name", ["global weighed by the batch", "global reads the batch", "outside in the guide"])
def test_what_cannot_be_right_is_refused(name):
    """It trained, and wrongly, before."""
    (_, site, remedy), vae, _, _ = case(name)
    with pytest.raises(ValueError, match=rf"'{site}'.*{remedy}"):
        train(vae, set_of(), objective=ELBO())
    assert math.isfinite(train(vae, set_of(), objective=ELBO(), check=False).rows[0]["bound"])


@pytest.mark.parametrize("name", ["missing in the guide", "no to_event in the guide", "scale on the model"])
def test_older_refusals_keep_their_words(name):
    _, vae, _, _ = case(name)
    words = []
    for check in (True, False):
        with pytest.raises(ValueError, match="site") as error:
            train(vae, set_of(), check=check)
        words.append(str(error.value))
    assert words[0] == words[1]


def test_a_check_is_no_part_of_a_run():
    """Equal to the bit with and without, also where the parameters come into being."""
    for build in (plain, lambda: small_vae(event=[D])):
        weights = []
        for check in (True, False, None):  # None: by hand, before
            torch.manual_seed(3)
            x = torch.bernoulli(torch.full((100, D), 0.5))
            vae = build()
            if check is None:
                pv.check(vae, x)
            run = train(vae, x, check=bool(check), epochs=2)
            weights.append([p.detach() for p in run.model.parameters()])
        for other in weights[1:]:
            assert all(torch.equal(a, b) for a, b in zip(weights[0], other, strict=True))
