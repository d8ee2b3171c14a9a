"""Priors p(z): modules whose forward returns a distribution over the latents."""

from .base import Prior
from .discrete import Bernoulli, OneHotCategorical, RelaxedBernoulli
from .flow import Flow
from .normal import StandardNormal

__all__ = ["Bernoulli", "Flow", "OneHotCategorical", "Prior", "RelaxedBernoulli", "StandardNormal"]
