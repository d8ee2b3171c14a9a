"""The normal with correlations of low rank, without a value that is read back from the device."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class LowRankNormal(dist.LowRankMultivariateNormal):
    """𝒩(z; μ, diag(σ) (I + W Wᵀ) diag(σ)), with torch's densities, draws and closed forms.

    torch checks whether I + Wᵀ W could be factorised, by a number that a GPU has to send back in every step. With W in
    proportion to σ it always can.

    Args:
        loc: μ, [*, L].
        scale: σ, [*, L].
        factor: W, [*, L, R].

    >>> LowRankNormal(torch.zeros(2), torch.ones(2), torch.ones(2, 1)).covariance_matrix
    tensor([[2., 1.],
            [1., 2.]])
    """

    def __init__(self, loc: Tensor, scale: Tensor, factor: Tensor, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], scale.shape[:-1], factor.shape[:-2])
        self._unbroadcasted_cov_factor = scale[..., None] * factor
        self._unbroadcasted_cov_diag = scale.square()
        self.loc = loc.expand(batch + loc.shape[-1:])
        self.cov_factor = self._unbroadcasted_cov_factor.expand(batch + factor.shape[-2:])
        self.cov_diag = self._unbroadcasted_cov_diag.expand(self.loc.shape)
        gram = factor.mT @ factor
        one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        self._capacitance_tril = torch.linalg.cholesky_ex(one + gram).L
        torch.distributions.Distribution.__init__(self, batch, torch.Size(loc.shape[-1:]), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(LowRankNormal, _instance))
