"""What a trained model is worth, and what it makes."""

from .evidence import Evaluation, evaluate
from .samples import decode, encode, generate, interpolate, reconstruct, traverse

__all__ = ["Evaluation", "decode", "encode", "evaluate", "generate", "interpolate", "reconstruct", "traverse"]
