"""Likelihoods of counts without a largest one, and of words in documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_whole
from ..distributions import counts
from ..networks import output_shape
from .base import Likelihood

LARGE = 16.0  # log of 9 million; float32 tells whole numbers apart up to 17 million
SMALLEST = 1e-4  # of the dispersion


def log_mean(y: Tensor) -> Tensor:
    """The log mean of a count: y up to 16; above, the mean goes on linearly, so that no number overflows.

    A bound would have no gradient beyond it, from where the mean could not come back.
    """
    return torch.minimum(y, y.new_tensor(LARGE)) + torch.log1p((y - LARGE).clamp(min=0))


class Poisson(Likelihood):
    """p(x | z) = Π_d λ_d^x_d e^(−λ_d) / x_d!, the decoder returning log λ; x a count 0, 1, 2, ...

    From log λ = 16 on, λ grows linearly with the decoder's output and no longer exponentially.

    Args:
        network: a decoder from [L] to the event shape of x.

    >>> import pyrovae as pv
    >>> Poisson(pv.networks.MLP([2], [3]))(torch.zeros(1, 2)).mean
    tensor([[1., 1., 1.]], grad_fn=<ExpBackward0>)
    """

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Poisson with log rate y."""
        return counts.Poisson(log_mean(y))


class ZeroInflatedPoisson(Likelihood):
    """p(x | z) = Π_d g_d 1[x_d = 0] + (1 − g_d) Poisson(x_d; λ_d): zeros of another origin, by the gate g.

    Args:
        network: a decoder from [L] to twice the first dimension of x: log λ as in Poisson, then the logits of g.

    Reference: Lambert, "Zero-inflated Poisson regression", 1992.

    >>> import pyrovae as pv
    >>> ZeroInflatedPoisson(pv.networks.MLP([2], [6]))(torch.zeros(1, 2)).mean.detach()
    tensor([[0.5000, 0.5000, 0.5000]])
    """

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """Twice the first dimension: log λ, then the logits of the gate."""
        return [2 * event[0], *event[1:]]

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """The mixture of zero and a Poisson."""
        y, gate = y.chunk(2, dim=-event_dim)
        return counts.ZeroInflatedPoisson(gate, counts.Poisson(log_mean(y)))


Dispersion = Literal["per_feature", "learned", "per_pixel"]


class NegativeBinomial(Likelihood):
    """p(x | z) = Π_d NB(x_d; μ_d, r_d), a count of mean μ and variance μ + μ² / r, the decoder returning log μ.

    From log μ = 16 on, μ grows linearly with the decoder's output and no longer exponentially.

    Args:
        network: a decoder from [L] to so many times the first dimension of x as `decoded` says: log μ, and with
            "per_pixel" the raw r.
        dispersion: "per_feature" for a learned r of every element of x, the same for all data, whose shape is read off
            the decoder; "learned" for one learned r; "per_pixel" for an r_d(z) from the decoder.

    Raises:
        ValueError: for "per_feature" with a decoder that does not tell its output's shape.

    Reference: Lopez et al., "Deep generative modeling for single-cell transcriptomics", 2018.

    >>> import pyrovae as pv
    >>> NegativeBinomial(pv.networks.MLP([2], [3])).raw_dispersion.shape
    torch.Size([3])
    """

    parts = 1  # that the decoder returns besides a dispersion per pixel

    def __init__(self, network: nn.Module, dispersion: Dispersion = "per_feature") -> None:
        super().__init__(network)
        if dispersion not in get_args(Dispersion):
            raise ValueError(
                f"{type(self).__name__} expects dispersion as 'per_feature', 'learned' or 'per_pixel', got "
                f"{dispersion!r}"
            )
        self.dispersion = dispersion
        if dispersion == "learned":
            self.raw_dispersion = nn.Parameter(torch.zeros(()))
        elif dispersion == "per_feature":
            if (shape := output_shape(network)) is None:
                raise ValueError(
                    f"{type(self).__name__} expects a decoder that tells its output's shape for dispersion="
                    f"'per_feature', got {type(network).__name__}; use a network of pyrovae.networks, or another "
                    "dispersion"
                )
            self.raw_dispersion = nn.Parameter(torch.zeros(shape[0] // self.parts, *shape[1:]))

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """So many times the first dimension: log μ, the gate's logits if there is one, the raw r with "per_pixel"."""
        return [(cls.parts + (options.get("dispersion") == "per_pixel")) * event[0], *event[1:]]

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Negative binomial with the log mean, and the dispersion where it is in it, from y."""
        return self._of(*y.chunk(self.parts + (self.dispersion == "per_pixel"), dim=-event_dim))

    def _of(self, y: Tensor, raw: Tensor | None = None) -> counts.NegativeBinomial:
        raw = self.raw_dispersion if raw is None else raw
        return counts.NegativeBinomial(log_mean(y), F.softplus(raw) + SMALLEST)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """p(x | z) = Π_d g_d 1[x_d = 0] + (1 − g_d) NB(x_d; μ_d, r_d): zeros of another origin, by the gate g.

    Args:
        network: as in NegativeBinomial, the logits of g between log μ and the raw r.
        dispersion: as in NegativeBinomial.

    Reference: Lopez et al., "Deep generative modeling for single-cell transcriptomics", 2018.

    >>> import pyrovae as pv
    >>> ZeroInflatedNegativeBinomial(pv.networks.MLP([2], [6])).raw_dispersion.shape
    torch.Size([3])
    """

    parts = 2

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """The mixture of zero and a negative binomial."""
        y, gate, *raw = y.chunk(self.parts + (self.dispersion == "per_pixel"), dim=-event_dim)
        return counts.ZeroInflatedNegativeBinomial(gate, self._of(y, *raw))


class Multinomial(Likelihood):
    """p(x | z) = N! / Π_d x_d! Π_d p_d^x_d, N = Σ_d x_d the datum's own total, the decoder returning logits of p.

    A bag of words: documents may have any lengths, which are taken as given and not modelled. Draws and means have
    `total_count` words.

    Args:
        network: a decoder from [L] to the event shape of x, a vocabulary.
        total_count: words of a draw; None for the rounded mean length of (at most) the first 10,000 data that a model
            is built for, or else 100.

    Reference: Miao, Yu and Blunsom, "Neural variational inference for text processing", 2016; Srivastava and Sutton,
    "Autoencoding variational inference for topic models", 2017.

    >>> import pyrovae as pv
    >>> Multinomial(pv.networks.MLP([2], [3]), total_count=6)(torch.zeros(1, 2)).mean.detach()
    tensor([[2.0000, 2.0000, 2.0000]])
    """

    def __init__(self, network: nn.Module, total_count: int | None = None) -> None:
        super().__init__(network)
        self.total_count = check_whole("Multinomial", "total_count", 100 if total_count is None else total_count)

    @classmethod
    def options_for(cls, data: Any) -> dict[str, Any]:
        """total_count, the mean length."""
        some = next(data.batches("train", 10_000, shuffle=False))
        return {"total_count": max(1, round(some.flatten(1).sum(1).double().mean().item()))}

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Multinomial over all elements of the event, with logits y."""
        return counts.Multinomial(y, self.total_count, event_dim)
