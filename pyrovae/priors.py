"""Priors p(z): modules whose forward returns a distribution over the latents."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from . import relaxed
from .config import Configured
from .relaxed import TEMPERATURE, check_temperature


class Prior(Configured, nn.Module, ABC):
    """Abstract: p(z) over `latent` dimensions."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        if int(latent) < 1:
            raise ValueError(f"{type(self).__name__} expects at least one latent dimension, got latent={latent}")
        self.latent = int(latent)

    @abstractmethod
    def forward(self) -> dist.TorchDistribution:
        """The distribution p(z), with event shape [latent]."""


class StandardNormal(Prior):
    """p(z) = 𝒩(z; 0, I).

    Args:
        latent: number of latent dimensions L.

    >>> StandardNormal(2)().event_shape
    torch.Size([2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        # Buffers follow the module to its device and dtype; constants, so not part of its state.
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """𝒩(0, I) over [latent]."""
        return dist.Normal(self.loc, self.scale).to_event(1)


class Bernoulli(Prior):
    """p(z) = Π_l Bernoulli(z_l; ½): fair coins, log p(z) = −L log 2 for every z in {0, 1}^L.

    Args:
        latent: number of latent dimensions L.

    >>> Bernoulli(3)().log_prob(torch.ones(3)).exp().item()
    0.125
    """

    logits: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.register_buffer("logits", torch.zeros(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Fair coins over [latent]."""
        return dist.Bernoulli(logits=self.logits).to_event(1)


class RelaxedBernoulli(Prior):
    """p(z) = Π_l Concrete(z_l; logit 0, temperature): fair coins, relaxed to (0, 1)^L.

    The prior of a posterior of the same name; a bound is then one for this relaxed model, not for that of `Bernoulli`.
    With one temperature for both, their KL divergence has a closed form.
    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    Args:
        latent: number of latent dimensions L.
        temperature: above 0; towards 0 the coins become hard, and above 1 the values gather at ½.

    >>> RelaxedBernoulli(3, temperature=0.5)().sample().shape
    torch.Size([3])
    """

    logits: Tensor

    def __init__(self, latent: int, temperature: float = TEMPERATURE) -> None:
        super().__init__(latent)
        self.temperature = check_temperature("RelaxedBernoulli", temperature)
        self.register_buffer("logits", torch.zeros(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Relaxed fair coins over [latent]."""
        return relaxed.RelaxedBernoulli(self.logits, self.temperature).to_event(1)


class OneHotCategorical(Prior):
    """p(z) = 1/L for each of the L one-hot vectors z: one latent choice among L.

    Args:
        latent: number of categories L.

    >>> OneHotCategorical(4)().log_prob(torch.eye(4)).exp()
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    logits: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.register_buffer("logits", torch.zeros(self.latent), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """The uniform distribution over one-hot [latent]."""
        return dist.OneHotCategorical(logits=self.logits)
