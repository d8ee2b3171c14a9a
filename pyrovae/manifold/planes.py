"""Planes of d dimensions in the space of data, one for each point, and the angles between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Planes:
    """A plane at each of N points, and how far it can be told from others.

    Attributes:
        basis: U, orthonormal columns in the space of the data as vectors, [N, D, d].
        singular_values: of all directions that were looked at, those of the plane first, descending, [N, m], m ≥ d.
    """

    basis: Tensor
    singular_values: Tensor

    @property
    def gap(self) -> Tensor:
        """The rank gap 1 − s_{d+1} / s_d, [N]: near 1 the plane ends where the directions do, near 0 it ends anywhere.

        Noise of size ε turns the plane by about ε / (s_d − s_{d+1}). A plane of all directions has s_{d+1} = 0.
        """
        s, d = self.singular_values, self.basis.shape[2]
        after = s[:, d] if s.shape[1] > d else torch.zeros_like(s[:, 0])
        return torch.where(self.least > self._zero, 1 - after / s[:, d - 1].clamp_min(torch.finfo(s.dtype).tiny), 0)

    @property
    def least(self) -> Tensor:
        """s_d / s_1, [N]: near 0 the last direction of the plane is hardly one."""
        s = self.singular_values
        return s[:, self.basis.shape[2] - 1] / s[:, 0].clamp_min(torch.finfo(s.dtype).tiny)

    @property
    def residual(self) -> Tensor:
        """The share of Σ s² that lies outside the plane, [N]."""
        squares = self.singular_values.square()
        outside = squares[:, self.basis.shape[2] :].sum(1)
        return outside / squares.sum(1).clamp_min(torch.finfo(squares.dtype).tiny)

    def trusted(self, gap: float = 0.5, least: float = 0.01) -> Tensor:
        """Where the plane is to be trusted, [N]: its rank gap and its last direction at least so large."""
        return (self.gap >= gap) & (self.least >= least)

    @property
    def _zero(self) -> float:
        """What rounding leaves of a singular value of 0, in units of the first."""
        return max(self.basis.shape[1:]) * torch.finfo(self.singular_values.dtype).eps


def orthonormal(who: str, planes: Tensor | Planes) -> Tensor:
    """The bases of planes. Raises ValueError where columns are not orthonormal."""
    if isinstance(planes, Planes):
        return planes.basis
    basis = planes.detach()
    error = (basis.mT @ basis - torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)).abs()
    if not (error < 1e-3).all():
        raise ValueError(
            f"{who} expects orthonormal columns, got UᵀU that is {float(error.max()):.2g} from 1; use "
            "torch.linalg.qr(u).Q"
        )
    return basis


def principal_angles(a: Tensor | Planes, b: Tensor | Planes) -> Tensor:
    """The angles between two planes at each point, ascending, in radians: [N, d].

        cos θ_i = s_i(AᵀB),    sin θ_i = s_i(B − A AᵀB)

    Both are taken, θ = atan2(sin θ, cos θ): the cosine alone knows of no angle below √ε, the sine of none near π/2.
    Planes of different dimensions have as many angles as the smaller has dimensions.

    Args:
        a: orthonormal columns [N, D, d], or `Planes`.
        b: orthonormal columns [N, D, d'] of the same points.

    Raises:
        ValueError: for shapes that do not fit, or columns that are not orthonormal.

    Reference: Björck and Golub, "Numerical methods for computing angles between linear subspaces", 1973.

    >>> turned = torch.tensor([[[1.0, 0.0], [0.0, 0.8], [0.0, 0.6]]])  # the second axis by arcsin 0.6
    >>> principal_angles(torch.eye(3)[None, :, :2], turned).sin()
    tensor([[0.0000, 0.6000]])
    """
    a, b = (orthonormal("principal_angles", p) for p in (a, b))
    if a.dim() != 3 or b.dim() != 3 or a.shape[:2] != b.shape[:2] or 0 in (*a.shape, *b.shape):
        raise ValueError(
            f"principal_angles expects planes [N, D, d] of the same points, got {list(a.shape)} and {list(b.shape)}; "
            "give a basis in columns for each"
        )
    b = b.to(a.device)
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = (p.to(dtype) for p in (a, b))
    if a.shape[2] < b.shape[2]:
        a, b = b, a
    inner = a.mT @ b  # [N, d, d']
    cosine = torch.linalg.svdvals(inner)
    sine = torch.linalg.svdvals(b - a @ inner).flip(-1)[:, : b.shape[2]]
    return torch.atan2(sine, cosine)
