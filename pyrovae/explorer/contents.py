"""What goes into a page: the decoder, some images and their codes, draws from the prior, exact posteriors."""

from __future__ import annotations

import base64
import copy
import math
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..evaluation.grid import Grid, exact_posterior
from ..evaluation.samples import (
    check_walkable,
    codes_of,
    drawn_latents,
    observations,
    shown_site,
    values_of,
)
from ..manifold.decoder import Decoder, decoder_of
from ..program import ImproperPriorError, evaluating, home, seeded
from .graph import Weights, export

WHO = "explore"
DRAWS = 400  # of the prior
REFERENCES = 5  # images that the page checks its decoder with
DEPTH = 8.0  # nats below the peak that a density is drawn down to
POINTS = 33  # of each axis of it, at most
ROOM = 0.05  # beside the outermost codes and draws, as a share of their range


def contents(
    vae: Any,
    x: Tensor,
    labels: Tensor | None,
    posteriors: int,
    site: str | None,
    observed: str | None,
    seed: int,
) -> dict[str, Any]:
    """All of it as plain data: numbers as base64 of little-endian float32, images as one byte a pixel.

    Raises ValueError for what has no images, no continuous latent, or a decoder that a page cannot run.
    """
    name = _moving(vae, x, site)
    f = decoder_of(WHO, vae, values_of(codes_of(WHO, vae, x, seed)), name, x, observed, seed)
    shown = shown_site(WHO, observations(vae, x, seed), observed).detach().cpu()
    event = list(shown.shape[1:])
    if len(event) != 3 or event[0] not in (1, 3):
        raise ValueError(
            f"{WHO} expects images [C, H, W], grey (C = 1) or colour (C = 3), got events of shape {event}; a page "
            "shows pictures alone"
        )
    codes = f.z.cpu()
    weights, (graphs, of) = Weights(), _graphs(f, labels, _reads_labels(f, labels))
    made = [{"name": name, "steps": export(_at(f, row), f.z[row : row + 1], weights)} for name, row in graphs]
    offset, unit, pixels = _bytes(shown)
    found = _reference(vae, f, of, name, x, observed, seed)
    prior = _prior(vae, name, x, seed)
    exact = _posteriors(vae, x[:posteriors], seed) if codes.shape[1] == 2 and posteriors else None
    low, high = _ranges(codes if prior is None else torch.cat([codes, prior]))
    return {
        "latent": codes.shape[1],
        "event": event,
        "span": [offset, max(float(found["x"].max()), float(shown.max()), offset + 1e-6)],
        "graphs": made,
        "of": of if len(made) > 1 else None,
        "weights": _text(torch.cat([t.flatten() for t in weights.tensors])),
        "shapes": [list(t.shape) for t in weights.tensors],
        "images": base64.b64encode(pixels.numpy().tobytes()).decode(),
        "offset": offset,
        "unit": unit,
        "codes": _text(codes),
        "widths": _maybe(_widths(vae, x, name, seed)),
        "prior": _maybe(prior),
        "labels": None if labels is None else labels.tolist(),
        "classes": [] if labels is None else [str(c) for c in range(int(labels.max()) + 1)],
        "ranges": list(map(list, zip(low.tolist(), high.tolist(), strict=True))),
        "order": codes.std(0, correction=0).argsort(descending=True).tolist(),
        "reference": {"z": _text(found["z"]), "x": _text(found["x"]), "graph": found["graph"]},
        "posterior": exact,
        "depth": DEPTH,
    }


def _text(numbers: Tensor) -> str:
    """Float32 as base64. Raises ValueError for NaN and infinity."""
    numbers = numbers.detach().to("cpu", torch.float32).contiguous()
    if not torch.isfinite(numbers).all():
        raise ValueError(f"{WHO} expects finite codes and images, got NaN or infinity; see whether training diverged")
    return base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()


def _maybe(numbers: Tensor | None) -> str | None:
    return None if numbers is None else _text(numbers)


def _moving(vae: Any, x: Tensor, site: str | None) -> str:
    """The latent to move: the one that is named, else the continuous one with most dimensions."""
    local = {name: code for name, code in codes_of(WHO, vae, x[:1], 0).items() if code.local}
    if site is not None and site not in local:
        raise ValueError(f"{WHO} expects site as one of {list(local)}, got {site!r}; name one of them")
    continuous = [name for name, code in local.items() if not code.discrete]
    if site is None and continuous:
        return max(continuous, key=lambda name: local[name].value.numel())
    if not local:
        raise ValueError(f"{WHO} expects a model with a latent for each datum, and this one has none")
    name = site or next(iter(local))
    check_walkable(WHO, name, local[name])
    return name


def _at(f: Decoder, row: int) -> Any:
    """E[x | z] of one code, all else as it is for this row of the images."""
    rows = torch.tensor([row], device=f.z.device)
    return lambda z: f.at(z, rows)


def _reads_labels(f: Decoder, labels: Tensor | None) -> bool:
    """Whether one code decodes to another image where another class is given."""
    if labels is None:
        return False
    first, other = 0, int((labels != labels[0]).to(torch.int64).argmax())
    return not torch.allclose(_at(f, first)(f.z[:1]), _at(f, other)(f.z[:1]), atol=1e-5)


