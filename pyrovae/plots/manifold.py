"""Pictures of the manifold that a model has learned: of what `pyrovae.manifold` finds in its maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..manifold import Geodesics, Planes, Sensitivity, log_volume
from .arguments import CLASSES, as_data, as_labels, as_pictures, finite, in_rows, shades, value_span
from .drawing import BLUE, GREY, ORANGE, bare, blank, in_order, markers, sheet, vectors, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def volume(
    vae: Any,
    z: Tensor,
    labels: Any = None,
    curves: Geodesics | None = None,
    resolution: int = 80,
    title: str | None = None,
    **options: Any,
) -> Figure:
    """log √det G over a latent space of two dimensions, with codes, and shortest curves beside straight lines.

    Bright is where a small step of the code changes E[x | z] most.

    Args:
        vae: as for `pv.manifold.log_volume`: one latent, of two dimensions.
        z: codes [N, 2], such as `pv.encode(vae, x)`; the picture holds them all.
        labels: a class (up to ten of them) or a number for each code.
        curves: what `pv.manifold.geodesics` gives.
        resolution: points of the picture each way.
        title: in place of one that says what is shown.
        options: as for `pv.manifold.log_volume`.

    Raises:
        ValueError: for codes of other than two dimensions, labels of another number, and as `log_volume`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    codes = finite(as_data(z, "volume", most=None), "volume")
    if codes.dim() != 2 or codes.shape[1] != 2:
        raise ValueError(f"volume expects codes [N, 2], got {list(codes.shape)}; train a model with latent=2")
    labels = as_labels(labels, len(codes), "volume")
    shown = codes if curves is None else torch.cat([codes, curves.curve.flatten(0, 1).detach().cpu()])
    low, high = shown.amin(0), shown.amax(0)
    room = (high - low).max().clamp_min(1e-6)
    left, bottom = ((low + high) / 2 - 0.55 * room).tolist()
    right, top = ((low + high) / 2 + 0.55 * room).tolist()
    across, up = (torch.linspace(*ends, resolution) for ends in ((left, right), (bottom, top)))
    grid = torch.cartesian_prod(across, up).to(codes.dtype)
    surface = log_volume(vae, grid, **options).cpu().view(resolution, resolution).T.numpy()
    seen = surface[np.isfinite(surface)]
    bounds = np.quantile(seen, [0.01, 0.99]) if len(seen) else (0, 1)

    figure = blank(6.4, 6.0)
    ax = figure.subplots()
    drawn = ax.imshow(
        surface.clip(*bounds),
        extent=(left, right, bottom, top),
        origin="lower",
        cmap="gray",
        vmin=bounds[0],
        vmax=bounds[1],
        interpolation="bilinear",
    )
    bar: dict[str, Any] = {"location": "bottom", "fraction": 0.04, "pad": 0.02, "aspect": 40, "extend": "both"}
    figure.colorbar(drawn, ax=ax, label="log √det G(z), nats", **bar)
    handles: list[Any] = []
    colours: dict[str, Any] = {"color": BLUE}
    classes, row = (None, None) if labels is None else np.unique(labels, return_inverse=True)
    if classes is not None and len(classes) <= len(CLASSES):
        colours = {"c": list(np.array(CLASSES)[row])}
        handles = [
            Line2D([], [], marker="o", linestyle="", color=c, markersize=6, label=str(name))
            for name, c in zip(classes, CLASSES, strict=False)
        ]
    elif labels is not None:
        colours = {"c": labels, "cmap": "viridis"}
    ax.scatter(*codes.numpy().T, s=14, linewidths=0.4, edgecolors="white", **colours)
    if curves is not None:
        edge = [withStroke(linewidth=3.4, foreground="black")]
        for curve in curves.curve.detach().cpu().numpy():
            ax.plot(*curve[[0, -1]].T, "--", color="white", linewidth=1.4, path_effects=edge)
            ax.plot(*curve.T, color="white", linewidth=2, path_effects=edge)
            ax.plot(*curve[[0, -1]].T, "o", color="white", markeredgecolor="black", markersize=5)
        for name, style in (("shortest", "-"), ("straight", "--")):
            handles.append(Line2D([], [], label=name, color=GREY, linewidth=1.8, linestyle=style))
    if handles:
        ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6)
    ax.set(xlabel="z[0]", ylabel="z[1]", xlim=(left, right), ylim=(bottom, top))
    write_title(ax, title or "How much of the manifold a piece of latent space covers")
    return figure


