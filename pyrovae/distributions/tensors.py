"""What our own distributions have in common: they are their tensors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch


class TensorDistribution(dist.TorchDistribution):
    """Abstract: a distribution that is the tensors named in `arg_constraints`, each [*batch, ...], and plain values."""

    def __init__(
        self, batch_shape: Sequence[int], event_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=validate_args)
        self._validate_args = self._validate_args  # as it is now, whatever is set for all when a density is asked for

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new, dims = copy.copy(self), len(self.batch_shape)
        new._batch_shape = torch.Size(batch_shape)
        for name in self.arg_constraints:
            t = getattr(self, name)
            setattr(new, name, t.expand(new._batch_shape + t.shape[dims:]))
        return new
