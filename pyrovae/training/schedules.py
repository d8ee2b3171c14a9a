"""Learning-rate schedules: the fraction of the learning rate at a fraction of the training."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..config import nearest

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """A straight line from 1 to 0."""
    return 1 - progress


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "linear": linear}


def find_schedule(schedule: str | Schedule) -> Schedule:
    """A schedule by name, or the function itself. Raises ValueError with the nearest match."""
    if not isinstance(schedule, str):
        return schedule
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; {nearest(schedule, SCHEDULES)}")
    return SCHEDULES[schedule]
