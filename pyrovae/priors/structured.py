"""Priors whose dimensions depend on one another: in two layers, one after another, and over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..config import nearest
from ..distributions import structured
from ..networks import MLP
from ..networks.base import as_sizes
from ..networks.masked import MADE
from .base import Prior


class Hierarchical(Prior):
    """p(z) = 𝒩(a; 0, I) 𝒩(b; μ(a), diag σ(a)²) for z = (a, b), the top layer a and the rest.

    Args:
        latent: number of latent dimensions L, at least 2.
        top: those of the top layer; half of them where it is None.
        hidden: widths of the hidden layers of the network from a to μ and log σ.

    Raises:
        ValueError: where one of the layers would be empty.

    >>> Hierarchical(5, top=2)().sample().shape
    torch.Size([5])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int, top: int | None = None, hidden: Sequence[int] = (64,)) -> None:
        super().__init__(latent)
        self.top = self.latent // 2 if top is None else check_whole("Hierarchical", "top", top)
        if not 0 < self.top < self.latent:
            raise ValueError(
                f"Hierarchical expects at least one latent in the top layer and one below, got latent={latent} with "
                f"top={top}; give latent of at least 2, and top from 1 to latent - 1"
            )
        self.network = MLP([self.top], [2 * (self.latent - self.top)], hidden, "tanh")
        self.register_buffer("loc", torch.zeros(self.top), persistent=False)
        self.register_buffer("scale", torch.ones(self.top), persistent=False)

    def rest(self, a: Tensor) -> dist.TorchDistribution:
        """p(b | a) over [latent - top], for a [*, top]."""
        loc, log_scale = self.network(a).to(a.dtype).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def forward(self) -> dist.TorchDistribution:
        """Both layers over [latent]."""
        return structured.Blocks(dist.Normal(self.loc, self.scale).to_event(1), self.rest, self.latent)


class Autoregressive(Prior):
    """p(z) = Π_l p(z_l | z_1 … z_{l−1}), the conditionals from a masked network of z.

    A density takes one pass of the network. A draw takes L of them: that is for generation, no part of training.

    Args:
        latent: number of latent dimensions L.
        hidden: widths of the hidden layers.
        family: of the conditionals, "Normal" (the network returns μ and log σ) or "Bernoulli" (logits), for z in
            {0, 1}^L and a posterior over the same.

    Raises:
        ValueError: for another family, with the nearest match.

    References: Gregor, Danihelka, Mnih, Blundell and Wierstra, "Deep autoregressive networks", 2014; Germain, Gregor,
    Murray and Larochelle, "MADE: Masked autoencoder for distribution estimation", 2015.

    >>> Autoregressive(3, family="Bernoulli")().sample([5]).shape
    torch.Size([5, 3])
    """

    zeros: Tensor

    def __init__(
        self, latent: int, hidden: Sequence[int] = (64,), family: Literal["Normal", "Bernoulli"] = "Normal"
    ) -> None:
        super().__init__(latent)
        if family not in ("Normal", "Bernoulli"):
            raise ValueError(
                f"Autoregressive has no family {family!r}; {nearest(str(family), ['Normal', 'Bernoulli'])}"
            )
        self.family = family
        self.network = MADE(range(self.latent), 2 if family == "Normal" else 1, as_sizes(self, "hidden", hidden))
        self.register_buffer("zeros", torch.zeros(self.latent), persistent=False)

    def conditionals(self, z: Tensor) -> dist.TorchDistribution:
        """p(z_l | z_1 … z_{l−1}) for every l, over [latent], for z [*, latent]."""
        y = self.network()(z)  # [*, L, parameters]
        if self.family == "Bernoulli":
            return dist.Bernoulli(logits=y[..., 0]).to_event(1)
        loc, log_scale = y.unbind(-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def forward(self) -> dist.TorchDistribution:
        """The product over [latent]."""
        return structured.Autoregressive(self.conditionals, self.zeros)


KERNELS = {  # k(d), d the distance in length scales
    "rbf": lambda d: (-0.5 * d.square()).exp(),
    "matern12": lambda d: (-d).exp(),
    "matern32": lambda d: (1 + math.sqrt(3) * d) * (-math.sqrt(3) * d).exp(),
    "cauchy": lambda d: 1 / (1 + d.square()),
}
JITTER = 1e-3  # share of white noise


class GaussianProcess(Prior):
    """p(z) = Π_c 𝒩(z_c; 0, K_c), K_c[t, t'] = k(|t − t'| / ℓ_c): channels c of T = latent / channels time steps each.

    z is read as [channels, T], row by row. A share of 0.001 of every variance is white noise, so that K can be
    factorised and its inverse is held in float32; every z_l has variance 1. The kernels, at d = |t − t'| / ℓ:

        rbf exp(−d²/2),    matern12 exp(−d),    matern32 (1 + √3 d) exp(−√3 d),    cauchy 1 / (1 + d²)

    Args:
        latent: number of latent dimensions L.
        channels: independent processes, a divisor of L.
        kernel: one of rbf, matern12, matern32, cauchy (a mixture of rbf over length scales).
        length_scale: ℓ in time steps, of every channel.
        learned: whether the length scale of every channel is learned from there.

    Raises:
        ValueError: for channels that do not divide L, an unknown kernel, or a length scale that is none.

    References: Casale, Dalca, Saglietti, Listgarten and Fusi, "Gaussian process prior variational autoencoders", 2018;
    Fortuin, Baranchuk, Rätsch and Mandt, "GP-VAE: Deep probabilistic time series imputation", 2020.

    >>> GaussianProcess(6, channels=2, kernel="cauchy", length_scale=3.0)().covariance_matrix[0, 3].item()
    0.0
    """

    log_length_scale: Tensor
    distance: Tensor
    zeros: Tensor

    def __init__(
        self,
        latent: int,
        channels: int = 1,
        kernel: Literal["rbf", "matern12", "matern32", "cauchy"] = "rbf",
        length_scale: float = 2.0,
        learned: bool = True,
    ) -> None:
        super().__init__(latent)
        self.channels = check_whole("GaussianProcess", "channels", channels)
        if self.latent % self.channels:
            raise ValueError(
                f"GaussianProcess expects a number of latents that is a multiple of channels={channels}, got "
                f"latent={latent}; change one of them"
            )
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}; {nearest(str(kernel), KERNELS)}")
        self.kernel, self.learned = kernel, learned
        log_length = math.log(check_positive("GaussianProcess", "length_scale", length_scale))
        start = torch.full((self.channels,), log_length)
        if learned:
            self.log_length_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_length_scale", start, persistent=False)
        steps = torch.arange(self.latent // self.channels)
        self.register_buffer("distance", (steps[:, None] - steps).abs().float(), persistent=False)
        self.register_buffer("zeros", torch.zeros(self.latent), persistent=False)

    def scale_tril(self) -> Tensor:
        """The Cholesky factors of every channel's covariance, [channels, T, T]."""
        lengths = self.log_length_scale.exp()[:, None, None]
        k = KERNELS[self.kernel](self.distance / lengths)
        white = torch.eye(len(self.distance), dtype=k.dtype, device=k.device)
        # without the check that torch.linalg.cholesky reads back: the white noise keeps the matrix positive
        return torch.linalg.cholesky_ex((1 - JITTER) * k + JITTER * white).L

    def forward(self) -> dist.TorchDistribution:
        """𝒩(0, K) over [latent]."""
        return dist.MultivariateNormal(self.zeros, scale_tril=torch.block_diag(*self.scale_tril()))
