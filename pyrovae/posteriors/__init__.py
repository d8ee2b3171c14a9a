"""Approximate posteriors q(z | x): modules whose forward takes the data and returns a distribution."""

from .base import Posterior
from .discrete import (
    Bernoulli,
    Categorical,
    OneHotCategorical,
    RelaxedBernoulli,
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)
from .flow import Flow
from .mixture import Mixture
from .normal import DiagonalNormal, FullNormal, LowRankNormal
from .positive import Beta, Gamma, LogNormal
from .semi_amortised import SemiAmortised
from .simplex import Dirichlet, LogisticNormal, RelaxedOneHotCategorical
from .sphere import VonMisesFisher

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "DiagonalNormal",
    "Dirichlet",
    "Flow",
    "FullNormal",
    "Gamma",
    "LogNormal",
    "LogisticNormal",
    "LowRankNormal",
    "Mixture",
    "OneHotCategorical",
    "Posterior",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "SemiAmortised",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "VonMisesFisher",
]
