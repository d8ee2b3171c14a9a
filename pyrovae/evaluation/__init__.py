"""What a trained model is worth, and what it makes."""

from .annealed import Annealed, anneal
from .disentanglement import DCI, dci, mig, mutual_information
from .evidence import Evaluation, evaluate
from .fidelity import Fidelity, fidelity
from .gaps import Gaps, gaps
from .grid import Grid, exact_posterior
from .matching import best_matching, clustering_accuracy
from .novelty import Novelty, novelty
from .samples import decode, encode, generate, interpolate, observations, reconstruct, traverse
from .surgery import Aggregate, aggregate

__all__ = [
    "DCI",
    "Aggregate",
    "Annealed",
    "Evaluation",
    "Fidelity",
    "Gaps",
    "Grid",
    "Novelty",
    "aggregate",
    "anneal",
    "best_matching",
    "clustering_accuracy",
    "dci",
    "decode",
    "encode",
    "evaluate",
    "exact_posterior",
    "fidelity",
    "gaps",
    "generate",
    "interpolate",
    "mig",
    "mutual_information",
    "novelty",
    "observations",
    "reconstruct",
    "traverse",
]
