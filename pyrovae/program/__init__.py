"""Pyro programs: log densities of one, plain functions as one, states to run one in."""

from .functions import Program
from .handlers import AtMean, ObservedAtMean, Unobserved, Values
from .modes import evaluating, home, seeded
from .run import GenerativeProgram, densities
from .sites import Densities, Site, family, latents, sample_sites

__all__ = [
    "AtMean",
    "Densities",
    "GenerativeProgram",
    "ObservedAtMean",
    "Program",
    "Site",
    "Unobserved",
    "Values",
    "densities",
    "evaluating",
    "family",
    "home",
    "latents",
    "sample_sites",
    "seeded",
]
