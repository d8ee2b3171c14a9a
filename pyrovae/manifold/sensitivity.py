"""How far a reconstruction follows its datum: along the manifold, and off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .decoder import in_chunks
from .planes import Planes, orthonormal
from .tangents import CHUNK, at_home, reconstruction


@dataclass(frozen=True)
class Sensitivity:
    """How far x̂ moves for a unit step of x, the root mean square over directions; without units.

    Attributes:
        along: in the plane, [N]; 1 where what belongs to the manifold is kept.
        across: at right angles to it, [N]; 0 where what does not belong to it is undone.
    """

    along: Tensor
    across: Tensor


def sensitivity(
    vae: Any, x: Tensor, planes: Tensor | Planes, observed: str | None = None, seed: int = 0, chunk: int = CHUNK
) -> Sensitivity:
    """How far x̂ = E[x | z = E_q[z]] follows x along tangent planes of the data, and across them.

        J = ∂x̂/∂x,    along² = ‖J U‖² / d,    across² = ‖J (1 − U Uᵀ)‖² / (D − d)

    with U the d columns of a plane. A model that projects on the manifold has 1 and 0: a step along the manifold is
    another datum, and a step off it is undone. Data that lie on the manifold alone teach nothing of what is off it, and
    an autoencoder may do anything there. Noise on what the encoder sees teaches it, or a penalty on its slope; noise on
    the code, as in a VAE, does not: it never comes from off the manifold.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        planes: the planes at these data, [N, D, d]: known ones (`pv.data.manifold`), or `local_tangents(x, d)`.
        observed: the observed site, where there are several that are no images.
        seed: of what is drawn.
        chunk: data at a time.

    Raises:
        ValueError: for planes of other data or of all directions, and as `reconstruction_tangents`.

    References: Alain and Bengio, "What regularized auto-encoders learn from the data-generating distribution", 2014;
    Rifai, Vincent, Muller, Glorot and Bengio, "Contractive auto-encoders", 2011.

    >>> import pyrovae as pv
    >>> vae = pv.models.LinearGaussian([5], latent=2)
    >>> plane = torch.linalg.qr(vae.weight.detach()).Q  # what lies across it is no concern of z
    >>> bool((sensitivity(vae, torch.randn(3, 5), plane.expand(3, 5, 2)).across < 1e-5).all())
    True
    """
    who = "sensitivity"
    x = at_home(who, vae, x)
    u = orthonormal(who, planes).to(x)
    n, size = len(x), x[0].numel()
    if u.shape[:2] != (n, size) or not u.shape[2] < size:
        raise ValueError(
            f"{who} expects planes [N, D, d] of the same data, d below D, got {list(u.shape)} for data "
            f"{list(x.shape)}; take local_tangents(x, d)"
        )
    found = []
    for start, stop in in_chunks(who, n, chunk):
        rows, plane = reconstruction(who, vae, x[start:stop], observed, seed)[1], u[start:stop]
        inside = rows @ plane  # [n, L, d]; orthonormal columns in front leave lengths as they are
        found.append(torch.stack([_mean_length(inside), _mean_length(rows - inside @ plane.mT, size - u.shape[2])]))
    along, across = torch.cat(found, 1)
    return Sensitivity(along, across)


def _mean_length(columns: Tensor, n: int | None = None) -> Tensor:
    """The root mean square of the lengths of columns [N, L, m], or of n of them where the others are 0."""
    return (columns.square().sum((1, 2)) / (n or columns.shape[2])).sqrt()
