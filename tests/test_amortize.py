"""Guides that are derived from a model: the right factors, the right supports, and everything that other guides do."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64, Global, TwoLatents, check_trace, fake_cuda, reached, z_test
from pieces import small_vae
from stories import STORIES, mixture
from zoo import ALL, BERNOULLI

import pyrovae as pv
from pyrovae.config import construct, describe
from pyrovae.guides.inverse import DATA, faithful_inverse
from pyrovae.objectives import ELBO
from pyrovae.program import sample_sites

SMALL = {"hidden": [16]}
FAMILIES = ["normal", "full", "flow", "mixture"]


def data_for(name: str, n: int = 5, dtype: torch.dtype = F64) -> torch.Tensor:
    return 0.3 * torch.randn(n, *STORIES[name].event, dtype=dtype)  # small: no draw is rounded to an end


def derived(name: str, family: str = "normal", dtype: torch.dtype = F64) -> pv.Program:
    """The story with its guide, in double precision."""
    torch.set_default_dtype(dtype)
    return pv.Program(STORIES[name].model, pv.amortize(STORIES[name].model, data_for(name, 64, dtype), family, **SMALL))


# The order


@pytest.mark.parametrize("seed", range(12))
def test_the_order_claims_what_holds_in_a_linear_gaussian_and_needs_all_that_it_names(seed):
    """Regression of each latent on all that is known when it is drawn: zero but for what it is drawn given."""
    g = torch.Generator().manual_seed(seed)
    names = [f"v{i}" for i in range(7)]
    parents, rows = {}, []
    weights = torch.zeros(7, 7, dtype=F64)
    for i, name in enumerate(names):
        chosen = [j for j in range(i) if torch.rand((), generator=g) < 0.45]
        parents[name] = [names[j] for j in chosen]
        for j in chosen:
            weights[i, j] = 0.5 + torch.rand((), generator=g, dtype=F64)
        rows.append(i)
    seen, summed = {5, 6}, {2} if seed % 2 else set()
    latent = [names[i] for i in rows if i not in seen | summed]
    inverse = faithful_inverse(parents, latent, [names[i] for i in summed])
    unit = torch.linalg.inv(torch.eye(7, dtype=F64) - weights)
    cov = unit @ unit.T
    known = sorted(seen)
    for name, given in inverse.items():
        i = names.index(name)
        beta = torch.linalg.solve(cov[known][:, known], cov[known, i])
        inside = {names.index(n) for n in given if n != DATA}
        for j, b in zip(known, beta, strict=True):
            if j in seen:
                assert DATA in given or abs(b) < 1e-9, (name, names[j])
            else:
                assert (abs(b) > 1e-9) == (j in inside), (name, names[j])
        if DATA in given:
            assert max(abs(b) for j, b in zip(known, beta, strict=True) if j in seen) > 1e-9
        known = [*known, i]
    assert set(inverse) == set(latent)


def test_the_order_of_a_chain_costs_one_edge_a_step():
    parents = {f"z{i}": [f"z{i - 1}"] if i else [] for i in range(30)} | {f"x{i}": [f"z{i}"] for i in range(30)}
    inverse = faithful_inverse(parents, [f"z{i}" for i in range(30)])
    assert all(len(given) <= 2 for given in inverse.values())


@pytest.mark.parametrize("name", STORIES)
def test_what_is_printed(name):
    assert str(pv.amortize(STORIES[name].model, data_for(name, 64).float(), **SMALL)) == STORIES[name].printed


# What every guide does


@pytest.mark.parametrize(("name", "family"), [*itertools.product(STORIES, ["normal"]), *(
    (n, f) for n in ("vector", "positive", "collider", "steps", "shared", "simplex") for f in FAMILIES[1:]
)])  # fmt: skip
def test_particles_are_what_each_is_alone(name, family):
    program = derived(name, family)
    x = data_for(name)
    d = pv.densities(program, x, particles=3)
    assert d.log_weight.shape == (3, len(x))
    assert d.log_weight.isfinite().all()
    for k in range(3):
        local = replace(d, posterior={n: s for n, s in d.posterior.items() if s.local})
        given = local.select(torch.full((1, len(x)), k))
        given |= {n: s.value[k].reshape(pv.densities(program, x).posterior[n].value.shape)
                  for n, s in d.posterior.items() if not s.local}  # fmt: skip
        alone = pv.densities(program, x, given=given)
        torch.testing.assert_close(alone.log_posterior[0], d.log_posterior[k])
        torch.testing.assert_close(alone.log_joint[0], d.log_joint[k])


@pytest.mark.parametrize(("name", "family"), [*itertools.product(STORIES, ["normal"]), *(
    (n, f) for n in ("number", "vector", "positive") for f in FAMILIES[1:]
), ("shared", "full"), ("shared", "mixture")])  # fmt: skip
def test_every_parameter_has_a_gradient(name, family):
    program, x = derived(name, family), data_for(name, 20)
    objective = ELBO(2, gradient="score") if name == "counts" else ELBO(2)
    with torch.enable_grad():
        for _ in range(3):
            loss = -objective(program, x).surrogate.mean()
        reached(program, loss)


@pytest.mark.parametrize("name", [n for n, s in STORIES.items() if s.pathwise or n == "counts"])
def test_a_step_is_captured(name):
    objective = ELBO(2, gradient="score") if name == "counts" else ELBO(2)
    check_trace(derived(name), objective, data_for(name))


@pytest.mark.parametrize("name", STORIES)
def test_a_guide_stays_on_its_device(name):
    plain = describe(pv.amortize(STORIES[name].model, data_for(name, 64, torch.float32), **SMALL))
    with fake_cuda():
        with torch.device("cuda"):
            guide, x = construct(plain), data_for(name, dtype=torch.float32)
        trace = pyro.poutine.trace(guide).get_trace(x)
        for site, node in sample_sites(trace):
            assert node["value"].device.type == "cuda", site
            if name != "correlations":  # torch counts the elements of a mask there
                assert node["fn"].log_prob(node["value"]).device.type == "cuda", site


# What is drawn, and how close it comes


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_average_to_the_evidence(family):
    """Of an untrained guide: E_q p(x, z1, z2) / q(z1, z2 | x) = p(x). Wrong once in a million for right code."""
    vae = TwoLatents()
    x = vae.data(4)
    torch.set_default_dtype(F64)
    guide = pv.amortize(vae, vae.data(100), family, **SMALL)
    with torch.no_grad():
        d = pv.densities(pv.Program(vae, guide), x, particles=40_000)
        z_test((d.log_weight - vae.log_evidence(x)).exp(), torch.ones(4, dtype=F64))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_average_to_the_evidence_of_a_positive_latent(family):
    """rate ~ Gamma(3, 2), x | rate ~ Poisson(rate): x is negative binomial. Wrong once in a million for right code."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), 2.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    torch.set_default_dtype(F64)
    x = torch.tensor([0.0, 1.0, 4.0])
    guide = pv.amortize(model, torch.arange(9.0), family, **SMALL)
    with torch.no_grad():
        d = pv.densities(pv.Program(model, guide), x, particles=40_000)
    exact = dist.NegativeBinomial(torch.tensor(3.0), probs=torch.tensor(1 / 3)).log_prob(x)
    z_test((d.log_weight - exact).exp(), torch.ones(3))


