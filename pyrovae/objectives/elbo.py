"""The evidence lower bound, and its rate-weighted relative."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

from ..config import nearest
from ..program import Densities, Detached, GenerativeProgram, Site, check_particles, densities, has_mask, unwrapped
from .base import Estimate, Objective, check_nonnegative
from .baselines import Baseline, find_baseline
from .closed_forms import closed_kl
from .weights import Weights, check_gradient, elbo_of, of_power_mean, surrogate

KL = Literal["analytic", "sampled"]


def _check_kl(kl: str) -> None:
    if kl not in ("analytic", "sampled"):
        raise ValueError(f"unknown kl {kl!r}; {nearest(str(kl), ['analytic', 'sampled'])}")


def site_rate(q: Site, p: Site, kl: KL) -> Tensor:
    """KL(q ‖ p) of one latent site given its parents' draws, [K, B] in nats: closed form where asked and known."""
    if kl == "analytic" and _whole(q, p):
        try:
            return q.reduce(closed_kl(q.distribution, p.distribution))
        except NotImplementedError:
            pass
    return q.log_prob - p.log_prob


def _whole(q: Site, p: Site) -> bool:
    """Whether a closed form is that of log q − log p: not where a mask leaves a part of one of them out."""
    return q.mask is p.mask and not (has_mask(q.distribution) or has_mask(p.distribution))


