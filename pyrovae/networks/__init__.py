"""Networks: tensors to tensors. Every network here accepts any leading dimensions, [*leading, *event]."""

from .base import (
    ACTIVATIONS,
    Activated,
    Chain,
    Network,
    Standardise,
    as_event,
    beside,
    input_shape,
    output_shape,
    over_leading,
)
from .dense import MLP, Gated
from .images import Conv, ResNet, ResNetDecoder, TransposedConv
from .masked import MADE
from .pair import KINDS, encoder, features, pair
from .sequences import GRU, GRUDecoder, Transformer, TransformerDecoder

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "KINDS",
    "MADE",
    "MLP",
    "Activated",
    "Chain",
    "Conv",
    "GRUDecoder",
    "Gated",
    "Network",
    "ResNet",
    "ResNetDecoder",
    "Standardise",
    "Transformer",
    "TransformerDecoder",
    "TransposedConv",
    "as_event",
    "beside",
    "encoder",
    "features",
    "input_shape",
    "output_shape",
    "over_leading",
    "pair",
]
