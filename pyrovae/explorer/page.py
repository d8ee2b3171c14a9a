"""One HTML file from a template: contents, style and scripts put in their places, escaped."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..evaluation.arguments import check_count, check_data
from ..plots.arguments import CLASSES
from .clouds import WHO
from .contents import DRAWS, contents

SCRIPTS = ("decoder.js", "geometry.js", "drawing.js", "contents.js", "panels.js", "explorer.js")
MOST = 2000  # images
FRAME = 900  # pixels that a page is high inside of another


@dataclass(frozen=True)
class Page:
    """A page; a notebook shows it as it is.

    Attributes:
        html: all of it.
        images: how many images of the data are in it.
        posteriors: how many of them with an exact posterior.
    """

    html: str
    images: int
    posteriors: int

    def save(self, path: str | Path) -> Path:
        """Write it to a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        text = html.escape(self.html, quote=True)
        style = f"width: 100%; height: {FRAME}px; border: 0"
        return f'<iframe srcdoc="{text}" style="{style}" title="a trained model to play with"></iframe>'


def explore(
    vae: Any,
    x: Tensor,
    labels: Any = None,
    posteriors: int = 24,
    site: str | None = None,
    observed: str | None = None,
    title: str | None = None,
    seed: int = 0,
) -> Page:
    """A page with sliders and a map of the latents, decoded live, in one file that needs no server and no network.

    In it the decoder z -> E[x | z] runs as it was trained: its operations are read from a trace of the model, with the
    weights beside them in float32. Around it are the images x with their codes, draws from the prior, perturbations
    z + s ε, tangent directions, geodesics, and, where the latents have two dimensions in all, the exact posterior of
    the first images with q over it. Nothing of the data is in the page but x.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, images for data and a continuous latent.
        x: the images that the page shows, at most 2,000, [N, *event], as the model takes them.
        labels: whole numbers of at least 0, [N]: the classes by which codes are coloured. A model that reads a label
            gets one decoder for each.
        posteriors: of how many images, where they can be computed: about a second each.
        site: the latent that moves, the continuous one with most dimensions by default. Others stay as they are for
            the first image, or the first of its class.
        observed: the observed site, where there are several that are no images.
        title: of the page.
        seed: of what is drawn.

    Raises:
        ValueError: for data that are no images, discrete latents, no mean E[x | z], a decoder of unusual operations,
            and numbers that are not finite.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> page = explore(pv.models.VAE.build(data, latent=2), data.train[:20], data.labels["train"][:20], posteriors=0)
    >>> page.images, len(page.html) < 1e6
    (20, True)
    """
    check_data(WHO, x)
    check_count(WHO, "at least 0 posteriors", "posteriors", posteriors, 0)
    if len(x) > MOST:
        raise ValueError(f"{WHO} expects at most {MOST:,} images, got {len(x):,}; give some, as x[:300]")
    classes = None if labels is None else _classes(labels, len(x))
    found, remarks = contents(vae, x, classes, posteriors, site, observed, seed)
    found["palette"] = CLASSES
    name = title or type(vae).__name__
    exact = len(found["posterior"] or ())
    subtitle = f"{len(x):,} images of the data are in this page, and {found['latent']} latent dimensions to move."
    parts = {
        "title": html.escape(name),
        "subtitle": html.escape(subtitle),
        "style": _part("style.css"),
        "notes": "".join(f"<li>{html.escape(note)}</li>" for note in [*_notes(found, len(x)), *remarks]),
        "contents": json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "scripts": "\n".join(_part(script) for script in SCRIPTS),
    }
    return Page(re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _part("template.html")), len(x), exact)


def _part(name: str) -> str:
    return files("pyrovae.explorer").joinpath("assets", name).read_text(encoding="utf-8")


def _classes(labels: Any, n: int) -> Tensor:
    labels = torch.as_tensor(labels).cpu()
    if labels.shape != (n,) or labels.dtype == torch.bool or labels.is_floating_point() or bool((labels < 0).any()):
        raise ValueError(
            f"{WHO} expects labels as {n} whole numbers of at least 0, one for each image, got shape "
            f"{list(labels.shape)} of {labels.dtype}; leave them out where there are none"
        )
    return labels.long()


def _notes(found: dict[str, Any], n: int) -> list[str]:
    """What is exact and what is not."""
    notes = [
        "The decoder is the model's own, in double precision from float32 weights; what it gives is held against "
        "PyTorch's images each time that the page is opened.",
        f"Nearest images are the nearest of the {n:,} in this page, by the distance of their numbers, and not of all "
        "training data.",
        "Tangent directions come from central differences with steps of 1e-4, whose error is far below what can be "
        "seen.",
        "A geodesic is a curve of 16 straight pieces, lowered in energy until that changes by less than one in a "
        "million, or for 60 steps: it may be a local minimum. Its length is measured at 64 points.",
    ]
    if found["prior"]:
        notes.append(f"The prior is shown by {DRAWS} of its draws; where none is, there may still be some of it.")
    if found["posterior"]:
        error = max(p["error"] for p in found["posterior"].values())
        notes.append(
            f"Exact posteriors are computed by quadrature, log p(x) to {error:.1g} nats, and drawn on a coarser grid."
        )
    return notes
