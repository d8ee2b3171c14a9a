"""The rate in two: what codes tell of the data, and how far all codes together are from the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from ..program import densities, evaluating, guide_sites, home, seeded
from .arguments import check_count, check_data
from .evidence import _ELEMENTS, _ROWS, POINT_REMEDY

WHO = "aggregate"


@dataclass(frozen=True)
class Aggregate:
    """The rate of N data and its two parts, in nats per datum: rate = mutual_information + marginal_kl.

    The three share their draws, so that the sum holds for the estimates themselves. Errors are standard errors of the
    draws, for these data.

    Attributes:
        rate: mean over the data of KL(q(z | x) ‖ p(z)).
        mutual_information: I_q(x; z) = mean of KL(q(z | x) ‖ q(z)), at most log N.
        marginal_kl: KL(q(z) ‖ p(z)) of the aggregate posterior q(z).
        rate_error: standard error of rate.
        mutual_information_error: of mutual_information.
        marginal_kl_error: of marginal_kl.
        data: N.
        particles: K, draws of each q(z | x).
        seed: of the draws.
    """

    rate: float
    mutual_information: float
    marginal_kl: float
    rate_error: float
    mutual_information_error: float
    marginal_kl_error: float
    data: int
    particles: int
    seed: int

    @property
    def most_information(self) -> float:
        """log N, which the mutual information cannot exceed: near it the estimate says little but that."""
        return math.log(self.data)


def aggregate(vae: Any, x: Tensor, particles: int = 10, seed: int = 0) -> Aggregate:
    """The rate as what codes tell of the data, and how far the aggregate posterior is from the prior.

        mean_n KL(q(z | x_n) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)),    q(z) = 1/N Σ_n q(z | x_n)

    With draws z ~ q(z | x_n), log q(z | x_n) − log p(z) is the sum of log q(z | x_n) − log q(z) and log q(z) − log
    p(z), whatever the draw. q(z) is the mixture over all N data, so that nothing is biased; it takes K N² densities
    of the guide, in chunks. The information is that of a datum chosen among these N, at most log N. Evaluation mode,
    no gradients.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latents inside the data plate.
        x: data [N, *event]; some thousands at most.
        particles: K, at least 2.
        seed: of the draws; the caller's random numbers are untouched.

    Raises:
        ValueError: for no data or none that are a tensor, fewer than 2 particles, a latent outside the data plate, or
            a guide with a point for a posterior.

    Reference: Hoffman and Johnson, "ELBO surgery: yet another way to carve up the variational evidence lower bound",
    2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> found = pv.evaluation.aggregate(pv.models.VAE.build(data, latent=2), data.test[:50])
    >>> abs(found.rate - found.mutual_information - found.marginal_kl) < 1e-4
    True
    """
    check_data(WHO, x)
    check_count(WHO, "particles of at least 2", "particles", particles, 2)
    device, dtype = home(vae)
    x = x.to(device, dtype)
    with evaluating(vae), seeded(seed, device):
        with pyro.validation_enabled(True):
            one = densities(vae, x[:2])
            one.local_only(WHO)
            one.weighable(WHO, POINT_REMEDY)
        with pyro.validation_enabled(False):
            size = max(1, min(_ROWS, _ELEMENTS // max(1, x[0].numel())) // particles)
            parts = [_terms(vae, x, batch, particles) for batch in x.split(size)]
    rate, information, marginal = (torch.cat(t, 1).double().cpu() for t in zip(*parts, strict=True))
    figures = {"rate": rate, "mutual_information": information, "marginal_kl": marginal}
    errors = {f"{name}_error": math.sqrt(float(t.var(0).sum()) / particles) / len(x) for name, t in figures.items()}
    means = {name: float(t.mean()) for name, t in figures.items()}
    return Aggregate(**means, **errors, data=len(x), particles=particles, seed=seed)


def _terms(vae: Any, x: Tensor, some: Tensor, particles: int) -> tuple[Tensor, Tensor, Tensor]:
    """log q(z | x) − log p(z) and its two parts at draws for some of the data: [K, B] each."""
    d = densities(vae, some, particles)
    codes = {}
    for name, site in d.posterior.items():
        value, data = site.particles_first(d.shape)
        codes[name] = value.movedim(data, 1).flatten(0, 1)  # [K·B, ...]
    whole = log_aggregate(vae, x, codes).view(d.shape)
    own, prior = d.log_posterior, d.log_prior
    return own - prior, own - whole, whole - prior


def log_aggregate(vae: Any, x: Tensor, codes: dict[str, Tensor]) -> Tensor:
    """log q(z) = log 1/N Σ_n q(z | x_n) at S values of the latents [S, ...], without their data dimension: [S]."""
    layout = {name: site.particles_first((1, 1))[1] for name, site in densities(vae, x[:1]).posterior.items()}
    width = sum(value[0].numel() for value in codes.values())
    count = len(next(iter(codes.values())))
    chunk = max(2, _ELEMENTS // (len(x) * max(1, width)))
    found = []
    for rows in torch.arange(count, device=x.device).split(chunk):
        pairs = {}
        for name, value in codes.items():
            at = layout[name]
            value = value[rows].unsqueeze(at)  # [s, ..., 1, ...]
            pairs[name] = value.expand(*value.shape[:at], len(x), *value.shape[at + 1 :])
        sites = guide_sites(vae, x, pairs).values()
        found.append(sum((s.log_prob for s in sites), x.new_zeros(())).logsumexp(1) - math.log(len(x)))
    return torch.cat(found)
