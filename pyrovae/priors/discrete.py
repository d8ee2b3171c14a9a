"""Priors over {0, 1}^L and over categories, and their relaxed form."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_whole
from ..distributions import relaxed
from ..distributions.relaxed import TEMPERATURE, check_temperature
from .base import Prior


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


class Categorical(Prior):
    """p(z) = C^−L: L independent choices among 0, …, C − 1, which a decoder reads as numbers.

    Args:
        latent: number of latent dimensions L.
        categories: number of values C of each, at least 2.

    Raises:
        ValueError: for less than two categories.

    >>> Categorical(2, categories=4)().log_prob(torch.tensor([0, 3])).exp()
    tensor(0.0625)
    """

    logits: Tensor

    def __init__(self, latent: int, categories: int = 10) -> None:
        super().__init__(latent)
        self.categories = check_whole("Categorical", "categories", categories, 2)
        self.register_buffer("logits", torch.zeros(self.latent, self.categories), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Uniform choices over [latent]."""
        return dist.Categorical(logits=self.logits).to_event(1)
