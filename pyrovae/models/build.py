"""What `build(data, ...)` of the models has in common: from data and names to modules whose sizes fit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn as nn
from torch import Tensor

from ..config import find_class
from ..data import from_arrays

Part = str | Mapping[str, Any]  # a class name, or {"class_path": name, "init_args": {...}}


def as_data(who: str, data: Any, labelled: bool = False) -> Any:
    """A data set of events that a network can take, with labels in front of them or not. Raises ValueError."""
    if isinstance(data, Tensor | np.ndarray):
        data = from_arrays(data, validation_size=0)  # as fit reads it
    if not hasattr(data, "event_shape"):
        raise ValueError(
            f"{who} expects data as a Dataset or a tensor [N, *event], got {type(data).__name__}; make one by "
            "pv.data.load or pv.data.from_arrays"
        )
    if not data.event_shape:
        raise ValueError(f"{who} expects events of at least one dimension, got scalars [N]; give x[:, None]")
    has_labels = getattr(data, "labelled", False)
    if labelled and not has_labels:
        raise ValueError(
            f"{who} expects data that begin with their label, got {data.name!r} without; load them with labelled=True, "
            "or labelled=100 for so many labels (--labelled on the command line)"
        )
    if has_labels and not labelled:
        raise ValueError(
            f"{who} reads no labels, got {data.name!r} with labelled=True; load the data without, or use "
            "ConditionalVAE or SemiSupervisedVAE"
        )
    return data


def first_counts(who: str, data: Any) -> Tensor:
    """Some data, [N, *event], which have to be counts that are all observed. Raises ValueError."""
    x = next(data.batches("train", 10_000, shuffle=False))
    missing = getattr(data, "missing", False)
    if missing or not bool(((x >= 0) & (x == x.round())).all()):
        got = "missing=True" if missing else f"values from {float(x.min()):g} to {float(x.max()):g}"
        raise ValueError(
            f"{who} expects counts 0, 1, 2, ..., all of them observed, got {data.name!r} with {got}; give whole "
            "numbers, or use VAE.build"
        )
    return x


def check_latent(who: str, latent: Any) -> None:
    """Refuse what is no number of latent dimensions. Raises ValueError."""
    if not isinstance(latent, int) or latent < 1:
        raise ValueError(f"{who} expects latent of at least 1, got {latent!r}; give a whole number")


def find_part(model: type, role: str, spec: Any, base: type) -> tuple[Any, dict[str, Any]]:
    """The class of a model's part and its options. Raises ValueError."""
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        got = f"an object of class {type(spec).__name__}" if isinstance(spec, nn.Module) else repr(spec)
        raise ValueError(
            f"{model.__name__}.build expects {role} as a name or {{'class_path': name, 'init_args': options}}, got "
            f"{got}; {model.__name__}({', '.join(inspect.signature(model).parameters)}) takes objects"
        )
    return find_class(spec["class_path"], base, f"pyrovae.{role}s"), dict(spec.get("init_args") or {})


def check_parts(prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
    """Refuse parts of different latent sizes, as far as they tell. Raises ValueError."""
    parts = {"prior": prior, "likelihood": likelihood, "posterior": posterior}
    sizes = {role: getattr(part, "latent", None) for role, part in parts.items()}
    if len({n for n in sizes.values() if n is not None}) > 1:
        told = ", ".join(f"{type(parts[r]).__name__} has {n}" for r, n in sizes.items() if n is not None)
        raise ValueError(
            f"prior, likelihood and posterior expect one number of latent dimensions, got {told}; build the prior, the "
            "decoder's input and the encoder's output (posterior.code(latent)) for one latent size"
        )


def build_part(cls: Any, options: dict[str, Any], *first: Any) -> Any:
    """What a part's class, or a class method of it, makes of its first arguments and the part's options.

    Raises ValueError for options that it does not take.
    """
    try:
        return cls(*first, **options)
    except TypeError as error:
        who = getattr(cls, "__self__", cls).__name__
        raise ValueError(f"{who} does not take these options: {error}") from error
