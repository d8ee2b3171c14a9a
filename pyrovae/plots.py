"""Pictures of training, of what a model makes, and of its latent space.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows as a cell's last expression, and leaves
pyplot alone: `figure.savefig("samples.png")`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .evaluation import encode, generate, interpolate, reconstruct, traverse
from .program import densities, evaluating, family, home, seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
WIDTH = 840  # pixels that a sheet of images may fill
TILE = 96  # pixels that one image of it may fill
MOST = 1000  # images in one picture
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito
CLASSES = (  # Petroff, "Accessible color sequences for data visualization", 2021: ten colours
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def history(rows: Any) -> Figure:
    """The bound of each epoch in nats per datum, training and validation, with the learning rate below.

    The first epochs, far below all others, may leave the picture so that the rest can be read; it then says so.

    Args:
        rows: `fit.history`, a DataFrame of a run folder's history.csv, or a list of dicts with epoch, bound and,
            where there are any, validation and learning_rate.

    Raises:
        ValueError: for rows without an epoch or a bound.

    >>> history([{"epoch": e, "bound": -100 / e, "learning_rate": 1e-3} for e in range(1, 9)]).axes[0].get_ylabel()
    'nats per datum'
    """
    from matplotlib.ticker import MaxNLocator

    columns = _columns(rows)
    epoch, rate = columns["epoch"], columns.get("learning_rate")
    lines = {"training": ("bound", ORANGE), "validation": ("validation", BLUE)}
    lines = {name: (columns[key], colour) for name, (key, colour) in lines.items() if key in columns}
    figure = _figure(6.4, 3.8 if rate is None else 4.8)
    heights = [1] if rate is None else [4, 1]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    marker = "o" if len(epoch) <= 20 else ""

    for name, (y, colour) in lines.items():
        label = f"{name}, {_number(y[np.isfinite(y)][-1])} at the end"
        axes[0].plot(epoch, y, color=colour, marker=marker, markersize=4, label=label)
    low, high = _limits([y for y, _ in lines.values()])
    axes[0].set_ylim(low, high)
    below = epoch[np.any([y < low for y, _ in lines.values()], axis=0)]
    if len(below):
        least = _number(min(np.nanmin(y) for y, _ in lines.values()))
        axes[0].set_title(
            f"below: epochs up to {below[-1]:g}, from {least}", loc="right", fontsize=9, color=GREY, pad=8
        )
    axes[0].set_ylabel("nats per datum")
    axes[0].legend(loc="lower right", frameon=False)
    _title(axes[0], "Bound on log p(x)")
    if rate is not None:
        axes[1].plot(epoch, rate, color=GREY, marker=marker, markersize=3)
        top = float(np.nanmax(rate)) or 1.0
        axes[1].set_ylim(0, 1.2 * top)
        axes[1].set_yticks([0, top], ["0", f"{top:.2g}"])
        axes[1].set_title("Learning rate", loc="left", fontsize=9.5, pad=4)
    for ax in axes:
        _bare(ax, grid=True)
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
    x = _data(x, "images")
    names = None if titles is None else [str(t) for t in titles]
    if names is not None and len(names) != len(x):
        raise ValueError(
            f"images expects a title for each of {len(x)} images, got {len(names)}; give one each, or none"
        )
    span = _span(x, value_range, "images")
    pictures = _pictures(x)
    if pictures is None:
        return _vectors({title or "": x}, span)
    width = _columns_of(len(x), columns, "images")
    blank = [None] * (-len(x) % width)
    cells = [*_shades(pictures, span), *blank]
    return _sheet(_rows(cells, width), title, cell_titles=None if names is None else _rows([*names, *blank], width))


def reconstructions(
    vae: Any, x: Tensor, columns: int | None = None, seed: int = 0, value_range: tuple[float, float] | None = None
) -> Figure:
    """Data above, and below each E[x | z] at the mean z of q(z | x).

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`.
        x: some data [N, *event].
        columns: pairs in a row; at most 10 by default.
        seed: of what is drawn where a latent has no mean.
        value_range: as in `images`.

    Raises:
        ValueError: for a model with several observed sites, and as `images` does.
    """
    x = _data(x, "reconstructions")
    made = _one(reconstruct(vae, x, seed=seed), "reconstructions", "pv.reconstruct(vae, x)")
    both = torch.cat([x, made])
    span = _span(both, value_range, "reconstructions")
    pictures = _pictures(both)
    if pictures is None:
        return _vectors({"data x": x, "reconstruction E[x | z]": made}, span)
    shown = _shades(pictures, span)
    width = _columns_of(len(x), columns, "reconstructions", most=10)
    blank = [None] * (-len(x) % width)
    above, below = (_rows([*half, *blank], width) for half in (shown[: len(x)], shown[len(x) :]))
    rows = [row for pair in zip(above, below, strict=True) for row in pair]
    return _sheet(
        rows,
        "Data x, and its reconstruction E[x | z]",
        row_titles=["x", "E[x | z]"] * len(above),
        wide_above=range(2, len(rows), 2),
    )


def samples(
    vae: Any,
    n: int = 64,
    seed: int = 0,
    mean: bool = True,
    columns: int | None = None,
    like: Tensor | None = None,
    value_range: tuple[float, float] | None = None,
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

    Raises:
        ValueError: for n < 1, a model with several observed sites, and as `images` does.
    """
    made = _one(generate(vae, n, seed=seed, mean=mean, like=like), "samples", "pv.generate(vae, n)")
    what = "E[x | z]" if mean else "x ~ p(x | z)"
    return images(made, columns, title=f"From the prior: {what} for z ~ p(z)", value_range=value_range)


def interpolation(
    vae: Any, x0: Tensor, x1: Tensor, steps: int = 9, value_range: tuple[float, float] | None = None
) -> Figure:
    """E[x | z] on the straight line between two codes, with the data themselves at both ends; a row for each pair.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latents continuous.
        x0: where rows begin, [P, *event]; or one datum [*event].
        x1: where they end, of the same shape.
        steps: points on the line, both ends included.
        value_range: as in `images`.

    Raises:
        ValueError: for two shapes, a model with several observed sites, and as `images` does.
    """
    if x0.shape != x1.shape:
        raise ValueError(
            f"interpolation expects two data of one shape, or as many ends as beginnings, got {list(x0.shape)} and "
            f"{list(x1.shape)}; make pairs of them"
        )
    if not _is_batch(vae, x0):
        x0, x1 = x0[None], x1[None]
    x0, x1 = _data(x0, "interpolation"), _data(x1, "interpolation")
    walks = [
        _one(interpolate(vae, a, b, steps), "interpolation", "pv.interpolate(vae, x0, x1)")
        for a, b in zip(x0, x1, strict=True)
    ]
    everything = torch.cat([torch.cat([a[None], w, b[None]]) for a, w, b in zip(x0, walks, x1, strict=True)])
    span = _span(everything, value_range, "interpolation")
    pictures = _pictures(everything)
    if pictures is None:
        parts = everything.split(steps + 2)
        return _vectors({f"pair {i + 1}: x0, E[x | z], x1": part for i, part in enumerate(parts)}, span, path=True)
    return _sheet(
        _rows(_shades(pictures, span), steps + 2),
        "Between two data: E[x | z] on the straight line between their codes",
        column_titles={0: "x0", (steps + 1) // 2: "E[x | z]", steps + 1: "x1"},
        wide_before=[1, steps + 1],
    )


def traversal(
    vae: Any,
    x: Tensor,
    dims: Sequence[int] | None = None,
    steps: int = 11,
    span: float = 3.0,
    site: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Figure:
    """E[x | z] as one latent dimension at a time is changed, a row for each, starting from the code of x[0].

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, its latent continuous.
        x: data [N, *event]. The first is walked from; all of them say which dimensions are active.
        dims: the dimensions to walk; None for the most active ones, whose codes vary most over x, at most 10.
        steps: points on each walk.
        span: each walk goes from −span to span; a standard normal prior has standard deviation 1.
        site: the latent site; needed where there are several.
        value_range: as in `images`.

    Raises:
        ValueError: for one datum where dims are to be found, an unknown site, and as `images` does.
    """
    x = _data(x, "traversal", most=None)
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
    walks = traverse(vae, x[0], dims, steps, span, site)  # [dims, steps, *event]
    flat = walks.flatten(0, 1).cpu()
    shades = _span(flat, value_range, "traversal")
    pictures = _pictures(flat)
    names = [f"z[{d}]" for d in dims]
    if pictures is None:
        titles = [f"{n} from −{span:g} to +{span:g}" for n in names]
        return _vectors(dict(zip(titles, walks.cpu(), strict=True)), shades, path=True)
    middle = {(steps - 1) // 2: "0"} if steps % 2 else {}
    return _sheet(
        _rows(_shades(pictures, shades), steps),
        "E[x | z] as one latent dimension changes" + (", the most active first" if ranked else ""),
        row_titles=names,
        column_titles={0: f"−{span:g}", steps - 1: f"+{span:g}"} | middle,
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
    x = _data(x, "latent_map", most=None)
    labels = _labels(labels, len(x))
    name, several, standard = _continuous_site(vae, x, site)
    codes = encode(vae, x, seed=seed)
    z = (codes if isinstance(codes, Tensor) else codes[name]).flatten(1).double().cpu().numpy()  # [N, L]
    z = _finite(torch.from_numpy(z), "latent_map").numpy()
    here = f"mean of q({name} | x)" if not several else f"site {name!r}: mean of q({name} | …)"
    figure = _figure(6.4, 5.6 if z.shape[1] > 1 else 3.6)
    ax = figure.subplots()
    if z.shape[1] == 1:
        _strips(ax, z[:, 0], labels, name, standard)
        text = here
    elif z.shape[1] == 2:
        _points(ax, z, labels)
        if standard:
            _circles(ax)
        ax.set(xlabel=f"{name}[0]", ylabel=f"{name}[1]")
        text = here
    else:
        axes, share = _principal(z)
        _points(ax, axes, labels)
        ax.set(xlabel=f"principal axis 1: {share[0]:.0%} of the variance", ylabel=f"principal axis 2: {share[1]:.0%}")
        text = f"{here}, {z.shape[1]} dimensions"
    _title(ax, title or text[0].upper() + text[1:])
    return figure


# The data


def _data(x: Any, who: str, most: int | None = MOST) -> Tensor:
    x = torch.as_tensor(x).detach().cpu()
    x = x if x.is_floating_point() else x.float()
    if x.dim() < 1 or not x.numel():
        raise ValueError(
            f"{who} expects data [N, *event] with at least one value, got shape {list(x.shape)}; give some"
        )
    if most is not None and len(x) > most:
        raise ValueError(f"{who} expects at most {most:,} data in one picture, got {len(x):,}; give some, as x[:100]")
    return x


def _finite(x: Tensor, who: str) -> Tensor:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"{who} expects finite values, got {bad} that are NaN or infinite; see whether training diverged"
        )
    return x


def _one(made: Any, who: str, call: str) -> Tensor:
    if not isinstance(made, Tensor):
        raise ValueError(
            f"{who} expects a model with one observed site, got {list(made)}; draw one of them: "
            f"plots.images({call}[{next(iter(made))!r}])"
        )
    return made.detach().cpu()


def _is_batch(vae: Any, x: Tensor) -> bool:
    """Whether x is [N, *event] and not one datum: the model then makes data of that shape."""
    if x.dim() < 2:
        return False
    try:
        made = reconstruct(vae, x[:1])
    except Exception:  # a network may fail on a shape it was not written for in any way it likes
        return False
    return not isinstance(made, Tensor) or made.shape == x[:1].shape


def _span(x: Tensor, value_range: tuple[float, float] | None, who: str) -> tuple[float, float]:
    _finite(x, who)
    if value_range is not None:
        low, high = value_range
        if not low < high:
            raise ValueError(
                f"{who} expects value_range as (black, white) with black < white, got {value_range}; swap it"
            )
        return float(low), float(high)
    low, high = min(float(x.min()), 0.0), float(x.max())
    if low == 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _pictures(x: Tensor) -> Tensor | None:
    """[N, C, H, W] with C = 1 or 3, channels of any other number one below the other; None for what is no image."""
    if x.dim() == 3:
        x = x[:, None]
    if x.dim() != 4:
        return None
    return x if x.shape[1] in (1, 3) else x.flatten(1, 2)[:, None]


def _shades(x: Tensor, span: tuple[float, float]) -> list[np.ndarray]:
    """Each image as [H, W, 3] in [0, 1]."""
    low, high = span
    x = ((x.double() - low) / (high - low)).clamp(0, 1)
    return list(x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def _columns_of(n: int, columns: int | None, who: str, most: int | None = None) -> int:
    if columns is not None:
        if columns < 1:
            raise ValueError(f"{who} expects columns of at least 1, got {columns}; leave it out for an even sheet")
        return min(columns, n)
    if most is not None:
        return math.ceil(n / math.ceil(n / most))
    if n <= 10:
        return n
    side = math.ceil(math.sqrt(n))
    return min(range(side, min(2 * side, 20) + 1) or [side], key=lambda c: (-n % c, c))


def _rows(cells: Sequence[Any], width: int) -> list[list[Any]]:
    return [list(cells[i : i + width]) for i in range(0, len(cells), width)]


def _columns(rows: Any) -> dict[str, np.ndarray]:
    """The columns of a history that hold any number."""
    import pandas as pd

    try:
        table = pd.DataFrame(rows)
    except (TypeError, ValueError):
        table = pd.DataFrame()
    if len(table) == 0 or not {"epoch", "bound"} <= set(table.columns):
        got = f"{len(table)} rows with {list(table.columns)}" if len(table) else type(rows).__name__
        raise ValueError(
            f"history expects rows with 'epoch' and 'bound', got {got}; give fit.history or the rows of history.csv"
        )
    wanted = [c for c in ("epoch", "bound", "validation", "learning_rate") if c in table]
    columns = {c: pd.to_numeric(table[c], errors="coerce").to_numpy(float) for c in wanted}
    columns = {c: np.where(np.isfinite(v), v, np.nan) for c, v in columns.items()}
    found = {c: v for c, v in columns.items() if np.isfinite(v).any()}
    if not {"epoch", "bound"} <= set(found):
        raise ValueError("history expects numbers for 'epoch' and 'bound', got none that is finite; look at the run")
    return found


def _limits(lines: list[np.ndarray]) -> tuple[float, float]:
    """y-limits that hold all epochs, or all but the first tenth where those would squash the rest to under a half."""
    values = np.stack(lines)
    kept = values[:, values.shape[1] // 10 :]
    low, least, most = (float(f(v)) for f, v in ((np.nanmin, kept), (np.nanmin, values), (np.nanmax, values)))
    if most - low > (most - least) / 2:
        low = least
    room = 0.06 * (most - low) or 1.0
    return low - room, most + room


def _labels(labels: Any, n: int) -> np.ndarray | None:
    if labels is None:
        return None
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (n,):
        raise ValueError(f"latent_map expects one label for each of {n} data, got shape {list(found.shape)}; give [N]")
    classes = np.unique(found)
    if len(classes) > len(CLASSES) and not np.issubdtype(found.dtype, np.number):
        raise ValueError(
            f"latent_map expects at most {len(CLASSES)} classes, or numbers, as labels, got {len(classes)} classes; "
            "show some of them"
        )
    return found


def _continuous_site(vae: Any, x: Tensor, site: str | None) -> tuple[str, bool, bool]:
    """The latent to show, whether there are others, and whether its prior is a standard normal."""
    with evaluating(vae), seeded(0):
        d = densities(vae, x[:2].to(*home(vae)))
    local = {n: s for n, s in d.posterior.items() if s.local}
    if site is not None and site not in local:
        raise ValueError(f"latent_map expects site as one of {list(local)}, got {site!r}; name one of them")
    names = [n for n, s in local.items() if not getattr(s.distribution.support, "is_discrete", False)]
    if site is None and not names:
        raise ValueError(
            f"latent_map expects a continuous latent, got {list(local)}; name a site to show it all the same"
        )
    name = site or names[0]
    prior = d.prior[name].distribution
    standard = family(prior) == "Normal" and bool((prior.mean == 0).all() and (prior.stddev == 1).all())
    return name, len(d.posterior) > 1, standard


def _principal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the first two principal axes [N, 2], and their shares of the variance."""
    centred = z - z.mean(0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # the same way round each time
    share = size**2 / max((size**2).sum(), np.finfo(float).tiny)
    axes, share = (np.concatenate([a, np.zeros_like(a[:1])]) if len(a) < 2 else a for a in (axes, share))
    return centred @ axes[:2].T, share[:2]


# Drawing


@cache
def _canvas() -> type[Figure]:
    """A Figure that a notebook shows without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture


def _figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    return _canvas()(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def _bare(ax: Axes, grid: bool = False) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#e6e6e6", linewidth=0.8)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=11, fontweight="medium", pad=8)


def _number(value: float) -> str:
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def _sheet(
    cells: list[list[Any]],
    title: str | None,
    row_titles: Sequence[str] | None = None,
    column_titles: dict[int, str] | None = None,
    cell_titles: list[list[str | None]] | None = None,
    wide_above: Sequence[int] = (),
    wide_before: Sequence[int] = (),
) -> Figure:
    """Images [H, W, 3] in rows and columns on one canvas, every pixel of an image a square of whole pixels.

    A cell may be None, which is left white. Gaps are wide above and before the rows and columns that are named.
    """
    count = len(cells[0])
    h, w = cells[0][0].shape[:2]
    k = max(1, min(TILE // max(h, w), (WIDTH // count) // w))
    thin = 2 if count > 20 else 4
    line = 28  # pixels that a title with room above takes
    above = [line if cell_titles else 0 if r == 0 else 4 * thin if r in wide_above else thin for r in range(len(cells))]
    before = [0 if c == 0 else 4 * thin if c in wide_before else thin for c in range(count)]
    tops = np.cumsum(above) + k * h * np.arange(len(cells))
    lefts = np.cumsum(before) + k * w * np.arange(count)
    canvas = np.ones((tops[-1] + k * h, lefts[-1] + k * w, 3))
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell is not None:
                canvas[tops[r] : tops[r] + k * h, lefts[c] : lefts[c] + k * w] = cell.repeat(k, 0).repeat(k, 1)

    full = canvas.shape[1], canvas.shape[0]
    shrink = min(1.0, WIDTH * 1.3 / full[0])  # images wider than the page are shown smaller
    width, height = full[0] * shrink, full[1] * shrink
    margin = 12
    left = margin + (max(map(len, row_titles)) * 7.5 + 10 if row_titles else 0)
    top = margin + (34 if title else 0) + (22 if column_titles else 0)
    page = max(left + width + margin, left + (len(title) * 9.4 if title else 0) + margin), top + height + margin
    figure = _figure(page[0] / DPI, page[1] / DPI, layout=None)
    ax = figure.add_axes((left / page[0], margin / page[1], width / page[0], height / page[1]))
    ax.imshow(
        canvas,
        interpolation="nearest" if shrink == 1 else "antialiased",
        extent=(0, full[0], full[1], 0),
        aspect="auto",
    )
    ax.set_axis_off()
    if title:
        figure.text(left / page[0], 1 - margin / page[1], title, va="top", fontsize=11, fontweight="medium")
    for r, text in enumerate(row_titles or ()):
        ax.text(-10 / shrink, tops[r] + k * h / 2, text, ha="right", va="center", fontsize=9.5)
    for c, text in (column_titles or {}).items():
        ax.text(lefts[c] + k * w / 2, -6 / shrink, text, ha="center", va="bottom", fontsize=9.5)
    for r, row in enumerate(cell_titles or ()):
        for c, text in enumerate(row):
            if text is not None:
                ax.text(lefts[c] + k * w / 2, tops[r] - 3, text, ha="center", va="bottom", fontsize=9)
    return figure


def _vectors(panels: dict[str, Tensor], span: tuple[float, float], path: bool = False) -> Figure:
    """Vectors: points in the plane where there are two numbers each, else heat maps that share one scale."""
    flat = {name: x.reshape(len(x), -1).double().numpy() for name, x in panels.items()}
    if next(iter(flat.values())).shape[1] == 2:
        return _plane(flat, path)
    from matplotlib.ticker import MaxNLocator

    rows = sum(map(len, flat.values()))
    figure = _figure(6.4, min(9.0, 0.9 * len(flat) + 0.6 + rows * min(0.16, 5 / rows)))
    heights = [len(v) for v in flat.values()]
    axes = figure.subplots(len(flat), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, values) in zip(axes, flat.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis", vmin=span[0], vmax=span[1])
        ax.set_yticks([])
        ax.set_ylabel("steps, downwards" if path else "one row each", fontsize=9)
        _title(ax, name)
    axes[-1].set_xlabel("dimension of x")
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
    figure.colorbar(drawn, ax=list(axes), label="value", fraction=0.04, aspect=20, pad=0.02)
    return figure


def _plane(panels: dict[str, np.ndarray], path: bool) -> Figure:
    figure = _figure(6.0, 5.2)
    ax = figure.subplots()
    colours = (GREY, BLUE) if len(panels) == 2 and not path else CLASSES if len(panels) > 1 else (BLUE,)
    for (name, values), colour in zip(panels.items(), cycle(colours), strict=False):
        size = 3 if len(values) > 300 else 5
        ax.plot(
            *values.T,
            "o-" if path else "o",
            color=colour,
            markersize=size,
            markeredgewidth=0,
            linewidth=1,
            alpha=0.8,
            label=name,
        )
    ax.set(xlabel="x[0]", ylabel="x[1]")
    ax.set_aspect("equal", adjustable="datalim")
    _bare(ax, grid=True)
    if len(panels) > 1:
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    else:
        _title(ax, next(iter(panels)))
    return figure


def _points(ax: Axes, z: np.ndarray, labels: np.ndarray | None) -> None:
    size, alpha = min(18.0, max(4.0, 18 * math.sqrt(400 / len(z)))), 0.8 if len(z) <= 1000 else 0.65
    order = np.random.default_rng(0).permutation(len(z))  # no class lies on top of all others
    ax.set_aspect("equal", adjustable="datalim")
    _bare(ax, grid=True)
    classes = None if labels is None else np.unique(labels)
    if labels is None or classes is None:
        ax.scatter(*z.T, s=size, alpha=alpha, color=BLUE, linewidths=0)
    elif len(classes) > len(CLASSES):
        drawn = ax.scatter(*z[order].T, c=labels[order], s=size, alpha=alpha, cmap="viridis", linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label="label", fraction=0.04, pad=0.02)
    else:
        colours = np.array(CLASSES)[np.searchsorted(classes, labels)]
        ax.scatter(*z[order].T, s=size, alpha=alpha, c=list(colours[order]), linewidths=0)
        _name_classes(ax, z, labels, classes)


def _name_classes(ax: Axes, z: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> None:
    """A legend, and the name of each class at its median: colours need not be told apart."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    handles = []
    for name, colour in zip(classes, CLASSES, strict=False):
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, markersize=7, label=str(name)))
        middle = np.median(z[labels == name], 0)
        text = ax.text(middle[0], middle[1], str(name), ha="center", va="center", fontsize=12, fontweight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2)


def _circles(ax: Axes) -> None:
    """One and two standard deviations of a standard normal prior."""
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    for radius in (1, 2):
        ax.add_patch(Circle((0, 0), radius, fill=False, color="#333333", linewidth=1, linestyle=(0, (4, 3)), zorder=3))
        text = ax.text(0, radius, f"{radius}σ", ha="center", va="center", fontsize=9, color="#333333", zorder=4)
        text.set_path_effects([withStroke(linewidth=4, foreground="white")])


def _strips(ax: Axes, z: np.ndarray, labels: np.ndarray | None, name: str, standard: bool) -> None:
    """One latent dimension: a histogram, or with classes a row of points for each."""
    _bare(ax)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    ax.set_xlabel(name)
    classes = None if labels is None else np.unique(labels)
    if labels is None or classes is None or len(classes) > len(CLASSES):
        ax.hist(z, bins="auto", density=True, color=BLUE, alpha=0.7, label="the data")
        ax.set_ylabel("density")
        if standard:
            line = np.linspace(min(-3, z.min()), max(3, z.max()), 200)
            density = np.exp(-(line**2) / 2) / math.sqrt(2 * math.pi)
            ax.plot(line, density, color="#333333", linestyle="--", label="prior")
            ax.legend(frameon=False)
        return
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(z))
    row = np.searchsorted(classes, labels)
    ax.scatter(z, row + jitter, s=9, alpha=0.7, c=list(np.array(CLASSES)[row]), linewidths=0)
    ax.set_yticks(range(len(classes)), [str(c) for c in classes])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("label")
    ax.invert_yaxis()
