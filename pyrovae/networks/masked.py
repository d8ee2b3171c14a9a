"""Masked networks: what is returned for a feature depends on the features before it, and on a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .base import linear

NEAR = 0.01  # size of the last weights at the start, against Glorot's


class Masked(nn.Module):
    """A linear layer without some of its weights.

    Args:
        mask: rows of zeros and ones, [outputs][inputs].
    """

    mask: Tensor

    def __init__(self, mask: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        layer = linear(len(mask[0]), len(mask))
        self.weight, self.bias = layer.weight, layer.bias
        self.weight.requires_grad_(any(map(any, mask)))  # of a single feature none is left in the first layer
        self.register_buffer("mask", torch.tensor(mask), persistent=False)

    def kept(self) -> Tensor:
        """The weights, zeros where there are none."""
        return self.weight * self.mask


class MADE(nn.Module):
    """A network whose outputs for feature i are functions of the features of lower order than i, and of a context.

    All are near 0 at the start. What a context says to the first layer is computed once for a row of context, however
    many rows of features stand against it.
    Reference: Germain et al., "MADE: masked autoencoder for distribution estimation", 2015.

    Args:
        order: the order of each of L features; those of one order do not see one another.
        outputs: numbers that are returned for each feature, P.
        hidden: widths of the hidden layers.
        context: number of features of the context.

    >>> network = MADE([0, 1, 1], outputs=2, hidden=[8], context=5)(torch.zeros(7, 5))
    >>> network(torch.zeros(4, 7, 3)).shape
    torch.Size([4, 7, 3, 2])
    """

    def __init__(self, order: Sequence[int], outputs: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        orders = range(-1 if context else 0, max(order))  # of what a hidden unit may see up to; −1 is the context alone
        units = [[orders[j * len(orders) // n] for j in range(n)] for n in hidden] if orders else []
        layers, before = [], list(order)
        for after in units:
            layers.append(Masked([[a >= b for b in before] for a in after]))
            before = after
        layers.append(Masked([[a > b for b in before] for a in order for _ in range(outputs)]))
        self.layers = nn.ModuleList(layers)
        self.context = nn.Linear(context, len(layers[0].bias), bias=False) if context else None
        with torch.no_grad():
            layers[-1].weight.mul_(NEAR)

    def forward(self, context: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The network given a context [*leading, C]: a function of features, [..., *leading, L] -> [..., L, P]."""
        (weight, bias), *others = [(layer.kept(), layer.bias) for layer in cast(list[Masked], list(self.layers))]
        told = None if context is None or self.context is None else F.linear(context, self.context.weight, bias)

        def network(z: Tensor) -> Tensor:
            h = F.linear(z, weight, bias) if told is None else F.linear(z, weight) + told
            for w, b in others:
                h = F.linear(F.silu(h), w, b)
            return h.to(z.dtype).unflatten(-1, (z.shape[-1], self.outputs))

        return network