def _graphs(f: Decoder, labels: Tensor | None, by_class: bool) -> tuple[list[tuple[str, int]], list[int]]:
    """The decoders that there are, by the name of a class and an image of it, and which of them each image has."""
    if labels is None or not by_class:
        return [("", 0)], [0] * len(f.z)
    classes = labels.unique().tolist()
    return [(str(c), int((labels == c).nonzero()[0])) for c in classes], [classes.index(c) for c in labels.tolist()]


def _reference(
    vae: Any, f: Decoder, of: list[int], name: str, x: Tensor, observed: str | None, seed: int
) -> dict[str, Any]:
    """PyTorch's own images at the first codes, in double precision where the model can be had in it."""
    rows = torch.arange(min(REFERENCES, len(f.z)), device=f.z.device)
    made = f(f.z[rows], rows).detach()
    try:
        twin = copy.deepcopy(vae).double()
        values = values_of(codes_of(WHO, vae, x, seed))
        exact = decoder_of(WHO, twin, values, name, x, observed, seed)
        made = exact(f.z[rows].double(), rows).detach()
    except Exception:  # a user's model may hold anything that is no double, or cannot be copied
        pass
    return {"z": f.z[rows], "x": made, "graph": [of[i] for i in rows.tolist()]}


def _bytes(images: Tensor) -> tuple[float, float, Tensor]:
    """Images as offset + unit · byte: counts and bits as they are, others to 1/255 of their range."""
    images = images.nan_to_num()
    low, high = min(float(images.min()), 0.0), float(images.max())
    whole = low == 0 and high <= 255 and torch.equal(images, images.round())
    unit = 1.0 if whole else max(high - low, 1e-12) / 255
    if not whole and low == 0 and high <= 1:
        unit = 1 / 255
    return low, unit, ((images.double() - low) / unit).round().to(torch.uint8)


def _widths(vae: Any, x: Tensor, name: str, seed: int) -> Tensor | None:
    """Standard deviations of q(z | x), [N, L]; None where it has none of its own, or is a point."""
    device, dtype = home(vae)
    with evaluating(vae), seeded(seed, device), pyro.validation_enabled(False):
        q = poutine.trace(vae.guide).get_trace(x.to(device, dtype)).nodes[name]["fn"]
        try:
            found = q.stddev.reshape(len(x), -1)
        except (NotImplementedError, AttributeError, RuntimeError):
            return None
    return found if bool(torch.isfinite(found).all() and (found > 0).any()) else None


def _prior(vae: Any, name: str, x: Tensor, seed: int) -> Tensor | None:
    """Draws of the latent from the model's own prior, [M, L]; None where it is improper."""
    try:
        return drawn_latents(vae, DRAWS, seed, x)[name].reshape(DRAWS, -1).cpu()
    except ImproperPriorError:
        return None


def _ranges(z: Tensor) -> tuple[Tensor, Tensor]:
    low, high = z.amin(0), z.amax(0)
    room = ROOM * (high - low) + 1e-3
    return low - room, high + room


def _posteriors(vae: Any, x: Tensor, seed: int) -> list[dict[str, Any]] | None:
    """p(z | x) and q(z | x) of some images, each on a grid of its own; None for a model that has no grid."""
    found = []
    for one in x.split(1):
        try:
            grid = exact_posterior(vae, one, seed=seed)
        except ValueError:  # a point for a guide, two latents of which one is discrete, an error that is too large
            return None
        found.append(_drawn(grid))
    return found


def _drawn(grid: Grid) -> dict[str, Any]:
    """The part of a grid that can be seen, in bytes: 255 at the peak, 1 at DEPTH nats below it, 0 for less."""
    sizes = [len(axis) for axis in grid.axes]
    logs = torch.stack([grid.log_posterior[:, 0], grid.log_guide[:, 0]]).view(2, *sizes)  # [2, x, y]
    logs = logs - logs.amax((1, 2), keepdim=True)
    seen = (logs > -DEPTH).any(0)
    kept = []
    for dim, size in enumerate(sizes):
        there = seen.any(1 - dim).nonzero().flatten()
        first, last = max(int(there[0]) - 1, 0), min(int(there[-1]) + 1, size - 1)
        stride = max(1, math.ceil((last - first) / (POINTS - 1)))
        kept.append(torch.arange(first, last + 1, stride))
    part = logs[:, kept[0]][:, :, kept[1]].transpose(1, 2)  # rows along y
    shades = torch.where(part > -DEPTH, 1 + 254 * (1 + part / DEPTH), 0).round().to(torch.uint8)
    exact, q = (base64.b64encode(t.contiguous().numpy().tobytes()).decode() for t in shades)
    ends = [
        [float(axis[rows[0]]), float(axis[rows[-1]]), len(rows)] for axis, rows in zip(grid.axes, kept, strict=True)
    ]
    log_evidence, kl = float(grid.log_evidence[0]), float(grid.divergence(grid.log_guide)[0])
    numbers = {"log_evidence": log_evidence, "elbo": log_evidence - kl, "kl": kl, "error": float(grid.error[0])}
    return {"xs": ends[0], "ys": ends[1], "exact": exact, "q": q} | numbers
