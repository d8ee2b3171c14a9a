"""Mixture priors: of learned normals, and of the model's own posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..attached import Attached
from ..distributions.mixtures import NormalMixture, mixture
from ..networks import as_event
from .base import Prior


class Mixture(Prior):
    """p(z) = Σ_c π_c 𝒩(z; μ_c, diag σ_c²), all of it learned; at the start π = 1/C, σ = 1 and the μ_c are 𝒩(0, I).

    The density of K particles of B data takes [K, B, C, L] numbers.

    Args:
        latent: number of latent dimensions L.
        components: C.
        equal: π = 1/C and σ = 1 stay as they are, and the μ_c alone are learned: parts of one share and one size.

    Raises:
        ValueError: for a number of components that is none.

    >>> Mixture(2, components=3)().sample([5]).shape
    torch.Size([5, 2])
    """

    logits: Tensor
    log_scale: Tensor

    def __init__(self, latent: int, components: int = 10, equal: bool = False) -> None:
        super().__init__(latent)
        self.components, self.equal = check_whole("Mixture", "components", components), equal
        self.loc = nn.Parameter(torch.randn(self.components, self.latent))
        for name, shape in (("logits", [self.components]), ("log_scale", [self.components, self.latent])):
            if equal:
                self.register_buffer(name, torch.zeros(shape), persistent=False)
            else:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self) -> dist.TorchDistribution:
        """The mixture over [latent]."""
        return NormalMixture(self.logits, self.loc, self.log_scale.exp())


class VampPrior(Attached, Prior):
    """p(z) = 1/C Σ_c q(z | u_c), q the model's own posterior and the pseudo-inputs u_c learned [C, *event].

    The optimal prior of the ELBO is the aggregate posterior, the mean of q(z | x) over all data; this is that mean
    over C learned data. The encoder is trained through the prior as well, and runs on C more inputs a step. They are
    a batch of their own: with batch norm in the encoder, in training, the u_c are normalised by their own statistics,
    and the running ones see them as well as the data. The density of K particles of B data takes [K, B, C, L] numbers.

    Built from data (`for_data`), the u_c start at C training examples, as the aggregate posterior would have it, with
    noise of a hundredth of the range or of the standard deviation, so that equal examples part. Otherwise they start
    at random. They are kept in the data's range: those of values other than "real" are clamped to [0, top].

    Args:
        latent: number of latent dimensions L.
        event: shape of the data.
        components: C.
        top: the largest value of data in [0, top]; None for any real numbers. `for_data` reads it from the data.

    Raises:
        ValueError: for a number of components or a top that is none, and where it is part of no model with a posterior.

    Reference: Tomczak and Welling, "VAE with a VampPrior", 2018.

    >>> import pyrovae as pv
    >>> vamp = {"class_path": "VampPrior", "init_args": {"components": 50}}
    >>> pv.models.VAE.build(pv.data.load("digits"), latent=2, prior=vamp).prior().sample([5]).shape
    torch.Size([5, 2])
    """

    logits: Tensor

    def __init__(self, latent: int, event: Sequence[int], components: int = 500, top: float | None = None) -> None:
        super().__init__(latent)
        self.event = as_event(self, "event", event)
        self.components = check_whole("VampPrior", "components", components)
        self.top = None if top is None else check_positive("VampPrior", "top", top, "give the data's largest value")
        shape = (self.components, *self.event)
        self.pseudo_inputs = nn.Parameter(torch.randn(shape) if self.top is None else self.top * torch.rand(shape))
        self.register_buffer("logits", torch.zeros(self.components), persistent=False)

    @classmethod
    def for_data(cls, latent: int, data: Any, **options: Any) -> VampPrior:
        """A prior whose pseudo-inputs start at examples of the training data."""
        if options.get("top") is None and data.values != "real":
            options["top"] = float(data.levels or 1) if data.values == "counts" else 1.0
        prior = cls(latent, event=list(data.event_shape), **options)
        return prior.to_data(next(data.batches("train", prior.components, shuffle=True)))

    def to_data(self, x: Tensor) -> VampPrior:
        """Starts the pseudo-inputs at these data [N, *event], each as often as another where C is more than N."""
        x = torch.where(x.isnan(), x.nanmean(0).nan_to_num(), x)  # what is missing of an example starts at the mean
        with torch.no_grad():
            u = x[torch.arange(self.components) % len(x)]
            size = x.std(0, correction=0).mean() if self.top is None else self.top
            self.pseudo_inputs.copy_(u + 0.01 * size * torch.randn(u.shape))
            self.pseudo_inputs.copy_(self._inside())  # beyond the ends of the range there is no gradient
        return self

    def _inside(self) -> Tensor:
        return self.pseudo_inputs if self.top is None else self.pseudo_inputs.clamp(0, self.top)

    def forward(self) -> dist.TorchDistribution:
        """The mixture of posteriors over [latent]."""
        return mixture(self.logits, self.others("posterior")(self._inside()))
