"""The conditional VAE: p(x, z | y) = p(z) p(x | z, y), approximated by q(z | x, y)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import torch.nn as nn
from torch import Tensor

from ..attached import attach
from ..config import Configured
from ..networks import beside
from ..priors import Prior
from .build import Part, as_data, build_part, check_latent, find_part
from .labels import Row, parts_for, take_apart


class ConditionalVAE(Configured, nn.Module):
    """p(x, z | y) = p(z) p(x | z, y), approximated by q(z | x, y).

    Every digit 3 is a 3, and differs from others in its slant, its width and its weight. The label y is given and no
    random choice: it is told to decoder and encoder, so that z is left with what the label does not say, its style.

        z ~ p(z),    x | z, y ~ p(x | z, y)

    The evidence is that of x given its label, log p(x | y). One z with every y is one style in all classes:

        pv.decode(vae, z, like=x), rows of x beginning with the labels that are wanted

    Args:
        prior: p(z), a module that returns a distribution.
        likelihood: p(x | z, y), a module from z and the one-hot label side by side, [L + C], to a distribution.
        posterior: q(z | x, y), a module from features and the one-hot label side by side to a distribution.
        features: of x without its label, from its event shape to a vector.
        classes: C.
        event: shape of x without its label.

    Raises:
        ValueError: for data whose labels are not all told, or no class.

    Reference: Sohn, Lee and Yan, "Learning structured output representation using deep conditional generative models",
    2015.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits", labelled=True)
    >>> vae = pv.models.ConditionalVAE.build(data, latent=4)
    >>> pv.generate(vae, 5, like=data.test[:5]).shape  # of the same classes
    torch.Size([5, 1, 8, 8])

    pyrovae train ConditionalVAE --data digits --labelled true --epochs 100
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        posterior: nn.Module,
        features: nn.Module,
        classes: int,
        event: Sequence[int],
    ) -> None:
        super().__init__()
        self.prior, self.likelihood, self.posterior, self.features = prior, likelihood, posterior, features
        self.classes, self.event = classes, tuple(event)
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z, y); x: [B, 1 + D], the label and then the datum."""
        row = self.take_apart(x)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(beside(z, row.label)), obs=row.content)

    def guide(self, x: Tensor) -> None:
        """q(z | x, y)."""
        row = self.take_apart(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(beside(self.features(row.content), row.label)))

    def take_apart(self, x: Tensor) -> Row:
        """The label, one-hot, and the datum. Raises ValueError."""
        return take_apart("ConditionalVAE", x, self.classes, self.event)

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 20,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        prior: Part = "StandardNormal",
        likelihood: Part = "auto",
        posterior: Part = "DiagonalNormal",
    ) -> ConditionalVAE:
        """A model whose sizes fit labelled data: `pv.data.load(..., labelled=True)`.

        Arguments and errors are those of `VAE.build`.
        """
        data = as_data("ConditionalVAE.build", data, labelled=True)
        check_latent("ConditionalVAE.build", latent)
        p, p_options = find_part(cls, "prior", prior, Prior)
        parts = parts_for(cls, data, latent, hidden, network, activation, likelihood, posterior)
        p_of_z = build_part(p.for_data, p_options, latent, data)
        return cls(p_of_z, *parts[:3], data.classes, list(data.content_shape))
