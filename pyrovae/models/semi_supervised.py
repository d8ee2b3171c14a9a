"""The semi-supervised VAE, "M2": a class and a style, and labels of which only some are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from pyro import poutine
from torch import Tensor

from ..arguments import check_positive
from ..attached import attach
from ..config import Configured
from ..networks import MLP, Chain, beside, features
from ..priors import Prior
from .build import Part, as_data, build_part, check_latent, find_part
from .labels import Row, parts_for, take_apart

MOST = 256  # labelled data that the classifier's term takes at once


class SemiSupervisedVAE(Configured, nn.Module):
    """p(x, y, z) = p(y) p(z) p(x | z, y), approximated by q(y | x) q(z | x, y); y is observed for some data.

    Few digits have a label, and many have none. All have a class y and a style z; the class is a latent like any other
    where nobody has told it, and is summed over, not drawn:

        y ~ Categorical(π),    z ~ p(z),    x | z, y ~ p(x | z, y)

    The bound is one on log p(x, y) for data with a label, and on log p(x) for those without. In it q(y | x), which is
    a classifier, learns from the latter alone, and nothing says which class is called 3. While training, the bound of
    every datum therefore has a term besides, over the labelled data (x_l, y_l):

        α Σ_l log q(y_l | x_l)

    It is a prior over classifiers, and no evaluation has it. The labelled data are kept in the model, so that every
    step sees them, however few there are; of many, a random 256 stand for all.

    Args:
        prior: p(z), a module that returns a distribution.
        likelihood: p(x | z, y), a module from z and the one-hot label side by side, [L + C], to a distribution.
        posterior: q(z | x, y), a module from features and the one-hot label side by side to a distribution.
        features: of x without its label, from its event shape to a vector.
        classifier: the logits of q(y | x), a module from the event shape to [C].
        classes: C.
        event: shape of x without its label.
        told: how many labelled data are kept; `to_data` gives them.
        alpha: α; 0.1 in the paper, which multiplies it by N.

    Raises:
        ValueError: for an α that is none, and data with labels that are no class.

    Reference: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", 2014.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits", labelled=50)
    >>> vae = pv.models.SemiSupervisedVAE.build(data, latent=4)
    >>> vae.classify(data.test[:3]).shape  # q(y | x)
    torch.Size([3, 10])

    z can tell all of an image, and y is then left to drift; a rate that costs more at first has y used before z:

    pyrovae train SemiSupervisedVAE --data mnist --binarise dynamic --labelled 100 --alpha 0.5 \\
        --objective BetaELBO --objective.start 5 --objective.warmup 6 --epochs 8
    """

    takes_missing: ClassVar[bool] = True  # a NaN is a label that nobody has told
    told: Tensor

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        posterior: nn.Module,
        features: nn.Module,
        classifier: nn.Module,
        classes: int,
        event: Sequence[int],
        told: int,
        alpha: float = 0.1,
    ) -> None:
        super().__init__()
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.features, self.classifier = features, classifier
        self.classes, self.event = classes, tuple(event)
        self.alpha = check_positive("SemiSupervisedVAE", "alpha", alpha, "give the weight of the classifier's term")
        self.share = nn.Parameter(torch.zeros(classes))  # the logits of π
        self.register_buffer("told", torch.zeros(told, 1 + math.prod(event)))
        attach(self)

    def to_data(self, x: Tensor) -> SemiSupervisedVAE:
        """Keeps these labelled data [told, 1 + D]."""
        self.told.copy_(x)
        return self

    def model(self, x: Tensor) -> None:
        """p(y) p(z) p(x | z, y); x: [B, 1 + D], the label, or NaN, and then the datum."""
        row = self.take_apart(x)
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.share), obs=row.label, obs_mask=row.known)
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(beside(z, y)), obs=row.content)
            if self.training:
                pyro.factor("classifier", self.alpha * len(self.told) * self.log_classified().expand(len(x)))

    def guide(self, x: Tensor) -> None:
        """q(y | x) q(z | x, y)."""
        row = self.take_apart(x)
        with pyro.plate("data", len(x), dim=-1):
            with poutine.mask(mask=~row.known):
                q = dist.OneHotCategorical(logits=self.classifier(row.content))
                y = pyro.sample("y_unobserved", q, infer={"enumerate": "parallel"})
            y = torch.where(row.known[..., None], row.label, y)
            pyro.sample("z", self.posterior(beside(self.features(row.content), y)))

    def log_classified(self) -> Tensor:
        """The mean of log q(y_l | x_l) over labelled data, [], or over a random 256 of many."""
        rows = self.told
        if len(rows) > MOST:
            rows = rows[torch.randint(len(rows), (MOST,), device=rows.device)]
        row = self.take_apart(rows)
        return (row.label * self.classifier(row.content).log_softmax(-1)).sum(-1).mean()

    def classify(self, x: Tensor) -> Tensor:
        """q(y | x), whatever label x has: [B, C]."""
        return self.classifier(self.take_apart(x).content).softmax(-1)

    def take_apart(self, x: Tensor) -> Row:
        """The label, one-hot, whether it is told, and the datum. Raises ValueError."""
        return take_apart("SemiSupervisedVAE", x, self.classes, self.event)

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
        alpha: float = 0.1,
    ) -> SemiSupervisedVAE:
        """A model whose sizes fit labelled data: `pv.data.load(..., labelled=100)`.

        Args:
            data: a labelled `pyrovae.data.Dataset`.
            latent: number of latent dimensions L.
            hidden: as for `VAE.build`.
            network: as for `VAE.build`.
            activation: as for `VAE.build`.
            prior: p(z), by name.
            likelihood: p(x | z, y), by name; "auto" is what the values of the data ask for.
            posterior: q(z | x, y), by name.
            alpha: α.

        Raises:
            ValueError: as `VAE.build` does, and for data without labels.
        """
        data = as_data("SemiSupervisedVAE.build", data, labelled=True)
        check_latent("SemiSupervisedVAE.build", latent)
        p, p_options = find_part(cls, "prior", prior, Prior)
        parts = parts_for(cls, data, latent, hidden, network, activation, likelihood, posterior)
        own, width = features(network, data.content_shape, hidden, activation)
        classifier = Chain(parts.centre, Chain(own, MLP([width], [data.classes], hidden=[])))
        p_of_z = build_part(p.for_data, p_options, latent, data)
        told = data.train[~data.train[:, 0].isnan()]
        vae = cls(p_of_z, *parts[:3], classifier, data.classes, list(data.content_shape), len(told), alpha)
        return vae.to_data(told)
