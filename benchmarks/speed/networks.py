"""The network of a case in plain torch: what pyrovae builds, without its classes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from .cases import Case

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Net(nn.Module):
    """An encoder to μ and log σ, [B, 2L], and a decoder to logits or means."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.encoder, self.decoder = (mlp if case.network == "mlp" else convolutions)(case)


def mlp(case: Case) -> tuple[nn.Sequential, nn.Sequential]:
    """Fully connected, on flat data."""
    d = math.prod(case.event)

    def layers(widths: list[int]) -> nn.Sequential:
        made: list[nn.Module] = []
        for n, m in itertools.pairwise(widths):
            made += [nn.Linear(n, m), ACTIVATIONS[case.activation]()]
        return nn.Sequential(*made[:-1])

    return layers([d, *case.hidden, 2 * case.latent]), layers([case.latent, *case.hidden[::-1], d])


def convolutions(case: Case) -> tuple[nn.Sequential, nn.Sequential]:
    """3×3 convolutions of stride 2 and one linear layer; the decoder is the mirror image. Sizes divide evenly."""
    act, (c, h, w) = ACTIVATIONS[case.activation], case.event
    inwards: list[nn.Module] = []
    outwards: list[nn.Module] = []
    for n, m in itertools.pairwise([c, *case.hidden]):
        inwards += [nn.Conv2d(n, m, 3, stride=2, padding=1), act()]
        outwards = [act(), nn.ConvTranspose2d(m, n, 3, stride=2, padding=1, output_padding=1), *outwards]
        h, w = h // 2, w // 2
    m = case.hidden[-1]
    encoder = nn.Sequential(*inwards, nn.Flatten(), nn.Linear(m * h * w, 2 * case.latent))
    return encoder, nn.Sequential(nn.Linear(case.latent, m * h * w), nn.Unflatten(1, (m, h, w)), *outwards)


def batches(case: Case, data: np.ndarray) -> list[Tensor]:
    """The data in batches, flat for the fully connected network."""
    return list(rows(case, data).split(case.batch))


def rows(case: Case, data: np.ndarray) -> Tensor:
    """The data as a tensor, flat for the fully connected network."""
    x = torch.from_numpy(data)
    return x.flatten(1) if case.network == "mlp" else x
