"""Networks: tensors to tensors. Every network here accepts any leading dimensions, [*leading, *event]."""

from .base import ACTIVATIONS, Chain, Network, Standardise, as_event, input_shape, output_shape, over_leading
from .dense import MLP
from .images import Conv, TransposedConv
from .masked import MADE
from .pair import pair

__all__ = [
    "ACTIVATIONS",
    "MADE",
    "MLP",
    "Chain",
    "Conv",
    "Network",
    "Standardise",
    "TransposedConv",
    "as_event",
    "input_shape",
    "output_shape",
    "over_leading",
    "pair",
]
