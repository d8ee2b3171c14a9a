"""The evidence lower bound, and its rate-weighted relative."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..config import nearest
from ..program import Densities, GenerativeProgram, Site, check_particles, densities
from .base import Estimate, Objective

KL = Literal["analytic", "sampled"]


def _check_kl(kl: str) -> None:
    if kl not in ("analytic", "sampled"):
        raise ValueError(f"unknown kl {kl!r}; {nearest(kl, ['analytic', 'sampled'])}")


def site_rate(q: Site, p: Site, kl: KL) -> Tensor:
    """KL(q ‖ p) of one latent site given its parents' draws, [K, B] in nats: closed form where asked and known."""
    if kl == "analytic":
        try:
            return q.reduce(kl_divergence(q.distribution, p.distribution))
        except NotImplementedError:
            pass
    return q.log_prob - p.log_prob


def rate(d: Densities, kl: KL) -> Tensor:
    """R = Σ KL(q ‖ p) over the local latent sites: [K, B] in nats."""
    local = [site_rate(q, d.prior[n], _form(d, n, kl)) for n, q in d.posterior.items() if q.local]
    return sum(local[1:], local[0]) if local else torch.zeros_like(d.log_likelihood)


def _form(d: Densities, name: str, kl: KL) -> KL:
    """The closed form holds given draws that do not depend on the site: its parents in the model are drawn before it.

    A guide q(z1 | x) q(z2 | z1) of a model p(z2) p(z1 | z2) draws z2 from z1, and KL(q(z1 | x) ‖ p(z1 | z2)) at that
    z2 is no part of the rate.
    """
    before = [set(itertools.takewhile(lambda n: n != name, sites)) for sites in (d.prior, d.posterior)]
    return kl if before[0] <= before[1] else "sampled"


class ELBO(Objective):
    """ELBO = E_q[log p(x | z)] − KL(q(z | x) ‖ p(z)), estimated with K draws; −(distortion + rate).

    Gradient: pathwise, unbiased for model and guide. A latent outside the data plate is counted once for the
    whole data set: its log p − log q is spread evenly over the N data of the plate.

    Args:
        particles: K, draws per datum; their mean is taken.
        kl: "sampled" uses log q − log p of the draws; "analytic" the closed form of every site that has one
            (given the draws of its parents, which the guide has to draw before it), and the draws for the others.

    Reference: Kingma and Welling, "Auto-encoding variational Bayes", 2014.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.ELBO(particles=2)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def __init__(self, particles: int = 1, kl: KL = "sampled") -> None:
        super().__init__()
        check_particles("ELBO", particles)
        _check_kl(kl)
        self.particles, self.kl = particles, kl

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum."""
        d = densities(vae, x, self.particles, aligned=self.kl == "analytic")
        d.reparametrised("ELBO")
        elbo = d.log_likelihood - rate(d, self.kl)  # [K, B]
        bound = (elbo + _shared(d)).mean(0)  # [K, B] -> [B]
        return Estimate(bound.detach(), bound)


def _shared(d: Densities) -> Tensor | float:
    """The share of one datum in the terms of the sites outside the data plate: [K, 1]."""
    return d.log_global[:, None] / d.data_size if d.global_sites else 0.0


class BetaELBO(Objective):
    """−(distortion + β · rate) is followed; the bound that is reported is the ELBO, whatever β is.

    With free bits λ the rate of each latent dimension is not pushed below λ nats: max(λ, mean over the batch of KL_j)
    takes the place of KL_j. With warm-up β rises linearly from 0 over the first epochs.

    Gradient: pathwise; that of the ELBO for β = 1 without free bits.

    Args:
        beta: β ≥ 0, the weight of the rate.
        warmup: epochs over which β rises from 0 to `beta`.
        free_bits: λ in nats per latent dimension; needs a closed-form KL where it is to act on single dimensions,
            and acts on whole sites elsewhere.
        particles: K, draws per datum.
        kl: as in `ELBO`.

    References: Higgins et al., "beta-VAE", 2017; Kingma et al., "Improved variational inference with inverse
    autoregressive flow", 2016 (free bits); Bowman et al., "Generating sentences from a continuous space", 2016
    (warm-up).
    """

    epoch: Tensor

    def __init__(
        self,
        beta: float = 1.0,
        warmup: float = 0.0,
        free_bits: float = 0.0,
        particles: int = 1,
        kl: KL = "analytic",
    ) -> None:
        super().__init__()
        check_particles("BetaELBO", particles)
        _check_kl(kl)
        for name, value in (("beta", beta), ("warmup", warmup), ("free_bits", free_bits)):
            if value < 0:
                raise ValueError(f"BetaELBO expects {name} of at least 0, got {value}")
        self.beta, self.warmup, self.free_bits, self.particles, self.kl = (
            beta,
            warmup,
            free_bits,
            particles,
            kl,
        )
        self.register_buffer("epoch", torch.zeros(()))

    def advance(self, epochs: float) -> None:
        """Moves the warm-up of β on."""
        self.epoch += epochs

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum, and −(D + βR) as its surrogate."""
        d = densities(vae, x, self.particles, aligned=self.kl == "analytic")
        d.reparametrised("BetaELBO")
        r, distortion = rate(d, self.kl), -d.log_likelihood  # [K, B]
        beta = self.beta * (self.epoch / self.warmup).clamp(max=1.0) if self.warmup else self.beta
        weighed = r if self.free_bits == 0 else self._free(d)
        shared = _shared(d)
        bound = (shared - (distortion + r)).mean(0)  # [K, B] -> [B]
        return Estimate(bound.detach(), (shared - (distortion + beta * weighed)).mean(0))

    def _free(self, d: Densities) -> Tensor:
        """The rate with each latent dimension's mean over the batch held at λ from below: [K, B]."""
        total = torch.zeros_like(d.log_likelihood)
        for name, q in d.posterior.items():
            if q.local:
                total = total + _floor(q, d.prior[name], _form(d, name, self.kl), self.free_bits)
        return total


def _floor(q: Site, p: Site, kl: KL, floor: float) -> Tensor:
    parts = _by_dimension(q, p) if kl == "analytic" else None
    if parts is None:
        whole = site_rate(q, p, kl)  # [K, B]
        return torch.where(whole.mean() > floor, whole, floor)
    held = torch.where(parts.mean((0, 1)) > floor, parts, floor)  # [K, B, L]
    return held.flatten(2).sum(-1)


def _by_dimension(q: Site, p: Site) -> Tensor | None:
    """KL_j of every latent dimension, [K, B, *event], where both distributions factorise and a closed form is known."""
    a, b = q.distribution, p.distribution
    while isinstance(a, torch.distributions.Independent) and isinstance(b, torch.distributions.Independent):
        a, b = a.base_dist, b.base_dist
    if a is q.distribution or a.event_shape or b.event_shape:
        return None
    try:
        kl = kl_divergence(a, b)
    except NotImplementedError:
        return None
    return torch.stack([q.reduce(k) for k in kl.flatten(len(q.distribution.batch_shape)).unbind(-1)], -1)
