"""What every likelihood is: a module whose forward takes the latents and returns p(x | z)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..config import Configured
from ..networks import input_shape, over_leading


class Likelihood(Configured, nn.Module, ABC):
    """Abstract: p(x | z), its parameters the output of a decoder.

    Args:
        network: a decoder from [L] to `decoded(event)`; it may be written for [N, L] alone, without particles.

    Attributes:
        latent: number of latent dimensions L; None where the decoder does not tell the shape of its input.
    """

    inside: ClassVar[float] = 0.0  # where the density is always finite: `Missing` asks there in the place of a NaN

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        inputs = input_shape(network)
        self.latent = inputs[0] if inputs is not None and len(inputs) == 1 else None

    @classmethod
    def options_for(cls, data: Any) -> dict[str, Any]:
        """Options of the constructor that the values of a data set decide, where they are not given or None.

        Their defaults are None: the command line gives every option, so that no other default tells what is given.
        """
        return {}

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """The output shape that the decoder must have for data of shape `event`, under the constructor's options."""
        return list(event)

    def start(self, mean: Tensor) -> Tensor | None:
        """The decoder's output under which x has about this mean, for decoders to begin at; None: they begin at 0."""
        return None

    @abstractmethod
    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """The distribution of every element, independent given z, or of the datum, from the decoder's output y."""

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): z is [*leading, L], the distribution has batch shape [*leading] and the data's event shape."""
        if not z.is_floating_point():  # whole numbers, as a Categorical draws them
            z = z.to(next((p.dtype for p in self.network.parameters()), torch.get_default_dtype()))
        y = over_leading(self.network, z, 1).to(z.dtype)  # under autocast densities are still taken in full precision
        event_dim = y.dim() - (z.dim() - 1)
        p = self.distribution(y, event_dim)
        return p.to_event(event_dim - p.event_dim)
