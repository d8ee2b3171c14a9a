"""Logarithms of gamma functions and of binomial and Poisson terms, without the cancellation of large numbers.

log Γ of 10⁴ is 8·10⁴, which float32 knows to 4·10⁻³: a log probability as a difference of such numbers is wrong by as
much, for each of a thousand counts. Written around the terms' largest value these numbers never arise.
Reference: Loader, "Fast and accurate computation of binomial probabilities", 2000.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_SERIES = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360]
_BORDER = 8.0  # from here on the series is exact to 1e-14


def stirling_rest(a: Tensor) -> Tensor:
    """log Γ(a) − ((a − ½) log a − a + ½ log 2π) for a > 0; about 1 / (12 a) for large a.

    >>> round(stirling_rest(torch.tensor(1e6)).item() * 12e6, 6)
    1.0
    """
    large = a >= _BORDER
    inverse = 1 / torch.where(large, a, torch.full_like(a, _BORDER))  # of safe numbers: no gradient is NaN
    square, series = inverse.square(), torch.zeros_like(inverse)
    for c in reversed(_SERIES):
        series = series * square + c
    small = torch.where(large, torch.ones_like(a), a)
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - HALF_LOG_2PI
    return torch.where(large, series * inverse, direct)


def _log_ratio(a: Tensor, b: Tensor, log_b: Tensor, difference: Tensor) -> Tensor:
    """log(a / b) for a > 0, given a − b and log b, exact where a and b are near."""
    near = difference.abs() < 0.5 * b
    relative = torch.where(near, difference, torch.zeros_like(b)) / torch.where(near, b, torch.ones_like(b))
    return torch.where(near, torch.log1p(relative), a.log() - log_b)


def log_poisson(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log λ − λ − log x!, for whole x ≥ 0."""
    x, log_rate = torch.broadcast_tensors(x, log_rate)
    rate = log_rate.exp()
    some = torch.where(x > 0, x, torch.ones_like(x))
    away = some * _log_ratio(some, rate, log_rate, some - rate) - (some - rate)
    return torch.where(x > 0, -away - stirling_rest(some) - 0.5 * some.log() - HALF_LOG_2PI, -rate)


def log_binomial(a: Tensor, b: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """log [Γ(a + b + 1) / (Γ(a + 1) Γ(b + 1)) p^a q^b] for real a > 0, b ≥ 0 and p + q = 1."""
    a, b, log_p, log_q = torch.broadcast_tensors(a, b, log_p, log_q)
    some = torch.where(b > 0, b, torch.ones_like(b))
    n, p, q = a + some, log_p.exp(), log_q.exp()
    difference = a * q - some * p  # a − n p = n q − b
    away = a * _log_ratio(a, n * p, n.log() + log_p, difference)
    away = away + some * _log_ratio(some, n * q, n.log() + log_q, -difference)
    rest = stirling_rest(n) - stirling_rest(a) - stirling_rest(some) - HALF_LOG_2PI
    return torch.where(b > 0, rest + 0.5 * (n.log() - a.log() - some.log()) - away, a * log_p)


def log_gamma_draw(concentration: Tensor) -> Tensor:
    """The logarithm of a draw from Gamma(concentration, 1): finite where the draw itself is 0 in float32.

    G(a) = G(a + 1) U^(1/a), U uniform. The gradient passes through.
    """
    u = torch.rand_like(concentration).clamp(min=torch.finfo(concentration.dtype).tiny)
    return torch._standard_gamma(concentration + 1).log() + u.log() / concentration
