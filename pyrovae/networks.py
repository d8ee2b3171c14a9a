"""Networks: tensors to tensors. Every network here accepts any leading dimensions, [*leading, *event].

A network knows nothing of distributions. One that feeds a distribution with P parameters per element returns
P times as many along the first event dimension, e.g. [2L] for a location and a scale of L latents each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from .config import Configured, nearest

Shape = Sequence[int]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
}


def over_leading(network: nn.Module, x: Tensor, event_dim: int) -> Tensor:
    """Apply a network written for [N, *event] to [*leading, *event].

    K particles of B data are a batch of K·B to it, so that convolutions and batch norm work unchanged.
    """
    leading = x.shape[: x.dim() - event_dim]
    if len(leading) == 1:
        return network(x)
    y = network(x.reshape(-1, *x.shape[x.dim() - event_dim :]))  # [*leading, *event] -> [N, *event]
    return y.reshape(*leading, *y.shape[1:])


class Network(Configured, nn.Module):
    """Abstract: a map from [*leading, *inputs] to [*leading, *outputs], by a `body` from [N, *inputs]."""

    body: nn.Module

    def __init__(self, inputs: Shape, outputs: Shape) -> None:
        super().__init__()
        self.inputs = as_event(self, "inputs", inputs)
        self.outputs = as_event(self, "outputs", outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, *inputs] -> [*leading, *outputs]. Raises ValueError for another event shape."""
        check_event(self, self.inputs, x)
        return over_leading(self.body, x, len(self.inputs))


def check_event(network: nn.Module, event: tuple[int, ...], x: Tensor) -> None:
    """Refuse data of another event shape. Raises ValueError."""
    if tuple(x.shape[x.dim() - len(event) :]) != event:
        raise ValueError(
            f"{type(network).__name__} expects events of shape {list(event)}, got a tensor of shape "
            f"{list(x.shape)}; give data of that shape or build the network for yours"
        )


def _sizes(network: nn.Module, name: str, sizes: Any) -> tuple[int, ...]:
    """A list of positive whole numbers, or ValueError."""
    is_list = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not is_list or any(not isinstance(n, Integral) or n < 1 for n in sizes):
        raise ValueError(
            f"{type(network).__name__} expects {name} as positive sizes, got {sizes!r}; give a list of whole numbers"
        )
    return tuple(int(n) for n in sizes)


def as_event(network: nn.Module, name: str, shape: Any) -> tuple[int, ...]:
    """The sizes of at least one dimension, or ValueError."""
    if not (found := _sizes(network, name, shape)):
        raise ValueError(f"{type(network).__name__} expects {name} as positive sizes, got []; give scalars as [1]")
    return found


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def _linear(n: int, m: int) -> nn.Linear:
    """A linear layer with Glorot's uniform weights and no bias at the start."""
    layer = nn.Linear(n, m)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Standardise(Configured, nn.Module):
    """(x − loc) / scale: centres every element of the data, and puts them in the range that networks like.

    `loc` [*event] and `scale` [] are buffers: fixed in training, kept with the weights.

    Args:
        event: shape of the data.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, event: Shape) -> None:
        super().__init__()
        self.event = as_event(self, "event", event)
        self.register_buffer("loc", torch.zeros(self.event))
        self.register_buffer("scale", torch.ones(()))

    def to_data(self, x: Tensor, rescale: bool) -> Standardise:
        """Takes loc from some data [N, *event], and scale from their deviation where asked."""
        self.loc.copy_(x.mean(0))
        if rescale:
            self.scale.copy_((x - self.loc).square().mean().sqrt().clamp(min=1e-6))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, *event], unchanged in shape. Raises ValueError for another event shape."""
        check_event(self, self.event, x)
        return (x - self.loc) / self.scale


class Chain(Configured, nn.Module):
    """One network after another."""

    def __init__(self, first: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        """then(first(x))."""
        return self.then(self.first(x))


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
        widths = [math.prod(inputs), *_sizes(self, "hidden", hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for n, m in itertools.pairwise(widths):
            layers += [_linear(n, m), _activation(activation)]
        layers += [_linear(widths[-1], math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(*layers)


def _image(shape: Shape, who: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{who} expects images [C, H, W], got events of shape {list(shape)}; use network='mlp'")
    c, h, w = (int(n) for n in shape)
    return c, h, w


class Conv(Network):
    """An encoder for images of any [C, H, W]: convolutions of stride 2, then one linear layer.

    Each layer halves height and width (rounded up): kernel 3, padding 1.

    Args:
        inputs: [C, H, W].
        outputs: event shape of the output.
        channels: channels of each convolution.
        activation: as in `MLP`.
        batch_norm: normalise each layer over the batch (K·B rows with K particles).
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        channels: Sequence[int] = (32, 64),
        activation: str = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(inputs, outputs)
        c, h, w = _image(inputs, "Conv")
        layers: list[nn.Module] = []
        for out in _sizes(self, "channels", channels):
            layers.append(nn.Conv2d(c, out, 3, stride=2, padding=1))
            layers += [nn.BatchNorm2d(out)] if batch_norm else []
            layers.append(_activation(activation))
            c, h, w = out, (h + 1) // 2, (w + 1) // 2
        layers += [nn.Flatten(), _linear(c * h * w, math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(*layers)


class TransposedConv(Network):
    """A decoder to images of any [C, H, W]: one linear layer, then transposed convolutions of stride 2.

    The mirror image of `Conv` with the same `channels`: heights and widths pass through the same sizes.

    Args:
        inputs: event shape of the input, e.g. [20].
        outputs: [C, H, W].
        channels: as in `Conv`, so the last entry is the widest, nearest to the latent.
        activation: as in `MLP`.
        batch_norm: as in `Conv`.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        channels: Sequence[int] = (32, 64),
        activation: str = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(inputs, outputs)
        c, h, w = _image(outputs, "TransposedConv")
        sizes = [(h, w)]
        channels = _sizes(self, "channels", channels)
        for _ in channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        widths = [c, *channels]  # from the image inwards, as in Conv
        h0, w0 = sizes[-1]
        layers: list[nn.Module] = [
            nn.Flatten(),
            _linear(math.prod(inputs), widths[-1] * h0 * w0),
            nn.Unflatten(1, (widths[-1], h0, w0)),
        ]
        for i in range(len(channels), 0, -1):
            layers += [nn.BatchNorm2d(widths[i])] if batch_norm else []
            layers.append(_activation(activation))
            (h1, w1), (h2, w2) = sizes[i], sizes[i - 1]
            extra = (h2 - (2 * h1 - 1), w2 - (2 * w1 - 1))  # stride 2 has two preimages of each size
            layers.append(nn.ConvTranspose2d(widths[i], widths[i - 1], 3, stride=2, padding=1, output_padding=extra))
        self.body = nn.Sequential(*layers)


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
