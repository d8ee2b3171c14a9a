"""Pyro programs: log densities of one, plain functions as one, states to run one in."""

from .checks import check_particles, plain_errors
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
    "check_particles",
    "densities",
    "evaluating",
    "family",
    "home",
    "latents",
    "plain_errors",
    "sample_sites",
    "seeded",
]
