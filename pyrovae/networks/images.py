"""Convolutional networks for images of any [C, H, W]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from .base import Network, Shape, as_activation, as_sizes, check_kind, linear

Size = tuple[int, int]  # height and width


def _image(shape: Shape, who: str) -> tuple[int, Size]:
    check_kind(who, "images [C, H, W]", shape, 3)
    c, h, w = (int(n) for n in shape)
    return c, (h, w)


def _sizes(size: Size, stages: int) -> list[Size]:
    """The size of an image, and after each convolution of stride 2: halves, rounded up."""
    sizes = [size]
    for _ in range(stages):
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def _down(n: int, m: int) -> nn.Conv2d:
    return nn.Conv2d(n, m, 3, stride=2, padding=1)


def _up(n: int, m: int, inner: Size, outer: Size) -> nn.ConvTranspose2d:
    """From one size back to the one that `_down` came from: stride 2 has two preimages of each."""
    (h1, w1), (h2, w2) = inner, outer
    extra = (h2 - (2 * h1 - 1), w2 - (2 * w1 - 1))
    return nn.ConvTranspose2d(n, m, 3, stride=2, padding=1, output_padding=extra)


def _norm(channels: int, batch_norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if batch_norm else []


class Conv(Network):
    """An encoder for images of any [C, H, W]: convolutions of stride 2, then one linear layer.

    Each layer halves height and width (rounded up): kernel 3, padding 1.

    Args:
        inputs: [C, H, W].
        outputs: event shape of the output.
        channels: channels of each convolution.
        activation: as in `MLP`.
        batch_norm: normalise each layer over the batch (K·B rows with K particles).

    >>> import torch
    >>> Conv([3, 32, 32], [40], channels=[8, 16])(torch.zeros(5, 3, 3, 32, 32)).shape
    torch.Size([5, 3, 40])
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
        c, size = _image(inputs, "Conv")
        channels = as_sizes(self, "channels", channels)
        layers: list[nn.Module] = []
        for n, m in itertools.pairwise([c, *channels]):
            layers += [_down(n, m), *_norm(m, batch_norm), as_activation(activation)]
        layers += [nn.Flatten(), *_out((c, *channels)[-1], _sizes(size, len(channels))[-1], self.outputs)]
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

    >>> import torch
    >>> TransposedConv([20], [3, 32, 32], channels=[8, 16])(torch.zeros(5, 3, 20)).shape
    torch.Size([5, 3, 3, 32, 32])
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
        c, size = _image(outputs, "TransposedConv")
        channels = as_sizes(self, "channels", channels)
        sizes, widths = _sizes(size, len(channels)), [c, *channels]  # from the image inwards, as in Conv
        layers = _in(self.inputs, widths[-1], sizes[-1])
        for i in range(len(channels), 0, -1):
            layers += [*_norm(widths[i], batch_norm), as_activation(activation)]
            layers.append(_up(widths[i], widths[i - 1], sizes[i], sizes[i - 1]))
        self.body = nn.Sequential(*layers)


class Residual(nn.Module):
    """x + f(x), f = activation, convolution, activation, convolution: sizes and channels stay what they are.

    Args:
        channels: of x.
        activation: as in `MLP`.
        shrink: what f's last weights are multiplied by at the start, so that many blocks add up to no more than one.
    """

    def __init__(self, channels: int, activation: str, shrink: float) -> None:
        super().__init__()
        first, last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.xavier_uniform_(last.weight, gain=shrink)
        self.body = nn.Sequential(as_activation(activation), first, as_activation(activation), last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W], unchanged in shape."""
        return x + self.body(x)


class ResNet(Network):
    """An encoder for images of any [C, H, W]: stages of a convolution of stride 2 and residual blocks.

        h ← h + f(h),    f = activation, convolution, activation, convolution    ("pre-activation")

    Heights and widths pass through the sizes of `Conv`; one linear layer follows. Nothing is normalised, so that no
    datum depends on another in its batch; instead the last weights of each block start divided by √(number of blocks).

    Args:
        inputs: [C, H, W].
        outputs: event shape of the output.
        channels: channels of each stage.
        blocks: residual blocks of each stage.
        activation: as in `MLP`.

    References: He et al., "Identity mappings in deep residual networks", 2016; Child, "Very deep VAEs generalize
    autoregressive models and can outperform them on images", 2021, for the start without normalisation.

    >>> import torch
    >>> ResNet([3, 32, 32], [40], channels=[8, 16], blocks=2)(torch.zeros(5, 3, 3, 32, 32)).shape
    torch.Size([5, 3, 40])
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__(inputs, outputs)
        c, size = _image(inputs, "ResNet")
        channels = as_sizes(self, "channels", channels)
        layers: list[nn.Module] = []
        for n, m in itertools.pairwise([c, *channels]):
            layers += [_down(n, m), *_residuals(self, m, blocks, len(channels), activation), as_activation(activation)]
        layers += [nn.Flatten(), *_out((c, *channels)[-1], _sizes(size, len(channels))[-1], self.outputs)]
        self.body = nn.Sequential(*layers)


class ResNetDecoder(Network):
    """A decoder to images of any [C, H, W]: one linear layer, then stages of residual blocks and a transposed one.

    The mirror image of `ResNet` with the same `channels`: heights and widths pass through the same sizes.

    Args:
        inputs: event shape of the input, e.g. [20].
        outputs: [C, H, W].
        channels: as in `ResNet`, so the last entry is the widest, nearest to the latent.
        blocks: as in `ResNet`.
        activation: as in `MLP`.

    >>> import torch
    >>> ResNetDecoder([20], [3, 32, 32], channels=[8, 16], blocks=2)(torch.zeros(5, 3, 20)).shape
    torch.Size([5, 3, 3, 32, 32])
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__(inputs, outputs)
        c, size = _image(outputs, "ResNetDecoder")
        channels = as_sizes(self, "channels", channels)
        sizes, widths = _sizes(size, len(channels)), [c, *channels]  # from the image inwards, as in ResNet
        layers = _in(self.inputs, widths[-1], sizes[-1])
        for i in range(len(channels), 0, -1):
            layers += [*_residuals(self, widths[i], blocks, len(channels), activation), as_activation(activation)]
            layers.append(_up(widths[i], widths[i - 1], sizes[i], sizes[i - 1]))
        self.body = nn.Sequential(*layers)


def _residuals(network: nn.Module, channels: int, blocks: int, stages: int, activation: str) -> list[Residual]:
    blocks = check_whole(type(network).__name__, "blocks", blocks)
    shrink = (blocks * stages) ** -0.5
    return [Residual(channels, activation, shrink) for _ in range(blocks)]


def _out(channels: int, size: Size, outputs: Shape) -> list[nn.Module]:
    return [linear(channels * math.prod(size), math.prod(outputs)), nn.Unflatten(1, tuple(outputs))]


def _in(inputs: Shape, channels: int, size: Size) -> list[nn.Module]:
    return [nn.Flatten(), linear(math.prod(inputs), channels * math.prod(size)), nn.Unflatten(1, (channels, *size))]
