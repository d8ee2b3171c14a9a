"""KL divergences in closed form: torch's, that of normals with its gradient written out, and of full to diagonal."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)

from ..program import unwrapped


class _NormalKL(torch.autograd.Function):
    """KL(𝒩(m, s²) ‖ 𝒩(n, t²)) = ½ (r² + d² − 1) − log r with r = s / t and d = (m − n) / t.

    One node of a backward pass in the place of twenty, each of which costs more than its arithmetic.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(m: Tensor, s: Tensor, n: Tensor, t: Tensor) -> Tensor:
        r, d = s / t, (m - n) / t
        return 0.5 * (r * r + d * d - 1) - r.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        m, s, n, t = ctx.saved_tensors
        r, d, g = s / t, (m - n) / t, grads[0] / t
        by_m = g * d
        by_n = -by_m if ctx.needs_input_grad[2] else None
        by_t = g * (1 - r * r - d * d) if ctx.needs_input_grad[3] else None
        return by_m, g * (r - 1 / r), by_n, by_t


_NormalKL.forward.__dict__["__signature__"] = inspect.signature(_NormalKL.forward)  # else found in every call


def closed_kl(q: Any, p: Any) -> Tensor:
    """KL(q ‖ p) over the batch shape of two distributions, in nats. Raises NotImplementedError where torch has none."""
    a, b = unwrapped(q), unwrapped(p)
    if isinstance(p, MultivariateNormal) and isinstance(q, Independent) and _normal(a) and len(q.event_shape) == 1:
        return _kl_diagonal_full(a, p)
    alike = a.batch_shape == b.batch_shape == q.batch_shape + q.event_shape and len(q.event_shape) == len(p.event_shape)
    if not (alike and _normal(a) and _normal(b)):
        return kl_divergence(q, p)
    each = _NormalKL.apply(a.loc, a.scale, b.loc, b.scale)
    return sum_rightmost(each, len(q.event_shape))


def _normal(distribution: Any) -> bool:
    return isinstance(distribution, Normal) and type(distribution).log_prob is Normal.log_prob


def _kl_diagonal_full(q: Normal, p: MultivariateNormal) -> Tensor:
    """KL(𝒩(m, diag s²) ‖ 𝒩(n, C Cᵀ)) = ½ (Σ_lm (C⁻¹)_lm² s_m² + ‖C⁻¹ (m − n)‖² − L) + Σ log C_ll − Σ log s.

    Pyro's takes the inverse of C Cᵀ, with a check that a GPU has to wait for.
    """
    tril = p._unbroadcasted_scale_tril
    one = torch.eye(tril.shape[-1], dtype=tril.dtype, device=tril.device)
    inverse = torch.linalg.solve_triangular(tril, one, upper=False)  # [*, L, L], once for all particles and data
    trace = (q.scale.square() * inverse.square().sum(-2)).sum(-1)
    error = ((q.loc - p.loc)[..., None, :] @ inverse.mT).square().sum((-2, -1))
    half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (trace + error - tril.shape[-1]) + half_log_det - q.scale.log().sum(-1)


@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL(𝒩(m, C Cᵀ) ‖ 𝒩(n, diag t²)) = ½ (Σ_lm C_lm² / t_l² + ‖(m − n) / t‖² − L) + Σ log t − Σ log C_ll."""
    tril = q._unbroadcasted_scale_tril
    half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl_to_diagonal(q.loc, tril.square().sum(-1), half_log_det, p)


@register_kl(LowRankMultivariateNormal, Independent)
def _kl_low_rank_diagonal(q: LowRankMultivariateNormal, p: Independent) -> Tensor:
    """The same for C Cᵀ = W Wᵀ + diag d, whose determinant is that of I + Wᵀ diag(d)⁻¹ W, times Π d."""
    w, d = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    half_log_det = q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * d.log().sum(-1)
    return _kl_to_diagonal(q.loc, w.square().sum(-1) + d, half_log_det, p)


def _kl_to_diagonal(loc: Tensor, variance: Tensor, half_log_det: Tensor, p: Independent) -> Tensor:
    """KL(q ‖ p) of a normal q from its mean [*, L], variances [*, L] and ½ log det [*], to independent normals."""
    base = p.base_dist
    if not _normal(base) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    square = variance / base.scale.square() + ((loc - base.loc) / base.scale).square()
    return (0.5 * (square - 1) + base.scale.log()).sum(-1) - half_log_det
