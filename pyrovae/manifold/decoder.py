"""A model's decoder z -> E[x | z] as a function of tensors alone, with gradients in z, and its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluation.arguments import check_count, check_data
from ..evaluation.samples import (
    Latent,
    Sites,
    check_walkable,
    given_latents,
    observed_sites,
    shown_site,
    unconditioned,
)
from ..program import family
from ..program.handlers import mean_of

Function = Callable[[Tensor], Tensor]  # [M, L] -> [M, *event], each row by itself


@dataclass(frozen=True)
class Decoder:
    """E[x | z] as vectors for rows of z, [M, L] -> [M, D].

    Attributes:
        z: the codes that were given, [N, L].
        at: from codes [M, L], and the rows of the N that they belong to [M], to [M, *event].
    """

    z: Tensor
    at: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        """E[x | z] of codes that belong to these rows."""
        return self.at(z, rows).flatten(1)


def decoder_of(
    who: str,
    vae: Any,
    z: Sites,
    site: str | None = None,
    like: Tensor | None = None,
    observed: str | None = None,
    seed: int = 0,
) -> Decoder:
    """The decoder of a model in its latent `site`, or a function [M, L] -> [M, *event] in its place."""
    if like is not None:
        check_data("like", like)
    if not hasattr(vae, "model") and callable(vae):
        if not isinstance(z, Tensor) or z.dim() != 2 or not z.numel():
            got = list(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"{who} expects codes [N, L] for a function, got {got}; give a row for each point")
        return Decoder(z.detach(), lambda z, rows: vae(z))
    given = given_latents(who, vae, z, like)
    local = [name for name, latent in given.items() if latent.local]
    if site is not None and site not in local:
        raise ValueError(f"{who} expects site as one of {local}, got {site!r}; name one of them")
    continuous = [name for name in local if not given[name].discrete]
    if site is None and len(continuous) > 1:
        raise ValueError(f"{who} expects one latent to move, got {continuous}; name it: site={continuous[0]!r}")
    return moving(who, vae, given, [site or (continuous or local)[0]], like, observed, seed)


def moving(
    who: str,
    vae: Any,
    given: dict[str, Latent],
    names: list[str],
    like: Tensor | None,
    observed: str | None,
    seed: int,
) -> Decoder:
    """The decoder in the latents that are named, side by side; others keep the values that are given for their row."""
    for name in names:
        check_walkable(who, name, given[name])
    parts = [given[name].rows.flatten(1) if given[name].rows.dim() > 1 else given[name].rows[:, None] for name in names]
    widths = [part.shape[1] for part in parts]

    def at(z: Tensor, rows: Tensor) -> Tensor:
        values = {n: c.of_rows(c.rows[rows]) if c.local else c.value for n, c in given.items()}
        for name, part in zip(names, z.split(widths, 1), strict=True):
            c = given[name]
            values[name] = c.of_rows(c.onto(part.reshape(len(z), *c.rows.shape[1:])))
        some = None if like is None else like[rows.to(like.device) % len(like)]
        return _mean(who, unconditioned(vae, values, len(z), seed, True, some, gradients=True), observed)

    return Decoder(torch.cat(parts, 1).detach(), at)


def _mean(who: str, trace: Any, observed: str | None) -> Tensor:
    """E[x | z] of the observed site. Raises ValueError where it has none."""
    sites = dict(observed_sites(trace))
    means = {name: s["infer"]["mean"] for name, s in sites.items() if mean_of(s["fn"]) is not None}
    if not means or (observed in sites and observed not in means):
        name = observed if observed in sites else next(iter(sites))
        raise ValueError(
            f"{who} expects an observed site with a mean E[x | z], got {name!r} of {family(sites[name]['fn'])}; give "
            "the decoder as a function z -> parameters in place of the model"
        )
    return shown_site(who, next(iter(means.values())) if len(sites) == 1 else means, observed)


def jacobian(f: Decoder, start: int, stop: int) -> Tensor:
    """∂f/∂z at rows start to stop of its codes: [n, D, L], in L passes.

    Backward twice: uᵀ ∂f/∂z is linear in u, and its derivative in u along e_l is the column ∂f/∂z_l. Every row of f
    depends on its own row of z, so that a sum over rows has the gradient of each.
    """
    rows = torch.arange(start, stop, device=f.z.device)
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # whose recurrent networks go backward once
        z = f.z[start:stop].clone().requires_grad_()
        x = f(z, rows)
        u = torch.zeros_like(x, requires_grad=True)
        pulled = _gradient(x, z, u, keep=True)  # uᵀ ∂f/∂z: [n, L]
        columns = [_gradient(column.sum(), u) for column in pulled.unbind(1)]
    return torch.stack(columns, 2)


def _gradient(y: Tensor, at: Tensor, weight: Tensor | None = None, keep: bool = False) -> Tensor:
    """weightᵀ ∂y/∂at; 0 where y does not depend on it."""
    if not y.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(
        y, at, weight, retain_graph=True, create_graph=keep, allow_unused=True, materialize_grads=True
    )[0]


def in_chunks(who: str, n: int, chunk: int) -> list[tuple[int, int]]:
    """The ends of pieces of at most `chunk` of n rows. Raises ValueError."""
    check_count(who, "a chunk of at least 1", "chunk", chunk)
    return [(start, min(start + chunk, n)) for start in range(0, n, chunk)]