def test_masses_of_discrete_latents_sum_to_one():
    for name in ("coins", "categories", "trials", "one-hot"):
        program, x = derived(name), data_for(name)
        d = pv.densities(program, x, exact=True)
        assert d.enumerated == {"z"}
        torch.testing.assert_close(d.log_posterior.exp().sum(0), torch.ones(5, dtype=F64))
        torch.testing.assert_close(d.mean(d.log_weight.exp()), d.log_joint.exp().sum(0))  # p(x)


def test_it_starts_where_the_prior_is():
    guide = pv.amortize(STORIES["far away"].model, torch.randn(100), hidden=[6])
    q = pyro.poutine.trace(guide).get_trace(torch.randn(200)).nodes["z"]["fn"]
    assert 90 < q.loc.mean() < 110
    assert 2.5 < q.scale.median() < 10


def test_global_latents_start_close_to_a_draw_from_the_prior_and_apart():
    guide = pv.amortize(STORIES["shared"].model, torch.randn(100), "mixture", **SMALL)
    nodes = pyro.poutine.trace(guide).get_trace(torch.randn(5)).nodes
    assert nodes["rate"]["fn"].batch_shape == (2,)
    assert nodes["w"]["value"].shape == (2, 3)
    draws = torch.stack(
        [pyro.poutine.trace(guide).get_trace(torch.randn(5)).nodes["theta"]["value"] for _ in range(99)]
    )
    assert draws.std() < 1


