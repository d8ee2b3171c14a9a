"""The laboratory: objectives held against the truth and against each other."""

from .compare import compare
from .race import race
from .report import report
from .slopes import slopes
from .summary import summary

__all__ = ["compare", "race", "report", "slopes", "summary"]
