"""Distributions over the simplex, with draws that stay inside and carry a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl

from .base import Broadcasting, uniform
from .special import log_gamma_draw


class Dirichlet(dist.Dirichlet):
    """torch's distribution, with draws that are the shares of gamma draws.

    torch's own sampler has no form for tensors without numbers, which placement is tested with.
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their gradient, that of each gamma."""
        log_gamma = log_gamma_draw(self.concentration.expand(self._extended_shape(torch.Size(sample_shape))))
        return log_gamma.softmax(-1).clamp(min=torch.finfo(log_gamma.dtype).tiny)


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

    A component of a draw below ε, the smallest normal number, is set to it, and ε has the mass below instead of a
    density: with the sum Σ_c (l_c − t log z_c − log z_c) over the components above ε alone, and their number in the
    place of C, the formula is the density of these, times the probability that the others are below. At a low
    temperature, or with logits far apart, that is the rule: sampler and log probabilities agree there as well, and
    the limit t → 0 is the categorical distribution. The step from density to mass is not seen by a pathwise gradient.
    The density is one for z_1 … z_{C−1}.
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
        score = self.logits - (-uniform(shape, self.logits).log()).log()
        return (score / self.temperature).softmax(-1).clamp(min=self.tiny)

    def _log_prob(self, value: Tensor) -> Tensor:
        inside, log_z = value > self.tiny, value.clamp(min=self.tiny).log()
        score = self.logits - self.temperature * log_z
        many = inside.sum(-1).to(log_z.dtype)
        constant = many.lgamma() + (many - 1) * math.log(self.temperature)
        return constant + (score - log_z).where(inside, 0.0).sum(-1) - many * score.logsumexp(-1)
