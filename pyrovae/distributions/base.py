"""What distributions of ours have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


def uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uniform draws inside (0, 1), so that their logarithms are finite."""
    eps = torch.finfo(like.dtype).eps
    return torch.rand(torch.Size(shape), dtype=like.dtype, device=like.device).clamp(eps, 1 - eps)


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


class Broadcasting(dist.TorchDistribution):
    """Abstract: a distribution whose parameters stay as they are when its batch shape grows, and broadcast.

    torch's `expand` expands the parameters, so that what is computed from them alone is computed for every particle
    and datum. The mixture of C components that are a prior's is then C densities, not K·B·C.

    A subclass draws `_extended_shape(sample_shape)` from parameters that it broadcasts, and hands its log density on
    to `_log_prob`, whose result may have fewer batch dimensions than the distribution.
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution for every element of a larger batch shape. Raises ValueError for one that is not."""
        wanted, own = torch.Size(batch_shape), self.batch_shape
        grows = zip(reversed(own), reversed(wanted), strict=False)
        if len(wanted) < len(own) or any(n not in (1, w) for n, w in grows):
            raise ValueError(
                f"{type(self).__name__}.expand expects a batch shape that {list(own)} grows to, got {list(wanted)}"
            )
        new = copy.copy(self) if _instance is None else _instance
        new.__dict__.update(self.__dict__)
        new._batch_shape = wanted
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, over the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        leading = value.shape[: value.dim() - len(self.event_shape)]
        return self._log_prob(value).expand(torch.broadcast_shapes(self.batch_shape, leading))

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without a gradient."""
        with torch.no_grad():
            return self._draw(torch.Size(self._extended_shape(torch.Size(sample_shape))))

    def _draw(self, shape: torch.Size) -> Tensor:
        """Draws [*sample shape, *batch, *event]."""
        raise NotImplementedError
