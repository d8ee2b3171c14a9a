"""Guides that are derived from a model, and plain functions as programs."""

from .amortised import Amortised
from .conditional import FAMILIES
from .derive import amortize
from .functions import Program

__all__ = ["FAMILIES", "Amortised", "Program", "amortize"]
