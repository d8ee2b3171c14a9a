"""Distributions on the unit sphere S^{L−1} in L dimensions: the uniform one, and von Mises and Fisher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.kl import register_kl

from .base import Broadcasting, uniform


def unit(y: Tensor) -> Tensor:
    """y / |y| [*, L]; where y is 0, the first axis."""
    size = y.detach().abs().amax(-1, keepdim=True)  # so that no square overflows
    zero = size < 1e-12
    first = F.one_hot(torch.zeros_like(zero[..., 0], dtype=torch.long), y.shape[-1]).to(y.dtype)
    return F.normalize(torch.where(zero, first, y) / torch.where(zero, torch.ones_like(size), size), dim=-1)


def log_area(latent: int) -> float:
    """log of the area 2 π^{L/2} / Γ(L/2) of the unit sphere in L dimensions."""
    return math.log(2) + 0.5 * latent * math.log(math.pi) - math.lgamma(0.5 * latent)


class UniformSphere(Broadcasting):
    """The density 1 / area on the unit sphere in L dimensions.

    Args:
        like: a tensor [*, L] that has its shape, dtype and device; the numbers are not read.

    Raises:
        ValueError: for less than two dimensions.

    >>> UniformSphere(torch.zeros(3)).expand([5]).sample().shape
    torch.Size([5, 3])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, like: Tensor, validate_args: bool | None = None) -> None:
        _check_dimensions(self, like)
        self.like = like
        super().__init__(torch.Size(like.shape[:-1]), torch.Size(like.shape[-1:]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """0, which is not on the sphere."""
        return self.like.new_zeros(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Directions of normal draws; there is nothing to differentiate."""
        return self.sample(sample_shape)

    def _draw(self, shape: torch.Size) -> Tensor:
        return F.normalize(torch.randn(shape, dtype=self.like.dtype, device=self.like.device), dim=-1)

    def _log_prob(self, value: Tensor) -> Tensor:
        return torch.full_like(value[..., 0], -log_area(value.shape[-1]))


class _Moments(NamedTuple):
    """Of w = μᵀz, without a gradient, [*batch]."""

    log_norm: Tensor  # log of the integral of exp(κ (w − 1)) over the sphere
    rest: Tensor  # 1 − E w: the relative precision is that of a small number
    mean: Tensor  # E w
    variance: Tensor


class VonMisesFisher(Broadcasting):
    """The density exp(κ μᵀz) / ∫ exp(κ μᵀz) on the unit sphere in L dimensions.

    It depends on w = μᵀz alone. With w = tanh t and n = L − 1 the density of t is

        q(t) ∝ exp(κ tanh t) / coshⁿ t,    with its peak at t₀:  tanh t₀ = 2κ / (n + √(n² + 4κ²)),

    whose width about t₀ is near 1/√n for every κ. The normaliser, the mean and the variance of w are integrals of it
    by a fixed rule, for any κ; E w is the ratio I_{L/2}(κ) / I_{L/2−1}(κ) of Bessel functions.

    A draw takes the first of 16 proposals (36 in float64) t₀ + u, u with density ∝ 1 / coshⁿ u, that rejection
    sampling accepts. Each is with a probability above 0.65, so that none is as seldom as a rounding error is large.
    Its gradient is pathwise and exact: the draw turns with μ about the centre of
    the sphere, and t moves so that its distribution function Q(t) keeps its value,

        dz = (dμ μᵀ − μ dμᵀ) z + (μ − w z) dt/dκ dκ,    dt/dκ = −(∂Q/∂κ) / q(t)

    First derivatives only: there is no second derivative through a draw, the normaliser or the mean.

    Args:
        loc: the mean direction μ, [*, L], of length 1.
        concentration: κ, [*], above 0; towards 0 the distribution is uniform.

    Raises:
        ValueError: for less than two dimensions.

    References: Ulrich, "Computer generation of distributions on the m-sphere", 1984; Wood, "Simulation of the von
    Mises Fisher distribution", 1994; Figurnov, Mohamed and Mnih, "Implicit reparameterization gradients", 2018.

    >>> q = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(100.0))
    >>> q.mean, q.rsample((5,)).shape
    (tensor([0.0000, 0.0000, 0.9900]), torch.Size([5, 3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.sphere,
        "concentration": constraints.positive,
    }
    support = constraints.sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        _check_dimensions(self, loc)
        self.loc, self.concentration = loc, concentration
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        super().__init__(batch, torch.Size(loc.shape[-1:]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """E[w] μ, inside of the sphere: [*batch, L]."""
        mean = self._with_slope(self._moments.mean, self._moments.variance)[..., None] * self.loc
        return mean.expand(self.batch_shape + self.event_shape)

    @property
    def mode(self) -> Tensor:
        """μ: [*batch, L]."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    def entropy(self) -> Tensor:
        """−E log q: [*batch]."""
        return (self.concentration * self._rest() + self._log_norm()).expand(self.batch_shape)

    def _log_prob(self, value: Tensor) -> Tensor:
        gap = 0.5 * (value - self.loc).square().sum(-1)  # 1 − w, which w itself would lose where it is small
        return -self.concentration * gap - self._log_norm()

    def _log_norm(self) -> Tensor:
        return self._with_slope(self._moments.log_norm, -self._moments.rest)

    def _rest(self) -> Tensor:
        return self._with_slope(self._moments.rest, -self._moments.variance)

    def _with_slope(self, value: Tensor, slope: Tensor) -> Tensor:
        """A value with this derivative in κ."""
        return value + slope * (self.concentration - self.concentration.detach())

    @cached_property
    def _half_line(self) -> tuple[Tensor, Tensor]:
        return _half_line(self.event_shape[0] - 1, self.concentration)

    @cached_property
    def _moments(self) -> _Moments:
        with torch.no_grad():
            k, n = self.concentration[..., None], self.event_shape[0] - 1
            u, du = self._half_line
            peak = self._peak()[..., None]
            t, du = peak + torch.cat([-u, u]), torch.cat([du, du])  # [*, 2N]
            top = _log_density(peak, k, n)
            mass = (_log_density(t, k, n) - top).exp() * du
            share = mass / mass.sum(-1, keepdim=True)
            gap = _one_minus_tanh(t)
            rest = (share * gap).sum(-1)
            mean = self.concentration / n * (share * gap * _one_minus_tanh(-t)).sum(-1)  # by parts, precise near 0
            variance = (share * (gap - rest[..., None]).square()).sum(-1)
            return _Moments((mass.sum(-1).log() + top[..., 0]) + log_area(n), rest, mean, variance)

    def _peak(self) -> Tensor:
        n = torch.full_like(self.concentration, self.event_shape[0] - 1)
        twice = 2 * self.concentration
        return 0.5 * ((twice + torch.hypot(n, twice)) / n).log()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws with their pathwise gradient."""
        with torch.no_grad():
            t, z = self._draws(self._extended_shape(torch.Size(sample_shape)))
        return z + self._path(t, z) if torch.is_grad_enabled() else z

    def _draw(self, shape: torch.Size) -> Tensor:
        return self._draws(shape)[1]

    def _draws(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """t [*], and z = tanh(t) μ + v / cosh t, v uniform on the sphere around the axis μ: [*, L]."""
        t = self._radial(torch.Size(shape[:-1]))
        v = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        for _ in range(2):  # v may become small, and the rounding error of one projection does not
            v = F.normalize(v - (v * self.loc).sum(-1, keepdim=True) * self.loc, dim=-1)
        return t, F.normalize(t.tanh()[..., None] * self.loc + v / t.cosh()[..., None], dim=-1)

    def _radial(self, shape: torch.Size) -> Tensor:
        """t by rejection: T = tanh u is the first of the coordinates of a uniform direction in L dimensions."""
        n, k, peak = self.event_shape[0] - 1, self.concentration[..., None], self._peak()[..., None]
        radius, angle, level = uniform((3, *shape, _sizes(k)[1]), k)
        log_out = 2 * radius.log() / (n - 1)  # of 1 − r², r the length of two coordinates; r = 1 for L = 2
        r = (-torch.expm1(log_out)).sqrt()
        inner = log_out.exp() / (1 + r)  # 1 − r
        plus = inner + 2 * r * (torch.pi * angle).cos().square()  # 1 + T, T = r cos 2πa
        minus = inner + 2 * r * (torch.pi * angle).sin().square()  # 1 − T
        t = peak + 0.5 * (plus / minus).log()
        log_ratio = _log_density(t, k, n) - _log_density(peak, k, n) - 0.5 * n * (plus * minus).log()
        first = (level.log() < log_ratio).to(t.dtype).argmax(-1, keepdim=True)
        return t.gather(-1, first)[..., 0]

    def _path(self, t: Tensor, z: Tensor) -> Tensor:
        """Zero, with the gradient of the draws z [*, L]."""
        loc, k = self.loc.detach(), self.concentration
        w = t.tanh()[..., None]
        by_loc = self.loc - loc
        turned = by_loc * w - loc * (by_loc * z).sum(-1, keepdim=True)
        by_k = (k - k.detach()) * self._velocity(t)
        return turned + by_k[..., None] * (loc - w * z)

    def _velocity(self, t: Tensor) -> Tensor:
        """dt/dκ = ∫ |tanh s − E w| q(s) ds / q(t) over the tail on whose side of E w the draw is: [*]."""
        with torch.no_grad():
            k, n, rest = self.concentration[..., None], self.event_shape[0] - 1, self._moments.rest[..., None]
            u, du = self._half_line
            t = t[..., None]
            s = torch.where(_one_minus_tanh(t) < rest, t + u, t - u)  # [*, N]
            ratio = (_log_density(s, k, n) - _log_density(t, k, n)).exp()
            return (ratio * (_one_minus_tanh(s) - rest).abs() * du).sum(-1)


def _check_dimensions(who: Any, like: Tensor) -> None:
    """Refuse a sphere in less than two dimensions. Raises ValueError."""
    if like.dim() < 1 or like.shape[-1] < 2:
        raise ValueError(
            f"{type(who).__name__} expects vectors [*, L] of at least 2 dimensions, got shape {list(like.shape)}; take "
            "latent=2, the circle, or more"
        )


def _one_minus_tanh(t: Tensor) -> Tensor:
    return 2 * torch.sigmoid(-2 * t)


def _log_density(t: Tensor, k: Tensor, n: int) -> Tensor:
    """κ (tanh t − 1) − n log cosh t."""
    return -k * _one_minus_tanh(t) - n * (t - F.logsigmoid(2 * t) - math.log(2))


def _sizes(like: Tensor) -> tuple[int, int]:
    """Numbers of nodes, and of proposals, whose errors are near the rounding; L = 2 at a large κ takes the most."""
    return (96, 36) if torch.finfo(like.dtype).eps < 1e-10 else (40, 16)


def _half_line(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes u and weights for ∫ du over (0, ∞) of what is smooth and falls as 1 / coshⁿ u or faster.

    Fejér's rule in x, u = sinh(x) / √n, up to where 1 / coshⁿ u is below the rounding.
    """
    size = -math.log(torch.finfo(like.dtype).eps)
    nodes = _sizes(like)[0]
    end = math.asinh(math.sqrt(n) * (size / n + math.log1p(math.sqrt(-math.expm1(-2 * size / n)))))
    j = torch.arange(nodes, dtype=like.dtype, device=like.device)
    angle = (j + 0.5) * (torch.pi / nodes)
    m = 1 + j[: nodes // 2, None]
    weight = (1 - 2 * ((2 * m * angle).cos() / (4 * m.square() - 1)).sum(0)) * (end / nodes)
    x = end * (0.5 * angle).cos().square()
    return x.sinh() / math.sqrt(n), weight * x.cosh() / math.sqrt(n)


@register_kl(VonMisesFisher, UniformSphere)
def _kl_uniform(q: VonMisesFisher, p: UniformSphere) -> Tensor:
    """The log area less the entropy."""
    return (log_area(q.event_shape[0]) - q.entropy()).expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_von_mises_fisher(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    """−E log p less the entropy; E log p = −κ_p (1 − E[w] μᵀμ_p) − log of the normaliser."""
    apart = 0.5 * (q.loc - p.loc).square().sum(-1)  # 1 − μᵀμ_p
    rest = q._rest()
    kl = p.concentration * (rest + (1 - rest) * apart) + p._log_norm() - q.entropy()
    return kl.expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))
