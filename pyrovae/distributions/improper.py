"""The distribution without any preference: density 1 everywhere, and no draws."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor


class ImproperUniform(dist.ImproperUniform):
    """Density 1 on a support of any size: Pyro's, with a log density that is where its value is, on a GPU too."""

    def log_prob(self, value: Tensor) -> Tensor:
        """0 for every value."""
        batch = value.shape[: value.dim() - self.event_dim]
        return value.new_zeros(torch.broadcast_shapes(batch, self.batch_shape))
