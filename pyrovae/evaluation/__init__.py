"""What a trained model is worth, and what it makes."""

from .annealed import Annealed, anneal
from .evidence import Evaluation, evaluate
from .fidelity import Fidelity, fidelity
from .samples import decode, encode, generate, interpolate, reconstruct, traverse

__all__ = [
    "Annealed",
    "Evaluation",
    "Fidelity",
    "anneal",
    "decode",
    "encode",
    "evaluate",
    "fidelity",
    "generate",
    "interpolate",
    "reconstruct",
    "traverse",
]
