"""pyrovae: variational autoencoders written as probabilistic programs.

A generative model is a module with two Pyro methods, `model(x)` = p(z) p(x | z) and `guide(x)` = q(z | x).
Everything else is computed from their traces.
"""

__version__ = "0.1.0"

from . import (
    data,
    information,
    lab,
    likelihoods,
    manifold,
    models,
    networks,
    objectives,
    plots,
    posteriors,
    priors,
)
from .arviz import pareto_k, to_datatree
from .description import Description, describe
from .evaluation import anneal, decode, encode, evaluate, generate, interpolate, reconstruct, traverse
from .explorer import explore
from .guides import Program, amortize
from .objectives.pyro_elbo import to_pyro
from .preflight import check
from .program import densities
from .training import fit, load, save

__all__ = [
    "Description",
    "Program",
    "amortize",
    "anneal",
    "check",
    "data",
    "decode",
    "densities",
    "describe",
    "encode",
    "evaluate",
    "explore",
    "fit",
    "generate",
    "information",
    "interpolate",
    "lab",
    "likelihoods",
    "load",
    "manifold",
    "models",
    "networks",
    "objectives",
    "pareto_k",
    "plots",
    "posteriors",
    "priors",
    "reconstruct",
    "save",
    "to_datatree",
    "to_pyro",
    "traverse",
]
