"""Importance-sampled log evidence, ELBO, rate and distortion, at constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..program import Densities, Site, check_particles, densities, evaluating, family, home, seeded, unwrapped
from ..program.checks import takes_missing
from ..program.compile import Compile, Fast, check_compile, choose_level
from ..program.modes import counting
from ..program.sites import FACTOR
from ..progress import bar as progress_bar
from .arguments import check_data

_ELEMENTS = 2**20  # of data, times particles, held at once: some tens of MiB whatever the number of particles
_ROWS = 2**14  # at most: of small data it is the networks' layers that fill the memory
_FEW = 1_000  # calls that are not worth a count
POINT_REMEDY = "what it can report is its squared error: pv.evaluation.fidelity(vae, x)"
ACTIVE = 0.01  # the variance over the data from which a unit is called active


@dataclass(frozen=True)
class Evidence:
    """Abstract: estimates of log p(x) for N data, with the standard errors of their draws, both [N].

    Attributes:
        dimensions: D, the numbers of a datum, where p(x) is the mass of discrete levels; None where it is not.
    """

    log_evidence: Tensor
    standard_error: Tensor
    dimensions: int | None = field(default=None, kw_only=True)

    @property
    def log_evidence_mean(self) -> float:
        """Mean log evidence over the data, in nats per datum."""
        return float(self.log_evidence.mean())

    @property
    def log_evidence_mean_error(self) -> float:
        """Standard error of that mean over the choice of data: their standard deviation / √N; NaN for one datum."""
        n = len(self.log_evidence)
        return float(self.log_evidence.std() / math.sqrt(n)) if n > 1 else math.nan

    @property
    def bits_per_dimension(self) -> float | None:
        """−log evidence / (D log 2), for display; None where the likelihood is no mass over levels."""
        return -self.log_evidence_mean / (self.dimensions * math.log(2)) if self.dimensions else None

    @property
    def log_evidence_monte_carlo_error(self) -> float:
        """Standard error of that mean over the draws alone; NaN for one particle."""
        return float(self.standard_error.square().sum().sqrt() / len(self.standard_error))


@dataclass(frozen=True)
class Evaluation(Evidence):
    """Figures of a model on N data, per datum in nats.

    Attributes:
        log_evidence: log 1/K Σ_k w_k, [N]; on average a lower bound of log p(x) that is tight for many particles.
        standard_error: Monte Carlo standard error of each log_evidence, [N], by the delta method.
        elbo: mean log weight, [N].
        rate: mean of log q(z | x) − log p(z), [N].
        distortion: mean of −log p(x | z), [N]; elbo = −(rate + distortion).
        active_units: latent dimensions whose posterior mean varies over the data by more than 0.01 (variance).
        latent_units: how many there are.
        particles: K.
        seed: of the draws.
        global_latents: names of the latents θ outside of the data plate; where there are any, log_evidence is the log
            predictive density log E_q(θ) p(x | θ).
    """

    elbo: Tensor
    rate: Tensor
    distortion: Tensor
    active_units: int
    latent_units: int
    particles: int
    seed: int
    global_latents: tuple[str, ...] = ()

    @property
    def log_evidence_monte_carlo_error(self) -> float:
        """Standard error of the mean over the draws alone; with θ in common the data's errors may be all alike."""
        return float(self.standard_error.mean()) if self.global_latents else super().log_evidence_monte_carlo_error

    def to_dict(self) -> dict[str, Any]:
        """Means over the data with their errors and protocol, as plain numbers; an error that is undefined is None.

        Bits per dimension are among them where the likelihood is a mass over levels.
        """
        bits = {} if self.dimensions is None else {"bits_per_dimension": self.bits_per_dimension}
        return bits | {
            "log_evidence": self.log_evidence_mean,
            "log_evidence_standard_error": _defined(self.log_evidence_mean_error),
            "log_evidence_monte_carlo_error": _defined(self.log_evidence_monte_carlo_error),
            "elbo": float(self.elbo.mean()),
            "rate": float(self.rate.mean()),
            "distortion": float(self.distortion.mean()),
            "active_units": self.active_units,
            "latent_units": self.latent_units,
            "data": len(self.log_evidence),
            "particles": self.particles,
            "seed": self.seed,
        }


