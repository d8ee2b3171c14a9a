"""Bounds on the log evidence and their gradient estimators. A new objective is a new function of log densities."""

from .aggregate import DIPVAE, BetaTCVAE, Capacity, InfoVAE
from .base import Estimate, Objective
from .bernoulli import REBAR, DisARM
from .elbo import ELBO, BetaELBO
from .importance import CIWAE, CUBO, IWAE, MIWAE, PIWAE, VRIWAE, Renyi, VRMax
from .inclusive import TailAdaptive, WakeSleep
from .pyro_elbo import PyroELBO
from .thermodynamic import TVO
from .weights import Weighted, Weights

__all__ = [
    "CIWAE",
    "CUBO",
    "DIPVAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "REBAR",
    "TVO",
    "VRIWAE",
    "BetaELBO",
    "BetaTCVAE",
    "Capacity",
    "DisARM",
    "Estimate",
    "InfoVAE",
    "Objective",
    "PyroELBO",
    "Renyi",
    "TailAdaptive",
    "VRMax",
    "WakeSleep",
    "Weighted",
    "Weights",
]
