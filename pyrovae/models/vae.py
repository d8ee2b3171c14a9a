"""The variational autoencoder: p(x, z) = p(z) p(x | z), approximated by q(z | x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import torch.nn as nn
from torch import Tensor

from ..attached import attach
from ..config import Configured
from ..likelihoods import Likelihood, Missing
from ..networks import Chain, Standardise, pair
from ..posteriors import Posterior
from ..priors import Prior
from .build import Part, as_data, build_part, check_latent, check_parts, find_part


class VAE(Configured, nn.Module):
    """p(x, z) = p(z) p(x | z), approximated by q(z | x).

    Args:
        prior: p(z), a module that returns a distribution.
        likelihood: p(x | z), a module from z to a distribution.
        posterior: q(z | x), a module from x to a distribution.

    Raises:
        ValueError: for parts that tell of different numbers of latent dimensions.

    Reference: Kingma and Welling, "Auto-encoding variational Bayes", 2014.

    >>> import torch, pyrovae as pv
    >>> vae = pv.models.VAE(
    ...     pv.priors.StandardNormal(2),
    ...     pv.likelihoods.Bernoulli(pv.networks.MLP([2], [8])),
    ...     pv.posteriors.DiagonalNormal(pv.networks.MLP([8], [4])),
    ... )
    >>> pv.densities(vae, torch.ones(3, 8), particles=5).log_weight.shape
    torch.Size([5, 3])
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        check_parts(prior, likelihood, posterior)
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))

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
    ) -> VAE:
        """A VAE whose sizes fit the data.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event]. Data with missing=True get the likelihood
                of what is observed (`likelihoods.Missing`) and an encoder to which a NaN is the mean.
            latent: number of latent dimensions L.
            hidden: widths of the layers from the data inwards (mlp: [400], gated: [300, 300], gru: [128]), channels of
                the stages (conv and resnet: [32, 64]), or one width for each block (transformer: [64, 64]).
            network: mlp or gated for data of any shape, conv or resnet for images [C, H, W], gru or transformer for
                sequences [T, D].
            activation: relu, tanh, gelu, silu, elu, softplus or leaky_relu; by default relu (transformer: gelu), and
                gated and gru have none to choose.
            prior: p(z), by name.
            likelihood: p(x | z), by name; "auto" is what the values of the data ask for: Bernoulli for {0, 1},
                Binomial for counts, ContinuousBernoulli for [0, 1] and Normal otherwise.
            posterior: q(z | x), by name.

        Raises:
            ValueError: for an unknown name, with the nearest match, options that its class does not take, an object
                in the place of a name, or sizes that are none.

        >>> import pyrovae as pv
        >>> pv.models.VAE.build(pv.data.load("digits"), latent=2).likelihood.total_count
        16
        """
        data = as_data("VAE.build", data)
        check_latent("VAE.build", latent)
        p, p_options = find_part(cls, "prior", prior, Prior)
        if likelihood == "auto":
            likelihood = natural_likelihood(data)
        r, r_options = find_part(cls, "likelihood", likelihood, Likelihood)
        q, q_options = find_part(cls, "posterior", posterior, Posterior)
        r_options = with_data(r, r_options, data)
        event = list(data.event_shape)
        encoder, decoder = pair(
            network,
            event,
            build_part(q.code, q_options, latent),
            latent,
            build_part(r.decoded, r_options, event),
            hidden,
            activation,
        )
        some = next(data.batches("train", 10_000, shuffle=False))
        missing = getattr(data, "missing", False)
        centre = Standardise(event, missing).to_data(some, rescale=data.values in ("counts", "real"))
        encoder = Chain(centre, encoder)
        decoded = build_part(r, r_options, decoder)
        return cls(
            build_part(p.for_data, p_options, latent, data),
            Missing(decoded) if missing else decoded,
            build_part(q, q_options, encoder),
        )


def with_data(likelihood: Any, options: dict[str, Any], data: Any) -> dict[str, Any]:
    """Options of a likelihood's class, those that are left out or None as the data set says."""
    decided = likelihood.options_for(data)
    return decided | {k: v for k, v in options.items() if v is not None or k not in decided}


def natural_likelihood(data: Any) -> Part:
    """The likelihood that the values of a data set ask for."""
    names = {"binary": "Bernoulli", "counts": "Binomial", "unit": "ContinuousBernoulli", "real": "Normal"}
    return names[data.values]
