"""Shortest curves between codes, in the metric of the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluation.arguments import check_count
from ..evaluation.samples import Sites
from .decoder import Decoder, decoder_of

FINE = 4  # points at which a length is measured, for each at which a curve may bend


@dataclass(frozen=True)
class Geodesics:
    """Curves between P pairs of codes.

    Attributes:
        curve: [P, T + 1, L], both ends included.
        length: of E[x | z] along the curve, [P], in units of x.
        straight: of E[x | z] along the straight line between the codes, [P].
    """

    curve: Tensor
    length: Tensor
    straight: Tensor


def geodesics(
    vae: Any,
    z0: Sites,
    z1: Sites,
    steps: int = 16,
    iterations: int = 100,
    site: str | None = None,
    like: Tensor | None = None,
    observed: str | None = None,
    seed: int = 0,
) -> Geodesics:
    """Curves from z0 to z1 along which E[x | z] changes least: of all pairs at once, from straight lines on.

        E = T/2 Σ_t ‖E[x | z_{t+1}] − E[x | z_t]‖²

    is lowered by L-BFGS over the T − 1 points between the ends. The curve of least energy is a shortest one, walked at
    even speed. Lengths are those of the curve with straight pieces between its points, measured at four times as many.
    A pair whose curve came out no shorter keeps the straight line, so that no length is above `straight`; a curve is
    a local minimum, and another way round may be shorter still.

    Args:
        vae: anything with a Pyro `model(x)`; or a function [M, L] -> [M, *event] that treats each row by itself.
        z0: where curves begin, [P, L], or a dict by site name as for `pv.decode`.
        z1: where they end, of the same shape; of a dict the latent that moves is read, other latents are those of z0.
        steps: T, pieces of a curve.
        iterations: of L-BFGS at most, each about one pass forward and backward of P (T + 1) codes at once.
        site: the latent that moves; needed where z0 has several continuous ones.
        like: data for a model that reads more of x than its length, as for `pv.decode`.
        observed: the observed site, where there are several that are no images.
        seed: of what is drawn.

    Raises:
        ValueError: for ends of two shapes, fewer than 2 steps, and as `tangents`.

    References: as `metric`.

    >>> bowl = lambda z: torch.cat([z, 2 * (-z.square().sum(1, keepdim=True)).exp()], 1)  # a hill to go around
    >>> found = geodesics(bowl, torch.tensor([[-1.0, 0.1]]), torch.tensor([[1.0, 0.1]]))
    >>> bool(found.length < found.straight), found.curve.shape
    (True, torch.Size([1, 17, 2]))
    """
    check_count("geodesics", "at least 2 steps", "steps", steps, 2)
    check_count("geodesics", "at least 0 iterations", "iterations", iterations, 0)
    f = decoder_of("geodesics", vae, z0, site, like, observed, seed)
    end = decoder_of("geodesics", vae, z1, site, like, observed, seed).z
    if end.shape != f.z.shape:
        raise ValueError(
            f"geodesics expects as many ends as beginnings, got {list(f.z.shape)} and {list(end.shape)}; make pairs"
        )
    t = torch.linspace(0, 1, steps + 1, dtype=end.dtype, device=end.device)[:, None]
    line = torch.lerp(f.z[:, None], end[:, None], t)  # [P, T + 1, L]
    straight = _length(f, line)
    curve = _shortened(f, line, iterations)
    length = _length(f, curve)
    better = length < straight  # NaN is not
    return Geodesics(torch.where(better[:, None, None], curve, line), torch.where(better, length, straight), straight)


def _shortened(f: Decoder, line: Tensor, iterations: int) -> Tensor:
    """Curves of less energy, from a line on."""
    inner = line[:, 1:-1].clone().requires_grad_()
    # in units of the straight line's energy all pairs count alike
    unit = _steps(f, line).detach().square().sum((1, 2)).clamp_min(torch.finfo(line.dtype).tiny)
    optimiser = torch.optim.LBFGS([inner], max_iter=iterations, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def curve() -> Tensor:
        return torch.cat([line[:, :1], inner, line[:, -1:]], 1)

    def energy() -> Tensor:
        with torch.enable_grad():
            total = (_steps(f, curve()).square().sum((1, 2)) / unit).sum()
            inner.grad = torch.autograd.grad(total, inner)[0].contiguous()
        return total.detach()

    if iterations:
        optimiser.step(energy)
    return curve().detach()


def _steps(f: Decoder, curve: Tensor) -> Tensor:
    """E[x | z_{t+1}] − E[x | z_t]: [P, T + 1, L] -> [P, T, D]."""
    rows = torch.arange(len(curve), device=curve.device).repeat_interleave(curve.shape[1])
    return f(curve.flatten(0, 1), rows).unflatten(0, curve.shape[:2]).diff(dim=1)


def _length(f: Decoder, curve: Tensor) -> Tensor:
    """Of the decoded curve with straight pieces between its points, [P]."""
    with torch.no_grad():
        t = torch.arange(FINE, dtype=curve.dtype, device=curve.device)[:, None] / FINE
        pieces = torch.lerp(curve[:, :-1, None], curve[:, 1:, None], t).flatten(1, 2)  # [P, T · FINE, L]
        return _steps(f, torch.cat([pieces, curve[:, -1:]], 1)).norm(dim=2).sum(1)