def ascend(program, x, steps=300, rate=1e-2):
    """The mean bound after so many steps of Adam on the whole of x."""
    pv.densities(program, x)
    adam = torch.optim.Adam(program.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        (-ELBO(2, kl="sampled", gradient="stl")(program, x).surrogate.mean()).backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        return ELBO(200, kl="sampled")(program, x).bound.mean()


class Sum(torch.nn.Module):
    """z1, z2 ~ 𝒩(0, 1), x ~ 𝒩(z1 + z2, s²): correlated in the posterior by −1 / (1 + s²)."""

    scale = 0.3

    def model(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(()), 1.0))
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z1 + z2, self.scale), obs=x)

    def log_evidence(self, x):
        return dist.Normal(0.0, (2 + self.scale**2) ** 0.5).log_prob(x)


def test_a_derived_guide_reaches_what_a_factorised_one_cannot():
    """The best q(z1 | x) q(z2 | x) is off by KL = −½ log(1 − ρ²); the derived one is q(z1 | x) q(z2 | z1, x)."""
    story = Sum()
    x = torch.randn(200) * 1.4
    guide = pv.amortize(story, x, hidden=[20])
    assert str(guide) == "q(z1 | x) q(z2 | z1, x)"
    gap = story.log_evidence(x).mean() - ascend(pv.Program(story, guide), x)
    rho = 1 / (1 + story.scale**2)
    factorised = -0.5 * math.log(1 - rho**2)
    assert factorised > 0.8
    assert gap < 0.05 * factorised


def test_a_derived_guide_is_exact_where_the_posterior_is_in_its_family():
    vae = TwoLatents().float()
    for p in vae.parameters():
        p.requires_grad_(False)
    x = torch.randn(100, 1)
    gap = vae.log_evidence(x).mean() - ascend(pv.Program(vae.model, pv.amortize(vae.model, x, hidden=[20])), x)
    assert 0 <= gap + 0.02 < 0.05


@pytest.mark.parametrize("name", ALL)
def test_every_objective_takes_a_derived_guide(name):
    torch.set_default_dtype(F64)
    story = small_vae("Normal fixed", posterior="Bernoulli" if name in BERNOULLI else None)
    x = torch.randn(4, 1, 5, 4)
    program = pv.Program(story.model, pv.amortize(story.model, x, **SMALL))
    estimate = ALL[name]()(program, x)
    assert estimate.bound.shape == estimate.surrogate.shape == (4,)
    assert estimate.bound.isfinite().all()
    estimate.surrogate.mean().backward()


# What is refused


def _of_bounds(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Uniform(0.0, torch.ones(())))
        pyro.sample("b", dist.Uniform(torch.zeros(()), a + 0.1))
        pyro.sample("x", dist.Normal(a, 1.0), obs=x)


def _without_latents(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)


