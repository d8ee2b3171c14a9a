"""What a trained model is worth, and what it makes."""

from .annealed import Annealed, anneal
from .evidence import Evaluation, evaluate
from .matching import best_matching, clustering_accuracy
from .samples import decode, encode, generate, interpolate, reconstruct, traverse

__all__ = [
    "Annealed",
    "Evaluation",
    "anneal",
    "best_matching",
    "clustering_accuracy",
    "decode",
    "encode",
    "evaluate",
    "generate",
    "interpolate",
    "reconstruct",
    "traverse",
]
