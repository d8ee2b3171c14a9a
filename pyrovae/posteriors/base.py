"""What every posterior is: a module whose forward takes the data and returns q(z | x)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch.nn as nn
from torch import Tensor

from ..config import Configured
from ..networks import output_shape


class Posterior(Configured, nn.Module, ABC):
    """Abstract: q(z | x), its parameters the output of an encoder.

    Args:
        network: an encoder from the event shape of x to `code(latent)`.
        options: those of the constructor that `code` depends on.

    Attributes:
        latent: number of latent dimensions L; None where the encoder does not tell the shape of its output.

    Raises:
        ValueError: for an encoder whose output is a code of no number of latents.
    """

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__()
        self.network = network
        self.latent: int | None = None
        if (outputs := output_shape(network)) is not None:
            sizes = range(1, outputs[0] + 1) if len(outputs) == 1 else ()
            self.latent = next((n for n in sizes if self.code(n, **options) == list(outputs)), None)
            if self.latent is None:
                some = ", ".join(f"{self.code(n, **options)} for {n}" for n in (1, 2, 3))
                who = type(self).__name__
                raise ValueError(
                    f"{who} expects an encoder with as many outputs as some number of latents needs "
                    f"({some}, ...), got outputs {list(outputs)}; build it for {who}.code(latent)"
                )

    @classmethod
    @abstractmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """The output shape that the encoder must have for `latent` dimensions, under the constructor's options."""

    @abstractmethod
    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """q(z | x): x is [*leading, *event], the distribution has batch shape [*leading] and event shape [L]."""