def rate(d: Densities, kl: KL) -> Tensor:
    """R = Σ KL(q ‖ p) over the local latent sites: [K, B] in nats."""
    if d.summed > 1:  # the prior of one site may depend on what is summed over
        return d.log_posterior - d.log_prior
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

    A latent outside the data plate is counted once for the whole data set: its log p − log q is spread evenly over the
    N data of the plate. Sites of the guide marked with infer={"enumerate": "parallel"} are summed over exactly.

    Args:
        particles: K, draws per datum; their mean is taken.
        kl: "sampled" uses log q − log p of the draws; "analytic" the closed form of every site that has one
            (given the draws of its parents, which the guide has to draw before it), and the draws for the others.
        gradient: all unbiased for model and guide,
            "pathwise": the plain derivative;
            "stl": sticking the landing, without the score of log q: no variance at the exact posterior;
            "score": score function, for discrete latents too, of high variance without a baseline.
        baseline: with gradient="score", what is taken off log w: "none"; "mean" of the batches so far; "network" b(x),
            trained beside the model by (log w − b)²; "leave_one_out", the mean of the datum's other particles.

    Raises:
        ValueError: for options that are unknown or do not go together; in use, for a guide whose draws have no path
            where one is needed, with the remedy.

    References: Kingma and Welling, "Auto-encoding variational Bayes", 2014; Roeder, Wu and Duvenaud, "Sticking the
    landing", 2017; Mnih and Gregor, "Neural variational inference and learning in belief networks", 2014; Kool, van
    Hoof and Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.ELBO(particles=2)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    gradients = ("pathwise", "stl", "score")
    bound_of = elbo_of

    def __init__(
        self, particles: int = 1, kl: KL = "sampled", gradient: str = "pathwise", baseline: str = "none"
    ) -> None:
        super().__init__()
        check_particles("ELBO", particles)
        _check_kl(kl)
        check_gradient("ELBO", gradient, self.gradients)
        if kl == "analytic" and gradient != "pathwise":
            raise ValueError(
                f"ELBO with gradient={gradient!r} is about log q of the draws, which kl='analytic' integrates out; use "
                "kl='sampled', or gradient='pathwise'"
            )
        if baseline != "none" and gradient != "score":
            raise ValueError(f"ELBO uses baseline={baseline!r} with gradient='score' alone, got gradient={gradient!r}")
        self.particles, self.kl, self.gradient = particles, kl, gradient
        self.baseline: Baseline = find_baseline(baseline, particles)

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum."""
        drawn = Detached() if self.gradient == "score" else None
        d = densities(vae, x, self.particles, aligned=self.kl == "analytic", exact=True, drawn=drawn)
        if self.gradient == "score":
            return self._score(d, x)
        d.reparametrised("ELBO")
        elbo = d.log_likelihood - rate(d, self.kl)  # [K, B]
        bound = d.mean(elbo + _global(d) if d.global_sites else elbo)  # [K, B] -> [B]
        if self.gradient == "pathwise":
            return Estimate(bound.detach(), bound)
        weights = of_power_mean(d.log_weight.detach(), d.log_mass.detach(), 0, "stl")
        return Estimate(bound.detach(), surrogate("ELBO", d, weights) + d.mean(_global(d)))

    def _score(self, d: Densities, x: Tensor) -> Estimate:
        d.local_only("ELBO with gradient='score'")
        log_weight, log_mass = d.log_weight.detach(), d.log_mass.detach()
        plain = of_power_mean(log_weight, log_mass, 0, "pathwise")
        each = (d.log_enumerated.detach().exp() * log_weight).unflatten(0, (d.draws, -1)).sum(1)  # [K, B]
        baseline, own = self.baseline(x, each)
        learning = log_weight - baseline.repeat_interleave(len(log_weight) // d.draws, 0)
        score = Weights(plain.model, None, plain.model * learning, plain.enumerated)
        return Estimate(each.mean(0), surrogate("ELBO", d, score) + own)


def _global(d: Densities) -> Tensor:
    """The share of one datum in the terms of the sites outside the data plate: [K, 1]."""
    return d.log_global[:, None] / d.data_size


class BetaELBO(Objective):
    """−(distortion + β · rate) is followed; the bound that is reported is the ELBO, whatever β is.

    With free bits λ the rate of each latent dimension is not pushed below λ nats: max(λ, mean over the batch of KL_j)
    takes the place of KL_j. With warm-up β moves linearly over the first epochs, from 0 or where it is told to start:
    from below, so that latents are in use before they cost anything; from above, so that the cheapest are used first.

    Gradient: pathwise, unbiased; that of the ELBO for β = 1. With free bits the batch decides what is held.

    Args:
        beta: β ≥ 0, the weight of the rate.
        particles: K, draws per datum.
        warmup: epochs over which β moves from `start` to `beta`.
        free_bits: λ in nats per latent dimension; needs a closed-form KL where it is to act on single dimensions,
            and acts on whole sites elsewhere.
        kl: as in `ELBO`.
        start: β at the beginning of a warm-up.

    Raises:
        ValueError: for options out of their range; in use, for draws without a path.

    References: Higgins et al., "beta-VAE", 2017; Kingma et al., "Improved variational inference with inverse
    autoregressive flow", 2016 (free bits); Bowman et al., "Generating sentences from a continuous space", 2016
    (warm-up).

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.BetaELBO(beta=4.0, warmup=10)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    epoch: Tensor
    bound_of = elbo_of

    def __init__(
        self,
        beta: float = 1.0,
        particles: int = 1,
        warmup: float = 0.0,
        free_bits: float = 0.0,
        kl: KL = "analytic",
        start: float = 0.0,
    ) -> None:
        super().__init__()
        check_particles("BetaELBO", particles)
        _check_kl(kl)
        check_nonnegative("BetaELBO", beta=beta, warmup=warmup, free_bits=free_bits, start=start)
        if start and not warmup:
            raise ValueError(f"BetaELBO got start={start} without a warm-up to start; give warmup, in epochs, as well")
        self.beta, self.particles, self.warmup, self.free_bits, self.kl = beta, particles, warmup, free_bits, kl
        self.start = start
        self.register_buffer("epoch", torch.zeros(()))

    def advance(self, epochs: float) -> None:
        """Moves the warm-up of β on."""
        self.epoch += epochs

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum, and −(D + βR) as its surrogate."""
        d = densities(vae, x, self.particles, aligned=self.kl == "analytic", exact=True)
        d.reparametrised("BetaELBO")
        r, distortion = rate(d, self.kl), -d.log_likelihood  # [K, B]
        over = (self.epoch / self.warmup).clamp(max=1.0) if self.warmup else 1.0
        beta = self.start + (self.beta - self.start) * over
        weighed = r if self.free_bits == 0 else self._free(d)
        outside = _global(d)
        bound = d.mean(outside - (distortion + r))  # [K, B] -> [B]
        return Estimate(bound.detach(), d.mean(outside - (distortion + beta * weighed)))

    def _free(self, d: Densities) -> Tensor:
        """The rate with each latent dimension's mean over the batch held at λ from below: [K, B]."""
        if d.summed > 1:  # the parts of a rate that is summed over are not to be told apart
            parts = [rate(d, self.kl)[..., None]]
        else:
            parts = [_parts(q, d.prior[n], _form(d, n, self.kl)) for n, q in d.posterior.items() if q.local]
        total = torch.zeros_like(d.log_likelihood)
        for part in parts:  # [K, B, L]
            mean = (d.log_mass.exp()[..., None] * part).sum(0).mean(0)
            total = total + torch.where(mean > self.free_bits, part, self.free_bits).sum(-1)
        return total


def _parts(q: Site, p: Site, kl: KL) -> Tensor:
    """KL_j of every latent dimension, [K, B, L], where both factorise and a closed form is known; else of the site."""
    whole = site_rate(q, p, kl)[..., None]
    a, b = unwrapped(q.distribution), unwrapped(p.distribution)
    if kl == "sampled" or a.event_shape or b.event_shape or not q.distribution.event_shape or not _whole(q, p):
        return whole
    try:
        each = closed_kl(a, b)
    except NotImplementedError:
        return whole
    each = each.expand(q.distribution.batch_shape + q.distribution.event_shape)
    return torch.stack([q.reduce(k) for k in each.flatten(len(q.distribution.batch_shape)).unbind(-1)], -1)
