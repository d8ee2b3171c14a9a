"""NumPyro: the same program in plain jax.numpy, `svi.update` jitted, or a `lax.fori_loop` of them in one call.

A call is over when its state is there: the state is waited for once, after the last step. The convolutions are in the
layout that XLA likes, [B, H, W, C]; the batches are brought into it before the clock starts.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

from .cases import LEARNING_RATE, Case

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def svi_of(case: Case) -> SVI:
    """Inference on the program of the case."""
    encode, decode = mlp(case) if case.network == "mlp" else convolutions(case)
    event_dim = 1 if case.network == "mlp" else len(case.event)

    def model(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(case.latent), 1.0).to_event(1))
            y = decode(z)
            p = dist.Bernoulli(logits=y) if case.scale is None else dist.Normal(y, case.scale)
            numpyro.sample("x", p.to_event(event_dim), obs=x)

    def guide(x: Any) -> None:
        loc, log_scale = jnp.split(encode(x), 2, -1)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    loss = RenyiELBO(alpha=0, num_particles=case.particles) if case.particles else Trace_ELBO()
    return SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), loss)


def _layer(name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Weights and bias."""
    glorot = jax.nn.initializers.glorot_uniform()
    weight = numpyro.param(f"{name}.weight", lambda key: glorot(key, shape))
    return weight, numpyro.param(f"{name}.bias", jnp.zeros(shape[-1]))


def _dense(name: str, x: Any, m: int) -> Any:
    weight, bias = _layer(name, (x.shape[-1], m))
    return x @ weight + bias


def mlp(case: Case) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Encoder and decoder on flat data."""
    act = ACTIVATIONS[case.activation]

    def network(name: str, x: Any, widths: list[int]) -> Any:
        for i, m in enumerate(widths[:-1]):
            x = act(_dense(f"{name}{i}", x, m))
        return _dense(f"{name}{len(widths)}", x, widths[-1])

    d = int(np.prod(case.event))
    return (
        lambda x: network("encoder", x, [*case.hidden, 2 * case.latent]),
        lambda z: network("decoder", z, [*case.hidden[::-1], d]),
    )


def convolutions(case: Case) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Encoder and decoder on images [B, H, W, C], whose sizes divide evenly."""
    act, (c, h, w) = ACTIVATIONS[case.activation], case.event
    inner = [s >> len(case.hidden) for s in (h, w)]

    def encode(x: Any) -> Any:
        for i, m in enumerate(case.hidden):
            weight, bias = _layer(f"encoder{i}", (3, 3, x.shape[-1], m))
            x = act(lax.conv_general_dilated(x, weight, (2, 2), [(1, 1)] * 2, dimension_numbers=_LAYOUT) + bias)
        return _dense("encoder", x.reshape(len(x), -1), 2 * case.latent)

    def decode(z: Any) -> Any:
        m = case.hidden[-1]
        y = _dense("decoder", z, m * inner[0] * inner[1]).reshape(-1, *inner, m)
        for i, n in enumerate([*case.hidden[-2::-1], c]):
            weight, bias = _layer(f"decoder{i}", (3, 3, y.shape[-1], n))
            y = lax.conv_general_dilated(
                act(y), weight, (1, 1), [(1, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=_LAYOUT
            )
            y = y + bias
        return y

    return encode, decode


def rows(case: Case, data: np.ndarray) -> Any:
    """The data on the device, in the layout of the network."""
    return jnp.asarray(data.reshape(len(data), -1) if case.network == "mlp" else data.transpose(0, 2, 3, 1))


def step(case: Case, data: np.ndarray, donated: bool = False, loop: bool = False) -> Callable[[int], None]:
    """Steps over batches in memory: one call a step, or one call for all of them."""
    svi = svi_of(case)
    x = rows(case, data)
    pool = x.reshape(-1, case.batch, *x.shape[1:])
    state = svi.init(jax.random.PRNGKey(0), pool[0])
    if loop:
        return _looped(svi, state, pool)
    update = jax.jit(svi.update, donate_argnums=(0,) if donated else ())
    batches = itertools.cycle([jnp.array(x) for x in pool])

    def go(n: int) -> None:
        nonlocal state
        for x in itertools.islice(batches, n):
            state, _ = update(state, x)
        jax.block_until_ready(state)

    return go


def _looped(svi: SVI, state: Any, pool: Any) -> Callable[[int], None]:
    def steps(state: Any, pool: Any, n: Any) -> Any:
        return lax.fori_loop(0, n, lambda i, s: svi.update(s, pool[i % len(pool)])[0], state)

    jitted = jax.jit(steps, donate_argnums=(0,))

    def go(n: int) -> None:
        nonlocal state
        state = jax.block_until_ready(jitted(state, pool, n))

    return go


def epoch(case: Case, data: np.ndarray, loop: bool = True, donated: bool = True) -> Callable[[int], None]:
    """Epochs over bytes on the device: a permutation, whole batches in a loop, and the rest in one step more."""
    svi = svi_of(case)
    x, b = rows(case, data), case.batch
    whole, rest = divmod(len(x), b)

    def once(state: Any, key: Any, x: Any) -> Any:
        order = jax.random.permutation(key, len(x))

        def body(i: Any, state: Any) -> Any:
            chosen = lax.dynamic_slice(order, (i * b,), (b,))
            return svi.update(state, x[chosen].astype(jnp.float32))[0]

        state = lax.fori_loop(0, whole, body, state)
        return svi.update(state, x[order[whole * b :]].astype(jnp.float32))[0] if rest else state

    jitted = jax.jit(once, donate_argnums=(0,))
    state = svi.init(jax.random.PRNGKey(0), x[:b].astype(jnp.float32))
    key = jax.random.PRNGKey(1)

    def go(n: int) -> None:
        nonlocal state, key
        for _ in range(n):
            key, own = jax.random.split(key)
            state = jitted(state, own, x)
        jax.block_until_ready(state)

    return go
