"""A program as maths: the factorisation of p and of q, the sites, and the number of parameters."""

from .describe import Description, describe
from .names import symbol

__all__ = ["Description", "describe", "symbol"]
