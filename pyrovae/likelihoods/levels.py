"""Likelihoods of pixels as one of n levels: masses in nats, which compare as bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..distributions import levels as masses
from .base import Likelihood

LEVELS = 256  # of a byte


class OnLevels(Likelihood):
    """Abstract: p(x | z) of elements x = k · maximum / (levels − 1), k = 0, ..., levels − 1.

    Args:
        network: a decoder from [L] to `decoded(event)`.
        levels: n, their number; None for that of the data that a model is built for, or else 256.
        maximum: the highest; None for that of the data, or else 1.
    """

    def __init__(self, network: nn.Module, levels: int | None = None, maximum: float | None = None) -> None:
        super().__init__(network)
        who = type(self).__name__
        self.levels = check_whole(who, "levels", LEVELS if levels is None else levels, 2)
        self.maximum = check_positive(who, "maximum", 1.0 if maximum is None else maximum)

    @classmethod
    def options_for(cls, data: Any) -> dict[str, Any]:
        """The levels of counts, of {0, 1}, and of 8-bit images in [0, 1]."""
        if data.values == "counts":
            return {"levels": data.levels + 1, "maximum": float(data.levels)}
        return {"levels": 2 if data.values == "binary" else LEVELS, "maximum": 1.0}


class Categorical(OnLevels):
    """p(x | z) = Π_d softmax(l_d(z))_{k_d}, x_d = k_d · maximum / (levels − 1): no order of the levels is assumed.

    Args:
        network: a decoder from [L] to `levels` times the first dimension of x, the logits of level 0 first.
        levels: n, the number of levels; None for that of the data that a model is built for, or else 256.
        maximum: the highest level; None for that of the data, or else 1.

    Reference: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks", 2016.

    >>> import torch, pyrovae as pv
    >>> p = Categorical(pv.networks.MLP([2], Categorical.decoded([3], levels=4)), levels=4)(torch.zeros(1, 2))
    >>> p.mean.detach()
    tensor([[0.5000, 0.5000, 0.5000]])
    """

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """`levels` times the first dimension."""
        return [(options.get("levels") or LEVELS) * event[0], *event[1:]]

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """Categorical over the levels with logits y."""
        logits = y.unflatten(-event_dim, (self.levels, -1))  # [..., n, C, *pixels]
        return masses.Categorical(logits.movedim(-event_dim - 1, -1), self.maximum)


class DiscretisedLogisticMixture(OnLevels):
    """p(x | z) = Π_pixels Σ_c π_c Π_i P(x_i; m_ci, s_ci), P the mass that a logistic distribution has at a level.

    The first dimension of x are a pixel's channels: each channel's mean is linear in the channels before it, with
    coefficients tanh(·) from the decoder, and the choice of component is one for all of them. Events of one dimension
    are pixels of one channel. Scales are at least an eighth of a level, as for 256 levels in the paper.

    The mean of p(x | z) has a formula for one channel; with more, what asks for it (`reconstruct`) gets a draw.

    Args:
        network: a decoder from [L] to `decoded(event)`: for every pixel and component the logit of π, C locations in
            [−1, 1], C raw log scales and C (C − 1) / 2 raw coefficients, each for all components.
        components: K of the mixture.
        levels: n, the number of levels; None for that of the data that a model is built for, or else 256.
        maximum: the highest level; None for that of the data, or else 1.

    Reference: Salimans et al., "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and
    other modifications", 2017.

    >>> import torch, pyrovae as pv
    >>> cls = DiscretisedLogisticMixture
    >>> cls.decoded([3, 32, 32], components=10)
    [100, 32, 32]
    """

    def __init__(
        self, network: nn.Module, components: int = 5, levels: int | None = None, maximum: float | None = None
    ) -> None:
        super().__init__(network, levels, maximum)
        self.components = check_whole("DiscretisedLogisticMixture", "components", components)

    @classmethod
    def decoded(cls, event: Sequence[int], **options: Any) -> list[int]:
        """(C + 1) (C + 2) / 2 numbers a component for every pixel, along the first dimension."""
        components = options.get("components", 5)
        if len(event) == 1:
            return [3 * components * event[0]]
        return [components * (event[0] + 1) * (event[0] + 2) // 2, *event[1:]]

    def distribution(self, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """The mixture over whole data, its parameters from y."""
        flat = event_dim == 1
        pixel_dim = 1 if flat else event_dim - 1
        sizes = (3, self.components, -1) if flat else (-1, self.components)
        y = y.unflatten(-event_dim, sizes)  # [..., (C + 1)(C + 2) / 2, K, *pixels]
        n = y.shape[-pixel_dim - 2]
        c = (math.isqrt(8 * n + 1) - 3) // 2
        if c < 1 or (c + 1) * (c + 2) // 2 != n:
            raise ValueError(
                f"DiscretisedLogisticMixture expects a decoder's output of shape decoded(event), (C + 1)(C + 2)/2 "
                f"times {self.components} components for C channels, got {n} times as many; give it that shape"
            )
        logits, loc, log_scale, raw = y.split([1, c, c, c * (c - 1) // 2], -pixel_dim - 2)
        floor = math.log(2 / (self.levels - 1) / 8)
        return masses.DiscretisedLogisticMixture(
            logits.squeeze(-pixel_dim - 2),
            loc,
            floor + F.softplus(log_scale - floor),
            raw.tanh(),
            self.levels,
            self.maximum,
            pixel_dim,
            flat,
        )
