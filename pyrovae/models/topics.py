"""Topic models: documents as mixtures of topics, topics as distributions over words."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..config import Configured
from ..likelihoods import Multinomial
from ..networks import MLP, Chain, LogCounts, Standardise, as_event
from ..posteriors import DiagonalNormal
from .build import as_data, first_counts


class Topics(Configured, nn.Module):
    """Abstract: K topics over the words of a vocabulary, and how a document with shares θ of them is worded.

    Args:
        topics: K, at least 2.
        event: shape of the vocabulary, [V] or, where words lie on a grid, [C, H, W].

    Attributes:
        logits: β, [K, V].
    """

    def __init__(self, topics: int, event: Sequence[int]) -> None:
        super().__init__()
        self.number = check_whole(type(self).__name__, "topics", topics, 2, "one topic alone is no choice")
        self.event = as_event(self, "event", event)
        self.logits = nn.Parameter(torch.randn(self.number, math.prod(self.event)))

    @property
    def words(self) -> Tensor:
        """φ_k = softmax(β_k), the words of a document on topic k alone: [K, *event]."""
        return self.logits.softmax(-1).unflatten(-1, self.event)

    @abstractmethod
    def worded(self, shares: Tensor) -> Tensor:
        """Unnormalised log probabilities of the words: [*leading, K] -> [*leading, V]."""

    def forward(self, shares: Tensor) -> Tensor:
        """Unnormalised log probabilities of the words: [*leading, K] -> [*leading, *event]."""
        return self.worded(shares).unflatten(-1, self.event)


class ProductOfTopics(Topics):
    """softmax(Σ_k θ_k β_k) ∝ Π_k φ_k^θ_k: a word has to be likely under every topic of the document.

    Args:
        topics: K, at least 2.
        event: shape of the vocabulary.
    """

    def worded(self, shares: Tensor) -> Tensor:
        """θ β."""
        return shares @ self.logits


class MixtureOfTopics(Topics):
    """Σ_k θ_k φ_k: each word comes from one topic of the document, as in latent Dirichlet allocation.

    Args:
        topics: K, at least 2.
        event: shape of the vocabulary.
    """

    def worded(self, shares: Tensor) -> Tensor:
        """log(θ φ)."""
        words = shares @ self.logits.softmax(-1)
        return words.clamp(min=torch.finfo(words.dtype).tiny).log()


class TopicModel(Configured, nn.Module):
    """p(x, z) = p(z) p(x | θ), θ = softmax(z), approximated by q(z | x): documents about a few topics each.

    A document is a bag of words: counts x of the words of a vocabulary. It has shares θ of K topics, of which the prior
    wants few to be large, and a topic is a distribution over words. Nobody names the topics: they are what explains
    which words go together. The guide reads the shares of any document off in one pass.

        z ~ 𝒩(0, (1 − 1/K) / α I),    θ = softmax(z)    (near Dirichlet(α, …, α))
        x | θ ~ Multinomial(N, softmax(Σ_k θ_k β_k))    product of topics: ProdLDA
        x | θ ~ Multinomial(N, Σ_k θ_k softmax(β_k))    mixture of topics: latent Dirichlet allocation

    The prior is Laplace's approximation of a Dirichlet in the coordinates of a softmax, where it is normal. N, the
    length of a document, is taken as given.

    Args:
        topics: `ProductOfTopics` or `MixtureOfTopics`: from θ to the logits of the words.
        posterior: q(z | x), a module from counts to a distribution over [K].
        concentration: α, above 0; the smaller, the fewer topics has a document.
        length: words of a document that is drawn.

    Raises:
        ValueError: for a concentration that is no number above 0.

    References: Srivastava and Sutton, "Autoencoding variational inference for topic models", 2017; Blei, Ng and Jordan,
    "Latent Dirichlet allocation", 2003.

    >>> import pyrovae as pv
    >>> data = pv.data.load("topics")
    >>> vae = pv.models.TopicModel.build(data, topics=8)
    >>> vae.topics.words.shape, vae.shares(data.test).shape
    (torch.Size([8, 1, 12, 12]), torch.Size([600, 8]))

    pyrovae train TopicModel --data topics --topics 8 --learning_rate 1e-2 --epochs 100
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, topics: Topics, posterior: nn.Module, concentration: float = 0.1, length: int = 100) -> None:
        super().__init__()
        alpha, k = check_positive("TopicModel", "concentration", concentration), topics.number
        self.topics, self.posterior = topics, posterior
        self.likelihood = Multinomial(topics, length)
        self.register_buffer("loc", torch.zeros(k), persistent=False)
        self.register_buffer("scale", torch.full([k], math.sqrt((1 - 1 / k) / alpha)), persistent=False)

    def model(self, x: Tensor) -> None:
        """p(z) p(x | softmax(z)); x: counts [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))
            pyro.sample("x", self.likelihood(z.softmax(-1)), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))

    def shares(self, x: Tensor) -> Tensor:
        """θ at the mean of q(z | x): [B, K], how much of a document is about each topic."""
        return self.posterior(x).mean.softmax(-1)

    @classmethod
    def build(
        cls,
        data: Any,
        topics: int = 20,
        hidden: Sequence[int] = (100,),
        concentration: float = 0.1,
        mixture: bool = False,
    ) -> TopicModel:
        """A model whose sizes fit the data; its topics begin around the words of all documents.

        Args:
            data: a `pyrovae.data.Dataset` of counts, or a tensor or array of them [N, *event].
            topics: K.
            hidden: widths of the encoder, which sees logarithms of the counts.
            concentration: α.
            mixture: a mixture of topics, not a product.

        Raises:
            ValueError: for data that are no counts, fewer than 2 topics, or a concentration of 0 or less.

        >>> import pyrovae as pv
        >>> pv.models.TopicModel.build(pv.data.load("topics"), topics=5, mixture=True).topics
        MixtureOfTopics()
        """
        data = as_data("TopicModel.build", data)
        x = first_counts("TopicModel.build", data)
        made = (MixtureOfTopics if mixture else ProductOfTopics)(topics, data.event_shape)
        total = x.flatten(1).sum(0) + 1
        with torch.no_grad():
            made.logits.add_((total / total.sum()).log())
        seen = LogCounts(data.event_shape)
        code = DiagonalNormal.code(topics)
        centre = Standardise(seen.outputs, each=True).to_data(seen(x), rescale=True)
        encoder = Chain(seen, Chain(centre, MLP(seen.outputs, code, hidden)))
        return cls(made, DiagonalNormal(encoder), concentration, max(1, round(float(x.sum()) / len(x))))
