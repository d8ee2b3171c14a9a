"""Annealed importance sampling of the log evidence: from the guide to the posterior, at constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor
from torch.distributions import biject_to

from ..distributions.relaxed import RelaxedBernoulli
from ..program import Densities, Site, densities, evaluating, family, home, seeded, unwrapped
from ..progress import bar as progress_bar
from .arguments import check_count, check_data
from .evidence import _ELEMENTS, _ROWS, POINT_REMEDY, Evidence, levelled

STEEPNESS = 4.0  # of the schedule: small steps where π_β leaves the guide and where it comes to the posterior
ACCEPTANCE = 0.7  # that the step sizes are made for
JITTER = 0.3  # of a step size, up or down: paths of one length come back to their start where π_β is nearly normal
_PILOTS = 16  # chains of the pilot run
_KNOTS = 20  # temperatures that it finds step sizes at, at the most
_TRIALS = 100  # its transitions, whatever the number of steps


@dataclass(frozen=True)
class Annealed(Evidence):
    """Annealed importance sampling of the log evidence of N data, per datum in nats.

    Attributes:
        log_evidence: log 1/K Σ_k w_k, [N]; on average a lower bound of log p(x).
        standard_error: Monte Carlo standard error of each log_evidence, [N], by the delta method; NaN for one chain.
        chains: K.
        steps: T, from the guide to the posterior.
        acceptance: mean probability that a transition is accepted; NaN for one step, which needs no transition.
        seed: of the draws.
    """

    chains: int
    steps: int
    acceptance: float
    seed: int


def anneal(
    vae: Any,
    x: Tensor,
    chains: int = 16,
    steps: int = 200,
    leapfrog: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> Annealed:
    """Log evidence of each datum by annealed importance sampling (AIS), for a guide that is too poor for `evaluate`.

        log p̂(x) = log 1/K Σ_k w_k,    log w = Σ_t (β_t − β_{t−1}) (log p(x, z_{t−1}) − log q(z_{t−1} | x))

    z_0 ~ q(z | x), and z_t comes from z_{t−1} by one transition of Hamiltonian Monte Carlo that leaves
    π_β ∝ q(z | x)^(1−β) p(x, z)^β at β = β_t invariant. β goes from 0 to 1 as σ(4 (2 t/T − 1)) does. E[w] = p(x) for
    any T and any step size that is known beforehand, so the step sizes are found for each datum and temperature in a
    pilot run with random numbers of its own. Positions are unconstrained, by a bijection for each site, and scaled by
    the guide's spread; what is masked in the guide stays where it was drawn.

    Memory does not grow with the steps. Evaluation mode, no gradients left on parameters, batch-norm statistics
    untouched. It takes about leapfrog · (steps + 100) runs of guide and model. What a seed draws for a datum depends on
    the data and chains beside it.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)` whose latents are continuous and inside the data plate.
            Sites that the model has alone may be marked for enumeration; they are summed over.
        x: data [N, *event].
        chains: K.
        steps: T; 1 is importance sampling, and more are worth more than chains are.
        leapfrog: steps of a transition.
        seed: of the draws; the caller's random numbers are untouched.
        progress: show a progress bar.

    Raises:
        ValueError: for no data or none that are a tensor, for chains, steps or leapfrog below 1, data outside the
            likelihood's support, or a latent that is discrete (or has mass at points), outside the data plate,
            without unconstrained coordinates, or of a support that depends on other latents.

    References: Neal, "Annealed importance sampling", 2001; Wu, Burda, Salakhutdinov and Grosse, "On the quantitative
    analysis of decoder-based generative models", 2017.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> anneal(pv.models.VAE.build(data, latent=2), data.test[:3], chains=4, steps=3, leapfrog=1).log_evidence.shape
    torch.Size([3])
    """
    return visit_ends(vae, x, chains, steps, leapfrog, seed, progress, lambda *_: None)


Visit = Callable[[Tensor, Tensor, dict[str, Tensor]], object]


def visit_ends(
    vae: Any, x: Tensor, chains: int, steps: int, leapfrog: int, seed: int, progress: bool, visit: Visit
) -> Annealed:
    """As `anneal`, with a look at where the chains end: weighted draws of the posterior p(z | x).

    `visit` is called for each batch of data and chains with the data [B, *event], log w [K, B], and the latents, to be
    `given` to `densities` with K particles. It must draw nothing.
    """
    for name, value in {"chains": chains, "steps": steps, "leapfrog": leapfrog}.items():
        check_count("anneal", f"{name} of at least 1", name, value)
    check_data("anneal", x)
    device, dtype = home(vae)
    rows = max(1, min(_ROWS, _ELEMENTS // max(1, math.prod(x.shape[1:]))))
    chunk = min(chains, rows)
    size = max(1, rows // chunk)
    beta = schedule(steps)
    log_weights, accepted, dimensions = [], 0.0, None
    bar = progress_bar(len(x) * chains * steps, progress, "step", unit_scale=True, desc="anneal")
    with bar, evaluating(vae), seeded(seed, device):
        for batch in x.split(size):
            batch = batch.to(device, dtype)
            with seeded(-1 - seed, device):
                tuned = _pilot(vae, batch, beta, leapfrog)
            dimensions = tuned.dimensions
            parts = []
            for start in range(0, chains, chunk):
                k = min(chunk, chains - start)
                log_weight, acceptance, latents = _run(vae, batch, k, beta, leapfrog, tuned, bar)
                parts.append(log_weight)
                accepted += acceptance
                visit(batch, log_weight, latents)
            log_weights.append(torch.cat(parts))
    log_w = torch.cat(log_weights, 1).cpu()  # [K, N]
    log_evidence = log_w.logsumexp(0) - math.log(chains)
    relative = (log_w - log_evidence).exp()  # w / p̂
    error = relative.std(0) / math.sqrt(chains) if chains > 1 else torch.full_like(log_evidence, math.nan)
    transitions = log_w.numel() * (steps - 1)
    return Annealed(
        log_evidence=log_evidence,
        standard_error=error,
        chains=chains,
        steps=steps,
        acceptance=accepted / transitions if transitions else math.nan,
        seed=seed,
        dimensions=dimensions,
    )


def schedule(steps: int) -> list[float]:
    """β_0 = 0 to β_T = 1, T + 1 numbers: a sigmoid between −4 and 4, scaled."""
    s = [1 / (1 + math.exp(-STEEPNESS * (2 * t / steps - 1))) for t in range(steps + 1)]
    return [(v - s[0]) / (s[-1] - s[0]) for v in s]


class _State(NamedTuple):
    """Positions u = T⁻¹(z), with log densities of u (those of z + log |dz/du|) and their slopes."""

    u: Tensor  # [K, B, D]
    log_p: Tensor  # of log p(x, z): [K, B]
    log_q: Tensor  # of log q(z | x): [K, B]
    slope_p: Tensor  # [K, B, D]
    slope_q: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log π_β(u) but for its constant: [K, B]."""
        return (1 - beta) * self.log_q + beta * self.log_p

    def slope(self, beta: float) -> Tensor:
        """∂ log π_β / ∂u: [K, B, D]."""
        return (1 - beta) * self.slope_q + beta * self.slope_p


class _Tuned(NamedTuple):
    """What the pilot run found: scales of the coordinates [B, D], step sizes [B] by temperature, `dimensions`."""

    scale: Tensor
    steps: list[Tensor]
    dimensions: int | None


def _run(
    vae: Any, x: Tensor, chains: int, beta: list[float], leapfrog: int, tuned: _Tuned, bar: Any
) -> tuple[Tensor, float, dict[str, Tensor]]:
    """Log weights of the chains, [K, B], the sum of all acceptance probabilities, and the latents at the end."""
    with pyro.validation_enabled(False):
        space = _Space(vae, x, densities(vae, x, chains))
        state = space.at(space.start)
        log_weight, accepted = torch.zeros_like(state.log_p), torch.zeros_like(state.log_p)
        last = len(beta) - 1
        for t in range(1, last + 1):
            log_weight = log_weight + (beta[t] - beta[t - 1]) * (state.log_p - state.log_q)
            if t < last:  # no weight would see a transition at β = 1
                step = tuned.steps[(t - 1) * len(tuned.steps) // (last - 1)]
                state, acceptance = _transition(space, state, beta[t], step, tuned.scale, leapfrog)
                accepted += acceptance
            bar.update(log_weight.numel())
    return log_weight, float(accepted.sum()), space.latents(state.u)


def _pilot(vae: Any, x: Tensor, beta: list[float], leapfrog: int) -> _Tuned:
    """Scales from draws of the guide; step sizes on the way to the posterior, at temperatures all along it."""
    with pyro.validation_enabled(True):
        one = densities(vae, x)  # one draw: it is where a first call makes its parameters
        one.local_only("anneal")
        one.weighable("anneal", POINT_REMEDY)
        space = _Space(vae, x, densities(vae, x, _PILOTS))
    with pyro.validation_enabled(False):
        space.check_still(_Space(vae, x, densities(vae, x, _PILOTS)))
        inner = beta[1:-1]
        knots = min(_KNOTS, len(inner))
        state = space.at(space.start)
        scale = space.free * state.u.std(0)  # 0 for what does not move
        step, steps = torch.full_like(scale[:, 0], 0.5), []
        for n in range(knots):
            for _ in range(math.ceil(_TRIALS / knots)):
                middle = inner[(2 * n + 1) * len(inner) // (2 * knots)]
                state, acceptance = _transition(space, state, middle, step, scale, leapfrog)
                step = step * (acceptance.mean(0) - ACCEPTANCE).exp()
            steps.append(step)
    return _Tuned(scale, steps, levelled(one, x))


def _transition(
    space: _Space, state: _State, beta: float, step: Tensor, scale: Tensor, leapfrog: int
) -> tuple[_State, Tensor]:
    """One transition that leaves π_β invariant, and the probability that it is accepted: [K, B]."""
    jitter = 1 + JITTER * (2 * torch.rand_like(state.log_p) - 1)
    stride = (step * jitter)[..., None] * scale  # [B], [K, B], [B, D] -> [K, B, D]
    start = momentum = torch.randn_like(state.u)
    end = state
    for _ in range(leapfrog):
        momentum = momentum + stride / 2 * end.slope(beta)
        end = space.at(end.u + stride * momentum)
        momentum = momentum + stride / 2 * end.slope(beta)
    kinetic = (momentum.square() - start.square()).sum(-1) / 2
    log_ratio = end.log_density(beta) - state.log_density(beta) - kinetic
    accept = torch.rand_like(log_ratio).log() < log_ratio  # not for NaN: a path that left the numbers is refused
    pairs = zip(end, state, strict=True)
    chosen = [torch.where(accept if new.dim() == 2 else accept[..., None], new, old) for new, old in pairs]
    return _State(*chosen), log_ratio.exp().clamp(max=1).nan_to_num(0.0)


class _Space:
    """The latents of K chains of B data as unconstrained rows u [K, B, D], with the densities there.

    Raises ValueError for a site that has no such coordinates.
    """

    def __init__(self, vae: Any, x: Tensor, d: Densities) -> None:
        self.vae, self.x, self.chains = vae, x, d.shape[0]
        self.parts = {name: Part(site, d.shape) for name, site in d.posterior.items()}
        self.start = torch.cat([p.rows(p.start) for p in self.parts.values()], -1)
        self.free = torch.cat([p.rows(p.free) for p in self.parts.values()], -1)[0]  # [B, D]
        self.sizes = [p.rows(p.start).shape[-1] for p in self.parts.values()]

    def latents(self, u: Tensor) -> dict[str, Tensor]:
        """z at u, in the shapes of the sites."""
        parts = zip(self.parts.items(), u.split(self.sizes, -1), strict=True)
        return {name: part.bijection(part.value(rows)) for (name, part), rows in parts}

    def at(self, u: Tensor) -> _State:
        """The densities at u and their slopes."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            given, log_jacobian = {}, torch.zeros_like(u[..., 0])
            for (name, part), rows in zip(self.parts.items(), u.split(self.sizes, -1), strict=True):
                at = part.value(rows)
                given[name] = part.bijection(at)
                stretch = part.bijection.log_abs_det_jacobian(at, given[name])
                log_jacobian = log_jacobian + part.rows(stretch).sum(-1)
            d = densities(self.vae, self.x, self.chains, given=given)
            log_p, log_q = d.log_joint + log_jacobian, d.log_posterior + log_jacobian
            slopes = [_slope(log, u) for log in (log_p, log_q)]
        return _State(u.detach(), log_p.detach(), log_q.detach(), *slopes)

    def check_still(self, other: _Space) -> None:
        """Refuse supports that are others at other draws: transitions could not leave π_β invariant.

        Raises ValueError.
        """
        for name, part in self.parts.items():
            origin = torch.zeros_like(part.start)
            if not torch.equal(part.bijection(origin), other.parts[name].bijection(origin)):
                raise ValueError(
                    f"anneal expects latents whose support depends on x alone, and that of {name!r} depends on other "
                    "latents; give it a fixed support, and scale or shift its value within the model"
                )


def _slope(log: Tensor, u: Tensor) -> Tensor:
    """∂ log / ∂u; 0 where nothing depends on u, as under a mask of everything."""
    if not log.requires_grad:
        return torch.zeros_like(u)
    return torch.autograd.grad(log.sum(), u, retain_graph=True, materialize_grads=True)[0]


class Part:
    """One latent site in unconstrained coordinates: z = T(u), in the shape of the site or as rows [K, B, D]."""

    def __init__(self, site: Site, shape: tuple[int, int], who: str = "anneal") -> None:
        self.shape, self.folded = shape, site.particle_dim is None
        self.bijection = _bijection(site, who)
        self.start = self.bijection.inv(site.value)
        batch = site.value.dim() - site.distribution.event_dim
        data = batch + (site.data_dim or 0)
        self.at = (data, data + 1) if site.particle_dim is None else (batch + site.particle_dim, data)
        self.free = _free(site, self.start)

    def rows(self, t: Tensor) -> Tensor:
        """[*batch, ...] -> [K, B, D]."""
        t = t.unflatten(self.at[0], self.shape) if self.folded else t
        return t.movedim(self.at, (0, 1)).reshape(*self.shape, -1)

    def value(self, rows: Tensor) -> Tensor:
        """[K, B, D] -> the shape of `start`."""
        return self.placed(rows, self.start)

    def placed(self, rows: Tensor, like: Tensor) -> Tensor:
        """[K, B, ...] -> the shape of `like`, a value or `start`."""
        like = like.unflatten(self.at[0], self.shape) if self.folded else like
        t = rows.reshape(like.movedim(self.at, (0, 1)).shape).movedim((0, 1), self.at)
        return t.flatten(*self.at) if self.folded else t


def _bijection(site: Site, who: str) -> Any:
    """From ℝ^D to the support of a site. Raises ValueError for one that has none."""
    kind = family(site.distribution)
    try:
        support = site.distribution.support
        if support.is_discrete or isinstance(unwrapped(site.distribution), RelaxedBernoulli):
            what = "is discrete" if support.is_discrete else "has mass at the ends of its range"
            raise ValueError(
                f"{who} expects continuous latents, and site {site.name!r} of the guide is {kind}, which {what}; use "
                "evaluate, or leave a discrete site out of the guide and mark it with "
                "infer={'enumerate': 'parallel'} in the model"
            )
        return biject_to(support)
    except NotImplementedError as error:
        raise ValueError(
            f"{who} expects latents that torch.distributions.biject_to has unconstrained coordinates for, and site "
            f"{site.name!r} of the guide is {kind}, which has none; use evaluate, or register a bijection"
        ) from error


def _free(site: Site, u: Tensor) -> Tensor:
    """1 for coordinates that the guide has a density of, 0 for those that are masked there: the shape of u."""
    masks, d = [(site.mask, site.distribution.event_dim)], site.distribution
    while hasattr(d, "base_dist"):
        if isinstance(d, MaskedDistribution):
            masks.append((d._mask, d.base_dist.event_dim))
        d = d.base_dist
    free = torch.ones_like(u)
    for mask, event in masks:
        if mask is not None:
            mask = torch.as_tensor(mask, device=u.device)
            free = free * mask[(..., *[None] * (event + u.dim() - site.value.dim()))]
    return free
