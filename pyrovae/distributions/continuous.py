"""Student's t and the beta distribution, for float32 and for extremes of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl

from .base import TensorDistribution
from .special import HALF_LOG_2PI, log_binomial, log_gamma_draw, stirling_rest


class StudentT(TensorDistribution):
    """Γ((ν + 1) / 2) / (Γ(ν / 2) √(νπ) σ) (1 + y² / ν)^(−(ν + 1) / 2), y = (x − μ) / σ; ν degrees of freedom.

    torch's normaliser is wrong by 2·10⁻³ for ν = 10⁴ in float32; this one has Gauss's as its limit.

    Args:
        df: ν, above 0; the normaliser is computed in its own shape.
        loc: μ.
        scale: σ.
        has_mean: whether ν is above 1 everywhere.

    >>> StudentT(torch.tensor(1e9), torch.zeros(()), torch.ones(())).log_prob(torch.zeros(()))  # Gauss's
    tensor(-0.9189)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
        "norm": constraints.real,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self, df: Tensor, loc: Tensor, scale: Tensor, has_mean: bool = True, validate_args: bool | None = None
    ) -> None:
        self.has_mean, a = has_mean, df / 2
        norm = a * torch.log1p(0.5 / a) - 0.5 - HALF_LOG_2PI + stirling_rest(a + 0.5) - stirling_rest(a)
        self.df, self.loc, self.scale, self.norm = torch.broadcast_tensors(df, loc, scale, norm)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """μ. Raises NotImplementedError where ν may be 1 or less, for which there is none."""
        if not self.has_mean:
            raise NotImplementedError("Student's t has a mean for more than 1 degree of freedom")
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ + σ y, y a standard Gaussian over √(χ²_ν / ν); |y| is held under the root of the largest number."""
        shape = self._extended_shape(torch.Size(sample_shape))
        a = (self.df / 2).expand(shape)
        ratio = (0.5 * (a.log() - log_gamma_draw(a))).exp()
        end = torch.finfo(a.dtype).max ** 0.5  # whose square is finite
        return self.loc + self.scale * (torch.randn_like(a) * ratio).clamp(-end, end)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        return self.norm - self.scale.log() - 0.5 * (self.df + 1) * torch.log1p(y.square() / self.df)


class _OpenUnitInterval(constraints.Constraint):
    """(0, 1) without its ends."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


class Beta(TensorDistribution):
    """Γ(α + β) / (Γ(α) Γ(β)) x^(α − 1) (1 − x)^(β − 1) for x in (0, 1).

    torch's density is wrong by 0.02 for α = 10⁴ in float32, and its draws may be the ends. Draws are held inside.

    Args:
        concentration1: α, above 0.
        concentration0: β, above 0.

    >>> Beta(torch.tensor(2.0), torch.tensor(1.0)).log_prob(torch.tensor(0.5)).exp()
    tensor(1.0000)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = _OpenUnitInterval()
    has_rsample = True

    def __init__(self, concentration1: Tensor, concentration0: Tensor, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = torch.broadcast_tensors(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """α / (α + β)."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """G(α) / (G(α) + G(β)), of gamma draws."""
        shape = self._extended_shape(torch.Size(sample_shape))
        log_odds = log_gamma_draw(self.concentration1.expand(shape)) - log_gamma_draw(self.concentration0.expand(shape))
        number = torch.finfo(log_odds.dtype)
        return log_odds.sigmoid().clamp(number.tiny, 1 - number.eps / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        if self._validate_args:
            self._validate_sample(value)
        a, b, log_x, log_rest = self.concentration1, self.concentration0, value.log(), torch.log1p(-value)
        return a.log() + b.log() - (a + b).log() - log_x - log_rest + log_binomial(a, b, log_x, log_rest)


@register_kl(Beta, Beta)
def _kl_beta(q: Beta, p: Beta) -> Tensor:
    """log B(α', β') − log B(α, β) + (α − α') ψ(α) + (β − β') ψ(β) − (α + β − α' − β') ψ(α + β), p's with a stroke."""
    dtype = q.concentration1.dtype  # in float64: log Γ of large numbers cancels
    a, b, c, d = (t.double() for t in (q.concentration1, q.concentration0, p.concentration1, p.concentration0))
    normalisers = [u.lgamma() + v.lgamma() - (u + v).lgamma() for u, v in ((c, d), (a, b))]
    slopes = (a - c) * a.digamma() + (b - d) * b.digamma() - (a + b - c - d) * (a + b).digamma()
    return (normalisers[0] - normalisers[1] + slopes).to(dtype)
