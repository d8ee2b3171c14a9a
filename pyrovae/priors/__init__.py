"""Priors p(z): modules whose forward returns a distribution over the latents."""

from .base import Prior
from .discrete import Bernoulli, OneHotCategorical, RelaxedBernoulli
from .flow import Flow
from .heavy_tails import Laplace, StudentT
from .mixtures import Mixture, VampPrior
from .normal import DiagonalNormal, StandardNormal
from .structured import Autoregressive, GaussianProcess, Hierarchical

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "DiagonalNormal",
    "Flow",
    "GaussianProcess",
    "Hierarchical",
    "Laplace",
    "Mixture",
    "OneHotCategorical",
    "Prior",
    "RelaxedBernoulli",
    "StandardNormal",
    "StudentT",
    "VampPrior",
]
