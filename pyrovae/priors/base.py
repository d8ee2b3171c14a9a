"""What every prior is: a module whose forward returns p(z)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch.nn as nn

from ..config import Configured


class Prior(Configured, nn.Module, ABC):
    """Abstract: p(z) over `latent` dimensions; a forward without arguments that returns a distribution is all of it.

    Args:
        latent: number of latent dimensions L.

    Raises:
        ValueError: for less than one latent dimension.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        if int(latent) < 1:
            raise ValueError(f"{type(self).__name__} expects at least one latent dimension, got latent={latent}")
        self.latent = int(latent)

    @classmethod
    def for_data(cls, latent: int, data: Any, **options: Any) -> Prior:
        """The prior of a model of some data; one that is made of data says how here."""
        return cls(latent, **options)

    @abstractmethod
    def forward(self) -> dist.TorchDistribution:
        """The distribution p(z), with batch shape [] and event shape [latent]."""

    @property
    def support(self) -> Any:
        """The set of values that z can take, a torch constraint."""
        return self().support
