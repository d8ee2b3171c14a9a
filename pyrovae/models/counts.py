"""Counts whose total is chance: cells of which a machine saw more or less, as in scVI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_positive
from ..config import Configured
from ..distributions import counts
from ..likelihoods.counts import SMALLEST
from ..networks import MLP, Activated, Chain, LogCounts, Network, Standardise
from ..posteriors import DiagonalNormal
from ..posteriors.positive import SMALL
from ..priors import StandardNormal
from .build import as_data, check_latent, first_counts


class CountVAE(Configured, nn.Module):
    """p(x, z, l) = p(z) p(l) p(x | z, l), approximated by q(z | x) q(l | x).

    A cell has a state z, and its genes have shares of its transcripts that follow from it. How many transcripts are
    counted in all, the library size l, is an accident of the measurement: with a latent of its own it does not get into
    z. Counts scatter more than a Poisson variable, each gene by a dispersion r_g.

        z ~ 𝒩(0, I),    l ~ LogNormal(m, s²)
        x_g | z, l ~ NegativeBinomial of mean μ_g = l softmax(f(z))_g and variance μ_g + μ_g² / r_g

    m and s are those of the totals of the training data. The guide reads log(1 + x), so that small counts are seen
    beside large ones, and the log of the total, which l follows closely.

    Args:
        decoder: f, a network from [L] to the event shape of x.
        features: a network from x to a vector.
        posterior: q(z | x), a module from features to a distribution over [L].
        library: a network from features to [2]: the mean of log l, in units of its prior's, and the raw deviation.
        loc: m.
        scale: s, above 0.

    Raises:
        ValueError: for a scale that is no number above 0.

    Reference: Lopez et al., "Deep generative modeling for single-cell transcriptomics", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("cells")
    >>> vae = pv.models.CountVAE.build(data, latent=3)
    >>> codes = pv.encode(vae, data.test)
    >>> codes["z"].shape, codes["l"].shape
    (torch.Size([600, 3]), torch.Size([600]))

    pyrovae train CountVAE --data cells --latent 5 --learning_rate 3e-3 --epochs 100
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        decoder: Network,
        features: nn.Module,
        posterior: nn.Module,
        library: nn.Module,
        loc: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.decoder, self.features, self.posterior, self.library = decoder, features, posterior, library
        self.prior = StandardNormal(decoder.inputs[0])
        self.raw_dispersion = nn.Parameter(torch.zeros(decoder.outputs))
        check_positive("CountVAE", "scale", scale)
        self.register_buffer("loc", torch.tensor(float(loc)), persistent=False)
        self.register_buffer("scale", torch.tensor(float(scale)), persistent=False)

    def model(self, x: Tensor) -> None:
        """p(z) p(l) p(x | z, l); x: counts [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            size = pyro.sample("l", dist.LogNormal(self.loc, self.scale))
            pyro.sample("x", self.likelihood(z, size), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x) q(l | x)."""
        told = self.features(x)
        loc, raw = self.library(told).unbind(-1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(told))
            q = dist.LogNormal(self.loc + self.scale * loc, self.scale * (F.softplus(raw) + SMALL))
            pyro.sample("l", q)

    def likelihood(self, z: Tensor, size: Tensor) -> dist.TorchDistribution:
        """p(x | z, l): z is [*leading, L], the size l [*leading]."""
        dims = len(self.decoder.outputs)
        log_mean = self.log_shares(z) + size.log()[(..., *[None] * dims)]
        return counts.NegativeBinomial(log_mean, F.softplus(self.raw_dispersion) + SMALLEST).to_event(dims)

    def log_shares(self, z: Tensor) -> Tensor:
        """log softmax(f(z)) over all genes: [*leading, L] -> [*leading, *event]."""
        event = self.decoder.outputs
        return self.decoder(z).flatten(-len(event)).log_softmax(-1).unflatten(-1, event)

    @classmethod
    def build(cls, data: Any, latent: int = 10, hidden: Sequence[int] = (128,)) -> CountVAE:
        """A model whose sizes fit the data, and whose shares begin at those of all data together.

        Args:
            data: a `pyrovae.data.Dataset` of counts, or a tensor or array of them [N, *event].
            latent: number of latent dimensions L.
            hidden: widths of the layers from the data inwards, at least one.

        Raises:
            ValueError: for data that are no counts, or sizes that are none.

        >>> import pyrovae as pv
        >>> vae = pv.models.CountVAE.build(pv.data.load("cells"), latent=2)
        >>> round(vae.loc.exp().item())  # the transcripts of a usual cell
        592
        """
        data = as_data("CountVAE.build", data)
        check_latent("CountVAE.build", latent)
        x = first_counts("CountVAE.build", data)
        if not hidden:
            raise ValueError("CountVAE.build expects hidden as at least one width, got none; give [128]")
        event = list(data.event_shape)
        seen = LogCounts(event)
        centre = Standardise(seen.outputs, each=True).to_data(seen(x), rescale=True)
        features = Activated(Chain(seen, Chain(centre, MLP(seen.outputs, [hidden[-1]], hidden[:-1]))))
        decoder = MLP([latent], event, hidden[::-1])
        last = [m for m in decoder.modules() if isinstance(m, nn.Linear)][-1]
        total, of_all = x.flatten(1).sum(1).clamp(min=1).log(), x.flatten(1).sum(0) + 1
        with torch.no_grad():
            last.bias.copy_((of_all / of_all.sum()).log())
        return cls(
            decoder,
            features,
            DiagonalNormal(MLP([hidden[-1]], DiagonalNormal.code(latent), [])),
            MLP([hidden[-1]], [2], []),
            float(total.mean()),
            max(float(total.std()), 1e-3) if len(total) > 1 else 1.0,
        )
