"""An encoder and a decoder of one kind, by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn as nn

from ..config import nearest
from .base import Activated, Network, Shape
from .dense import MLP, Gated
from .images import Conv, ResNet, ResNetDecoder, TransposedConv
from .sequences import GRU, GRUDecoder, Transformer, TransformerDecoder


class Kind(NamedTuple):
    """An encoder, its decoder, and the widths that both have where none are given, from the data inwards."""

    encoder: type[Network]
    decoder: type[Network]
    hidden: list[int]


KINDS = {
    "mlp": Kind(MLP, MLP, [400]),
    "gated": Kind(Gated, Gated, [300, 300]),
    "conv": Kind(Conv, TransposedConv, [32, 64]),
    "resnet": Kind(ResNet, ResNetDecoder, [32, 64]),
    "gru": Kind(GRU, GRUDecoder, [128]),
    "transformer": Kind(Transformer, TransformerDecoder, [64, 64]),
}


def pair(
    network: str,
    event: Shape,
    code: Shape,
    latent: int,
    decoded: Shape,
    hidden: Sequence[int] | None = None,
    activation: str | None = None,
) -> tuple[Network, Network]:
    """The encoder event -> code and the decoder [latent] -> decoded of one kind.

    Args:
        network: a name of `KINDS`.
        event: shape of the data.
        code: what the encoder returns.
        latent: number of latent dimensions L.
        decoded: what the decoder returns.
        hidden: widths or channels from the data inwards; None for the kind's own.
        activation: None for the kind's own.

    Raises:
        ValueError: for an unknown kind, with the nearest match, data that it is not for, or an activation where a kind
            has none to choose.

    >>> encoder, decoder = pair("gru", [20, 8], code=[4], latent=2, decoded=[20, 8])
    >>> type(encoder).__name__, type(decoder).__name__
    ('GRU', 'GRUDecoder')
    """
    kind = _kind(network)
    widths = kind.hidden if hidden is None else hidden
    first = encoder(network, event, code, widths, activation)
    inwards = "channels" in inspect.signature(kind.decoder).parameters  # else in the order of its layers
    options = _options(kind.decoder, network, widths if inwards else widths[::-1], activation)
    if "steps" in inspect.signature(kind.decoder).parameters:
        options["steps"] = event[0]
    return first, kind.decoder([latent], decoded, **options)


def encoder(
    network: str, event: Shape, code: Shape, hidden: Sequence[int] | None = None, activation: str | None = None
) -> Network:
    """The encoder event -> code of one kind. Arguments and errors are those of `pair`."""
    kind = _kind(network)
    widths = kind.hidden if hidden is None else hidden
    return kind.encoder(event, code, **_options(kind.encoder, network, widths, activation))


def features(
    network: str, event: Shape, hidden: Sequence[int] | None = None, activation: str | None = None
) -> tuple[nn.Module, int]:
    """The encoder of one kind as far as its last hidden layer, and the width of that: for several heads to share.

    Arguments and errors are those of `pair`.
    """
    widths = list(_kind(network).hidden if hidden is None else hidden)
    width = widths[-1] if widths else 1
    inside = widths[:-1] if network in ("mlp", "gated") else widths  # their last layer is the one returned
    return Activated(encoder(network, event, [width], inside, activation), activation or "relu"), width


def _kind(network: str) -> Kind:
    if network not in KINDS:
        raise ValueError(f"unknown network {network!r}; {nearest(str(network), KINDS)}")
    return KINDS[network]


def _options(cls: type[Network], network: str, widths: Sequence[int], activation: str | None) -> dict[str, Any]:
    """Widths and activation by the names that a class has for them. Raises ValueError."""
    known = inspect.signature(cls).parameters
    options: dict[str, Any] = {"channels" if "channels" in known else "hidden": widths}
    if activation is None:
        return options
    if "activation" not in known:
        raise ValueError(f"network {network!r} has gates and no activation, got {activation!r}; leave activation out")
    return options | {"activation": activation}