def _defined(error: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(error) else error


def evaluate(
    vae: Any,
    x: Tensor,
    particles: int = 5000,
    seed: int = 0,
    progress: bool = False,
    compile: Compile = "auto",
) -> Evaluation:
    """Importance-sampled log evidence of each datum, with the ELBO, its rate and its distortion.

        log p̂(x) = log 1/K Σ_k p(x, z_k) / q(z_k | x),    z_k ~ q(z | x)

    Where the model has latents θ outside of the data plate, draws θ_k ~ q(θ) are part of each particle, and this is
    the log predictive density log E_q(θ) p(x | θ) of a datum on its own; ELBO, rate and distortion are those given θ.

    Memory does not grow with the particles: they come in chunks, and exactly K are drawn whatever the chunks.
    Evaluation mode, no gradients, batch-norm statistics untouched.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        particles: K; 5,000 is the usual protocol.
        seed: of the draws; the caller's random numbers are untouched.
        progress: show a progress bar.
        compile: "never", "always", or "auto" where there is enough to do, as in `fit`; the draws are the same.

    Raises:
        ValueError: for no data or none that are a tensor, a number of particles that is none, data outside the
            likelihood's support, a model that observes something outside of the data plate, or a guide whose latent of
            a datum is a point (Delta), as an autoencoder's: `fidelity` is for those.

    Reference: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> ev = pv.evaluate(pv.models.VAE.build(data, latent=2), data.test[:20], particles=10)
    >>> ev.log_evidence_mean >= float(ev.elbo.mean())
    True
    """
    check_particles("evaluate", particles)
    check_data("evaluate", x)
    check_compile(compile)
    device, dtype = home(vae)
    rows = max(1, min(_ROWS, _ELEMENTS // max(1, math.prod(x.shape[1:]))))
    chunk = min(particles, max(1, rows // 25))
    size = max(1, rows // chunk)

    def sums_of(batch: Tensor, k: int = chunk) -> tuple[Tensor, ...]:
        return _sums(densities(vae, batch, k))

    run, sums, dimensions, shared = sums_of, [], None, []
    bar = progress_bar(len(x) * particles, progress, "particle", unit_scale=True, desc="evaluate")
    with bar, evaluating(vae), seeded(seed, device):
        for batch in x.split(size):
            batch = batch.to(device, dtype)
            with pyro.validation_enabled(True):
                one = densities(vae, batch)
                one.weighable("evaluate", POINT_REMEDY)
                _check_observed(one)
                shared = [name for name, site in one.posterior.items() if not site.local]
                dimensions = levelled(one, batch)
            total = None
            with pyro.validation_enabled(False):
                if not sums:
                    run = _fast(sums_of, vae, batch, compile, -(-len(x) // size) * (particles // chunk))
                for start in range(0, particles, chunk):
                    k = min(chunk, particles - start)
                    new = run(batch) if k == chunk else sums_of(batch, k)
                    total = tuple(t.clone() for t in new) if total is None else _add(total, new)
                    bar.update(k * len(batch))
            sums.append(total)
    w, w2, elbo, rate, distortion, means = (torch.cat(t).cpu() for t in zip(*sums, strict=True))
    log_evidence = w - math.log(particles)
    relative_variance = ((w2 - 2 * w).exp() * particles - 1).clamp(min=0)  # K Σw² / (Σw)² − 1
    error = (relative_variance / (particles - 1)).sqrt() if particles > 1 else torch.full_like(w, math.nan)
    spread = (means / particles).var(0) if len(x) > 1 and means.numel() else means[0].new_zeros(means.shape[1:])
    return Evaluation(
        log_evidence=log_evidence,
        standard_error=error,
        elbo=elbo / particles,
        rate=rate / particles,
        distortion=distortion / particles,
        active_units=int((spread > ACTIVE).sum()),
        latent_units=spread.numel(),
        particles=particles,
        seed=seed,
        dimensions=dimensions,
        global_latents=tuple(shared),
    )


def _check_observed(d: Densities) -> None:
    """Refuse observations of the whole data set: no datum has a share in their density. Raises ValueError."""
    outside = [name for name, site in d.likelihood.items() if not site.local]
    if outside:
        raise ValueError(
            f"evaluate gives figures per datum, and observed site {outside[0]!r} is outside of plate 'data'; move it "
            "into the plate"
        )


def levelled(d: Densities, x: Tensor) -> int | None:
    """The numbers of a datum where all of them are observed and on levels, which have a mass; else None."""
    sites = [s for s in d.likelihood.values() if family(s.distribution) != FACTOR]
    whole = all(hasattr(unwrapped(s.distribution), "levels") and not takes_missing(s.distribution) for s in sites)
    return sum(s.value.numel() for s in sites) // len(x) if whole else None  # of x: a label that is read is none of it


def _fast(function: Any, vae: Any, batch: Tensor, compile: Compile, times: int) -> Any:
    """The function as it is, or made fast where it is called often enough."""
    if not isinstance(vae, nn.Module) or compile == "never" or (compile == "auto" and times < _FEW):
        return function
    with seeded(0, batch.device), counting() as counter:
        function(batch)
    level = choose_level(compile, times, counter.get_total_flops(), "the evaluation")
    return Fast(function, (vae,), batch, level, "the evaluation")


def _sums(d: Densities) -> tuple[Tensor, ...]:
    """Sums over the particles of one chunk: log Σw, log Σw², Σ log w, Σ rate, Σ distortion, Σ posterior mean."""
    rate = d.log_posterior - d.log_prior
    return (
        d.log_weight.logsumexp(0),
        (2 * d.log_weight).logsumexp(0),
        d.log_weight.sum(0),
        rate.sum(0),
        -d.log_likelihood.sum(0),
        torch.cat([rate.new_zeros(d.shape[1], 0), *(_centre(s) for s in d.posterior.values() if s.local)], -1),
    )


def _add(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (a[0].logaddexp(b[0]), a[1].logaddexp(b[1]), *(s + t for s, t in zip(a[2:], b[2:], strict=True)))


def _centre(site: Site) -> Tensor:
    """Σ_k of the mean of q at one site, [B, units]: its own mean where it knows it, else the draw."""
    try:
        mean = site.distribution.mean
        mean = torch.where(mean.isnan(), site.value, mean)  # torch's Categorical says NaN
    except NotImplementedError:
        mean = site.value
    rows = site.arrange(mean)  # [K, B, ...]
    return rows.reshape(*rows.shape[:2], -1).to(site.log_prob.dtype).sum(0)
