"""What a trained model is worth, and what it makes."""

from .annealed import Annealed, anneal
from .evidence import Evaluation, evaluate
from .samples import decode, encode, generate, interpolate, reconstruct, traverse

__all__ = [
    "Annealed",
    "Evaluation",
    "anneal",
    "decode",
    "encode",
    "evaluate",
    "generate",
    "interpolate",
    "reconstruct",
    "traverse",
]
