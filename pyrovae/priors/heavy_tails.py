"""Fixed priors with heavier tails than the normal's."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import check_positive
from .base import Prior


class Laplace(Prior):
    """p(z) = Π_l exp(−|z_l| / b) / 2b: few dimensions are far from 0 at a time.

    With a normal posterior the KL divergence has a closed form.

    Args:
        latent: number of latent dimensions L.
        scale: b, above 0; the standard deviation is √2 b.

    Raises:
        ValueError: for a scale that is no number above 0.

    >>> Laplace(2)().log_prob(torch.zeros(2)).exp().item()
    0.25
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int, scale: float = 1.0) -> None:
        super().__init__(latent)
        b = check_positive("Laplace", "scale", scale)
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.full((self.latent,), b), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Laplace(0, b) over [latent]."""
        return dist.Laplace(self.loc, self.scale).to_event(1)


class StudentT(Prior):
    """p(z) = Π_l t_ν(z_l / s) / s, Student's distribution: tails of the power −(ν + 1).

    Args:
        latent: number of latent dimensions L.
        df: the degrees of freedom ν, above 0: 1 is Cauchy's distribution, towards infinity it is the normal.
        scale: s, above 0.

    Raises:
        ValueError: for a df or scale that is no number above 0.

    >>> StudentT(2, df=1.0)().log_prob(torch.zeros(2))
    tensor(-2.2895)
    """

    df: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int, df: float = 4.0, scale: float = 1.0) -> None:
        super().__init__(latent)
        nu = check_positive("StudentT", "df", df)
        s = check_positive("StudentT", "scale", scale)
        self.register_buffer("df", torch.full((self.latent,), nu), persistent=False)
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.full((self.latent,), s), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """t_ν(0, s) over [latent]."""
        return dist.StudentT(self.df, self.loc, self.scale).to_event(1)
