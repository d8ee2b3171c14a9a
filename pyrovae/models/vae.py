"""The variational autoencoder: p(x, z) = p(z) p(x | z), approximated by q(z | x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch.nn as nn
from torch import Tensor

from ..config import Configured, find_class
from ..data import from_arrays
from ..likelihoods import Likelihood
from ..networks import Chain, Standardise, pair
from ..posteriors import Posterior
from ..priors import Prior

Part = str | Mapping[str, Any]  # a class name, or {"class_path": name, "init_args": {...}}


class VAE(Configured, nn.Module):
    """p(x, z) = p(z) p(x | z), approximated by q(z | x).

    Args:
        prior: p(z), a module that returns a distribution.
        likelihood: p(x | z), a module from z to a distribution.
        posterior: q(z | x), a module from x to a distribution.

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
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior

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
        activation: str = "relu",
        prior: Part = "StandardNormal",
        likelihood: Part = "auto",
        posterior: Part = "DiagonalNormal",
    ) -> VAE:
        """A VAE whose sizes fit the data.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            latent: number of latent dimensions L.
            hidden: widths of the hidden layers from the data inwards ([400]); for "conv" the channels ([32, 64]).
            network: "mlp" or "conv".
            activation: relu, tanh, gelu, silu, elu, softplus or leaky_relu.
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
        data = _data(data)
        if not isinstance(latent, int) or latent < 1:
            raise ValueError(f"VAE.build expects latent of at least 1, got {latent!r}; give a whole number")
        p, p_options = _part("prior", prior, Prior)
        if likelihood == "auto":
            likelihood = natural_likelihood(data)
        r, r_options = _part("likelihood", likelihood, Likelihood)
        q, q_options = _part("posterior", posterior, Posterior)
        if r.__name__ == "Binomial" and data.levels:
            r_options.setdefault("total_count", data.levels)
        event = list(data.event_shape)
        encoder, decoder = pair(
            network, event, q.code(latent), latent, r.decoded(event, **r_options), hidden, activation
        )
        some = next(data.batches("train", 10_000, shuffle=False))
        centre = Standardise(event).to_data(some, rescale=data.values in ("counts", "real"))
        encoder = Chain(centre, encoder)
        return cls(
            _build(p, p_options, latent),
            _build(r, r_options, decoder),
            _build(q, q_options, encoder),
        )


def natural_likelihood(data: Any) -> Part:
    """The likelihood that the values of a data set ask for."""
    names = {"binary": "Bernoulli", "counts": "Binomial", "unit": "ContinuousBernoulli", "real": "Normal"}
    return names[data.values]


def _data(data: Any) -> Any:
    """A data set of events that a network can take. Raises ValueError."""
    if isinstance(data, Tensor | np.ndarray):
        data = from_arrays(data, validation_size=0)  # as fit reads it
    if not hasattr(data, "event_shape"):
        raise ValueError(
            f"VAE.build expects data as a Dataset or a tensor [N, *event], got {type(data).__name__}; make one by "
            "pv.data.load or pv.data.from_arrays"
        )
    if not data.event_shape:
        raise ValueError("VAE.build expects events of at least one dimension, got scalars [N]; give x[:, None]")
    return data


def _part(role: str, spec: Any, base: type) -> tuple[Any, dict[str, Any]]:
    """The class of a part and its options. Raises ValueError."""
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        got = f"an object of class {type(spec).__name__}" if isinstance(spec, nn.Module) else repr(spec)
        raise ValueError(
            f"VAE.build expects {role} as a name or {{'class_path': name, 'init_args': options}}, got {got}; "
            "VAE(prior, likelihood, posterior) takes objects"
        )
    return find_class(spec["class_path"], base, f"pyrovae.{role}s"), dict(spec.get("init_args") or {})


def _build(cls: Any, options: dict[str, Any], first: Any) -> nn.Module:
    try:
        return cls(first, **options)
    except TypeError as error:
        raise ValueError(f"{cls.__name__} does not take these options: {error}") from error
