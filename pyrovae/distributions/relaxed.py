"""Distributions over {0, 1} and [0, 1] whose draws carry a gradient: straight-through, and the binary Concrete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl

from ..arguments import check_positive
from .base import TensorDistribution, uniform

TEMPERATURE = 2 / 3  # of Maddison et al. for a binary latent


def check_temperature(who: str, temperature: Any) -> float:
    """The temperature as a float. Raises ValueError for what is no finite number above 0."""
    return check_positive(who, "temperature", temperature, "take one between 0.1 (nearly hard) and 1 (smooth)")


def _straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard` with the gradient of `soft`."""
    return hard + (soft - soft.detach())  # brackets: hard + 0 is exact, (hard + soft) − soft is not


class StraightThroughBernoulli(dist.Bernoulli):
    """The Bernoulli's mass, draws in {0, 1}, and on them the gradient of σ((l + logistic noise) / temperature).

    The mass b l − log(1 + e^l) is read as linear in b, so that its gradient goes on to the draw.

    Args:
        logits: l, of any shape.
        temperature: of the relaxation that the gradient is taken from, above 0.

    >>> z = StraightThroughBernoulli(torch.tensor([-50.0, 50.0], requires_grad=True), 0.5).rsample()
    >>> z.tolist(), z.requires_grad
    ([0.0, 1.0], True)
    """

    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = self._get_checked_instance(StraightThroughBernoulli, _instance)
        new.temperature = self.temperature
        return super().expand(batch_shape, new)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Hard draws with the gradient of the relaxed ones."""
        shape = self._extended_shape(torch.Size(sample_shape))
        score = self.logits + uniform(shape, self.logits).logit()
        return _straight_through((score > 0).to(score.dtype), (score / self.temperature).sigmoid())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Hard draws, the same as those of `rsample` under one seed."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class StraightThroughOneHotCategorical(dist.OneHotCategorical):
    """The mass of one of C, one-hot draws, and on them the gradient of softmax((l + Gumbel noise) / temperature).

    The mass Σ_c b_c log softmax(l)_c is linear in b, so that its gradient goes on to the draw.

    Args:
        logits: l, [*batch, C].
        temperature: of the relaxation that the gradient is taken from, above 0.

    >>> z = StraightThroughOneHotCategorical(torch.tensor([-50.0, 50.0, 0.0], requires_grad=True), 0.5).rsample()
    >>> z.tolist(), z.requires_grad
    ([0.0, 1.0, 0.0], True)
    """

    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = self._get_checked_instance(StraightThroughOneHotCategorical, _instance)
        new.temperature = self.temperature
        return super().expand(batch_shape, new)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One-hot draws with the gradient of the relaxed ones."""
        shape = self._extended_shape(torch.Size(sample_shape))
        score = self.logits - (-uniform(shape, self.logits).log()).log()
        hard = torch.zeros_like(score).scatter(-1, score.argmax(-1, keepdim=True), 1.0)
        return _straight_through(hard, (score / self.temperature).softmax(-1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One-hot draws, the same as those of `rsample` under one seed."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Σ_c b_c log softmax(l)_c."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits).sum(-1)


class RelaxedBernoulli(TensorDistribution):
    """The binary Concrete distribution: z = σ(y), y = (l + logistic noise) / t, l the logit, t the temperature.

        log p(z) = log t + log σ(d) + log σ(−d) − log z(1 − z),    d = l − t y,    y = log(z / (1 − z))

    Draws beyond |y| = 12 are set to the value there, and that value has the mass beyond it instead of a density:
    log σ(l − 12 t) at the upper end, log σ(−l − 12 t) at the lower. float32 cannot tell values beyond |y| = 16 near
    1 apart, and at a low temperature much of the mass is there. A density at such a rounded value is not that of
    the draw: its log p(z) − log q(z | x) would raise a bound above the evidence. With masses at the ends the sampler
    and the log probabilities agree at every temperature, and the limit t → 0 is the Bernoulli distribution.

    The log probability steps at the ends, which the pathwise gradient of log p(z) − log q(z | x) does not see: it is
    biased, the more the larger |l| is against 12 t. `kl_divergence` of two with one temperature is exact, ends
    included, and so is its gradient.

    Args:
        logits: l, of any shape.
        temperature: t, above 0.

    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    >>> RelaxedBernoulli(torch.tensor([1.0, 300.0]), 0.5).log_prob(torch.tensor([0.5, 1.0]))
    tensor([-0.9334,  0.0000])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    END = 12.0  # |y| at the ends; 1 − z = 6e-6 there, which float32 still holds to 1 %
    LOW, HIGH = 1 / (1 + math.exp(END)), 1 / (1 + math.exp(-END))

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.logits, self.temperature = logits, temperature
        super().__init__(logits.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws in (0, 1)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        score = self.logits + uniform(shape, self.logits).logit()
        return (score / self.temperature).sigmoid().clamp(self.LOW, self.HIGH)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density; at the ends and beyond, the log mass."""
        if self._validate_args:
            self._validate_sample(value)
        inside = value.clamp(self.LOW, self.HIGH)
        log_z, log_rest = inside.log(), torch.log1p(-inside)
        d = self.logits - self.temperature * (log_z - log_rest)
        density = math.log(self.temperature) + F.logsigmoid(d) + F.logsigmoid(-d) - log_z - log_rest
        end = self.temperature * self.END
        density = torch.where(value <= self.LOW, F.logsigmoid(-self.logits - end), density)
        return torch.where(value >= self.HIGH, F.logsigmoid(self.logits - end), density)


# Nodes and weights of Gauss and Legendre on [0, 1]
_NODES = [0.04691007703066802, 0.23076534494715845, 0.5, 0.7692346550528415, 0.953089922969332]
_WEIGHTS = [0.11846344252809454, 0.23931433524968324, 0.28444444444444444, 0.23931433524968324, 0.11846344252809454]


@register_kl(RelaxedBernoulli, RelaxedBernoulli)
def _kl_relaxed(q: RelaxedBernoulli, p: RelaxedBernoulli) -> Tensor:
    """∫ q log q / p of s = t y, logistic under both, over (−e, e) with e = 12 t, and the same of the masses beyond.

    With the distribution functions Q(s) = σ(s − a), P(s) = σ(s − b) and r = log q / p, the derivative of r is
    2 (P − Q), so that by parts ∫ q r = [Q r] + 2 ∫ Q (Q − P); both integrals are of rational functions of e^s. For
    e → ∞ this is δ coth(δ / 2) − 2 with δ = a − b.
    """
    if q.temperature != p.temperature:
        raise NotImplementedError  # as torch says it; the objectives then take the draws
    end = q.temperature * RelaxedBernoulli.END
    sign = 1 - 2 * (q.logits < p.logits).to(q.logits.dtype)  # y → −y changes nothing: take δ ≥ 0
    a, b = sign * q.logits, sign * p.logits
    delta = a - b

    def mass(logits: Tensor) -> Tensor:
        """Between the ends."""
        return (end - logits).sigmoid() - (-end - logits).sigmoid()

    def area(logits: Tensor) -> Tensor:
        """∫ σ(s − logits) between the ends."""
        return F.softplus(end - logits) - F.softplus(-end - logits)

    def ratio(s: float) -> Tensor:
        """log q / p at s."""
        return F.logsigmoid(s - a) + F.logsigmoid(a - s) - F.logsigmoid(s - b) - F.logsigmoid(b - s)

    # (area(b) − area(a)) / (e^δ − 1) is 0 / 0 at δ = 0: near it, δ / (e^δ − 1) times the mean slope −area' = mass.
    near = delta < 0.3
    large = torch.where(near, torch.ones_like(delta), delta)  # keeps the unused branch's gradient finite
    small = torch.where(near, delta, torch.zeros_like(delta))
    square = small.square()
    series = 1 - small / 2 + square / 12 * (1 - square / 60 * (1 - square / 42))
    slope = torch.stack([w * mass(b + u * small) for u, w in zip(_NODES, _WEIGHTS, strict=True)]).sum(0)
    far = (area(b) - area(a)) * (-large).exp() / -torch.expm1(-large)
    within = (end - a).sigmoid() * ratio(end) - (-end - a).sigmoid() * ratio(-end)
    within = within + 2 * (torch.where(near, series * slope, far) - mass(a))
    upper = (a - end).sigmoid() * (F.logsigmoid(a - end) - F.logsigmoid(b - end))
    lower = (-a - end).sigmoid() * (F.logsigmoid(-a - end) - F.logsigmoid(-b - end))
    return within + upper + lower
