"""Numbers that constructors are given, refused where they are wrong: who, expected, got, remedy."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_positive(who: str, name: str, value: Any, remedy: str = "give a number above 0") -> float:
    """A finite number above 0, as a float. Raises ValueError."""
    if not _is_number(value) or not 0 < float(value) < math.inf:
        raise ValueError(f"{who} expects {name} as a finite number above 0, got {value!r}; {remedy}")
    return float(value)


def check_whole(who: str, name: str, value: Any, least: int = 1, remedy: str = "give a whole number") -> int:
    """A whole number of at least so many, as an int. Raises ValueError."""
    if not _is_number(value) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{who} expects {name} as a whole number of at least {least}, got {value!r}; {remedy}")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
