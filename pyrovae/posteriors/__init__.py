"""Approximate posteriors q(z | x): modules whose forward takes the data and returns a distribution."""

from .base import Posterior
from .discrete import (
    Bernoulli,
    OneHotCategorical,
    RelaxedBernoulli,
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)
from .mixture import Mixture
from .normal import DiagonalNormal, FullNormal, LowRankNormal

__all__ = [
    "Bernoulli",
    "DiagonalNormal",
    "FullNormal",
    "LowRankNormal",
    "Mixture",
    "OneHotCategorical",
    "Posterior",
    "RelaxedBernoulli",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
]
