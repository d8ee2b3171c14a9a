"""Bounds on the log evidence and their gradient estimators. A new objective is a new function of log densities."""

from .base import Estimate, Objective
from .elbo import ELBO, BetaELBO
from .importance import IWAE
from .pyro_elbo import PyroELBO

__all__ = ["ELBO", "IWAE", "BetaELBO", "Estimate", "Objective", "PyroELBO"]
