"""The same numbers as other libraries, values and gradients of model and guide, from the same draws."""

from __future__ import annotations

import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, FREE, TIGHT, LinearGaussian, TwoLatents, gradients
from pyro.infer import RenyiELBO, TraceEnum_ELBO
from pyro.poutine.messenger import Messenger

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE, Renyi


class Noise(Messenger):
    """Draws a normal site as loc + scale · noise, in a run where it has the shape of that noise."""

    def __init__(self, noise):
        super().__init__()
        self.noise, self.used = noise, set()

    def _pyro_sample(self, msg):
        noise = self.noise.get(msg["name"])
        if noise is None or msg["done"] or msg["is_observed"] or noise.shape != msg["fn"].shape():
            return
        base = msg["fn"].base_dist
        msg["value"], msg["done"] = base.loc + base.scale * noise, True
        self.used.add(msg["name"])


def under(noise, function):
    """The function's value where sites are drawn with this noise; every one of them has to be."""
    with Noise(noise) as handler:
        value = function()
    assert handler.used == set(noise)
    return value


def check_equal(vae, x, ours, theirs):
    """A loss of ours and of another library, summed over the batch, and the gradient by every parameter."""
    torch.testing.assert_close(-ours.bound.sum(), theirs.detach(), **TIGHT)
    ours, theirs = gradients(vae, -ours.surrogate.sum()), gradients(vae, theirs)
    for name, g in ours.items():
        assert g.abs().max() > 0, name
        torch.testing.assert_close(g, theirs[name], **TIGHT, msg=name)


# Pyro's TraceEnum_ELBO


MARK = {"enumerate": "parallel"}


class Discrete(nn.Module):
    """y ~ Bernoulli, c | y ~ Categorical, x | y, c ~ 𝒩; the guide has c | x, or c | y, x where it is chained."""

    def __init__(self, chained=False):
        super().__init__()
        self.chained = chained
        self.prior = nn.Parameter(torch.tensor(0.3, dtype=F64))
        self.table = nn.Parameter(torch.randn(2, 3, dtype=F64))
        self.locs = nn.Parameter(torch.randn(2, 3, 2, dtype=F64))
        self.log_scale = nn.Parameter(torch.tensor(-0.2, dtype=F64))
        self.y = nn.Linear(2, 1, dtype=F64)
        self.c = nn.Linear(2, 3, dtype=F64)
        self.link = nn.Parameter(torch.randn(3, dtype=F64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(logits=self.prior)).long()
            c = pyro.sample("c", dist.Categorical(logits=self.table[y]))
            pyro.sample("x", dist.Normal(self.locs[y, c], self.log_scale.exp()).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(logits=self.y(x).squeeze(-1)), infer=MARK)
            given = y[..., None] if self.chained else 1
            pyro.sample("c", dist.Categorical(logits=self.c(x) + given * self.link), infer=MARK)


class Switched(nn.Module):
    """y ~ Bernoulli, z | y ~ 𝒩, x | y, z ~ 𝒩.

    The guide is q(y | x) q(z | x, y) ("y first"), q(z | x) q(y | x, z) ("z first"), or q(z | x) with y left to the
    model, which sums over it.
    """

    def __init__(self, guide):
        super().__init__()
        self.kind = guide
        self.prior = nn.Parameter(torch.tensor(0.3, dtype=F64))
        self.locs = nn.Parameter(torch.randn(2, 2, dtype=F64))
        self.log_scales = nn.Parameter(0.3 * torch.randn(2, 2, dtype=F64))
        self.shift = nn.Parameter(torch.randn(2, 3, dtype=F64))
        self.decoder = nn.Linear(2, 3, dtype=F64)
        self.encoder = nn.Linear(3, 3, dtype=F64)
        self.log_s = nn.Parameter(torch.tensor([-0.5, -0.2], dtype=F64))
        if guide != "z alone":
            self.link = nn.Parameter(torch.randn(2, dtype=F64))

    def model(self, x):
        infer = MARK if self.kind == "z alone" else {}
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(logits=self.prior), infer=infer).long()
            z = pyro.sample("z", dist.Normal(self.locs[y], self.log_scales[y].exp()).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z) + self.shift[y], 0.8).to_event(1), obs=x)

    def guide(self, x):
        code = self.encoder(x)
        loc, logit = code[..., :2], code[..., 2]
        with pyro.plate("data", len(x)):
            if self.kind == "y first":
                y = pyro.sample("y", dist.Bernoulli(logits=logit), infer=MARK)
                loc = loc + y[..., None] * self.link
            z = pyro.sample("z", dist.Normal(loc, self.log_s.exp()).to_event(1))
            if self.kind == "z first":
                pyro.sample("y", dist.Bernoulli(logits=logit + z @ self.link), infer=MARK)


