"""Likelihoods p(x | z): modules whose forward takes the latents and returns a distribution over the data."""

from .base import Likelihood
from .bernoulli import Bernoulli, Binomial, ContinuousBernoulli
from .beta import Beta
from .counts import Multinomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, ZeroInflatedPoisson
from .levels import Categorical, DiscretisedLogisticMixture
from .location_scale import Laplace, Normal, StudentT
from .missing import Missing

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretisedLogisticMixture",
    "Laplace",
    "Likelihood",
    "Missing",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]
