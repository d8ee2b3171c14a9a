"""Distributions over (0, 1) and over the simplex, with draws that stay inside and carry a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl

from .base import Broadcasting


def _shares(concentration: Tensor) -> Tensor:
    """Gamma draws over their sum, [..., L] -> [..., L]: Dirichlet, with the implicit gradient of each gamma.

    torch's own sampler of the Dirichlet has no form for tensors without numbers, which placement is tested with.
    """
    gamma = torch._standard_gamma(concentration).clamp(min=torch.finfo(concentration.dtype).tiny)
    return gamma / gamma.sum(-1, keepdim=True)


class Beta(dist.Beta):
    """torch's distribution, its draws kept off 0 and 1, to which they may round and there is no density."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient."""
        both = torch.stack([self.concentration1, self.concentration0], -1)
        z = _shares(both.expand(*self._extended_shape(torch.Size(sample_shape)), 2))[..., 0]
        eps = torch.finfo(z.dtype).eps
        return z.clamp(eps, 1 - eps)


class Dirichlet(dist.Dirichlet):
    """torch's distribution, with draws from gammas."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return _shares(self.concentration.expand(shape)).clamp(min=torch.finfo(self.concentration.dtype).tiny)


class LogisticNormal(Broadcasting):
    """z = softmax(y_1, …, y_{L−1}, 0) with y ~ 𝒩(μ, diag σ²): log p(z) = log 𝒩(y; μ, σ²) − Σ_l log z_l.

    y_l = log z_l / z_L is the additive log-ratio, and Π_l z_l the determinant of its inverse. The density is one for
    z_1 … z_{L−1}, as that of torch's Dirichlet.
    Reference: Aitchison and Shen, "Logistic-normal distributions: some properties and uses", 1980.

    Args:
        loc: μ, [*batch, L − 1].
        scale: σ, [*batch, L − 1].

    >>> LogisticNormal(torch.zeros(2), torch.ones(2)).sample().shape
    torch.Size([3])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.normal = dist.Normal(loc, scale).to_event(1)
        self.tiny = torch.finfo(loc.dtype).tiny
        shape = self.normal.batch_shape
        super().__init__(shape, torch.Size([loc.shape[-1] + 1]), validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient."""
        return self._draw(self._extended_shape(torch.Size(sample_shape)))

    def _draw(self, shape: torch.Size) -> Tensor:
        base = self.normal.base_dist
        noise = torch.randn((*shape[:-1], shape[-1] - 1), dtype=base.loc.dtype, device=base.loc.device)
        y = base.loc + base.scale * noise
        return torch.cat([y, torch.zeros_like(y[..., :1])], -1).softmax(-1).clamp(min=self.tiny)

    def _log_prob(self, value: Tensor) -> Tensor:
        log_z = value.clamp(min=self.tiny).log()
        return self.normal.log_prob(log_z[..., :-1] - log_z[..., -1:]) - log_z.sum(-1)


@register_kl(LogisticNormal, LogisticNormal)
def _kl_logistic_normal(q: LogisticNormal, p: LogisticNormal) -> Tensor:
    """That of the normals: a map of both changes nothing."""
    a, b = q.normal.base_dist, p.normal.base_dist
    each = kl_divergence(Independent(Normal(a.loc, a.scale), 1), Independent(Normal(b.loc, b.scale), 1))
    return each.expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


class RelaxedOneHotCategorical(Broadcasting):
    """The Concrete distribution: z = softmax((l + Gumbel noise) / t), l the logits of C categories, t the temperature.

        log p(z) = log (C − 1)! + (C − 1) log t + Σ_c (l_c − t log z_c − log z_c) − C log Σ_c e^{l_c − t log z_c}

    A component of a draw below the smallest normal number is set to it. At temperatures of 0.3 and more that takes a
    gap of 26 in l plus noise in float32, and what is so rare does not count; towards 0 it is the rule, and log p(z) is
    then that of another z. The density is one for z_1 … z_{C−1}.
    Reference: Maddison, Mnih and Teh, "The Concrete distribution", 2017.

    Args:
        logits: l, [*batch, C].
        temperature: t, above 0.

    >>> RelaxedOneHotCategorical(torch.zeros(2), 1.0).log_prob(torch.tensor([0.2, 0.8])).exp()
    tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.logits, self.temperature = logits, temperature
        self.tiny = torch.finfo(logits.dtype).tiny
        super().__init__(torch.Size(logits.shape[:-1]), torch.Size(logits.shape[-1:]), validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient."""
        return self._draw(self._extended_shape(torch.Size(sample_shape)))

    def _draw(self, shape: torch.Size) -> Tensor:
        eps = torch.finfo(self.logits.dtype).eps
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device).clamp(eps, 1 - eps)
        score = self.logits - (-uniform.log()).log()
        return (score / self.temperature).softmax(-1).clamp(min=self.tiny)

    def _log_prob(self, value: Tensor) -> Tensor:
        log_z, many = value.clamp(min=self.tiny).log(), self.logits.shape[-1]
        score = self.logits - self.temperature * log_z
        constant = math.lgamma(many) + (many - 1) * math.log(self.temperature)
        return constant + (score - log_z).sum(-1) - many * score.logsumexp(-1)


def positive(raw: Any, least: float) -> Tensor:
    """A parameter above `least` from any number: least + log(1 + e^raw)."""
    return torch.nn.functional.softplus(raw) + least
