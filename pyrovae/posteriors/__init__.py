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
from .semi_amortised import SemiAmortised

__all__ = [
    "Bernoulli",
    "DiagonalNormal",
    "Flow",
    "OneHotCategorical",
    "Posterior",
    "RelaxedBernoulli",
    "SemiAmortised",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
]
