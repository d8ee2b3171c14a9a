"""Unbiased gradients of the ELBO for one site of Bernoulli latents: antithetic pairs, and relaxed control variates."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..distributions.relaxed import check_temperature
from ..program import Densities, GenerativeProgram, Site, check_particles, densities, family, unwrapped
from .base import Estimate, Objective, check_nonnegative
from .weights import Weights, elbo_of, surrogate


class _Draw(Messenger):
    """Draws a Bernoulli site by `draw(logits)`, the batch in equal blocks of particles one after the other."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or family(msg["fn"]) != "Bernoulli":
            return
        frames = {f.name: f.dim for f in msg["cond_indep_stack"]}
        if "data" not in frames:  # refused later
            return
        dim = len(msg["fn"].batch_shape) + frames.get("particles", frames["data"])
        logits = unwrapped(msg["fn"]).logits.expand(msg["fn"].batch_shape + msg["fn"].event_shape)
        msg["value"], msg["done"] = torch.cat(self.draw(logits.chunk(self.blocks, dim)[0]), dim), True

    def draw(self, logits: Tensor) -> list[Tensor]:
        """The values of each block."""
        raise NotImplementedError


class _Antithetic(_Draw):
    def __init__(self) -> None:
        super().__init__(2)

    def draw(self, logits: Tensor) -> list[Tensor]:
        u, p = torch.rand_like(logits), logits.detach().sigmoid()
        return [(v < p).to(logits.dtype) for v in (u, 1 - u)]


class _Relaxed(_Draw):
    def __init__(self, temperature: float) -> None:
        super().__init__(3)
        self.temperature = temperature

    def draw(self, logits: Tensor) -> list[Tensor]:
        eps = torch.finfo(logits.dtype).eps
        u, v = (torch.rand_like(logits).clamp(eps, 1 - eps) for _ in range(2))
        p = logits.sigmoid()
        z = logits + u.logit()
        b = (z > 0).to(logits.dtype).detach()
        w = torch.where(b > 0, 1 - p + p * v, (1 - p) * v).clamp(eps, 1 - eps)  # u given b
        return [b, *((t / self.temperature).sigmoid() for t in (z, logits + w.logit()))]


def _bernoulli(who: str, d: Densities) -> Site:
    """The one latent site, a Bernoulli. Raises ValueError for any other program."""
    d.local_only(who)
    sites = list(d.posterior.values())
    if len(sites) != 1 or family(sites[0].distribution) != "Bernoulli":
        got = ", ".join(f"{s.name!r} ({family(s.distribution)})" for s in sites)
        raise ValueError(
            f"{who} is for a guide of one Bernoulli site, got {got}; give the model Bernoulli latents (prior and "
            "posterior Bernoulli), or use IWAE(gradient='vimco') for other discrete latents, ELBO for continuous ones"
        )
    return sites[0]


class DisARM(Objective):
    """The ELBO of a model with Bernoulli latents; its guide's gradient from antithetic pairs b, b' of u and 1 − u.

        ∂ELBO/∂logit = ½ (log w(b) − log w(b')) (b − b') σ(|logit|)    where b ≠ b', else 0

    Unbiased for model and guide; also known as U2G. Every pair costs two passes through the decoder.

    Args:
        pairs: K/2, pairs of draws per datum.

    Raises:
        ValueError: for a number that is none; in use, for a guide of anything but one site of Bernoulli latents.

    References: Dong, Mnih and Tucker, "DisARM: an antithetic gradient estimator for binary latent variables", 2020; Yin
    et al., "Probabilistic best subset selection via gradient-based optimization" (U2G), 2020.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.VAE.build(data, prior="Bernoulli", posterior="Bernoulli")
    >>> pv.objectives.DisARM()(vae, data.test[:5]).bound.shape
    torch.Size([5])
    """

    bound_of = elbo_of

    def __init__(self, pairs: int = 1) -> None:
        super().__init__()
        check_particles("DisARM", pairs, "pairs")
        self.pairs = pairs

    @property
    def draws(self) -> int:
        """2·pairs."""
        return 2 * self.pairs

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum."""
        d = densities(vae, x, 2 * self.pairs, drawn=_Antithetic())
        site = _bernoulli("DisARM", d)
        f = d.log_weight.detach()  # [2·pairs, B]
        flat = (2 * self.pairs, x.shape[0], -1)
        logits = site.arrange(unwrapped(site.distribution).logits.expand(site.value.shape)).reshape(flat)
        b, other = site.arrange(site.value).reshape(flat).chunk(2)
        difference = (f[: self.pairs] - f[self.pairs :])[..., None]  # [pairs, B, 1]
        slope = difference * (b - other) * logits[: self.pairs].detach().abs().sigmoid() / 2
        guide = (slope * logits[: self.pairs]).sum(-1).mean(0)  # [B]
        return Estimate(f.mean(0), d.log_joint.mean(0) + guide)


class REBAR(Objective):
    """The ELBO of a model with Bernoulli latents; score function with a relaxed copy of the model as control variate.

        (f(b) − η f(σ_λ(z̃))) ∂ log q(b) + η ∂f(σ_λ(z)) − η ∂f(σ_λ(z̃)),   f = log w, z ~ logistic, z̃ ~ z | b = [z > 0]

    Unbiased for model and guide for every η and λ. Three passes through the decoder a draw, two of them at values
    between 0 and 1, where the densities of the latents are continued linearly.

    Args:
        particles: K, draws per datum.
        temperature: λ.
        scale: η; 0 is the score function alone.

    Raises:
        ValueError: for options out of their range; in use, for a guide of anything but one site of Bernoulli latents.

    Reference: Tucker et al., "REBAR: low-variance, unbiased gradient estimates for discrete latent variable models",
    2017.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.VAE.build(data, prior="Bernoulli", posterior="Bernoulli")
    >>> pv.objectives.REBAR()(vae, data.test[:5]).bound.shape
    torch.Size([5])
    """

    bound_of = elbo_of

    def __init__(self, particles: int = 1, temperature: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        check_particles("REBAR", particles)
        check_temperature("REBAR", temperature)
        check_nonnegative("REBAR", scale=scale)
        self.particles, self.temperature, self.scale = particles, temperature, scale

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The ELBO per datum."""
        k = self.particles
        with pyro.validation_enabled(False):  # relaxed values lie outside the support
            d = densities(vae, x, 3 * k, drawn=_Relaxed(self.temperature))
            _bernoulli("REBAR", d)
            hard, _, given_hard = d.log_weight.detach().chunk(3)
            one, none = torch.full_like(hard, 1 / k), torch.zeros_like(hard)
            path = torch.cat([none, self.scale * one, -self.scale * one])
            score = torch.cat([(hard - self.scale * given_hard) / k, none, none])
            weights = Weights(torch.cat([one, none, none]), path, score)
            return Estimate(hard.mean(0), surrogate("REBAR", d, weights))
