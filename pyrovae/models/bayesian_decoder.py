"""A VAE whose decoder is not known for certain: its weights are latents that all data have in common."""

from __future__ import annotations

import itertools
import math
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
from ..likelihoods import Likelihood, Missing
from ..networks import Chain, Network, Standardise, encoder
from ..networks.base import as_sizes
from ..posteriors import Posterior
from ..priors import Prior
from .build import Part, as_data, build_part, check_latent, find_part
from .vae import natural_likelihood, with_data

DOUBT = 0.02  # the deviation of a weight under q at the start


class BayesianDecoderVAE(Configured, nn.Module):
    """p(x, z, W) = p(W) Π_n p(z_n) p(x_n | z_n, W), approximated by q(W) Π_n q(z_n | x_n).

    A decoder is learned from so many data, and no more is known of it than they say. Its weights and biases, W for
    short, are latents like any other, drawn once for all data; a code z_n is drawn for each datum:

        W_l ~ 𝒩(0, s_l² I),  b_l ~ 𝒩(0, r_l² I)    for every layer l; the s_l and r_l are learned
        z_n ~ p(z),    x_n | z_n, W ~ p(x_n | y_n),    y_n = W_2ᵀ relu(W_1ᵀ z_n + b_1) + b_2, and so on

    The guide has a mean and a deviation for every weight. A weight that the data say nothing of goes back to its
    prior, where it costs nothing. What the weights cost is counted once for all N data:

        log p(x_1, …, x_N) ≥ E_q Σ_n [log p(x_n | z_n, W) − KL(q(z_n | x_n) ‖ p(z))] − KL(q(W) ‖ p(W))

    A batch has its share of the last term, so that the model has to know N. Test data are judged by their predictive
    density log E_q(W) p(x | W), under the weights that the training data have left.

    Args:
        prior: p(z), a module that returns a distribution.
        likelihood: p(x | y), a module from what the last layer gives, [D], to a distribution.
        posterior: q(z | x), a module from x to a distribution.
        widths: those of the decoder's layers, from L to D.
        size: N, the number of training data.

    Raises:
        ValueError: for sizes that are none, or no layer.

    References: Blundell et al., "Weight uncertainty in neural networks", 2015; Kingma and Welling, "Auto-encoding
    variational Bayes", 2014, appendix F.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.BayesianDecoderVAE.build(data, latent=3, hidden=[16])
    >>> pv.evaluate(vae, data.test[:5], particles=10).global_latents
    ('W_1', 'b_1', 'W_2', 'b_2')

    pyrovae train BayesianDecoderVAE --data digits --learning_rate 1e-2
    """

    def __init__(
        self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module, widths: Sequence[int], size: int
    ) -> None:
        super().__init__()
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.widths = as_sizes(self, "widths", widths)
        if len(self.widths) < 2:
            raise ValueError(
                f"BayesianDecoderVAE expects widths of at least one layer, [L, D], got {list(widths)}; give the number "
                "of latents first and what the likelihood takes last"
            )
        self.size = check_whole("BayesianDecoderVAE", "size", size, remedy="give the number of training data")
        self.loc, self.log_scale, self.log_prior_scale = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for layer, (n, m) in enumerate(itertools.pairwise(self.widths), 1):
            self._add(f"W_{layer}", nn.init.xavier_uniform_(torch.empty(n, m)), -0.5 * math.log(n))
            self._add(f"b_{layer}", torch.zeros(m), 0.0)
        attach(self)

    def _add(self, name: str, start: Tensor, log_prior_scale: float) -> None:
        """Parameters of p and q for some weights: q has its means at `start`."""
        self.loc[name] = nn.Parameter(start)
        self.log_scale[name] = nn.Parameter(torch.full_like(start, math.log(DOUBT)))
        self.log_prior_scale[name] = nn.Parameter(start.new_full((), log_prior_scale))

    def model(self, x: Tensor) -> None:
        """p(W) Π_n p(z_n) p(x_n | z_n, W); x: [B, *event], of N data."""
        weights = [pyro.sample(name, self.prior_of(name)) for name in self.loc]
        with self.plate(x):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(decode(z, weights)), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(W) Π_n q(z_n | x_n)."""
        for name in self.loc:
            pyro.sample(name, self.posterior_of(name))
        with self.plate(x):
            pyro.sample("z", self.posterior(x))

    def plate(self, x: Tensor) -> Any:
        """The rows of x among N: without N a batch would pass for all the data there are."""
        return pyro.plate("data", self.size, subsample=torch.arange(len(x), device=x.device), dim=-1)

    def prior_of(self, name: str) -> Any:
        """p of the weights of this name."""
        loc = torch.zeros_like(self.loc[name])
        return dist.Normal(loc, self.log_prior_scale[name].exp()).to_event(loc.dim())

    def posterior_of(self, name: str) -> Any:
        """q of the weights of this name."""
        loc = self.loc[name]
        return dist.Normal(loc, self.log_scale[name].exp()).to_event(loc.dim())

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 10,
        hidden: Sequence[int] | None = None,
        activation: str | None = None,
        prior: Part = "StandardNormal",
        likelihood: Part = "auto",
        posterior: Part = "DiagonalNormal",
    ) -> BayesianDecoderVAE:
        """A model whose sizes, N among them, fit the data.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            latent: number of latent dimensions L.
            hidden: widths of the layers from the data inwards, of the encoder and of the decoder; by default [100].
            activation: of the encoder, as for `VAE.build`; the decoder has relu.
            prior: p(z), by name.
            likelihood: p(x | y), by name; "auto" is what the values of the data ask for.
            posterior: q(z | x), by name.

        Raises:
            ValueError: as `VAE.build` does.
        """
        data = as_data("BayesianDecoderVAE.build", data)
        check_latent("BayesianDecoderVAE.build", latent)
        p, p_options = find_part(cls, "prior", prior, Prior)
        if likelihood == "auto":
            likelihood = natural_likelihood(data)
        r, r_options = find_part(cls, "likelihood", likelihood, Likelihood)
        r_options = with_data(r, r_options, data)
        q, q_options = find_part(cls, "posterior", posterior, Posterior)
        event, missing = list(data.event_shape), getattr(data, "missing", False)
        hidden = [100] if hidden is None else hidden
        decoded = build_part(r.decoded, r_options, event)
        of_y = build_part(r, r_options, Shaped(decoded))
        some = next(data.batches("train", 10_000, shuffle=False))
        centre = Standardise(event, missing).to_data(some, rescale=data.values in ("counts", "real"))
        network = encoder("mlp", event, build_part(q.code, q_options, latent), hidden, activation)
        return cls(
            build_part(p.for_data, p_options, latent, data),
            Missing(of_y) if missing else of_y,
            build_part(q, q_options, Chain(centre, network)),
            [latent, *hidden[::-1], math.prod(decoded)],
            data.size("train"),
        )


def decode(z: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The layers' output, [*leading, D], for weights and biases in turn: one draw, or [K, 1, ...] one a particle."""
    y, layers = z, list(zip(weights[::2], weights[1::2], strict=True))
    for layer, (w, b) in enumerate(layers):
        y = (y.relu() if layer else y) @ (w.squeeze(-3) if w.dim() > 2 else w) + b  # [K, B, n] @ [K, n, m]
    return y


class Shaped(Network):
    """Numbers side by side in the shape of an event: [D] -> outputs.

    >>> Shaped([1, 8, 8])(torch.zeros(5, 3, 64)).shape
    torch.Size([5, 3, 1, 8, 8])
    """

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__([math.prod(outputs)], outputs)
        self.body = nn.Unflatten(1, self.outputs)
