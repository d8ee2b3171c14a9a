"""What goes into a page: the decoder, some images and their codes, draws from the prior, exact posteriors."""

from __future__ import annotations

import base64
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..evaluation.samples import (
    Latent,
    check_walkable,
    codes_of,
    drawn_latents,
    observations,
    shown_site,
    values_of,
)
from ..manifold.decoder import Decoder, decoder_of
from ..program import AtMean, ImproperPriorError, evaluating, home, seeded
from .clouds import DEPTH, WHO, clouds
from .graph import Weights, export

DRAWS = 400  # of the prior
REFERENCES = 5  # images at least that the page checks its decoder with
ROOM = 0.05  # beside the outermost codes and draws, as a share of their range
CLOSE = 1e-3  # of the range of the images: what is decoded alike


def contents(
    vae: Any, x: Tensor, labels: Tensor | None, posteriors: int, site: str | None, observed: str | None, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """All of it as plain data, and what has to be said of it.

    Numbers are base64 of little-endian float32, images one byte a pixel. Raises ValueError for what has no images, no
    continuous latent, or a decoder that a page cannot run.
    """
    latents = codes_of(WHO, vae, x, seed)
    name = _moving(latents, site)
    f = decoder_of(WHO, vae, values_of(latents), name, x, observed, seed)
    shown = shown_site(WHO, observations(vae, x, seed), observed).detach().cpu()
    event = list(shown.shape[1:])
    if len(event) != 3 or event[0] not in (1, 3):
        raise ValueError(
            f"{WHO} expects images [C, H, W], grey (C = 1) or colour (C = 3), got events of shape {event}; a page "
            "shows pictures alone"
        )
    notes = []
    if shown.isnan().any():
        shown = shown.nan_to_num()
        notes.append("Pixels that were not observed are shown as 0, and count as 0 where images are compared.")
    offset, unit, pixels = _bytes(shown)
    if not torch.allclose(offset + unit * pixels.double(), shown.double(), atol=1e-6):
        notes.append("Images are in the page rounded to 256 levels of brightness.")
    if latents[name].sphere:
        notes.append("z lies on a sphere: what is beside it is projected onto it before it is decoded.")
    graphs, of = _graphs(f, labels)
    notes += _rest(f, [graphs[i][1] for i in of], latents, name)
    weights, z = Weights(), f.z[:1]
    made = [{"name": label, "steps": export(_at(f, row), z, weights)} for label, row in graphs]
    prior, codes = _prior(vae, name, x, seed), f.z.cpu()
    drawn, why = clouds(vae, x[:posteriors], seed) if codes.shape[1] == 2 else ({}, "it takes two latents")
    if posteriors and not drawn:
        notes.append(f"There is no exact posterior in this page: {why}.")
    elif why and drawn:
        notes.append(f"Some images have no exact posterior: {why}.")
    found = _reference(f, graphs, of)
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
        "ranges": list(map(list, zip(low.tolist(), high.tolist(), strict=True))),
        "order": codes.std(0, correction=0).argsort(descending=True).tolist(),
        "reference": {"z": _text(found["z"]), "x": _text(found["x"]), "graph": found["graph"]},
        "posterior": drawn or None,
        "depth": DEPTH,
    }, notes


def _text(numbers: Tensor) -> str:
    """Float32 as base64. Raises ValueError for NaN and infinity."""
    numbers = _finite(numbers.detach().to("cpu", torch.float32).contiguous())
    return base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()


def _finite(numbers: Tensor) -> Tensor:
    if not torch.isfinite(numbers).all():
        raise ValueError(f"{WHO} expects finite codes and images, got NaN or infinity; see whether training diverged")
    return numbers


def _maybe(numbers: Tensor | None) -> str | None:
    return None if numbers is None else _text(numbers)


def _moving(latents: dict[str, Latent], site: str | None) -> str:
    """The latent to move: the one that is named, else the continuous one with most dimensions."""
    local = {name: code for name, code in latents.items() if code.local}
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