def trace_enum(particles, vae, x):
    elbo = TraceEnum_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    return elbo.differentiable_loss(vae.model, vae.guide, x)


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("chained", [False, True])
def test_guide_of_enumerated_sites_equals_pyro(chained, particles):
    """No draw is left: both are the exact ELBO, for any number of particles."""
    vae, x = Discrete(chained), torch.randn(5, 2, dtype=F64)
    if not chained:
        assert not torch.equal(vae.table[0], vae.table[1])  # c depends on y in the model, not in the guide
    check_equal(vae, x, ELBO(particles)(vae, x), trace_enum(particles, vae, x))


class Vector(nn.Module):
    """Three Bernoulli latents, as one site under to_event for us, or as a site each for Pyro."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.randn(3, dtype=F64))
        self.decoder, self.encoder = nn.Linear(3, 2, dtype=F64), nn.Linear(2, 3, dtype=F64)
        self.apart = False

    def sample(self, logits, **infer):
        if not self.apart:
            return pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1), **infer)
        each = [
            pyro.sample(f"z{i}", dist.Bernoulli(logits=logit), **infer) for i, logit in enumerate(logits.unbind(-1))
        ]
        return torch.stack(torch.broadcast_tensors(*each), -1)

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.decoder(self.sample(self.prior)), 0.7).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            self.sample(self.encoder(x), infer=MARK)


@pytest.mark.parametrize("apart", [False, True])
def test_enumerated_vector_equals_pyro_with_a_site_for_each_bit(apart):
    vae, x = Vector(), torch.randn(5, 2, dtype=F64)
    vae.apart = apart
    ours = ELBO()(vae, x)
    vae.apart = True
    check_equal(vae, x, ours, trace_enum(1, vae, x))


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("guide", ["z alone", "y first", "z first"])
def test_enumerated_beside_drawn_sites_equals_pyro(guide, particles):
    """The draws of Pyro, one to one: z after y has a draw for each value of y, z before it one for all of them."""
    vae, x = Switched(guide), torch.randn(5, 3, dtype=F64)
    apart, values = {"z alone": (1, 1), "y first": (2, 2), "z first": (1, 2)}[guide]
    noise = torch.randn(particles, apart, 5, 2, dtype=F64)  # [K, S, B, L]
    mine = noise.expand(-1, values, -1, -1).flatten(0, 1)  # [K·S, B, L]
    theirs = noise.transpose(0, 1).squeeze((0, 1))  # [S, K, B, L], without what is 1
    mine = mine[0] if len(mine) == 1 else mine
    check_equal(
        vae,
        x,
        under({"z": mine}, lambda: ELBO(particles)(vae, x)),
        under({"z": theirs}, lambda: trace_enum(particles, vae, x)),
    )


def test_a_draw_before_an_enumerated_site_is_one_for_all_its_values():
    """z ~ 𝒩(0, 1), y | z ~ Bernoulli, x | z ~ 𝒩(z, 1) under its exact posterior: log w is log p(x) for every draw."""

    class Before(nn.Module):
        def sample_y(self, z, **infer):
            pyro.sample("y", dist.Bernoulli(logits=3 * z), **infer)

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                self.sample_y(z)
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                self.sample_y(pyro.sample("z", dist.Normal(x / 2, 0.5**0.5)), infer=MARK)

    x = torch.tensor([0.3, 2.0], dtype=F64)
    evidence = dist.Normal(x.new_zeros(()), 2**0.5).log_prob(x)
    for objective in (ELBO(), ELBO(4), IWAE(4)):
        torch.testing.assert_close(objective(Before(), x).bound, evidence, **TIGHT)


# Pyro's RenyiELBO


@pytest.mark.parametrize("model", FREE)
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 2.5])
@pytest.mark.parametrize("particles", [2, 5])
def test_renyi_equals_pyro(particles, alpha, model):
    """One seed; they agree where nothing is scaled and every site is in the data plate."""
    vae = FREE[model]()
    x, other = vae.data(4), copy.deepcopy(vae)
    torch.manual_seed(5)
    e = Renyi(particles, alpha)(vae, x)
    torch.manual_seed(5)
    elbo = RenyiELBO(alpha, particles, max_plate_nesting=1, vectorize_particles=True)
    loss = elbo.loss_and_grads(*pv.to_pyro(other), x)
    assert -e.bound.sum().item() == pytest.approx(loss, rel=1e-12)
    ours = gradients(vae, -e.surrogate.sum())
    for name, p in other.named_parameters():
        assert p.grad.abs().max() > 0, name
        torch.testing.assert_close(ours[name], p.grad, **TIGHT, msg=name)


# NumPyro's RenyiELBO


@pytest.fixture
def jax():
    """JAX in float64, left as it was."""
    pytest.importorskip("numpyro")
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


def linear_gaussian(vae, size=None):
    """`LinearGaussian(guide="free")` in NumPyro: model and guide, functions of its parameters and x."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd

    def plate(x):
        return numpyro.plate("data", size or len(x), subsample_size=len(x))

    def model(p, x):
        with plate(x):
            z = numpyro.sample("z", npd.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", npd.Normal(z @ p["w"].T + p["b"], jnp.exp(p["log_sigma"])).to_event(1), obs=x)

    def guide(p, x):
        with plate(x):
            numpyro.sample("z", npd.Normal(x @ p["a"].T + p["c"], jnp.exp(p["log_s"])).to_event(1))

    return model, guide


def two_latents(vae):
    """`TwoLatents` in NumPyro, up or down."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd

    def normal(name, loc, scale, **obs):
        return numpyro.sample(name, npd.Normal(loc, scale).to_event(1), **obs)

    def model(p, x):
        w, v, s, t = p["theta"]
        with numpyro.plate("data", len(x)):
            z1 = normal("z1", w * normal("z2", jnp.zeros(1), 1.0), s)
            normal("x", v * z1, t, obs=x)

    def guide(p, x):
        a, c, s, r = p["phi"]
        with numpyro.plate("data", len(x)):
            if vae.kind == "down":
                normal("z1", c * (x + normal("z2", a * x, s)), r)
            else:
                normal("z2", c * normal("z1", a * x, s), r)

    return model, guide


PROGRAMS = {
    "one latent": (lambda: LinearGaussian(guide="free"), linear_gaussian),
    "two latents": (TwoLatents, two_latents),
    "two latents, downwards": (lambda: TwoLatents("down"), two_latents),
}


def numpyro_renyi(jax, alpha, particles, program, parameters, x, seed=0):
    """NumPyro's loss, its gradients, and the noise of the draws that it took: {site: [K, B, L]}.

    Its keys: one for the plates, one for each particle, of which the second half is the guide's.
    """
    from numpyro import handlers
    from numpyro.infer import RenyiELBO

    model, guide = program
    key = jax.random.key(seed)
    plates, rest = jax.random.split(key)

    def loss(p):
        bound = RenyiELBO(alpha, particles)
        return bound.loss(key, {}, lambda x: model(p, x), lambda x: guide(p, x), x)

    def noise(particle):
        hidden = ["sample", "prng_key", "control_flow"]  # from the key of the plates, as in its source
        inner = handlers.seed(lambda x: guide(parameters, x), plates, hide_types=hidden)
        sites = handlers.trace(handlers.seed(inner, jax.random.split(particle)[1])).get_trace(x)
        return {
            n: (s["value"] - s["fn"].base_dist.loc) / s["fn"].base_dist.scale
            for n, s in sites.items()
            if s["type"] == "sample"
        }

    value, grads = jax.value_and_grad(loss)(parameters)
    draws = jax.vmap(noise)(jax.random.split(rest, particles))
    return value, grads, {n: torch.tensor(np.asarray(e)) for n, e in draws.items()}


def check_numpyro(jax, alpha, particles, objective, vae, program, x, size):
    """`size` times the mean over the batch is NumPyro's loss, by value and by gradient."""
    p = {n: jax.numpy.asarray(t.detach().numpy()) for n, t in vae.named_parameters()}
    loss, theirs, noise = numpyro_renyi(jax, alpha, particles, program, p, jax.numpy.asarray(x.numpy()))
    assert all(e.dtype == F64 and e.shape[:2] == (particles, len(x)) for e in noise.values())
    e = under(noise, lambda: objective(vae, x))
    assert -e.bound.mean().item() * size == pytest.approx(float(loss), rel=1e-12)
    for name, g in gradients(vae, -e.surrogate.mean() * size).items():
        assert g.abs().max() > 0, name
        torch.testing.assert_close(g, torch.tensor(np.asarray(theirs[name])), **TIGHT, msg=name)


BOUNDS = {
    "IWAE": (0.0, 5, IWAE(5)),
    "Renyi -1": (-1.0, 5, Renyi(5, -1.0)),
    "Renyi 0.5": (0.5, 5, Renyi(5, 0.5)),
    "Renyi 2.5": (2.5, 5, Renyi(5, 2.5)),
}


@pytest.mark.parametrize("model", PROGRAMS)
@pytest.mark.parametrize("name", BOUNDS)
def test_equals_numpyro(jax, name, model):
    """NumPyro weighs datum by datum where the plate is around every site, and gives the sum over it."""
    build, translate = PROGRAMS[model]
    vae = build()
    check_numpyro(jax, *BOUNDS[name], vae, translate(vae), vae.data(4), size=4)


def test_minibatch_equals_numpyro(jax):
    """It takes the plate's scale out of the log-mean-exp, and multiplies by it at the end."""
    vae = LinearGaussian(guide="free", size=40)
    check_numpyro(jax, *BOUNDS["IWAE"], vae, linear_gaussian(vae, 40), vae.data(4), size=40)
