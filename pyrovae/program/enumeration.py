"""Discrete sites that are summed over exactly: which they are, and every value that they can take."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .sites import DATA, data_frames, family, unwrapped

LARGEST = 2**16  # combinations of one site; each is a particle, with its pass through the decoder


def is_marked(site: Any) -> bool:
    """Whether a site asks to be enumerated, in Pyro's words: infer={"enumerate": "parallel"}."""
    return bool(site["infer"] and site["infer"].get("enumerate"))


def check_marked(site: Any) -> None:
    """Refuse a site whose values cannot be summed over datum by datum. Raises ValueError."""
    inner = [f.name for f in site["cond_indep_stack"] if f.name not in (DATA, "particles")]
    if inner or not data_frames(site):
        where = f"inside plate {inner[0]!r}" if inner else f"outside plate {DATA!r}"
        raise ValueError(
            f"site {site['name']!r} is marked for enumeration and is {where}; sums go over the values of one datum, so "
            f"it must be in plate {DATA!r} alone. Declare its other dimensions with .to_event(n), or draw it."
        )


def support(name: str, distribution: Any) -> Tensor:
    """Every value of one event: [S, *event]; all combinations where the event has several independent parts.

    Raises ValueError for a distribution that is not discrete and finite, or has more than 65,536 values.
    """
    part = unwrapped(distribution)
    try:
        values = part.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise ValueError(
            f"site {name!r} is marked for enumeration and {family(distribution)} has no finite support; take the mark "
            "off, or use a Bernoulli, Categorical or OneHotCategorical"
        ) from error
    values = values.reshape(len(values), *part.event_shape)  # [s, *event of a part]
    shape = distribution.event_shape[: len(distribution.event_shape) - len(part.event_shape)]
    parts, one = math.prod(shape), len(values)
    if parts * math.log(one) > math.log(LARGEST):
        raise ValueError(
            f"site {name!r} is marked for enumeration and has {one}^{parts} values, more than {LARGEST}; draw it "
            "(gradient='score' or 'vimco'), or make it smaller"
        )
    digit = torch.arange(one**parts, device=values.device)[:, None]
    power = one ** torch.arange(parts, device=values.device).flip(0)
    return values[digit // power % one].reshape(one**parts, *distribution.event_shape)  # [s^parts, *event]
