"""Posteriors that a normalising flow makes out of a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..distributions import flow
from .base import Posterior

CONTEXT = 32


class Flow(Posterior):
    """q(z | x): z = f(μ(x) + σ(x) ε; h(x)), ε ~ 𝒩(0, I), f a stack of invertible layers that know the context h(x).

    The encoder returns μ, log σ and h. Every layer takes z_i to a monotonic function of it, whose parameters are a
    network's of h(x) and of other features:

        "IAF"      those before i; e^s z_i + t, |s| below log 1000
        "NSF"      those before i; a rational-quadratic spline on (−5, 5), and the identity beyond
        "RealNVP"  the first half for the second; e^s z_i + t. The first half has an s and a t of h(x) alone

    At the start f is nearly the identity. A draw and its own log density take one pass through the networks, and
    encoder and context are for one datum, however many particles.
    Any other value has to be taken back, the gradient through it included: in L passes one after another for "IAF" and
    "NSF", in two for "RealNVP". Detached draws are such values: gradient="stl", "dreg", "score" and "vimco" pay this
    in every step, gradient="pathwise" does not.
    References: Kingma et al., "Improved variational inference with inverse autoregressive flow", 2016; Rezende and
    Mohamed, "Variational inference with normalizing flows", 2015; Durkan et al., "Neural spline flows", 2019.

    Args:
        network: an encoder from the event shape of x to [2L + context], that tells its shape as all in
            `pyrovae.networks` do.
        kind: "IAF", "NSF" or "RealNVP".
        transforms: number of layers; the order of the features is reversed from one to the next.
        hidden: widths of the hidden layers of each layer's network.
        context: number of features of h(x); 0 for layers that are the same for all x.

    Raises:
        ValueError: for an unknown kind, with the nearest match, sizes that are none, or an encoder that does not tell.

    >>> import torch, pyrovae as pv
    >>> q = Flow(pv.networks.MLP([8], Flow.code(3)))(torch.zeros(7, 8))
    >>> q.log_prob(q.rsample((5,))).shape
    torch.Size([5, 7])
    """

    def __init__(
        self,
        network: nn.Module,
        kind: Literal["IAF", "NSF", "RealNVP"] = "IAF",
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context: int = CONTEXT,
    ) -> None:
        super().__init__(network, context=context)
        self.context = check_whole("Flow", "context", context, least=0)
        if self.latent is None:
            raise ValueError(
                f"Flow expects an encoder that tells its output shape, for layers of that size, got "
                f"{type(network).__name__}; take one of pyrovae.networks, or derive yours from networks.Network"
            )
        self.layers = flow.Layers(self, kind, ("IAF", "NSF", "RealNVP"), self.latent, transforms, hidden, self.context)

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[2L + context]: μ, then log σ, then h."""
        return [2 * latent + check_whole("Flow", "context", options.get("context", CONTEXT), least=0)]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The flow over [L]."""
        assert self.latent is not None
        y = self.network(x).to(x.dtype)
        loc, log_scale, context = y.split([self.latent, self.latent, self.context], dim=-1)
        base = dist.Normal(loc, log_scale.exp()).to_event(1)
        return flow.Flow(base, self.layers(context if self.context else None))
