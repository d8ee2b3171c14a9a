"""Priors p(z): modules whose forward returns a distribution over the latents."""

from .base import Prior
from .discrete import Bernoulli, Categorical, OneHotCategorical, RelaxedBernoulli
from .flow import Flow
from .heavy_tails import Laplace, StudentT
from .mixtures import Mixture, VampPrior
from .normal import DiagonalNormal, StandardNormal
from .positive import Beta, Gamma, LogNormal
from .simplex import Dirichlet, LogisticNormal, RelaxedOneHotCategorical
from .sphere import UniformSphere, VonMisesFisher
from .structured import Autoregressive, GaussianProcess, Hierarchical

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Beta",
    "Categorical",
    "DiagonalNormal",
    "Dirichlet",
    "Flow",
    "Gamma",
    "GaussianProcess",
    "Hierarchical",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "Mixture",
    "OneHotCategorical",
    "Prior",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "StandardNormal",
    "StudentT",
    "UniformSphere",
    "VampPrior",
    "VonMisesFisher",
]
