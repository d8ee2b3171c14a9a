"""Networks: tensors to tensors. Every network here accepts any leading dimensions, [*leading, *event]."""

from .base import (
    ACTIVATIONS,
    Activated,
    Chain,
    Network,
    Standardise,
    Unstandardise,
    as_event,
    beside,
    input_shape,
    output_shape,
    over_leading,
)
from .corruption import Corruption, GaussianNoise, Masking
from .counts import LogCounts
from .dense import MLP, Gated, Transposed
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
    "Corruption",
    "GRUDecoder",
    "Gated",
    "GaussianNoise",
    "LogCounts",
    "Masking",
    "Network",
    "ResNet",
    "ResNetDecoder",
    "Standardise",
    "Transformer",
    "TransformerDecoder",
    "Transposed",
    "TransposedConv",
    "Unstandardise",
    "as_event",
    "beside",
    "encoder",
    "features",
    "input_shape",
    "output_shape",
    "over_leading",
    "pair",
]
