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
from .mixture import Mixture
from .normal import DiagonalNormal, FullNormal, LowRankNormal
from .semi_amortised import SemiAmortised

__all__ = [
    "Bernoulli",
    "DiagonalNormal",
    "Flow",
    "FullNormal",
    "LowRankNormal",
    "Mixture",
    "OneHotCategorical",
    "Posterior",
    "RelaxedBernoulli",
    "SemiAmortised",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
]
