"""What several encoders say of one z, each from a part of the data: products and mixtures of normal experts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from ..distributions.mixtures import NormalMixture

NEVER = -1e4  # the log weight of a component that is not there: zero, without the NaN that −∞ has as a gradient

Experts = Callable[[Tensor, Tensor, Tensor], dist.TorchDistribution]


def _product(loc: Tensor, log_scale: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """μ and σ of 𝒩(0, I) Π_m 𝒩(μ_m, σ_m²), normalised: [*, M, L] -> [*, L], over the experts that are there [*, M]."""
    precision = (-2 * log_scale).exp() * there[..., None]
    total = 1 + precision.sum(-2)  # the prior is an expert too
    return (precision * loc).sum(-2) / total, total.rsqrt()


def product_of_experts(loc: Tensor, log_scale: Tensor, there: Tensor) -> dist.TorchDistribution:
    """q(z | x) ∝ 𝒩(z; 0, I) Π_m 𝒩(z; μ_m, σ_m²) over the parts m that are observed; the prior where none is.

    What the encoders give are the parts' messages p(x_m | z), up to a constant, as in p(z | x) ∝ p(z) Π_m p(x_m | z).
    The precisions add up.

    Args:
        loc: μ, [*, M, L].
        log_scale: log σ, [*, M, L].
        there: whether each part is observed, [*, M].

    Reference: Wu and Goodman, "Multimodal generative models for scalable weakly-supervised learning", 2018.
    """
    return dist.Normal(*_product(loc, log_scale, there)).to_event(1)


def _mixture(loc: Tensor, scale: Tensor, there: Tensor) -> dist.TorchDistribution:
    """The mixture of the components that are there in equal shares; 𝒩(0, I) where none is."""
    logits = torch.where(there, 0.0, NEVER).to(loc.dtype)
    here = there[..., None]
    return NormalMixture(logits, torch.where(here, loc, 0.0), torch.where(here, scale, 1.0))


def mixture_of_experts(loc: Tensor, log_scale: Tensor, there: Tensor) -> dist.TorchDistribution:
    """q(z | x) = 1/M' Σ_m 𝒩(z; μ_m, σ_m²) over the M' parts m that are observed; the prior where none is.

    Every part alone has to explain all others. Arguments are those of `product_of_experts`.

    Reference: Shi, Siddharth, Paige and Torr, "Variational mixture-of-experts autoencoders for multi-modal deep
    generative models", 2019.
    """
    return _mixture(loc, log_scale.exp(), there)


def mixture_of_products(loc: Tensor, log_scale: Tensor, there: Tensor) -> dist.TorchDistribution:
    """q(z | x) = the mean of `product_of_experts` of every set of observed parts; the prior where there is none.

    Sharp where all parts are observed, and right where one is; 2^M − 1 components. Arguments are those of
    `product_of_experts`.

    Reference: Sutter, Daunhawer and Vogt, "Generalized multimodal ELBO", 2021.
    """
    parts = loc.shape[-2]
    sets = torch.tensor(list(itertools.product((False, True), repeat=parts))[1:], device=loc.device)  # [S, M]
    mean, scale = _product(loc[..., None, :, :], log_scale[..., None, :, :], sets)
    whole = (there[..., None, :] | ~sets).all(-1)  # [*, S]
    return _mixture(mean, scale, whole)


EXPERTS: dict[str, Experts] = {
    "product": product_of_experts,
    "mixture": mixture_of_experts,
    "mixture_of_products": mixture_of_products,
}
