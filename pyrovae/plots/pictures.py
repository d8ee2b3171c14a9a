"""The pictures: one function each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation import encode, generate, interpolate, observations, reconstruct, traverse
from .arguments import (
    as_data,
    as_labels,
    as_pictures,
    columns_of,
    continuous_site,
    finite,
    has_improper_prior,
    history_columns,
    in_rows,
    is_batch,
    limits,
    one_site,
    principal,
    shades,
    value_span,
)
from .drawing import (
    BLUE,
    GREY,
    ORANGE,
    bare,
    blank,
    circles,
    number,
    points,
    sheet,
    strips,
    vectors,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history(rows: Any, title: str = "Bound on log p(x)") -> Figure:
    """The bound of each epoch in nats per datum, training and validation, with the learning rate below.

    The first epochs, far below all others, may leave the picture so that the rest can be read; it then says so.

    Args:
        rows: `fit.history`, a DataFrame of a run folder's history.csv, or a list of dicts with epoch, bound and,
            where there are any, validation and learning_rate.
        title: what was trained on, where that was no bound.

    Raises:
        ValueError: for rows without an epoch or a bound.

    >>> history([{"epoch": e, "bound": -100 / e, "learning_rate": 1e-3} for e in range(1, 9)]).axes[0].get_ylabel()
    'nats per datum'
    """
    from matplotlib.ticker import MaxNLocator

    columns = history_columns(rows)
    epoch, rate = columns["epoch"], columns.get("learning_rate")
    lines = {"training": ("bound", ORANGE), "validation": ("validation", BLUE)}
    lines = {name: (columns[key], colour) for name, (key, colour) in lines.items() if key in columns}
    figure = blank(6.4, 3.8 if rate is None else 4.8)
    heights = [1] if rate is None else [4, 1]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    marker = "o" if len(epoch) <= 20 else ""

    for name, (y, colour) in lines.items():
        label = f"{name}, {number(y[np.isfinite(y)][-1])} at the end"
        axes[0].plot(epoch, y, color=colour, marker=marker, markersize=4, label=label)
    low, high = limits([y for y, _ in lines.values()])
    axes[0].set_ylim(low, high)
    below = epoch[np.any([y < low for y, _ in lines.values()], axis=0)]
    if len(below):
        least = number(min(np.nanmin(y) for y, _ in lines.values()))
        axes[0].set_title(
            f"below: epochs up to {below[-1]:g}, from {least}", loc="right", fontsize=9, color=GREY, pad=8
        )
    axes[0].set_ylabel("nats per datum")
    axes[0].legend(loc="lower right", frameon=False)
    write_title(axes[0], title)
    if rate is not None:
        axes[1].plot(epoch, rate, color=GREY, marker=marker, markersize=3)
        top = float(np.nanmax(rate)) or 1.0
        axes[1].set_ylim(0, 1.2 * top)
        axes[1].set_yticks([0, top], ["0", f"{top:.2g}"])
        axes[1].set_title("Learning rate", loc="left", fontsize=9.5, pad=4)
    for ax in axes:
        bare(ax, grid=True)
        ax.margins(x=0.02)
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes[-1].set_xlabel("epoch")
    return figure


def images(
    x: Any,
    columns: int | None = None,
    titles: Sequence[Any] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Figure:
    """A sheet of images; data that are no images as a heat map with a row for each, or as points in the plane.

    Args:
        x: [N, C, H, W], grey (C = 1) or colour (C = 3), or [N, H, W]; vectors [N, D] and any other shape.
        columns: images in a row; by default what makes an even sheet.
        titles: a few letters above each image, such as labels.
        title: above the whole.
        value_range: the values shown as black and white. By default (0, 1) for values within it, else from 0, or
            the least value if that is negative, to the greatest.

    Raises:
        ValueError: for no data, too many, values that are not finite, and titles of another number.

    >>> images(torch.rand(12, 1, 28, 28), titles=range(12)).axes[0].axison
    False
    """
    x = as_data(x, "images")
    names = None if titles is None else [str(t) for t in titles]
    if names is not None and len(names) != len(x):
        raise ValueError(
            f"images expects a title for each of {len(x)} images, got {len(names)}; give one each, or none"
        )
    span = value_span(x, value_range, "images")
    pictures = as_pictures(x)
    if pictures is None:
        return vectors({title or "": x}, span)
    width = columns_of(len(x), columns, "images")
    blank = [None] * (-len(x) % width)
    cells = [*shades(pictures, span), *blank]
    return sheet(in_rows(cells, width), title, cell_titles=None if names is None else in_rows([*names, *blank], width))


def reconstructions(
    vae: Any,
    x: Tensor,
    columns: int | None = None,
    seed: int = 0,
    value_range: tuple[float, float] | None = None,
    observed: str | None = None,
) -> Figure:
    """Data above, and below each E[x | z] at the mean z of q(z | x).

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: some data [N, *event].
        columns: pairs in a row; at most 10 by default.
        seed: of what is drawn where a latent has no mean.
        value_range: as in `images`.
        observed: the observed site, where there are several that are no images.

    Raises:
        ValueError: for a model with several observed sites that are no images, and as `images` does.
    """
    x = as_data(x, "reconstructions")
    made = one_site(reconstruct(vae, x, seed=seed), "reconstructions", observed)
    x = one_site(observations(vae, x, seed), "reconstructions", observed)
    both = torch.cat([x, finite(made, "reconstructions")])
    span = value_span(both, value_range, "reconstructions", missing=True)
    pictures = as_pictures(both)
    if pictures is None:
        return vectors({"data x": x, "reconstruction E[x | z]": made}, span)
    shown = shades(pictures, span)
    width = columns_of(len(x), columns, "reconstructions", most=10)
    blank = [None] * (-len(x) % width)
    above, below = (in_rows([*half, *blank], width) for half in (shown[: len(x)], shown[len(x) :]))
    rows = [row for pair in zip(above, below, strict=True) for row in pair]
    return sheet(
        rows,
        "Data x, and its reconstruction E[x | z]" + _legend(x),
        row_titles=["x", "E[x | z]"] * len(above),
        wide_above=range(2, len(rows), 2),
    )


def _legend(*data: Tensor) -> str:
    """The end of a title over data of which some may be missing."""
    return "; blue: not observed" if any(bool(x.isnan().any()) for x in data) else ""


def samples(
    vae: Any,
    n: int = 64,
    seed: int = 0,
    mean: bool = True,
    columns: int | None = None,
    like: Tensor | None = None,
    value_range: tuple[float, float] | None = None,
    observed: str | None = None,
) -> Figure:
    """What the model makes of n draws z ~ p(z): E[x | z], which is smoother than a draw x ~ p(x | z).

    Args:
        vae: anything with a Pyro `model(x)`.
        n: how many.
        seed: of the draws.
        mean: E[x | z]; False for draws x ~ p(x | z).
        columns: as in `images`.
        like: data [*, *event] for a model that reads more of x than its length.
        value_range: as in `images`.
        observed: as in `reconstructions`.

    Raises:
        ValueError: for n < 1, a model with several observed sites that are no images, and as `images` does.
    """
    made = one_site(generate(vae, n, seed=seed, mean=mean, like=like), "samples", observed)
    what = "E[x | z]" if mean else "x ~ p(x | z)"
    return images(made, columns, title=f"From the prior: {what} for z ~ p(z)", value_range=value_range)


def interpolation(
    vae: Any,
    x0: Tensor,
    x1: Tensor,
    steps: int = 9,
    value_range: tuple[float, float] | None = None,
    observed: str | None = None,
) -> Figure:
    """E[x | z] on the straight line between two codes, with the data themselves at both ends; a row for each pair.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latents continuous.
        x0: where rows begin, [P, *event]; or one datum [*event].
        x1: where they end, of the same shape.
        steps: points on the line, both ends included.
        value_range: as in `images`.
        observed: as in `reconstructions`.

    Raises:
        ValueError: for two shapes, a model with several observed sites that are no images, and as `images` does.
    """
    if x0.shape != x1.shape:
        raise ValueError(
            f"interpolation expects two data of one shape, or as many ends as beginnings, got {list(x0.shape)} and "
            f"{list(x1.shape)}; make pairs of them"
        )
    if not is_batch(vae, x0):
        x0, x1 = x0[None], x1[None]
    x0, x1 = as_data(x0, "interpolation"), as_data(x1, "interpolation")
    walks = [
        finite(one_site(interpolate(vae, a, b, steps), "interpolation", observed), "interpolation")
        for a, b in zip(x0, x1, strict=True)
    ]
    x0, x1 = (one_site(observations(vae, x), "interpolation", observed) for x in (x0, x1))
    everything = torch.cat([torch.cat([a[None], w, b[None]]) for a, w, b in zip(x0, walks, x1, strict=True)])
    span = value_span(everything, value_range, "interpolation", missing=True)
    pictures = as_pictures(everything)
    if pictures is None:
        parts = everything.split(steps + 2)
        return vectors({f"pair {i + 1}: x0, E[x | z], x1": part for i, part in enumerate(parts)}, span, path=True)
    return sheet(
        in_rows(shades(pictures, span), steps + 2),
        "Between two data: E[x | z] on the straight line between their codes" + _legend(x0, x1),
        column_titles={0: "x0", (steps + 1) // 2: "E[x | z]", steps + 1: "x1"},
        wide_before=[1, steps + 1],
    )


def traversal(
    vae: Any,
    x: Tensor,
    dims: Sequence[int] | None = None,
    steps: int = 11,
    span: float | None = None,
    site: str | None = None,
    value_range: tuple[float, float] | None = None,
    observed: str | None = None,
) -> Figure:
    """E[x | z] as one latent dimension at a time is changed, a row for each, starting from the code of x[0].

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latent continuous.
        x: data [N, *event]. The first is walked from; all of them say which dimensions are active.
        dims: the dimensions to walk; None for the most active ones, whose codes vary most over x, at most 10.
        steps: points on each walk.
        span: each walk goes from −span to span. None for 3, as a standard normal prior has standard deviation 1; where
            the prior is improper, from the least to the greatest code of x.
        site: the latent site; needed where there are several.
        value_range: as in `images`.

    Raises:
        ValueError: for one datum where dims are to be found, an unknown site, and as `images` does.
    """
    x = as_data(x, "traversal", most=None)
    codes = encode(vae, x)
    if not isinstance(codes, Tensor):
        if site not in codes:
            raise ValueError(f"traversal expects site as one of {list(codes)}, got {site!r}; name one of them")
        codes = codes[site]
    spread = codes.flatten(1).double().var(0, unbiased=False)
    ranked = dims is None
    if dims is None:
        if len(x) < 2:
            raise ValueError(
                f"traversal expects several data to find the active dimensions, got {len(x)} of shape "
                f"{list(x.shape[1:])}; give more, or name dims=[0, 1]"
            )
        dims = spread.argsort(descending=True)[:10].tolist()
    outside = [d for d in dims if not 0 <= d < len(spread)]
    if outside or not dims:
        raise ValueError(
            f"traversal expects dims from 0 to {len(spread) - 1}, got {list(dims)}; choose among them, or leave it out"
        )
    names, first, last = [f"z[{d}]" for d in dims], f"−{span or 3:g}", f"+{span or 3:g}"
    ends: float | Tensor = span or 3.0
    if span is None and has_improper_prior(vae, x):
        ends = torch.stack([codes.flatten(1)[:, dims].amin(0), codes.flatten(1)[:, dims].amax(0)], 1)
        first, last = "least", "greatest"
    walks = traverse(vae, x[0], dims, steps, ends, site, observed)  # [dims, steps, *event]
    flat = walks.flatten(0, 1).cpu()
    shown = value_span(flat, value_range, "traversal")
    pictures = as_pictures(flat)
    if pictures is None:
        titles = [f"{n} from {first} to {last}" for n in names]
        return vectors(dict(zip(titles, walks.cpu(), strict=True)), shown, path=True)
    middle = {(steps - 1) // 2: "0"} if steps % 2 and not isinstance(ends, Tensor) else {}
    return sheet(
        in_rows(shades(pictures, shown), steps),
        "E[x | z] as one latent dimension changes" + (", the most active first" if ranked else ""),
        row_titles=names,
        column_titles={0: first, steps - 1: last} | middle,
    )


def latent_map(
    vae: Any, x: Tensor, labels: Any = None, site: str | None = None, seed: int = 0, title: str | None = None
) -> Figure:
    """Where the data lie in latent space: the mean of q(z | x) for each, coloured by its label.

    Two latent dimensions are shown as they are, more by their two principal axes, one as a strip for each class.
    Around a standard normal prior the circles of one and two standard deviations are drawn.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: data [N, *event].
        labels: a class (up to ten of them) or a number for each datum.
        site: the latent site; the first continuous one by default.
        seed: of what is drawn where a latent has no mean.
        title: in place of one that says what is shown.

    Raises:
        ValueError: for labels of another number, more than ten classes that are no numbers, no such latent site.
    """
    x = as_data(x, "latent_map", most=None)
    labels = as_labels(labels, len(x))
    name, several, standard = continuous_site(vae, x, site)
    codes = encode(vae, x, seed=seed)
    z = (codes if isinstance(codes, Tensor) else codes[name]).flatten(1).double().cpu().numpy()  # [N, L]
    z = finite(torch.from_numpy(z), "latent_map").numpy()
    here = f"mean of q({name} | x)" if not several else f"site {name!r}: mean of q({name} | …)"
    figure = blank(6.4, 5.6 if z.shape[1] > 1 else 3.6)
    ax = figure.subplots()
    if z.shape[1] == 1:
        strips(ax, z[:, 0], labels, name, standard)
        text = here
    elif z.shape[1] == 2:
        points(ax, z, labels)
        if standard:
            circles(ax)
        ax.set(xlabel=f"{name}[0]", ylabel=f"{name}[1]")
        text = here
    else:
        axes, share = principal(z)
        points(ax, axes, labels)
        ax.set(xlabel=f"principal axis 1: {share[0]:.0%} of the variance", ylabel=f"principal axis 2: {share[1]:.0%}")
        text = f"{here}, {z.shape[1]} dimensions"
    write_title(ax, title or text[0].upper() + text[1:])
    return figure


# The data
