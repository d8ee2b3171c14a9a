"""Fully connected networks whose outputs see the inputs before them alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_whole
from .base import Network, as_activation, as_sizes


class _MaskedLinear(nn.Linear):
    """A linear layer, some of its weights held at 0."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


class MaskedMLP(Network):
    """[size] -> [parameters, size], where output l depends on the inputs 1 … l − 1 alone.

    Args:
        size: number of inputs.
        parameters: number of outputs for each of them.
        hidden: widths of the hidden layers.
        activation: one of relu, tanh, gelu, silu, elu, softplus, leaky_relu.

    Reference: Germain, Gregor, Murray and Larochelle, "MADE: Masked autoencoder for distribution estimation", 2015.

    >>> y = MaskedMLP(3, parameters=2)(torch.eye(3))
    >>> y.shape, bool((y[..., 0] == y[0, :, 0]).all())
    (torch.Size([3, 2, 3]), True)
    """

    def __init__(
        self, size: int, parameters: int = 1, hidden: Sequence[int] = (64,), activation: str = "tanh"
    ) -> None:
        check_whole("MaskedMLP", "parameters", parameters)
        super().__init__([size], [parameters, size])
        # a unit of degree d sees the inputs up to d
        degrees = [torch.arange(1, size + 1)]
        degrees += [1 + torch.arange(n) % max(size - 1, 1) for n in as_sizes(self, "hidden", hidden)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(degrees):
            layers += [_MaskedLinear((after[:, None] >= before).float()), as_activation(activation)]
        last = (degrees[0][:, None] > degrees[-1]).float().repeat(parameters, 1)
        self.body = nn.Sequential(*layers, _MaskedLinear(last), nn.Unflatten(1, self.outputs))
