"""What is wrong with a program, found before the first step."""

from .finding import Finding
from .table import check

__all__ = ["Finding", "check"]
