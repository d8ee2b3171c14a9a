"""The ELBO with a penalty on its rate, or on the aggregate posterior q(z) = mean of q(z | x) over the batch.

The model is the same VAE; the bound that is reported is always the ELBO, whatever is followed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..program import (
    Densities,
    GenerativeProgram,
    Site,
    check_particles,
    check_repeatable,
    densities,
    family,
    guide_sites,
    read_site,
    unwrapped,
)
from .base import Estimate, Objective, check_nonnegative
from .elbo import rate
from .weights import elbo_of

_RELAX = "take the mark off and use a relaxed posterior, or use BetaTCVAE"


class Penalised(Objective):
    """Abstract: follows −distortion − penalty, pathwise, and reports the ELBO."""

    bound_of = elbo_of
    aligned = False  # whether distributions of model and guide are compared

    def __init__(self, particles: int) -> None:
        super().__init__()
        check_particles(type(self).__name__, particles)
        self.particles = particles

    @abstractmethod
    def penalty(self, vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
        """What takes the place of the rate: [K, B], or one number for the batch; in nats per datum."""

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum, −(distortion + penalty) as its surrogate."""
        d = densities(vae, x, self.particles, aligned=self.aligned, exact=True)
        d.local_only(type(self).__name__)
        d.reparametrised(type(self).__name__)
        bound = d.mean(d.log_weight).detach()
        if not torch.is_grad_enabled():  # nothing is followed
            return Estimate(bound, bound)
        surrogate = d.log_likelihood - self.penalty(vae, x, d)
        return Estimate(bound, d.mean(surrogate))


def _check_batch(who: str, d: Densities) -> None:
    """Refuse what has no aggregate posterior: a program without latents, a batch of one. Raises ValueError."""
    if not d.posterior:
        raise ValueError(f"{who} is about the latents of a batch, and the program has none; use ELBO")
    if d.shape[1] < 2:
        raise ValueError(
            f"{who} compares the codes of a batch and needs at least two data, got 1; choose a batch_size that leaves "
            "no batch of one"
        )


