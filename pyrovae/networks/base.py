"""What every network is: tensors to tensors, for any leading dimensions, [*leading, *event].

A network knows nothing of distributions. One that feeds a distribution with P parameters per element returns
P times as many along the first event dimension, e.g. [2L] for a location and a scale of L latents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..config import Configured, nearest

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


def beside(*parts: Tensor) -> Tensor:
    """Vectors side by side, each with leading dimensions of its own: [*, n], [*, m] -> [*leading, n + m]."""
    leading = torch.broadcast_shapes(*(t.shape[:-1] for t in parts))
    return torch.cat([t.expand(*leading, -1) for t in parts], -1)


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


def as_sizes(network: nn.Module, name: str, sizes: Any) -> tuple[int, ...]:
    """A list of positive whole numbers, or ValueError."""
    is_list = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not is_list or any(not isinstance(n, Integral) or n < 1 for n in sizes):
        raise ValueError(
            f"{type(network).__name__} expects {name} as positive sizes, got {sizes!r}; give a list of whole numbers"
        )
    return tuple(int(n) for n in sizes)


def as_event(network: nn.Module, name: str, shape: Any) -> tuple[int, ...]:
    """The sizes of at least one dimension, or ValueError."""
    if not (found := as_sizes(network, name, shape)):
        raise ValueError(f"{type(network).__name__} expects {name} as positive sizes, got []; give scalars as [1]")
    return found


def check_kind(who: str, what: str, event: Shape, dims: int) -> None:
    """Refuse events of another number of dimensions than a kind of network is for. Raises ValueError."""
    if len(event) != dims:
        other = {2: "gru", 3: "conv"}.get(len(event), "mlp")
        raise ValueError(f"{who} expects {what}, got events of shape {list(event)}; use network={other!r}")


def as_activation(name: str) -> nn.Module:
    """The module of this name. Raises ValueError with the nearest match."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def linear(n: int, m: int) -> nn.Linear:
    """A linear layer with Glorot's uniform weights and no bias at the start."""
    layer = nn.Linear(n, m)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def output_shape(network: nn.Module) -> tuple[int, ...] | None:
    """The event shape that a network returns; None for one that does not say."""
    while isinstance(network, Chain | nn.Sequential) and len(list(network.children())):
        network = list(network.children())[-1]
    return network.outputs if isinstance(network, Network) else None


def input_shape(network: nn.Module) -> tuple[int, ...] | None:
    """The event shape that a network takes; None for one that does not say."""
    while isinstance(network, Chain | nn.Sequential) and len(list(network.children())):
        network = next(network.children())
    return network.inputs if isinstance(network, Network) else getattr(network, "event", None)


FAR = 3.0  # deviations from which a value of its own scale is brought nearer


class Standardise(Configured, nn.Module):
    """(x − loc) / scale: centres every element of the data, and puts them in the range that networks like.

    `loc` [*event] and `scale` [], or [*event], are buffers: fixed in training, kept with the weights.

    Args:
        event: shape of the data.
        missing: a NaN becomes 0, where the mean is: zero imputation.
        each: a scale for each element, for features that are measured in different units; what is many deviations
            away, as the first ink of a pixel that hardly ever had any is, comes nearer: y becomes 3 asinh(y / 3).

    Reference: Mattei and Frellsen, "MIWAE: deep generative modelling and imputation of incomplete data sets", 2019.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, event: Shape, missing: bool = False, each: bool = False) -> None:
        super().__init__()
        self.event = as_event(self, "event", event)
        self.missing, self.each = missing, each
        self.register_buffer("loc", torch.zeros(self.event))
        self.register_buffer("scale", torch.ones(self.event if each else ()))

    def to_data(self, x: Tensor, rescale: bool) -> Standardise:
        """Takes loc from some data [N, *event], and scale from their deviation where asked: of what is observed."""
        mean = torch.nanmean if self.missing else torch.mean
        self.loc.copy_(mean(x, 0))
        if self.missing:
            self.loc.nan_to_num_()  # an element that none of these data has
        if rescale and self.each:
            scale = mean((x - self.loc).square(), 0).sqrt()
            self.scale.copy_(torch.where(scale > 0, scale, 1.0))  # NaN, of what none has, among the rest
        elif rescale:
            self.scale.copy_(mean((x - self.loc).square()).sqrt().clamp(min=1e-6))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, *event], unchanged in shape. Raises ValueError for another event shape."""
        check_event(self, self.event, x)
        y = (x - self.loc) / self.scale
        if self.each:
            y = FAR * torch.asinh(y / FAR)
        return y.masked_fill(y.isnan(), 0.0) if self.missing else y


class Activated(Configured, nn.Module):
    """A network with an activation behind it: features that several heads share."""

    def __init__(self, network: nn.Module, activation: str = "relu") -> None:
        super().__init__()
        self.network, self.activation = network, as_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """activation(network(x))."""
        return self.activation(self.network(x))


class Unstandardise(Configured, nn.Module):
    """loc + scale y, from the range that networks like to the units of the data: `Standardise` the other way round.

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

    def to_undo(self, standardise: Standardise) -> Unstandardise:
        """Takes loc and scale from what is to be undone, with one scale for all elements."""
        self.loc.copy_(standardise.loc)
        self.scale.copy_(standardise.scale)
        return self

    def around(self, loc: Tensor) -> Unstandardise:
        """Takes this loc, and a scale of 1."""
        self.loc.copy_(loc)
        return self

    def forward(self, y: Tensor) -> Tensor:
        """[*leading, *event], unchanged in shape."""
        return self.loc + self.scale * y


class Chain(Configured, nn.Module):
    """One network after another."""

    def __init__(self, first: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        """then(first(x))."""
        return self.then(self.first(x))
