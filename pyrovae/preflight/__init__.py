"""What is wrong with a program, found before the first step."""

from .check import check
from .finding import Finding

__all__ = ["Finding", "check"]
