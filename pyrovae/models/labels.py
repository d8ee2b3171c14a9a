"""Data that begin with their label, [B, 1 + D]: the label 0, 1, ... or NaN, and then what it is a label of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from ..likelihoods import Likelihood
from ..networks import MLP, Chain, Standardise, Unstandardise, features, pair
from ..posteriors import Posterior
from .build import Part, build_part, find_part
from .vae import natural_likelihood, with_data


class Row(NamedTuple):
    """Rows of data, taken apart."""

    label: Tensor  # one-hot [B, C], of the first class where it is not known
    known: Any  # [B], a BoolTensor
    content: Tensor  # [B, *event]


def take_apart(who: str, x: Tensor, classes: int, event: Sequence[int]) -> Row:
    """Labels, and what they are labels of. Raises ValueError for labels that are no class, where Pyro validates."""
    known, y = ~x[..., 0].isnan(), x[..., 0].nan_to_num()
    label = y[..., None] == torch.arange(classes, device=x.device)
    if is_validation_enabled() and not bool(label.any(-1).all()):
        raise ValueError(
            f"{who} expects x to begin with a label from 0 to {classes - 1}, or NaN, got {float(y.min()):g} to "
            f"{float(y.max()):g}; load the data with labelled=True, and build the model for their classes"
        )
    return Row(label.to(x.dtype), known, x[..., 1:].unflatten(-1, tuple(event)))


class Parts(NamedTuple):
    """Modules of sizes that fit labelled data."""

    likelihood: nn.Module  # from z and y side by side
    posterior: nn.Module  # from features and y side by side
    features: nn.Module  # of x without its label
    centre: Standardise  # of the features


def parts_for(
    model: type,
    data: Any,
    latent: int,
    hidden: Sequence[int] | None,
    network: str,
    activation: str | None,
    likelihood: Part,
    posterior: Part,
) -> Parts:
    """p(x | z, y) and q(z | x, y), as `VAE.build` makes p(x | z) and q(z | x), and a decoder that begins at the mean.

    Raises ValueError as `VAE.build` does.
    """
    event, classes = list(data.content_shape), data.classes
    r, r_options = find_part(
        model, "likelihood", natural_likelihood(data) if likelihood == "auto" else likelihood, Likelihood
    )
    q, q_options = find_part(model, "posterior", posterior, Posterior)
    r_options = with_data(r, r_options, data)
    decoded = build_part(r.decoded, r_options, event)
    _, decoder = pair(network, event, [1], latent + classes, decoded, hidden, activation)
    some = next(data.batches("train", 10_000, shuffle=False))[:, 1:].unflatten(-1, tuple(event))
    p = build_part(r, r_options, decoder)
    start = p.start(some.mean(0))
    if start is not None:  # what all data have in common is nothing for a label to tell
        p = build_part(r, r_options, Chain(decoder, Unstandardise(decoded).around(start)))
    told, width = features(network, event, hidden, activation)
    centre = Standardise(event).to_data(some, rescale=data.values in ("counts", "real"))
    head = MLP([width + classes], build_part(q.code, q_options, latent), hidden=[width])
    return Parts(p, build_part(q, q_options, head), Chain(centre, told), centre)
