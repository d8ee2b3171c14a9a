"""Posteriors over {0, 1}^L and over categories: with the score alone, straight-through, or relaxed."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..distributions import relaxed
from ..distributions.relaxed import TEMPERATURE, check_temperature
from .base import Posterior


class Bernoulli(Posterior):
    """q(z | x) = Π_l Bernoulli(z_l; σ(l_l(x))), the encoder returning the logits l; z in {0, 1}^L.

    A draw is discrete, so that no gradient passes through it: the objective's estimator has to use the score.
    `StraightThroughBernoulli` and `RelaxedBernoulli` have draws that a gradient passes through.

    Args:
        network: an encoder from the event shape of x to [L].

    >>> import torch
    >>> Bernoulli(nn.Linear(5, 3))(torch.zeros(7, 5))
    Independent(Bernoulli(logits: torch.Size([7, 3])), 1)
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Bernoulli with logits l(x) over [L]."""
        return dist.Bernoulli(logits=self.network(x).to(x.dtype)).to_event(1)


class StraightThroughBernoulli(Posterior):
    """q(z | x) of `Bernoulli`, its draws in {0, 1} with the gradient of σ((l(x) + logistic noise) / temperature).

    Value: everything is that of `Bernoulli`, so a bound is one for the discrete model (prior Bernoulli).
    Gradient: biased, as the derivative is taken at the relaxed draw of a function that is taken at the hard one. A
    low temperature has less bias and more variance.
    References: Bengio, Léonard and Courville, "Estimating or propagating gradients through stochastic neurons", 2013;
    Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2017.

    Args:
        network: an encoder from the event shape of x to [L].
        temperature: of the relaxation that the gradient is taken from, above 0.

    >>> import torch
    >>> z = StraightThroughBernoulli(nn.Linear(5, 3))(torch.zeros(7, 5)).rsample()
    >>> z.shape, bool(((z == 0) | (z == 1)).all()), z.requires_grad
    (torch.Size([7, 3]), True, True)
    """

    def __init__(self, network: nn.Module, temperature: float = TEMPERATURE) -> None:
        super().__init__(network)
        self.temperature = check_temperature("StraightThroughBernoulli", temperature)

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Bernoulli with logits l(x) over [L], with a straight-through sampler."""
        return relaxed.StraightThroughBernoulli(self.network(x).to(x.dtype), self.temperature).to_event(1)


class RelaxedBernoulli(Posterior):
    """q(z | x) = Π_l Concrete(z_l; logit l_l(x), temperature): z_l = σ((l_l(x) + logistic noise) / temperature).

    The density is one on (0, 1)^L, so the prior has to be priors.RelaxedBernoulli and a bound is one for that relaxed
    model; with one temperature for both, their KL divergence has a closed form.
    Gradient: pathwise. At a low temperature take that closed form (objectives with kl="analytic"): draws that are
    rounded to the ends of (0, 1) have a mass there, and the step from density to mass biases the gradient of the
    sampled log p(z) − log q(z | x). See `pyrovae.distributions.relaxed.RelaxedBernoulli`.
    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    Args:
        network: an encoder from the event shape of x to [L].
        temperature: above 0; towards 0 draws become hard, and above 1 the values gather at ½.

    >>> import torch
    >>> RelaxedBernoulli(nn.Linear(5, 3), temperature=0.5)(torch.zeros(7, 5))
    Independent(RelaxedBernoulli(logits: torch.Size([7, 3])), 1)
    """

    def __init__(self, network: nn.Module, temperature: float = TEMPERATURE) -> None:
        super().__init__(network)
        self.temperature = check_temperature("RelaxedBernoulli", temperature)

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The binary Concrete distribution with logits l(x) over [L]."""
        return relaxed.RelaxedBernoulli(self.network(x).to(x.dtype), self.temperature).to_event(1)


class OneHotCategorical(Posterior):
    """q(z | x) = softmax(l(x))_c for z the one-hot vector of c, the encoder returning the logits l: one of L.

    A draw is discrete, so that no gradient passes through it, as with `Bernoulli`.

    Args:
        network: an encoder from the event shape of x to [L].

    >>> import torch
    >>> OneHotCategorical(nn.Linear(5, 3))(torch.zeros(7, 5)).sample().sum(-1)
    tensor([1., 1., 1., 1., 1., 1., 1.])
    """

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """One-hot [L] with logits l(x)."""
        return dist.OneHotCategorical(logits=self.network(x).to(x.dtype))


class StraightThroughOneHotCategorical(Posterior):
    """q(z | x) of `OneHotCategorical`, its draws with the gradient of softmax((l(x) + Gumbel noise) / temperature).

    Value: everything is that of `OneHotCategorical`. Gradient: biased, as that of `StraightThroughBernoulli`.
    Reference: Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2017.

    Args:
        network: an encoder from the event shape of x to [L].
        temperature: of the relaxation that the gradient is taken from, above 0.

    >>> import torch
    >>> StraightThroughOneHotCategorical(nn.Linear(5, 3))(torch.zeros(7, 5)).rsample().sum(-1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, network: nn.Module, temperature: float = TEMPERATURE) -> None:
        super().__init__(network)
        self.temperature = check_temperature("StraightThroughOneHotCategorical", temperature)

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L]: the logits."""
        return [latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """One-hot [L] with logits l(x), with a straight-through sampler."""
        return relaxed.StraightThroughOneHotCategorical(self.network(x).to(x.dtype), self.temperature)


class Categorical(Posterior):
    """q(z | x) = Π_l softmax(l_l(x))_{z_l}: L independent choices among 0, …, C − 1, the encoder returning the logits.

    A draw is discrete, so that no gradient passes through it, as with `Bernoulli`. A decoder reads it as numbers.

    Args:
        network: an encoder from the event shape of x to [L C].
        categories: number of values C of each, at least 2.

    Raises:
        ValueError: for less than two categories.

    >>> import torch
    >>> Categorical(nn.Linear(5, 3 * 4), categories=4)(torch.zeros(7, 5)).sample().shape
    torch.Size([7, 3])
    """

    def __init__(self, network: nn.Module, categories: int = 10) -> None:
        check_whole("Categorical", "categories", categories, 2)
        super().__init__(network, categories=categories)
        self.categories = categories

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[L C]: the logits, latent by latent."""
        return [latent * options.get("categories", 10)]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Categorical over [L]."""
        logits = self.network(x).to(x.dtype).unflatten(-1, (-1, self.categories))  # [*leading, L C] -> [*leading, L, C]
        return dist.Categorical(logits=logits).to_event(1)