def _without_to_event(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pv.amortize(STORIES["chain"].model, torch.zeros(5, 3), "norml"),
            "no family 'norml'; did you mean 'normal'",
        ),
        (
            lambda: pv.amortize(STORIES["chain"].model, torch.zeros(5, 3), {"z": "full"}),
            "no latent 'z' to give a family",
        ),
        (
            lambda: pv.amortize(STORIES["chain"].model, torch.zeros(5, 3), network="mpl"),
            "unknown network 'mpl'; did you mean",
        ),
        (lambda: pv.amortize(STORIES["chain"].model, [1.0]), "expects data as a tensor .N, .event. .*got list"),
        (lambda: pv.amortize("chain", torch.zeros(5)), "expects a model, a function of x .*got 'chain'"),
        (lambda: pv.amortize(_of_bounds, torch.zeros(5)), "site 'b' has bounds that differ from value to value"),
        (lambda: pv.amortize(_without_latents, torch.zeros(5)), "expects a model with a latent, and this"),
        (lambda: pv.amortize(_without_to_event, torch.zeros(5)), "site 'z' expects batch dimensions of plate 'data'"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_that_sums_over_all_needs_no_guide():
    torch.set_default_dtype(F64)
    guide = pv.amortize(mixture, torch.randn(50))
    assert str(guide) == "1"
    x = torch.tensor([0.0, 1.0])
    exact = dist.Normal(torch.tensor([0.0, 2.0, 4.0]), 1.0).log_prob(x[:, None]).logsumexp(-1) - math.log(3)
    program = pv.Program(mixture, guide)
    torch.testing.assert_close(pv.densities(program, x, particles=3).log_weight, exact.expand(3, 2))
    torch.testing.assert_close(pv.evaluate(program, x, particles=2).log_evidence, exact)


def test_the_plate_of_a_small_data_set_keeps_its_size():
    guide = pv.amortize(Global(40).model, torch.randn(40, dtype=F64))
    assert [f.plates for f in guide.factors] == [(), (("data", 40, -1),)]
    assert not pv.check(pv.Program(Global(40).model, guide), torch.randn(40, dtype=F64))


def test_a_plain_function_of_doubles_has_a_guide_of_doubles():
    x = torch.randn(20, dtype=F64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert pv.densities(pv.Program(model, pv.amortize(model, x)), x).log_weight.dtype == F64


# What is around a site


def test_a_mask_that_a_latent_decides_is_a_dependence():
    """c says whether x is seen, and nothing else of it: q(c | a, x), not q(c)."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_tensor(0.0), 1.0))
            c = pyro.sample("c", dist.Bernoulli(x.new_tensor(0.5)))
            with pyro.poutine.mask(mask=c > 0.5):
                pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    torch.set_default_dtype(F64)
    program = pv.Program(model, pv.amortize(model, torch.randn(50), **SMALL))
    assert str(program.parts["guide"]) == "q(a | x) q(c | a, x)"
    x = torch.tensor([-1.0, 2.0])
    assert not pv.check(program, torch.randn(50))
    with torch.no_grad():
        d = pv.densities(program, x, particles=40_000)
    exact = torch.log(0.5 + 0.5 * dist.Normal(0.0, 1.25**0.5).log_prob(x).exp())
    z_test((d.log_weight - exact).exp(), 1 + 0 * x)


@pytest.mark.parametrize("prior", [dist.Bernoulli, dist.Poisson])
def test_a_global_latent_may_be_one_discrete_number(prior):
    def model(x):
        shift = pyro.sample("shift", prior(torch.tensor(0.5)))
        with pyro.plate("data", 100, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(shift, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    program = pv.Program(model, pv.amortize(model, torch.randn(50), **SMALL))
    assert pv.densities(program, torch.randn(5), particles=3).log_weight.shape == (3, 5)


class Moving(torch.nn.Module):
    """A uniform prior with an end that is trained."""

    def __init__(self):
        super().__init__()
        self.end = torch.nn.Parameter(torch.ones(()))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, self.end))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _up_to_a_global(x):
    end = pyro.sample("end", dist.Gamma(2.0, 2.0))
    with pyro.plate("data", 100, subsample=torch.arange(len(x))):
        z = pyro.sample("z", dist.Uniform(0.0, end))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("model", [Moving(), _up_to_a_global])
def test_values_that_move_are_refused(model):
    """What was read at one run would be the guide's end for ever."""
    with pytest.raises(ValueError, match="site 'z' has bounds that follow a parameter, a latent or the data"):
        pv.amortize(model, torch.randn(50))


class OfPyro(pyro.nn.PyroModule):
    """A weight with a prior, a positive parameter, a module of Pyro's and one of torch's."""

    def __init__(self):
        super().__init__()
        self.weight = pyro.nn.PyroSample(dist.Normal(torch.zeros(4), 1.0).to_event(1))
        self.scale = pyro.nn.PyroParam(torch.ones(()), dist.constraints.positive)
        self.inside = pyro.nn.PyroModule[torch.nn.Linear](1, 4)
        self.plain = torch.nn.Linear(4, 4)

    def model(self, x):
        weight = self.weight
        with pyro.plate("data", 100, subsample=torch.arange(len(x), device=x.device)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            loc = weight * self.plain(self.inside(z[..., None]))
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


class OfPyroInContext(OfPyro):
    model = pyro.nn.pyro_method(OfPyro.model)


@pytest.mark.parametrize("kind", [OfPyro, OfPyroInContext])
def test_what_pyros_modules_have_inside_are_sites_and_parameters_once(kind):
    torch.set_default_dtype(F64)
    story = kind()
    program = pv.Program(story, pv.amortize(story, torch.randn(50, 4), **SMALL))
    assert str(program.parts["guide"]) == "q(weight) q(z | x)"
    x = torch.randn(6, 4)
    assert not pv.check(program, torch.randn(100, 4))
    check_trace(program, ELBO(2), x)
    reached(program, -ELBO(2)(program, x).surrogate.mean())
    assert not program.params
    assert not program.owned
    assert not pyro.get_param_store().keys()


def test_it_can_be_derived_inside_of_a_trace():
    with pyro.poutine.trace() as outer:
        pv.amortize(STORIES["number"].model, torch.randn(50), **SMALL)
        pv.amortize(STORIES["number"].model, torch.randn(50), **SMALL)
    assert "z" not in outer.trace.nodes
