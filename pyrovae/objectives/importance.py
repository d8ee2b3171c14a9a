"""Bounds from importance weights."""

from __future__ import annotations

import math

from torch import Tensor

from ..program import GenerativeProgram, check_particles, densities
from .base import Estimate, Objective


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """log (1/K Σ_k w_k): [K, B] -> [B]."""
    return log_weight.logsumexp(0) - math.log(len(log_weight))


class IWAE(Objective):
    """𝓛_K = E[log 1/K Σ_k w_k], w_k = p(x, z_k) / q(z_k | x): ELBO = 𝓛_1 ≤ 𝓛_K ≤ log p(x), rising in K.

    Gradient: pathwise, unbiased; the guide's signal-to-noise ratio falls as 1/√K.

    Args:
        particles: K, draws per datum.

    Reference: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.IWAE(particles=5)(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    def __init__(self, particles: int = 5) -> None:
        super().__init__()
        check_particles("IWAE", particles)
        self.particles = particles

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """𝓛_K per datum."""
        d = densities(vae, x, self.particles)
        d.local_only("IWAE")
        d.reparametrised("IWAE")
        bound = log_mean_exp(d.log_weight)  # [K, B] -> [B]
        return Estimate(bound.detach(), bound)
