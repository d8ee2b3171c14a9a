"""Guides that are derived from a model, and plain functions as programs."""

from .amortised import FAMILIES, Amortised
from .derive import amortize
from .functions import Program

__all__ = ["FAMILIES", "Amortised", "Program", "amortize"]
