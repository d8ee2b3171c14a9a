"""What our own distributions have in common: they are their tensors."""

from __future__ import annotations

import copy
from typing import Any

import pyro.distributions as dist
import torch


class TensorDistribution(dist.TorchDistribution):
    """Abstract: a distribution that is the tensors named in `arg_constraints`, each [*batch, ...], and plain values."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape."""
        new, dims = copy.copy(self), len(self.batch_shape)
        new._batch_shape = torch.Size(batch_shape)
        for name in self.arg_constraints:
            t = getattr(self, name)
            setattr(new, name, t.expand(new._batch_shape + t.shape[dims:]))
        return new