class Capacity(Penalised):
    """Follows −distortion − γ |rate − C|, the capacity C rising linearly from 0 nats over the warm-up.

    The rate is its mean over the batch. Pathwise; no bound is followed.

    Args:
        capacity: C at the end, in nats per datum.
        warmup: epochs over which it rises.
        gamma: γ.
        particles: K.

    Raises:
        ValueError: for options out of their range; in use, for a site outside the data plate, or draws without a path.

    Reference: Burgess et al., "Understanding disentangling in β-VAE", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.Capacity(25.0, warmup=50)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    aligned = True
    epoch: Tensor

    def __init__(self, capacity: float = 25.0, warmup: float = 50.0, gamma: float = 30.0, particles: int = 1) -> None:
        super().__init__(particles)
        check_nonnegative("Capacity", capacity=capacity, warmup=warmup, gamma=gamma)
        self.capacity, self.warmup, self.gamma = capacity, warmup, gamma
        self.register_buffer("epoch", torch.zeros(()))

    def advance(self, epochs: float) -> None:
        """Moves the capacity on."""
        self.epoch += epochs

    def penalty(self, vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
        """γ |R − C|, one number."""
        risen = (self.epoch / self.warmup).clamp(max=1.0) if self.warmup else 1.0
        return self.gamma * (d.mean(rate(d, "analytic")).mean() - self.capacity * risen).abs()


class BetaTCVAE(Penalised):
    """Weighs the parts of the rate: mutual information, total correlation, and the rate of each dimension alone.

        α [log q(z | x) − log q(z)] + β [log q(z) − Σ_j log q(z_j)] + γ [Σ_j log q(z_j) − log p(z)]

    q(z) is the mean of q(z | x) over the batch, which for few data is too close to q(z | x): the mutual information is
    at most log B. Pathwise, biased by that; α = β = γ = 1 is the ELBO, unbiased.

    Args:
        beta: β.
        alpha: α.
        gamma: γ.
        particles: K; densities of all K·B draws are taken under all B posteriors.

    Raises:
        ValueError: for options out of their range; in use, for a site outside the data plate, draws without
            a path, a batch of one, or a posterior that does not factorise over dimensions.

    Reference: Chen et al., "Isolating sources of disentanglement in variational autoencoders", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.BetaTCVAE(beta=6.0)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def __init__(self, beta: float = 6.0, alpha: float = 1.0, gamma: float = 1.0, particles: int = 1) -> None:
        super().__init__(particles)
        check_nonnegative("BetaTCVAE", alpha=alpha, beta=beta, gamma=gamma)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def penalty(self, vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
        """The weighted rate, [K, B]."""
        _check_batch("BetaTCVAE", d)
        check_repeatable(vae)
        whole, parts = aggregate(vae, x, d)
        information = d.log_posterior - whole
        return self.alpha * information + self.beta * (whole - parts) + self.gamma * (parts - d.log_prior)


def aggregate(vae: GenerativeProgram, x: Tensor, d: Densities) -> tuple[Tensor, Tensor]:
    """log q(z) and Σ_j log q(z_j) of the aggregate posterior of the batch, each [K, B], at the draws of `d`.

    Raises ValueError for a posterior that does not factorise over dimensions.
    """
    k, b = d.shape
    pairs = {}
    for name, site in d.posterior.items():
        value, data = site.particles_first(d.shape)
        value = value.movedim(data, 1).flatten(0, 1).unsqueeze(data)  # [K·B, ..., 1, ...]
        pairs[name] = value.expand(*value.shape[:data], b, *value.shape[data + 1 :])
    sites = list(guide_sites(vae, x, pairs).values())
    whole = torch.stack([s.log_prob for s in sites]).sum(0)  # [K·B, B]: log q(z_i | x_j)
    parts = torch.cat([_by_dimension(s) for s in sites], -1)  # [K·B, B, L]
    return (
        (whole.logsumexp(1) - math.log(b)).unflatten(0, (k, b)),
        (parts.logsumexp(1) - math.log(b)).sum(-1).unflatten(0, (k, b)),
    )


def _by_dimension(site: Site) -> Tensor:
    """log q of every dimension of a factorised site: [K, B, L]."""
    base = site.distribution
    while isinstance(base, torch.distributions.Independent):  # and no further: a mask is part of its log_prob
        base = base.base_dist
    if base.event_shape:
        raise ValueError(
            f"BetaTCVAE takes log q(z_j | x) of each dimension, and site {site.name!r} is {family(base)}, which does "
            "not factorise; use DiagonalNormal, or InfoVAE"
        )
    return _flat(site, base.log_prob(site.value))


class InfoVAE(Penalised):
    """(1 − α) rate + λ' MMD²(q(z), p(z)), λ' = α + λ − 1, with the inverse multiquadratic kernel.

    α = 0, λ = 1 is the ELBO. α = 1 leaves the rate out, a Wasserstein autoencoder or MMD-VAE. Pathwise; MMD² is
    estimated from a draw of the guide for each datum and as many of the prior, without bias for the q(z) of all data.
    (Draws of a prior without a reparametrised sampler, such as a mixture, carry no gradient to it.)

    Args:
        alpha: α, at most 1.
        scale: λ'.
        particles: K; the first of them enter MMD².

    Raises:
        ValueError: for options out of their range; in use, for a site outside the data plate, draws without
            a path, a batch of one, or enumerated sites of the guide.

    References: Zhao, Song and Ermon, "InfoVAE", 2019; Tolstikhin et al., "Wasserstein auto-encoders", 2018; Gretton et
    al., "A kernel two-sample test", 2012.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.InfoVAE(alpha=0.5)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def __init__(self, alpha: float = 0.0, scale: float = 10.0, particles: int = 1) -> None:
        super().__init__(particles)
        check_nonnegative("InfoVAE", scale=scale)
        if not alpha <= 1:
            raise ValueError(f"InfoVAE expects alpha of at most 1, got {alpha}: the rate must not be rewarded")
        self.alpha, self.scale = alpha, scale

    def penalty(self, vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
        """The rate, and MMD² of the first draws."""
        _check_batch("InfoVAE", d)
        d.drawn_only("InfoVAE", _RELAX)
        prior = _prior_draws(vae, x, d)
        kl = (1 - self.alpha) * rate(d, "sampled") if self.alpha != 1 else torch.zeros_like(d.log_likelihood)
        return kl + self.scale * mmd(codes(d)[0], prior)


def codes(d: Densities) -> Tensor:
    """The guide's draws of all sites side by side: [K, B, L]."""
    return torch.cat([_flat(s, s.value) for s in d.posterior.values()], -1)


def _flat(site: Site, t: Tensor) -> Tensor:
    """[*batch, *event] -> [K, B, L]."""
    rows = site.arrange(t)
    return rows.reshape(*rows.shape[:2], -1)


def _prior_draws(vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
    """z ~ p(z), as many as the batch has data: [B, L]. One site has its distribution at hand; more run the model."""
    if len(d.prior) == 1:
        (site,) = d.prior.values()
        draw = site.distribution.rsample() if site.reparametrised else site.distribution.sample()
        return _flat(site, draw)[0]
    drawn: Any = poutine.trace(vae.model).get_trace(x).nodes
    sites = [read_site(drawn[n], (1, len(x)), None, "model") for n in d.posterior]
    return torch.cat([_flat(s, s.value) for s in sites], -1)[0]


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """MMD² of two samples [N, L] and [M, L], without bias: kernels C / (C + ‖·‖²) of seven widths around C = 2L."""

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        distance = (u[:, None] - v).square().sum(-1)
        widths = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
        return sum((2 * c * u.shape[-1] / (2 * c * u.shape[-1] + distance) for c in widths), torch.zeros_like(distance))

    def within(u: Tensor) -> Tensor:
        n = len(u)
        k = kernel(u, u)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return within(a) + within(b) - 2 * kernel(a, b).mean()


class DIPVAE(Penalised):
    """The rate, plus λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)² for a covariance C over the batch.

    C is that of the means of q(z | x) (kind 1), or of q(z) itself (kind 2): the variances of q(z | x) added for one
    factorised site, and the covariance of the draws otherwise.
    Pathwise; both estimates of C have a bias of order 1/B in their squares.

    Args:
        off_diagonal: λ_od.
        diagonal: λ_d.
        kind: 1 or 2.
        particles: K.

    Raises:
        ValueError: for options out of their range; in use, for a site outside the data plate, draws without
            a path, a batch of one, or enumerated sites of the guide.

    Reference: Kumar, Sattigeri and Balakrishnan, "Variational inference of disentangled latent concepts from unlabeled
    observations", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.DIPVAE()(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    aligned = True

    def __init__(self, off_diagonal: float = 10.0, diagonal: float = 10.0, kind: int = 2, particles: int = 1) -> None:
        super().__init__(particles)
        check_nonnegative("DIPVAE", off_diagonal=off_diagonal, diagonal=diagonal)
        if kind not in (1, 2):
            raise ValueError(f"DIPVAE expects kind 1 (means) or 2 (draws), got {kind!r}")
        self.off_diagonal, self.diagonal, self.kind = off_diagonal, diagonal, kind

    def penalty(self, vae: GenerativeProgram, x: Tensor, d: Densities) -> Tensor:
        """The rate, and the distance of C from the identity."""
        _check_batch("DIPVAE", d)
        d.drawn_only("DIPVAE", _RELAX)
        c = self.covariance(d)  # [L, L]
        diagonal = c.diagonal()
        off = c.square().sum() - diagonal.square().sum()
        return rate(d, "analytic") + self.off_diagonal * off + self.diagonal * (diagonal - 1).square().sum()

    def covariance(self, d: Densities) -> Tensor:
        """C, [L, L]."""
        sites = list(d.posterior.values())
        if self.kind == 2 and (len(sites) > 1 or unwrapped(sites[0].distribution).event_shape):
            return _covariance(codes(d).flatten(0, 1))  # of a hierarchy, or of dependent dimensions
        try:
            means = torch.cat([_flat(s, s.distribution.mean.expand(s.value.shape)) for s in sites], -1)[0]
            within = [_flat(s, s.distribution.variance.expand(s.value.shape))[0] for s in sites if self.kind == 2]
        except NotImplementedError as error:  # a distribution that does not know its moments
            if self.kind == 2:
                return _covariance(codes(d).flatten(0, 1))
            raise ValueError(
                f"DIPVAE of kind 1 takes the means of q(z | x), and {family(sites[0].distribution)} has none that are "
                "known; use kind 2"
            ) from error
        return _covariance(means) + sum(v.mean(0).diag() for v in within)


def _covariance(rows: Tensor) -> Tensor:
    """[N, L] -> [L, L]."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / len(rows)
