"""An encoder and a decoder of one kind, by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn

from ..config import nearest
from .base import Shape
from .dense import MLP
from .images import Conv, TransposedConv


def pair(
    network: str,
    event: Shape,
    code: Shape,
    latent: int,
    decoded: Shape,
    hidden: Sequence[int] | None,
    activation: str,
) -> tuple[nn.Module, nn.Module]:
    """The encoder event -> code and the decoder [latent] -> decoded of one kind, "mlp" or "conv".

    Raises ValueError for an unknown kind, with the nearest match.
    """
    if network == "mlp":
        widths = [400] if hidden is None else hidden
        return MLP(event, code, widths, activation), MLP([latent], decoded, widths[::-1], activation)
    if network == "conv":
        channels = [32, 64] if hidden is None else hidden
        return Conv(event, code, channels, activation), TransposedConv([latent], decoded, channels, activation)
    raise ValueError(f"unknown network {network!r}; {nearest(network, ['mlp', 'conv'])}")