def _same(f: Decoder, rows: list[int], others: list[int]) -> bool:
    """Whether the codes of some rows decode alike where all else is that of others."""
    made, other = (_finite(f(f.z[rows], torch.tensor(r, device=f.z.device)).detach()) for r in (rows, others))
    return bool((made - other).abs().max() <= CLOSE * (made.max() - made.min()).clamp_min(1e-6))


def _graphs(f: Decoder, labels: Tensor | None) -> tuple[list[tuple[str, int]], list[int]]:
    """The decoders that there are, by the name of a class and an image of it, and which of them each image has."""
    if labels is not None:
        classes, of = labels.unique(return_inverse=True)
        first = [int((labels == c).nonzero()[0]) for c in classes]
        if not _same(f, [0] * len(first), first):
            return list(zip(map(str, classes.tolist()), first, strict=True)), of.tolist()
    return [("", 0)], [0] * len(f.z)


def _rest(f: Decoder, rows_of: list[int], latents: dict[str, Latent], name: str) -> list[str]:
    """What of an image beside its code z makes a difference, and is not its own in the page."""
    if _same(f, list(range(len(f.z))), rows_of):
        return []
    others = [other for other, code in latents.items() if code.local and other != name]
    if not others:
        raise ValueError(
            f"{WHO} expects E[x | {name}] to depend on {name} and a class alone, and it depends on more of x, such as "
            "a label; give the labels that the model reads"
        )
    return [
        f"E[x | z] depends on {', '.join(others)} as well, which stay as they are for the first image, or the first of "
        "its class: a code is not decoded to its own image's reconstruction."
    ]


def _reference(f: Decoder, graphs: list[tuple[str, int]], of: list[int]) -> dict[str, Any]:
    """PyTorch's own images at some codes, from every graph."""
    which = [*of[:REFERENCES], *range(len(graphs))]
    codes = [*range(len(of[:REFERENCES])), *(row for _, row in graphs)]
    rows = torch.tensor([graphs[i][1] for i in which], device=f.z.device)
    z = f.z[codes]
    return {"z": z, "x": f(z, rows).detach(), "graph": which}


def _bytes(images: Tensor) -> tuple[float, float, Tensor]:
    """Images as offset + unit · byte: counts and bits as they are, others to 1/255 of their range."""
    low, high = min(float(images.min()), 0.0), float(images.max())
    if low == 0 and high <= 255 and torch.equal(images, images.round()):
        unit = 1.0
    else:
        unit = 1 / 255 if low == 0 and high <= 1 else max(high - low, 1e-12) / 255
    return low, unit, ((images.double() - low) / unit).round().to(torch.uint8)


def _widths(vae: Any, x: Tensor, name: str, seed: int) -> Tensor | None:
    """Standard deviations of q(z | x), [N, L]; None where it has none of its own, or is a point."""
    device, dtype = home(vae)
    with evaluating(vae), seeded(seed, device), pyro.validation_enabled(False), AtMean():
        q = poutine.trace(vae.guide).get_trace(x.to(device, dtype)).nodes[name]["fn"]
        try:
            found = q.stddev.reshape(len(x), -1)
        except (NotImplementedError, AttributeError):
            return None
    return found if bool(torch.isfinite(found).all() and (found > 0).any()) else None


def _prior(vae: Any, name: str, x: Tensor, seed: int) -> Tensor | None:
    """Draws of the latent from the model's own prior, [M, L]; None where it is improper."""
    try:
        return drawn_latents(vae, DRAWS, seed, x)[name].reshape(DRAWS, -1).cpu()
    except ImproperPriorError:
        return None


def _ranges(z: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the sliders; positive latents stay positive."""
    low, high = z.amin(0), z.amax(0)
    room = ROOM * (high - low) + 1e-3
    return torch.where(low > 0, (low - room).clamp_min(torch.minimum(low, torch.tensor(1e-3))), low - room), high + room
