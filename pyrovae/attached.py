"""Parts that look at the model they are a part of: a prior made of posteriors, a posterior refined on the model."""

from __future__ import annotations

from typing import Any

import torch.nn as nn


class Attached:
    """A mixin for a part that needs other parts of its model, whichever these are at the time.

    A model attaches its parts: `part.attach(self)`. The model is kept out of the part's submodules, whose names,
    parameters and state are those of the part alone.
    """

    _model: tuple[nn.Module, ...] = ()

    def attach(self, model: nn.Module) -> None:
        """Say which model this is a part of."""
        self._model = (model,)  # in a tuple: no submodule

    def others(self, name: str) -> Any:
        """The part of this name of the model. Raises ValueError for a part that is attached to no such model."""
        if not self._model or not hasattr(self._model[0], name):
            got = f"{type(self._model[0]).__name__} without one" if self._model else "none"
            raise ValueError(
                f"{type(self).__name__} expects to be part of a model with a {name}, got {got}; pass it to VAE(...), "
                "or call .attach(model) where your model is built"
            )
        return getattr(self._model[0], name)


def attach(model: nn.Module) -> None:
    """Attach every part of a model that wants to be."""
    for part in model.modules():
        if isinstance(part, Attached):
            part.attach(model)
