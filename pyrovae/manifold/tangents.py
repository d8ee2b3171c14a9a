"""Tangent planes that a model has learned: of its decoder, of its encoder, and of x -> z -> x̂."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..evaluation.arguments import check_data
from ..evaluation.samples import Latent, Sites, check_walkable, codes_of
from ..models.autoencoder import pull_back
from ..program import home
from .decoder import decoder_of, in_chunks, jacobian, moving
from .planes import Planes

CHUNK = 256


def tangents(
    vae: Any,
    z: Sites,
    d: int | None = None,
    site: str | None = None,
    like: Tensor | None = None,
    observed: str | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Planes:
    """The tangent planes of the manifold {E[x | z]} that a decoder draws, at codes z: a basis, and singular values.

        J = ∂E[x | z] / ∂z = U S Vᵀ,    the plane is the span of the first d columns of U

    s_l is how far E[x | z] moves for a unit step in z along v_l. A direction of z that the decoder makes no use of has
    s = 0, and the plane no use for its column of U: see `Planes.least`. On a sphere steps are along it.

    Args:
        vae: anything with a Pyro `model(x)`; or a function [M, L] -> [M, *event] that treats each row by itself.
        z: codes [N, L], or a dict by site name as for `pv.decode`; sites left out are drawn, alike for all steps.
        d: how many directions span the plane; None for all L of them.
        site: the latent that moves; needed where z has several continuous ones.
        like: data for a model that reads more of x than its length, as for `pv.decode`.
        observed: the observed site, where there are several that are no images.
        seed: of what is drawn.
        chunk: codes at a time. Memory is that of `chunk` Jacobians [D, L] and a backward pass through the decoder.

    Returns:
        `Planes`: .basis [N, D, d] and .singular_values [N, L], in units of x per unit of z.

    Raises:
        ValueError: for a discrete latent, an observed site without a mean, more latent dimensions than numbers in a
            datum, and as `pv.decode` does.

    Reference: Shao, Kumar and Fletcher, "The Riemannian geometry of deep generative models", 2018.

    >>> import pyrovae as pv
    >>> vae = pv.models.LinearGaussian([5], latent=2)
    >>> found = tangents(vae, torch.randn(3, 2))  # W spans them all
    >>> torch.allclose(found.singular_values, torch.linalg.svdvals(vae.weight).expand(3, 2))
    True
    """
    f = decoder_of("tangents", vae, z, site, like, observed, seed)
    d = _dimensions("tangents", d, f.z.shape[1])
    found = []
    for start, stop in in_chunks("tangents", len(f.z), chunk):
        u, s, _ = decomposed("tangents", jacobian(f, start, stop))
        found.append((u[..., :d], s))
    return Planes(*(torch.cat(part) for part in zip(*found, strict=True)))


def encoder_tangents(vae: Any, x: Tensor, d: int | None = None, seed: int = 0, chunk: int = CHUNK) -> Planes:
    """The directions of x that the code heeds: singular vectors of the encoder x -> E_q[z], and singular values.

        ∂z/∂x = V S Uᵀ,    the plane is the span of the first d columns of U

    An encoder that has learned the manifold moves its code along it alone. Data that lie on the manifold exactly do not
    teach it that: noise or a penalty does. Several latents are taken side by side.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        d: how many directions span the plane; None for all L of them.
        seed: of what is drawn.
        chunk: data at a time.

    Returns:
        `Planes`: .basis [N, D, d] and .singular_values [N, L], in units of z per unit of x.

    Raises:
        ValueError: for a model without a continuous latent, more latent dimensions than numbers in a datum.

    Reference: Rifai, Dauphin, Vincent, Bengio and Muller, "The manifold tangent classifier", 2011.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> encoder_tangents(pv.models.VAE.build(data, latent=2), data.test[:3]).basis.shape
    torch.Size([3, 64, 2])
    """
    x, found = at_home("encoder_tangents", vae, x), []
    for start, stop in in_chunks("encoder_tangents", len(x), chunk):
        rows = _encoder("encoder_tangents", vae, x[start:stop], seed)[0]  # [n, L, D]
        found.append(decomposed("encoder_tangents", rows.mT)[:2])
    basis, values = (torch.cat(part) for part in zip(*found, strict=True))
    return Planes(basis[..., : _dimensions("encoder_tangents", d, basis.shape[2])], values)


def reconstruction_tangents(
    vae: Any,
    x: Tensor,
    d: int | None = None,
    observed: str | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Planes:
    """The directions in which x̂ = E[x | z = E_q[z]] moves as x does, and how far: the Jacobian of x -> x̂.

        ∂x̂/∂x = ∂x̂/∂z ∂z/∂x = U S Vᵀ

    A model that projects on its manifold has s = 1 along it and 0 across. With L latent dimensions no more than L
    singular values are not 0: those are given, exactly, in L passes each way however large D is. All continuous latents
    move; discrete ones keep the value that was drawn for them.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        d: how many directions span the plane; None for all L of them.
        observed: the observed site, where there are several that are no images.
        seed: of what is drawn.
        chunk: data at a time.

    Returns:
        `Planes`: .basis [N, D, d] and .singular_values [N, L], without units.

    Raises:
        ValueError: as `tangents` and `encoder_tangents`. For a function x -> x̂ use `tangents`.

    References: Alain and Bengio, "What regularized auto-encoders learn from the data-generating distribution", 2014.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> reconstruction_tangents(pv.models.VAE.build(data, latent=2), data.test[:3]).singular_values.shape
    torch.Size([3, 2])
    """
    who, found = "reconstruction_tangents", []
    x = at_home(who, vae, x)
    for start, stop in in_chunks(who, len(x), chunk):
        u, rest = reconstruction(who, vae, x[start:stop], observed, seed)
        inner, values, _ = torch.linalg.svd(rest, full_matrices=False)
        found.append((u @ inner, values))
    basis, values = (torch.cat(part) for part in zip(*found, strict=True))
    return Planes(basis[..., : _dimensions(who, d, basis.shape[2])], values)


def contractive_penalty(vae: Any, x: Tensor, seed: int = 0, chunk: int = CHUNK) -> Tensor:
    """‖∂z/∂x‖² = Σ_ld (∂z_l / ∂x_d)² at the code z = E_q[z] of each datum, [N]: how far codes move with the data.

    What `pv.models.ContractiveAutoencoder` pays for, of any model. It is in units of z² / x², so that codes of another
    scale have another penalty: compare it along the manifold and across (`encoder_tangents`), or within one model.

    Args:
        vae: anything with a Pyro `guide(x)`.
        x: data [N, *event].
        seed: of what is drawn.
        chunk: data at a time.

    Raises:
        ValueError: for a model without a continuous latent.

    Reference: Rifai, Vincent, Muller, Glorot and Bengio, "Contractive auto-encoders", 2011.

    >>> import pyrovae as pv
    >>> vae = pv.models.ContractiveAutoencoder.build(pv.data.load("digits"), latent=2)
    >>> x = pv.data.load("digits").test[:3]
    >>> torch.allclose(contractive_penalty(vae, x), vae.contraction(x))
    True
    """
    x = at_home("contractive_penalty", vae, x)
    pieces = in_chunks("contractive_penalty", len(x), chunk)
    rows = (_encoder("contractive_penalty", vae, x[start:stop], seed)[0] for start, stop in pieces)
    return torch.cat([r.square().sum((1, 2)) for r in rows])


def reconstruction(who: str, vae: Any, x: Tensor, observed: str | None, seed: int) -> tuple[Tensor, Tensor]:
    """∂x̂/∂x as a product U M of orthonormal columns U [n, D, L] and rows M = S Vᵀ ∂z/∂x [n, L, D]."""
    rows, codes = _encoder(who, vae, x, seed)  # ∂z/∂x: [n, L, D]
    f = moving(who, vae, codes, _moved(who, codes), x, observed, seed)
    u, s, v = decomposed(who, jacobian(f, 0, len(f.z)))
    return u, s[..., None] * (v.mT @ rows)


def decomposed(who: str, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [N, D, L], s [N, L] and V [N, L, L] of Jacobians [N, D, L]. Raises ValueError for L > D or no numbers."""
    if matrix.shape[2] > matrix.shape[1]:
        raise ValueError(
            f"{who} expects at most as many latent dimensions as a datum has numbers, got {matrix.shape[2]} and "
            f"{matrix.shape[1]}: their planes fill the space; use a smaller latent"
        )
    if not matrix.isfinite().all():
        raise ValueError(f"{who} expects finite derivatives, got NaN or infinity; see whether training diverged")
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh.mT


