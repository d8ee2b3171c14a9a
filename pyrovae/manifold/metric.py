"""The metric that a decoder lends its latent space: lengths and volumes there as the data would measure them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..evaluation.samples import Sites
from .decoder import decoder_of, in_chunks, jacobian
from .tangents import CHUNK, tangents


def metric(
    vae: Any,
    z: Sites,
    site: str | None = None,
    like: Tensor | None = None,
    observed: str | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Tensor:
    """The pull-back metric of the decoder, [N, L, L]: a small step dz changes E[x | z] by √(dzᵀ G dz).

        G(z) = JᵀJ,    J = ∂E[x | z] / ∂z

    It is that of the mean alone: far from the codes of data it tells how the network extrapolates.

    Args:
        vae: anything with a Pyro `model(x)`; or a function [M, L] -> [M, *event] that treats each row by itself.
        z: codes [N, L], or a dict by site name as for `pv.decode`.
        site: the latent that moves; needed where z has several continuous ones.
        like: data for a model that reads more of x than its length, as for `pv.decode`.
        observed: the observed site, where there are several that are no images.
        seed: of what is drawn.
        chunk: codes at a time.

    Raises:
        ValueError: as `tangents`.

    References: Arvanitidis, Hansen and Hauberg, "Latent space oddity: on the curvature of deep generative models",
    2018; Shao, Kumar and Fletcher, "The Riemannian geometry of deep generative models", 2018.

    >>> import pyrovae as pv
    >>> vae = pv.models.LinearGaussian([5], latent=2)
    >>> torch.allclose(metric(vae, torch.randn(3, 2)), vae.weight.mT @ vae.weight)
    True
    """
    f = decoder_of("metric", vae, z, site, like, observed, seed)
    jacobians = (jacobian(f, start, stop) for start, stop in in_chunks("metric", len(f.z), chunk))
    return torch.cat([j.mT @ j for j in jacobians])


def log_volume(vae: Any, z: Sites, **options: Any) -> Tensor:
    """log √det G(z), [N]: how much of the manifold a small piece of latent space covers, in nats.

    The sum of log s_l over the singular values of J, which loses fewer digits than the determinant. It is large where
    E[x | z] changes fast, as between classes, and −∞ where the decoder makes no use of a direction.

    Args:
        vae: as for `metric`.
        z: codes [N, L], or a dict by site name.
        options: as for `metric`.

    Raises:
        ValueError: as `tangents`.

    >>> import math
    >>> sphere = lambda z: torch.stack([z[:, 0].sin() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].sin(), z[:, 0].cos()], 1)
    >>> log_volume(sphere, torch.tensor([[0.5, 1.0]])).exp() / math.sin(0.5)
    tensor([1.])
    """
    return tangents(vae, z, **options).singular_values.log().sum(1)
