"""Priors that are learned by a normalising flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from ..distributions import flow
from .base import Prior


class Flow(Prior):
    """p(z) = 𝒩(f(z); 0, I) |det ∂f/∂z|, f a stack of invertible layers that are learned; near 𝒩(0, I) at the start.

    Every layer takes z_i to a monotonic function of it, whose parameters are a network's of other features:

        "NSF"      those before i; a rational-quadratic spline on (−5, 5), and the identity beyond
        "MAF"      those before i; e^s z_i + t, |s| below log 1000
        "RealNVP"  the first half for the second; e^s z_i + t. The first half has an s and a t of its own

    The log density takes one pass through the networks. A draw takes L of them, one after another, for "NSF" and
    "MAF", and two for "RealNVP". One latent has nothing before it, and each layer is one function of it.
    The density of "NSF" has kinks in its slope.
    References: Durkan et al., "Neural spline flows", 2019; Papamakarios, Pavlakou and Murray, "Masked autoregressive
    flow for density estimation", 2017; Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017.

    Args:
        latent: number of latent dimensions L.
        kind: "NSF", "MAF" or "RealNVP".
        transforms: number of layers; the order of the features is reversed from one to the next.
        hidden: widths of the hidden layers of each layer's network.

    Raises:
        ValueError: for an unknown kind, with the nearest match, or sizes that are none.

    >>> p = Flow(3, kind="RealNVP", hidden=[16])()
    >>> p.log_prob(p.sample((5,))).shape
    torch.Size([5])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        latent: int,
        kind: Literal["NSF", "MAF", "RealNVP"] = "NSF",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(latent)
        self.layers = flow.Layers(self, kind, ("NSF", "MAF", "RealNVP"), self.latent, transforms, hidden)
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The flow over [latent]."""
        return flow.Flow(dist.Normal(self.loc, self.scale).to_event(1), self.layers().inv)