def _dimensions(who: str, d: int | None, most: int) -> int:
    """How many dimensions a plane is to have. Raises ValueError."""
    if d is None:
        return most
    if not isinstance(d, int) or not 1 <= d <= most:
        raise ValueError(f"{who} expects d from 1 to the {most} latent dimensions, got {d!r}; leave it out for all")
    return d


def at_home(who: str, vae: Any, x: Tensor) -> Tensor:
    """Data [N, *event] where the model is, without gradients. Raises ValueError."""
    check_data(who, x)
    return x.detach().to(*home(vae))


def _moved(who: str, codes: dict[str, Latent]) -> list[str]:
    """The continuous latents that have a row for each datum. Raises ValueError for none."""
    local = {name: code for name, code in codes.items() if code.local}
    names = [name for name, code in local.items() if not code.discrete]
    if not names:
        check_walkable(who, *next(iter(local.items())))
    return names


def _encoder(who: str, vae: Any, x: Tensor, seed: int) -> tuple[Tensor, dict[str, Latent]]:
    """∂z/∂x [n, L, D], all continuous latents side by side, and the codes."""
    codes = codes_of(who, vae, x, seed)
    names = _moved(who, codes)

    def code(x: Tensor) -> Tensor:
        at = codes_of(who, vae, x, seed, gradients=True)
        return torch.cat([at[name].rows.reshape(len(x), -1) for name in names], 1)

    return pull_back(code, x).flatten(2).movedim(0, 1).detach(), codes
