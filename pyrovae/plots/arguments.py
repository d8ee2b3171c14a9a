"""What a picture is given: data, columns and labels, checked and brought to one form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation import reconstruct
from ..evaluation.samples import shown_site
from ..program import densities, evaluating, family, home, seeded
from ..program.sites import IMPROPER

if TYPE_CHECKING:
    pass

MOST = 1000  # images in one picture
CLASSES = (  # Petroff, "Accessible color sequences for data visualization", 2021: ten colours
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip

MISSING = (0.65, 0.8, 1.0)  # what is not observed: no grey


def as_data(x: Any, who: str, most: int | None = MOST) -> Tensor:
    """Data as a tensor on the CPU, finite, at most `most` rows. Raises ValueError."""
    x = torch.as_tensor(x).detach().cpu()
    x = x if x.is_floating_point() else x.float()
    if x.dim() < 1 or not x.numel():
        raise ValueError(
            f"{who} expects data [N, *event] with at least one value, got shape {list(x.shape)}; give some"
        )
    if most is not None and len(x) > most:
        raise ValueError(f"{who} expects at most {most:,} data in one picture, got {len(x):,}; give some, as x[:100]")
    return x


def finite(x: Tensor, who: str) -> Tensor:
    """Refuse NaN and infinity. Raises ValueError."""
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"{who} expects finite values, got {bad} that are NaN or infinite; see whether training diverged"
        )
    return x


def one_site(made: Any, who: str, observed: str | None = None) -> Tensor:
    """What a model made of one of its sites, on the CPU. Raises ValueError as `shown_site`."""
    return shown_site(who, made, observed).detach().cpu()


def is_batch(vae: Any, x: Tensor) -> bool:
    """Whether x is [N, *event] and not one datum: the model then takes it, and makes data of that shape."""
    if x.dim() < 2:
        return False
    try:
        made = reconstruct(vae, x[:1])
    except Exception:  # a network may fail on a shape it was not written for in any way it likes
        return False
    return x.dim() == 2 or not isinstance(made, Tensor) or made.shape == x[:1].shape


def value_span(
    x: Tensor, value_range: tuple[float, float] | None, who: str, missing: bool = False
) -> tuple[float, float]:
    """The values shown as black and white: those given, or the data's own. Raises ValueError: NaN only if missing."""
    x = finite(x[~x.isnan()] if missing else x, who)
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


def as_pictures(x: Tensor) -> Tensor | None:
    """[N, C, H, W] with C = 1 or 3, channels of any other number one below the other; None for what is no image."""
    if x.dim() == 3:
        x = x[:, None]
    if x.dim() != 4:
        return None
    return x if x.shape[1] in (1, 3) else x.flatten(1, 2)[:, None]


def shades(x: Tensor, span: tuple[float, float]) -> list[np.ndarray]:
    """Each image as [H, W, 3] in [0, 1]; blue where it is NaN."""
    low, high = span
    x = ((x.double() - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1)
    x = torch.where(x.isnan(), x.new_tensor(MISSING)[:, None, None], x)
    return list(x.permute(0, 2, 3, 1).numpy())


def columns_of(n: int, columns: int | None, who: str, most: int | None = None) -> int:
    """How many columns a sheet of n images has. Raises ValueError."""
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


def in_rows(cells: Sequence[Any], width: int) -> list[list[Any]]:
    """Cells in rows of this width."""
    return [list(cells[i : i + width]) for i in range(0, len(cells), width)]


def history_columns(rows: Any) -> dict[str, np.ndarray]:
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


def limits(lines: list[np.ndarray]) -> tuple[float, float]:
    """y-limits that hold all epochs, or all but the first tenth where those would squash the rest to under a half."""
    values = np.stack(lines)
    kept = values[:, values.shape[1] // 10 :]
    low, least, most = (float(f(v)) for f, v in ((np.nanmin, kept), (np.nanmin, values), (np.nanmax, values)))
    if most - low > (most - least) / 2:
        low = least
    room = 0.06 * (most - low) or 1.0
    return low - room, most + room


def as_labels(labels: Any, n: int, who: str = "latent_map") -> np.ndarray | None:
    """Labels as an array of n, or None. Raises ValueError."""
    if labels is None:
        return None
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (n,):
        raise ValueError(f"{who} expects one label for each of {n} data, got shape {list(found.shape)}; give [N]")
    classes = np.unique(found)
    if len(classes) > len(CLASSES) and not np.issubdtype(found.dtype, np.number):
        raise ValueError(
            f"{who} expects at most {len(CLASSES)} classes, or numbers, as labels, got {len(classes)} classes; "
            "show some of them"
        )
    return found


def continuous_site(vae: Any, x: Tensor, site: str | None) -> tuple[str, bool, bool]:
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


def has_improper_prior(vae: Any, x: Tensor) -> bool:
    """Whether a latent has a prior that tells nothing of the size of a code."""
    with evaluating(vae), seeded(0):
        d = densities(vae, x[:1].to(*home(vae)))
    return any(family(s.distribution) == IMPROPER for s in d.prior.values())


def principal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the first two principal axes [N, 2], and their shares of the variance."""
    centred = z - z.mean(0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # the same way round each time
    share = size**2 / max((size**2).sum(), np.finfo(float).tiny)
    axes, share = (np.concatenate([a, np.zeros_like(a[:1])]) if len(a) < 2 else a for a in (axes, share))
    return centred @ axes[:2].T, share[:2]


# Drawing
