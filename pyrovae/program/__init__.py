"""Pyro programs: log densities of one, its graph, states to run one in."""

from .checks import check_particles, check_repeatable, plain_errors
from .handlers import AtMean, Detached, ImproperPriorError, ObservedAtMean, Proper, StandIns, Unobserved, Values
from .modes import evaluating, function_of, home, seeded
from .run import GenerativeProgram, densities, guide_sites
from .sites import Densities, Site, family, has_mask, latents, read_site, sample_sites, unwrapped

__all__ = [
    "AtMean",
    "Densities",
    "Detached",
    "GenerativeProgram",
    "ImproperPriorError",
    "ObservedAtMean",
    "Proper",
    "Site",
    "StandIns",
    "Unobserved",
    "Values",
    "check_particles",
    "check_repeatable",
    "densities",
    "evaluating",
    "family",
    "function_of",
    "guide_sites",
    "has_mask",
    "home",
    "latents",
    "plain_errors",
    "read_site",
    "sample_sites",
    "seeded",
    "unwrapped",
]