def tangents(x: Tensor, planes: Planes, step: float = 1.0, most: int = 5, title: str | None = None) -> Figure:
    """Images, and each moved both ways along the directions of its tangent plane: x ± step · s_l u_l.

    Of a decoder's plane this is what a step of so many units in z makes of E[x | z], to first order; of a plane of
    neighbours it is so many of their standard deviations.

    Args:
        x: [N, *event]: data, or E[x | z] at the codes of the planes.
        planes: what a function of `pv.manifold` gives for them.
        step: how far.
        most: directions shown, the largest first.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for planes of other data, and as `pv.plots.images` does.
    """
    x = finite(as_data(x, "tangents", most=20), "tangents")
    basis, values = planes.basis.detach().cpu(), planes.singular_values.detach().cpu()
    if basis.shape[:2] != (len(x), x[0].numel()):
        raise ValueError(
            f"tangents expects planes of the same data, got {list(basis.shape)} for {list(x.shape)}; take both at the "
            "same codes"
        )
    span = value_span(x, None, "tangents")
    d = min(basis.shape[2], most)
    moves = step * (values[:, None, :d] * basis[..., :d]).mT.unflatten(2, x.shape[1:])  # [N, d, *event]
    cells = torch.stack([x[:, None] - moves, x[:, None] + moves], 2).flatten(1, 2)  # [N, 2 d, *event]
    cells = torch.cat([x[:, None], cells], 1)
    pictures = as_pictures(cells.flatten(0, 1))
    if pictures is None:
        parts = zip(("x", *(f"{s} s[{i}] u[{i}]" for i in range(d) for s in "−+")), cells.unbind(1), strict=True)
        return vectors(dict(parts), span)
    return sheet(
        in_rows(shades(pictures, span), 1 + 2 * d),
        title or f"Along the tangent plane: x ± {step:g} s[l] u[l]",
        column_titles={0: "x"} | {1 + 2 * i + j: f"{'−+'[j]} u[{i}]" for i in range(d) for j in (0, 1)},
        wide_before=range(1, 1 + 2 * d, 2),
    )


def spectrum(planes: Planes | Mapping[str, Planes], title: str | None = None, unit: str = "") -> Figure:
    """Singular values in order, the median over the points and the range of eight in ten: where they fall, planes end.

    Args:
        planes: what a function of `pv.manifold` gives, or several by name.
        title: in place of one that says what is shown.
        unit: of the singular values, such as "x per z".

    Raises:
        ValueError: for no planes.
    """
    from matplotlib.ticker import MaxNLocator

    several = planes if isinstance(planes, Mapping) else {"": planes}
    if not several or not all(isinstance(p, Planes) for p in several.values()):
        raise ValueError(
            "spectrum expects planes, or a dict of planes by name; give what pyrovae.manifold.tangents does"
        )
    figure = blank(6.4, 4.0)
    ax = figure.subplots()
    floor = np.inf
    for (name, found), colour, marker in zip(several.items(), in_order(len(several)), markers(), strict=False):
        values = found.singular_values.detach().double().cpu().numpy()
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
        order, d = np.arange(1, len(middle) + 1), found.basis.shape[2]
        ax.fill_between(order, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(order, middle, marker=marker, markersize=4.5, color=colour, label=name)
        if d < len(middle):
            ax.axvline(d + 0.5, color=colour, linewidth=1, linestyle=(0, (4, 3)))
        floor = min(floor, max(middle[middle > 0].min(initial=np.inf), 1e-6 * middle.max()))
    ax.set_yscale("log")
    if np.isfinite(floor):
        ax.set_ylim(bottom=floor / 2)
    ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True))
    ax.set(
        xlabel="direction l; dashed: where the plane ends", ylabel="singular value s" + (f", {unit}" if unit else "")
    )
    bare(ax, grid=True)
    if isinstance(planes, Mapping):
        ax.legend(frameon=False)
    write_title(ax, title or "Singular values: median, and 10–90 % of the points")
    return figure


def sensitivity(found: Mapping[str, Sensitivity], title: str | None = None) -> Figure:
    """How far reconstructions follow their data along the manifold and off it, of several models by name.

    The median over the data and the range of eight in ten. Dashed: a model that projects on the manifold has 1 along it
    and 0 across.

    Args:
        found: what `pv.manifold.sensitivity` gives, by the name of the model.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for none.
    """
    if not isinstance(found, Mapping) or not all(isinstance(s, Sensitivity) for s in found.values()) or not found:
        raise ValueError("sensitivity expects a dict by name; give what pyrovae.manifold.sensitivity finds of models")
    figure = blank(6.4, 1.5 + 0.45 * len(found))
    ax = figure.subplots()
    rows = np.arange(len(found))
    for label, colour, marker, shift in (("along the manifold", BLUE, "o", -0.12), ("across it", ORANGE, "s", 0.12)):
        parts = [s.along if colour == BLUE else s.across for s in found.values()]
        ends = np.array([np.quantile(p.detach().double().cpu().numpy(), [0.1, 0.5, 0.9]) for p in parts])
        low, middle, high = ends.T
        errors = np.stack([middle - low, high - middle])
        ax.errorbar(
            middle, rows + shift, xerr=errors, fmt=marker, color=colour, markersize=6, linewidth=1.6, label=label
        )
    for goal, colour in ((1, BLUE), (0, ORANGE)):
        ax.axvline(goal, color=colour, linewidth=1, linestyle=(0, (4, 3)))
    ax.set_yticks(rows, list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(left=-0.05)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("how far x̂ moves for a unit step of x")
    bare(ax, grid=True)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    write_title(ax, title or "Reconstructions follow the manifold, and what else?")
    return figure
