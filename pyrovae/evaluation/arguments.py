"""What evaluation is given, each mistake refused in one sentence: who, expected, got, remedy."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from torch import Tensor

from ..data import Dataset


def check_count(who: str, expected: str, name: str, value: Any, least: int = 1) -> None:
    """Refuse what is not a whole number of at least `least`. Raises ValueError."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{who} expects {expected}, got {name}={value!r}; give a whole number")


def check_data(who: str, x: Any, form: str = "[N, *event]") -> None:
    """Refuse what is no tensor of data, or one without any. Raises ValueError."""
    if isinstance(x, Tensor):
        if not x.numel() or (x.dim() == 0 and form == "[N, *event]"):
            raise ValueError(f"{who} expects data {form} with at least one value, got shape {list(x.shape)}; give some")
        return
    remedy = "give one of its splits, as data.test" if isinstance(x, Dataset) else "convert it by torch.as_tensor"
    raise ValueError(f"{who} expects data as a tensor {form}, got {type(x).__name__}; {remedy}")
