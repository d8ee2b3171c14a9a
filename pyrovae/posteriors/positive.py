"""Posteriors over positive numbers and over (0, 1); pathwise, through torch's implicit reparametrisation."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch.nn.functional as F
from torch import Tensor

from ..distributions import continuous
from .base import Posterior

LEAST = 0.2  # concentration: below it draws of float32 underflow
SMALL = 1e-3  # the least scale or rate


def positive(raw: Tensor, least: float) -> Tensor:
    """A parameter above `least` from any number: least + log(1 + e^raw)."""
    return F.softplus(raw) + least


class _TwoEach(Posterior):
    """Abstract: two parameters for each latent."""

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[2L]: the first parameter, then the second."""
        return [2 * latent]

    def parameters_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """Both, raw: [*leading, L] each."""
        return self.network(x).to(x.dtype).chunk(2, dim=-1)


class LogNormal(_TwoEach):
    """log z ~ 𝒩(μ(x), diag σ(x)²), σ = 0.001 + softplus of the encoder's output: an exponential of one would overflow.

    Args:
        network: an encoder from the event shape of x to [2L].

    >>> import torch, torch.nn as nn
    >>> bool((LogNormal(nn.Linear(5, 6))(torch.zeros(7, 5)).sample() > 0).all())
    True
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The log-normal over [L]."""
        loc, scale = self.parameters_of(x)
        return dist.LogNormal(loc, positive(scale, SMALL)).to_event(1)


class Gamma(_TwoEach):
    """q(z | x) = Π_l Gamma(z_l; a_l(x), b_l(x)), a = 0.2 + softplus, b = 0.001 + softplus of the encoder's output.

    Gradient: pathwise, by implicit reparametrisation (Figurnov, Mohamed and Mnih, "Implicit reparameterization
    gradients", 2018).

    Args:
        network: an encoder from the event shape of x to [2L].

    >>> import torch, torch.nn as nn
    >>> Gamma(nn.Linear(5, 6))(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Gamma over [L]."""
        concentration, rate = self.parameters_of(x)
        return dist.Gamma(positive(concentration, LEAST), positive(rate, SMALL)).to_event(1)


class Beta(_TwoEach):
    """q(z | x) = Π_l Beta(z_l; a_l(x), b_l(x)), both 1 + softplus of the encoder's output: one mode inside of (0, 1).

    Below 1 much of the mass would be at values that float32 rounds to 0 or 1.
    Gradient: pathwise, as that of `Gamma`.

    Args:
        network: an encoder from the event shape of x to [2L].

    >>> import torch, torch.nn as nn
    >>> Beta(nn.Linear(5, 6))(torch.zeros(7, 5)).rsample().shape
    torch.Size([7, 3])
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Beta over [L]."""
        a, b = self.parameters_of(x)
        return continuous.Beta(positive(a, 1.0), positive(b, 1.0)).to_event(1)
