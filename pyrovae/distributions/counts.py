"""Distributions of counts 0, 1, 2, ..., accurate in float32 for large ones, drawn on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from .base import TensorDistribution
from .special import log_binomial, log_poisson


class Poisson(TensorDistribution):
    """λ^x e^(−λ) / x!.

    Args:
        log_rate: log λ.

    >>> Poisson(torch.tensor(0.0)).log_prob(torch.tensor(0.0))
    tensor(-1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """λ."""
        return self.log_rate.exp()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts as floating-point numbers."""
        return torch.poisson(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass."""
        if self._validate_args:
            self._validate_sample(value)
        return log_poisson(value, self.log_rate)


class NegativeBinomial(TensorDistribution):
    """Γ(x + r) / (Γ(r) x!) (r / (r + μ))^r (μ / (r + μ))^x: a Poisson whose rate is Gamma distributed.

    The mean is μ, the variance μ + μ² / r; for r → ∞ it is the Poisson distribution.

    Args:
        log_mean: log μ.
        dispersion: r, above 0.

    >>> NegativeBinomial(torch.tensor(0.0), torch.tensor(1.0)).log_prob(torch.tensor(0.0)).exp()
    tensor(0.5000)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_mean": constraints.real, "dispersion": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, dispersion: Tensor, validate_args: bool | None = None) -> None:
        self.log_mean, self.dispersion = torch.broadcast_tensors(log_mean, dispersion)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.log_mean.exp()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts as floating-point numbers."""
        r = self.dispersion.expand(self._extended_shape(torch.Size(sample_shape)))
        return torch.poisson(torch._standard_gamma(r) * (self.mean / r))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass."""
        if self._validate_args:
            self._validate_sample(value)
        r = self.dispersion
        odds = self.log_mean - r.log()
        return r.log() - (r + value).log() + log_binomial(r, value, F.logsigmoid(-odds), F.logsigmoid(odds))


class _ZeroInflated(TensorDistribution):
    """Abstract: g 1[x = 0] + (1 − g) p(x), the gate g = σ(gate_logits) open for zeros of another origin."""

    base: TensorDistribution
    gate_logits: Tensor
    support = constraints.nonnegative_integer

    def __init__(self, gate_logits: Tensor, base: TensorDistribution, validate_args: bool | None = None) -> None:
        shape = torch.broadcast_shapes(gate_logits.shape, base.batch_shape)
        self.gate_logits, self.base = gate_logits.expand(shape), base.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    arg_constraints: ClassVar[dict[str, Any]] = {"gate_logits": constraints.real}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new = super().expand(batch_shape)
        new.base = self.base.expand(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        """(1 − g) times the mean of p."""
        return (-self.gate_logits).sigmoid() * self.base.mean

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts as floating-point numbers."""
        x = self.base.sample(torch.Size(sample_shape))
        return torch.where(torch.rand_like(x) < self.gate_logits.sigmoid(), torch.zeros_like(x), x)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass."""
        if self._validate_args:
            self._validate_sample(value)
        shut = F.logsigmoid(-self.gate_logits) + self.base.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.gate_logits), shut), shut)


class ZeroInflatedPoisson(_ZeroInflated):
    """g 1[x = 0] + (1 − g) Poisson(x; λ).

    Args:
        gate_logits: of g.
        base: the Poisson distribution.

    >>> ZeroInflatedPoisson(torch.tensor(-50.0), Poisson(torch.tensor(0.0))).log_prob(torch.tensor(0.0))
    tensor(-1.)
    """


class ZeroInflatedNegativeBinomial(_ZeroInflated):
    """g 1[x = 0] + (1 − g) NegativeBinomial(x; μ, r).

    Args:
        gate_logits: of g.
        base: the negative binomial distribution.

    >>> base = NegativeBinomial(torch.tensor(0.0), torch.tensor(1.0))
    >>> ZeroInflatedNegativeBinomial(torch.tensor(0.0), base).log_prob(torch.tensor(0.0)).exp()
    tensor(0.7500)
    """


class Multinomial(TensorDistribution):
    """N(x)! / Π_d x_d! Π_d p_d^x_d for counts x of any total N(x) = Σ_d x_d, which is taken as given.

    Args:
        logits: of p = softmax(logits) over all dimensions of the event, [*batch, *event].
        total_count: N of the draws and of the mean.
        event_dim: number of dimensions of the event.

    >>> Multinomial(torch.zeros(2), 5).log_prob(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).exp()
    tensor([0.5000, 0.5000])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real}

    def __init__(self, logits: Tensor, total_count: int, event_dim: int = 1, validate_args: bool | None = None) -> None:
        self.logits, self.total_count = logits, total_count
        at = logits.dim() - event_dim
        super().__init__(logits.shape[:at], logits.shape[at:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        """Counts of any total."""
        return constraints.independent(constraints.nonnegative_integer, self.event_dim)

    @property
    def _log_probs(self) -> Tensor:
        return self.logits.flatten(-self.event_dim).log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """total_count · p."""
        return self.total_count * self._log_probs.exp().reshape(self.logits.shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts of total_count words, as floating-point numbers."""
        shape = self._extended_shape(torch.Size(sample_shape))
        probs = self._log_probs.exp()
        rows = probs.expand(shape[: len(shape) - self.event_dim] + probs.shape[-1:]).reshape(-1, probs.shape[-1])
        words = torch.multinomial(rows, self.total_count, replacement=True)
        ones = torch.ones_like(words, dtype=rows.dtype)
        return torch.zeros_like(rows).scatter_add(-1, words, ones).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass."""
        if self._validate_args:
            self._validate_sample(value)
        x = value.flatten(-self.event_dim)
        arrangements = torch.lgamma(x.sum(-1) + 1) - torch.lgamma(x + 1).sum(-1)
        return arrangements + (x * self._log_probs).sum(-1)
