"""Pyro programs: log densities of one, plain functions as one, states to run one in."""

from .functions import Program
from .modes import evaluating, home, seeded
from .run import GenerativeProgram, Values, densities
from .sites import Densities, Site, family, latents, sample_sites

__all__ = [
    "Densities",
    "GenerativeProgram",
    "Program",
    "Site",
    "Values",
    "densities",
    "evaluating",
    "family",
    "home",
    "latents",
    "sample_sites",
    "seeded",
]
