"""Guides that follow KL(p ‖ q) or a divergence like it, while the model follows IWAE: wake-sleep and its kin."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pyro import poutine
from torch import Tensor

from ..config import nearest
from ..program import GenerativeProgram, Unobserved, guide_sites, sample_sites
from .base import Estimate
from .weights import Weighted, Weights, check_several, power_mean, shares


class WakeSleep(Weighted):
    """Reweighted wake-sleep. The bound is IWAE(K), which the model follows: wake-θ, Σ w̃_k ∂ log p(x, z_k).

    The guide follows no bound; no derivative of a draw is taken, so latents may be discrete:

        wake-φ     Σ_k w̃_k ∂_φ log q(z_k | x), x from the data: descends KL(p(z | x) ‖ q), with a bias of order 1/K
        sleep-φ    ∂_φ log q(z | x), z, x ~ p(z, x) from the model: unbiased for KL under the model's own data

    Weights are per datum and mini-batches of any size do. Enumerated sites of the guide count with their exact shares.

    Args:
        particles: K; more than one for wake-φ.
        guide: "wake", "sleep", or "both" for the mean of the two.

    Raises:
        ValueError: for options out of their range; in use, for a site outside the data plate, or, asleep, for a model
            that does not draw one observation of the shape of x.

    References: Bornschein and Bengio, "Reweighted wake-sleep", 2015; Le et al., "Revisiting reweighted wake-sleep",
    2019.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.WakeSleep(5, guide="both")(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    gradients = ("score",)
    independent = ()  # its weights are those of rows, not of draws

    def __init__(self, particles: int = 5, guide: Literal["wake", "sleep", "both"] = "wake") -> None:
        if guide not in ("wake", "sleep", "both"):
            raise ValueError(f"unknown guide phase {guide!r} of WakeSleep; {nearest(str(guide), _WAKE)}")
        super().__init__(particles, "score")
        if guide != "sleep":
            check_several(f"WakeSleep with guide={guide!r}", particles)
        self.guide = guide

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """IWAE and the weights of the wake phases."""
        v = shares(log_weight, log_mass, 1)
        wake = _WAKE[self.guide] * v
        return power_mean(log_weight, log_mass, 1), Weights(v, None, wake, wake)

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """IWAE per datum."""
        awake = super().forward(vae, x)
        if self.guide == "wake" or not torch.is_grad_enabled():  # the bound is that of being awake
            return awake
        return replace(awake, surrogate=awake.surrogate + (1 - _WAKE[self.guide]) * dream(vae, x))


_WAKE = {"wake": 1.0, "sleep": 0.0, "both": 0.5}


def dream(vae: GenerativeProgram, x: Tensor) -> Tensor:
    """log q(z | x') with z, x' ~ p(z, x) drawn from the model, as many as x has rows: [B].

    Raises ValueError where the model does not draw one observation of the shape of x.
    """
    with torch.no_grad():
        trace = poutine.trace(Unobserved()(vae.model)).get_trace(x)
    sites = dict(sample_sites(trace))
    observed = [s for s in sites.values() if s["infer"].get("was_observed")]
    if len(observed) != 1 or observed[0]["value"].shape != x.shape:
        got = ", ".join(f"{s['name']!r} of shape {list(s['value'].shape)}" for s in observed)
        raise ValueError(
            f"WakeSleep dreams data for the guide and expects one observed site of the shape of x, {list(x.shape)}, "
            f"got {got}; use guide='wake'"
        )
    values = {n: s["value"][None] for n, s in sites.items() if s is not observed[0]}
    if not values:
        raise ValueError("WakeSleep dreams of latents and the model has none; use guide='wake', or ELBO")
    guide = guide_sites(vae, observed[0]["value"].to(x.dtype), values)  # a Categorical draws integers
    return torch.stack([s.log_prob[0] for s in guide.values()]).sum(0)


class TailAdaptive(Weighted):
    """The guide descends an f-divergence whose f is fitted to the tail of the weights. The bound is IWAE(K).

        path_k ∝ 1 / F̄(w_k),    F̄(w_k) = #{j: w_j ≥ w_k} / K

    The largest weight has the smallest tail probability, 1/K, and counts most; only ranks matter, so an outlier has no
    more than its place. The model follows IWAE. The guide's gradient is zero at the exact posterior, and no estimate of
    a fixed one elsewhere: E[1/F̄] diverges, so that with K, by its logarithm, more of it falls to the largest weights.

    Args:
        particles: K, at least 2.

    Raises:
        ValueError: for a single particle, for enumerated sites of the guide, and as `IWAE`.

    Reference: Wang, Liu and Liu, "Variational inference with tail-adaptive f-divergence", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.TailAdaptive(5)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def __init__(self, particles: int = 5) -> None:
        super().__init__(particles)
        check_several("TailAdaptive", particles)

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """IWAE, and the weights by rank for the guide."""
        rank = log_weight.argsort(0, descending=True).argsort(0) + 1  # 1 for the largest weight
        path = 1 / rank.to(log_weight.dtype)
        path = path / path.sum(0)
        return power_mean(log_weight, log_mass, 1), Weights(
            shares(log_weight, log_mass, 1), path, torch.zeros_like(path)
        )
