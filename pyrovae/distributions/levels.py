"""Distributions over n equally spaced levels, x = k · maximum / (n − 1): masses, which compare between models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from .base import TensorDistribution, uniform


class Levels(constraints.Constraint):
    """The levels k · maximum / (n − 1), k = 0, ..., n − 1, to a hundredth of a step: float32 rounds k / 255."""

    is_discrete = True

    def __init__(self, levels: int, maximum: float) -> None:
        self.levels, self.maximum = levels, maximum

    def position(self, value: Tensor) -> Tensor:
        """x as a number of steps from 0."""
        return value * ((self.levels - 1) / self.maximum)

    def index(self, value: Tensor) -> Tensor:
        """The nearest k, as a floating-point number."""
        return self.position(value).round().clamp(0, self.levels - 1)

    def value(self, k: Tensor) -> Tensor:
        """x of a floating-point k."""
        return k * self.maximum / (self.levels - 1)

    def check(self, value: Tensor) -> Tensor:
        """Whether x is one of the levels."""
        return (self.position(value) - self.index(value)).abs() < 0.01


class Categorical(TensorDistribution):
    """x is level k with probability softmax(logits)_k.

    Args:
        logits: [*batch, n].
        maximum: the highest level.

    >>> Categorical(torch.zeros(256)).log_prob(torch.tensor(7 / 255)).exp() * 256
    tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real}

    def __init__(self, logits: Tensor, maximum: float = 1.0, validate_args: bool | None = None) -> None:
        self.logits, self.maximum, self.levels = logits, maximum, logits.shape[-1]
        super().__init__(torch.Size(logits.shape[:-1]), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The levels."""
        return Levels(self.levels, self.maximum)

    @property
    def mean(self) -> Tensor:
        """Σ_k p_k x_k."""
        k = torch.arange(self.levels, dtype=self.logits.dtype, device=self.logits.device)
        return (self.logits.softmax(-1) * self.support.value(k)).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Levels."""
        shape = self._extended_shape(torch.Size(sample_shape))
        probs = self.logits.softmax(-1).expand(*shape, self.levels).reshape(-1, self.levels)
        return self.support.value(torch.multinomial(probs, 1).reshape(shape).to(probs.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of the nearest level."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.logits.shape[:-1])
        k = self.support.index(value).long().expand(shape)[..., None]
        chosen = self.logits.expand(*shape, self.levels).gather(-1, k).squeeze(-1)
        return chosen - self.logits.logsumexp(-1)


class DiscretisedLogisticMixture(TensorDistribution):
    """A mixture of K logistic distributions of a pixel's channels, each rounded to the nearest of n levels.

        p(x) = Π_pixels Σ_c π_c Π_i [σ((e⁺_i − m_i) / s_i) − σ((e⁻_i − m_i) / s_i)],    m_i = μ_i + Σ_{j<i} a_ij u_j

    with u in [−1, 1] the level of x, e± the borders half a step above and below it (infinite beyond the first and the
    last level), and π_c, μ_i, s_i, a_ij of component c: the mean of a channel is linear in the channels before it.

    The difference is written as σ(e⁺) σ(−e⁻) (1 − exp(−(e⁺ − e⁻))), which is exact at every mean and scale; it needs
    no density in the place of a small mass.

    Args:
        logits: of π, [*batch, K, *pixels].
        loc: μ, [*batch, C, K, *pixels].
        log_scale: log s, likewise.
        coefficients: a_ij in the order (1, 0), (2, 0), (2, 1), ..., [*batch, C (C − 1) / 2, K, *pixels].
        levels: n.
        maximum: the highest level.
        pixel_dim: number of dimensions of the pixels.
        flat: whether the event has no dimension of channels, [*pixels] instead of [C, *pixels]; for C = 1.

    >>> zeros = torch.zeros(1, 1, 1)  # one channel, one component, one pixel
    >>> p = DiscretisedLogisticMixture(zeros[0], zeros, zeros, zeros[:0], 3, 2.0)
    >>> p.log_prob(torch.arange(3.0)[:, None, None]).exp()
    tensor([0.3775, 0.2449, 0.3775])
    """

    arg_constraints: ClassVar[dict[str, Any]] = dict.fromkeys(
        ["logits", "loc", "log_scale", "coefficients"], constraints.real
    )

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        coefficients: Tensor,
        levels: int,
        maximum: float = 1.0,
        pixel_dim: int = 1,
        flat: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.log_scale, self.coefficients = logits, loc, log_scale, coefficients
        self.levels, self.maximum, self.pixel_dim, self.flat = levels, maximum, pixel_dim, flat
        at = loc.dim() - pixel_dim
        self.channels, pixels = loc.shape[at - 2], loc.shape[at:]
        event = pixels if flat else torch.Size([self.channels, *pixels])
        super().__init__(loc.shape[: at - 2], event, validate_args=validate_args)

    @property
    def _grid(self) -> Levels:
        return Levels(self.levels, self.maximum)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        """The levels."""
        return constraints.independent(self._grid, self.event_dim)

    def _border(self, k: Tensor | float) -> Any:
        """Between level k − 1 and level k, in [−1, 1]: the same number from both sides, so that masses sum to one."""
        return (2 * k - 1) / (self.levels - 1) - 1

    def _given(self, before: Tensor, loc: Tensor, coefficients: Tensor) -> Tensor:
        """m_i from the u of the channels before it, [..., i, *pixels], all other arguments those of all channels."""
        d, i = -self.pixel_dim, before.shape[-1 - self.pixel_dim]
        own = coefficients.narrow(d - 2, i * (i - 1) // 2, i)  # [..., i, K, *pixels]
        return loc.select(d - 2, i) + (own * before.unsqueeze(d - 1)).sum(d - 2)

    @property
    def mean(self) -> Tensor:
        """Σ_k x_k p(x_k) of one channel. Raises NotImplementedError for more, whose mean has no formula."""
        if self.channels > 1:
            raise NotImplementedError("the mean of a channel given rounded channels before it has no formula")
        loc, rate = self.loc, (-self.log_scale).exp()
        k = torch.zeros_like(loc)
        for level in range(1, self.levels):  # E[k] = Σ_k p(at least k); one at a time: together n times the memory
            k = k + ((loc - self._border(level)) * rate).sigmoid()
        d = -self.pixel_dim
        mean = (self.logits.softmax(d - 1).unsqueeze(d - 2) * k).sum(d - 1)  # [*batch, 1, *pixels]
        return self._grid.value(mean.squeeze(d - 1) if self.flat else mean)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A component for every pixel, then its channels in turn, each rounded to the nearest level."""
        lead, d = torch.Size(sample_shape) + self.batch_shape, -self.pixel_dim
        logits = self.logits.expand(lead + self.logits.shape[len(self.batch_shape) :])
        gumbel = -(-uniform(logits.shape, logits).log()).log()
        component = (logits + gumbel).argmax(d - 1, keepdim=True).unsqueeze(d - 2)  # [*lead, 1, 1, *pixels]

        def chosen(t: Tensor) -> Tensor:
            t = t.expand(lead + t.shape[len(self.batch_shape) :])
            index = component.expand(*t.shape[: d - 2], t.shape[d - 2], 1, *t.shape[d:])
            return t.gather(d - 1, index)  # [..., 1, *pixels]

        loc, log_scale, coefficients = (chosen(t) for t in (self.loc, self.log_scale, self.coefficients))
        u = loc.new_zeros((*lead, 0, *loc.shape[d:]))
        for i in range(self.channels):
            m = self._given(u, loc, coefficients)
            noise = uniform(m.shape, m).logit() * log_scale.select(d - 2, i).clamp(max=60).exp()
            k = ((m + noise + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1)
            u = torch.cat([u, 2 * k / (self.levels - 1) - 1], d - 1)
        x = self._grid.value((u + 1) * ((self.levels - 1) / 2)).to(loc.dtype)
        return x.squeeze(d - 1) if self.flat else x

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of the nearest levels."""
        if self._validate_args:
            self._validate_sample(value)
        d, top = -self.pixel_dim, self.levels - 1
        k = self._grid.index(value.unsqueeze(d - 1) if self.flat else value)  # [..., C, *pixels]
        u = 2 * k / top - 1
        m = torch.stack(
            [self._given(u.narrow(d - 1, 0, i), self.loc, self.coefficients) for i in range(self.channels)], d - 2
        )
        k, rate = k.unsqueeze(d - 1), (-self.log_scale).exp()
        above, below = (self._border(k + 1) - m) * rate, (self._border(k) - m) * rate
        width = math.log(2 / top) - self.log_scale  # log(above − below)
        inside = F.logsigmoid(above) + F.logsigmoid(-below) + _log1mexp(width)
        mass = torch.where(k < 0.5, F.logsigmoid(above), torch.where(k > top - 0.5, F.logsigmoid(-below), inside))
        mixed = mass.sum(d - 2) + self.logits.log_softmax(d - 1)  # [..., K, *pixels]
        return mixed.logsumexp(d - 1).flatten(d).sum(-1)


def _log1mexp(log_t: Tensor) -> Tensor:
    """log(1 − e^(−t)) from log t, also where t is 0 as a number."""
    small = log_t < -20
    t = torch.where(small, torch.zeros_like(log_t), log_t).exp()
    return torch.where(small, log_t, (-torch.expm1(-t)).log())
