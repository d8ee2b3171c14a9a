"""Approximate posteriors q(z | x): modules whose forward takes the data and returns a distribution."""

from .base import Posterior
from .discrete import (
    Bernoulli,
    OneHotCategorical,
    RelaxedBernoulli,
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)
from .flow import Flow
from .normal import DiagonalNormal

__all__ = [
    "Bernoulli",
    "DiagonalNormal",
    "Flow",
    "OneHotCategorical",
    "Posterior",
    "RelaxedBernoulli",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
]
