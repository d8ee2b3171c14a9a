"""Convolutional networks for images of any [C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn as nn

from .base import Network, Shape, as_activation, as_sizes, linear


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
        for out in as_sizes(self, "channels", channels):
            layers.append(nn.Conv2d(c, out, 3, stride=2, padding=1))
            layers += [nn.BatchNorm2d(out)] if batch_norm else []
            layers.append(as_activation(activation))
            c, h, w = out, (h + 1) // 2, (w + 1) // 2
        layers += [nn.Flatten(), linear(c * h * w, math.prod(outputs)), nn.Unflatten(1, self.outputs)]
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
        channels = as_sizes(self, "channels", channels)
        for _ in channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        widths = [c, *channels]  # from the image inwards, as in Conv
        h0, w0 = sizes[-1]
        layers: list[nn.Module] = [
            nn.Flatten(),
            linear(math.prod(inputs), widths[-1] * h0 * w0),
            nn.Unflatten(1, (widths[-1], h0, w0)),
        ]
        for i in range(len(channels), 0, -1):
            layers += [nn.BatchNorm2d(widths[i])] if batch_norm else []
            layers.append(as_activation(activation))
            (h1, w1), (h2, w2) = sizes[i], sizes[i - 1]
            extra = (h2 - (2 * h1 - 1), w2 - (2 * w1 - 1))  # stride 2 has two preimages of each size
            layers.append(nn.ConvTranspose2d(widths[i], widths[i - 1], 3, stride=2, padding=1, output_padding=extra))
        self.body = nn.Sequential(*layers)
