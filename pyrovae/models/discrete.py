"""Codes that are choices: latents of a few values each, where others have real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..attached import attach
from ..config import Configured
from ..distributions.relaxed import (
    TEMPERATURE,
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
    check_temperature,
)
from ..networks import input_shape, output_shape
from .build import Part, check_latent
from .vae import VAE


class DiscreteVAE(Configured, nn.Module):
    """p(x, z) = Π_l p(z_l) p(x | z), every z_l one of C values: a code of switches, not of positions.

    Much of what makes things differ has no in-between: a stroke is there or it is not. Here a datum is described by L
    answers out of C each, C^L codes in all, and the decoder is given them side by side as one-hot vectors (for two
    values as one number, 0 or 1). How common each answer is belongs to what is learned:

        z_l ~ Categorical(π_l),    x | z ~ p(x | z),    q(z | x) = Π_l Categorical(z_l; softmax(f(x)_l))

    A draw that is a choice does not move when the encoder does, so that there is no gradient to pass through it. With
    a temperature, draws have that of their relaxed form (straight-through): biased, and ready for every objective.
    Without one the gradient has to come from the score: IWAE with gradient="vimco", ELBO with gradient="score", and
    for two values DisARM and REBAR, all unbiased.

    Args:
        latent: number of latents L.
        categories: number of values C of each, at least 2.
        encoder: a network from the event of x to the logits f(x), [L] for two values, else [L C], latent by latent.
        likelihood: p(x | z), a module from z, [L] for two values, else [L C], to a distribution.
        temperature: of the relaxation that the gradient is taken from, above 0; None for draws without a gradient.

    Raises:
        ValueError: for sizes that are none, a temperature that is none, or networks of other sizes.

    References: Mnih and Rezende, "Variational inference for Monte Carlo objectives", 2016; Jang, Gu and Poole,
    "Categorical reparameterization with Gumbel-softmax", 2017; Dong, Mnih and Tucker, "DisARM", 2020.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.models.DiscreteVAE.build(data, latent=6, categories=4, hidden=[30]).code(data.test[:2]).shape  # 0, …, 3
    torch.Size([2, 6])

    On the command line: pyrovae train DiscreteVAE --data digits --learning_rate 1e-2 --epochs 100
    """

    def __init__(
        self,
        latent: int,
        categories: int,
        encoder: nn.Module,
        likelihood: nn.Module,
        temperature: float | None = TEMPERATURE,
    ) -> None:
        super().__init__()
        check_latent("DiscreteVAE", latent)
        check_whole("DiscreteVAE", "categories", categories, 2)
        self.latent, self.categories = latent, categories
        self.temperature = None if temperature is None else check_temperature("DiscreteVAE", temperature)
        given, taken = output_shape(encoder), input_shape(getattr(likelihood, "network", likelihood))
        for role, shape in (("an encoder that returns", given), ("a decoder that takes", taken)):
            if shape is not None and list(shape) != self.sizes(latent, categories):
                raise ValueError(
                    f"DiscreteVAE expects {role} {self.sizes(latent, categories)} for {latent} latents of "
                    f"{categories} values, got {list(shape)}; build it for DiscreteVAE.sizes(latent, categories)"
                )
        self.encoder, self.likelihood = encoder, likelihood
        self.logits = nn.Parameter(torch.zeros(latent if categories == 2 else (latent, categories)))  # of p(z)
        attach(self)

    @staticmethod
    def sizes(latent: int, categories: int) -> list[int]:
        """What the encoder returns and the decoder takes: [L] for two values, else [L C]."""
        return [latent if categories == 2 else latent * categories]

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self._choices(self.logits, None))
            pyro.sample("x", self.likelihood(z if self.categories == 2 else z.flatten(-2)), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z | x) for x [*leading, *event]: over {0, 1}^L, or over L one-hot vectors [L, C]."""
        logits = self.encoder(x).to(x.dtype)
        if self.categories > 2:
            logits = logits.unflatten(-1, (self.latent, self.categories))
        return self._choices(logits, self.temperature)

    def code(self, x: Tensor) -> Tensor:
        """The most probable z under q(z | x), as numbers 0, …, C − 1: [*leading, L]."""
        logits = self.encoder(x)
        if self.categories == 2:
            return (logits > 0).long()
        return logits.unflatten(-1, (self.latent, self.categories)).argmax(-1)

    def _choices(self, logits: Tensor, temperature: float | None) -> dist.TorchDistribution:
        if self.categories == 2:
            hard, straight = dist.Bernoulli, StraightThroughBernoulli
        else:
            hard, straight = dist.OneHotCategorical, StraightThroughOneHotCategorical
        each = hard(logits=logits) if temperature is None else straight(logits, temperature)
        return each.to_event(1)

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 50,
        categories: int = 2,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        likelihood: Part = "auto",
        temperature: float | None = TEMPERATURE,
    ) -> DiscreteVAE:
        """A model whose sizes fit the data, by `VAE.build`.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            latent: number of latents L.
            categories: number of values C of each.
            hidden: widths or channels from the data inwards, as for `VAE.build`.
            network: mlp, gated, conv, resnet, gru or transformer, as for `VAE.build`.
            activation: as for `VAE.build`.
            likelihood: p(x | z), by name; "auto" is what the values of the data ask for.
            temperature: of the straight-through gradient; None for an objective that uses the score.

        Raises:
            ValueError: as `VAE.build` does, and for less than two categories.

        >>> import pyrovae as pv
        >>> pv.models.DiscreteVAE.build(pv.data.load("digits"), latent=8, categories=3).logits.shape
        torch.Size([8, 3])
        """
        check_latent("DiscreteVAE.build", latent)
        check_whole("DiscreteVAE.build", "categories", categories, 2)
        (size,) = cls.sizes(latent, categories)
        vae = VAE.build(data, size, hidden, network, activation, "Bernoulli", likelihood, "Bernoulli")  # logits [size]
        posterior: Any = vae.posterior
        return cls(latent, categories, posterior.network, vae.likelihood, temperature)
