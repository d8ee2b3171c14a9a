"""Fully connected networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch.nn as nn

from .base import Network, Shape, as_activation, as_sizes, linear


class MLP(Network):
    """A fully connected network; it flattens and unflattens the event itself.

    Args:
        inputs: event shape of the input, e.g. [1, 28, 28] or [20].
        outputs: event shape of the output.
        hidden: widths of the hidden layers.
        activation: one of relu, tanh, gelu, silu, elu, softplus, leaky_relu.

    >>> import torch
    >>> MLP([1, 28, 28], [40], hidden=[400])(torch.zeros(5, 3, 1, 28, 28)).shape
    torch.Size([5, 3, 40])
    """

    def __init__(self, inputs: Shape, outputs: Shape, hidden: Sequence[int] = (400,), activation: str = "relu") -> None:
        super().__init__(inputs, outputs)
        widths = [math.prod(inputs), *as_sizes(self, "hidden", hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for n, m in itertools.pairwise(widths):
            layers += [linear(n, m), as_activation(activation)]
        layers += [linear(widths[-1], math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(*layers)


class Gated(Network):
    """A fully connected network whose hidden layers are gated, in the place of an activation.

        h = (W₁ x + b₁) ⊙ σ(W₂ x + b₂),    then one linear layer

    Args:
        inputs: event shape of the input.
        outputs: event shape of the output.
        hidden: widths of the hidden layers.

    Reference: Tomczak and Welling, "VAE with a VampPrior", 2018; Dauphin et al., "Language modeling with gated
    convolutional networks", 2017.

    >>> import torch
    >>> Gated([1, 28, 28], [40], hidden=[300, 300])(torch.zeros(5, 3, 1, 28, 28)).shape
    torch.Size([5, 3, 40])
    """

    def __init__(self, inputs: Shape, outputs: Shape, hidden: Sequence[int] = (300, 300)) -> None:
        super().__init__(inputs, outputs)
        widths = [math.prod(inputs), *as_sizes(self, "hidden", hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for n, m in itertools.pairwise(widths):
            layers += [linear(n, 2 * m), nn.GLU(1)]  # W₁ above W₂
        layers += [linear(widths[-1], math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(*layers)
