"""Likelihoods p(x | z): modules whose forward takes the latents and returns a distribution over the data."""

from .base import Likelihood
from .bernoulli import Bernoulli, Binomial, ContinuousBernoulli
from .missing import Missing
from .normal import Normal

__all__ = ["Bernoulli", "Binomial", "ContinuousBernoulli", "Likelihood", "Missing", "Normal"]
