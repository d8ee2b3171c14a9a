"""Fully connected networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..attached import Attached
from .base import Network, Shape, as_activation, as_sizes, check_event, linear


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


class Transposed(Attached, Network):
    """The decoder that an `MLP` encoder has tied to it: its weights are the encoder's, transposed, in reverse order.

        f(x) = W₂ a(W₁ x + b₁) + b₂,    g(z) = W₁ᵀ a(W₂ᵀ z + c₂) + c₁

    It learns its biases c alone. Weights that are tied fix the scale of z: what f makes smaller, g cannot make up for.
    A model attaches it (`pyrovae.attached`); the encoder is the model's `encoder`.

    Args:
        inputs: [L], what the encoder returns.
        outputs: what the encoder takes.
        hidden: widths of the hidden layers, in the order of this network: the encoder's reversed.
        activation: the encoder's.

    Raises:
        ValueError: in use, for a model whose encoder has other layers.

    Reference: Vincent et al., "Stacked denoising autoencoders", 2010.
    """

    def __init__(self, inputs: Shape, outputs: Shape, hidden: Sequence[int] = (400,), activation: str = "relu") -> None:
        super().__init__(inputs, outputs)
        self.widths = [math.prod(inputs), *as_sizes(self, "hidden", hidden), math.prod(outputs)]
        self.biases = nn.ParameterList(torch.zeros(n) for n in self.widths[1:])
        self.activation = as_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, *inputs] -> [*leading, *outputs]. Raises ValueError for another event shape or encoder."""
        check_event(self, self.inputs, x)
        layers = [m for m in self.others("encoder").modules() if isinstance(m, nn.Linear)][::-1]
        found = [*(m.out_features for m in layers), *(m.in_features for m in layers[-1:])]
        if found != self.widths:
            raise ValueError(
                f"Transposed expects an encoder of linear layers with widths {self.widths[::-1]}, got {found[::-1]}; "
                "build both for the same sizes"
            )
        y = x.flatten(-len(self.inputs))
        for i, (layer, bias) in enumerate(zip(layers, self.biases, strict=True)):
            y = F.linear(self.activation(y) if i else y, layer.weight.mT, bias)
        return y.unflatten(-1, self.outputs)
