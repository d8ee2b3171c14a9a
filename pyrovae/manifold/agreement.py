"""How near planes that are found in data come to the true ones, as data grow more and noisier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .graph import local_tangents
from .planes import Planes, principal_angles

if TYPE_CHECKING:
    from pandas import DataFrame


def agreement(
    name: str,
    n: Sequence[int] = (250, 500, 1000, 2000),
    noise: Sequence[float] = (0.0, 0.05, 0.2),
    k: int = 20,
    find: Callable[[Tensor, int], Planes | Tensor] | None = None,
    seed: int = 0,
) -> DataFrame:
    """The largest principal angle between planes found in data and the manifold's own: a row for each n and noise.

    Without noise more data are always better. With noise of size σ, k neighbours draw together as data grow, until they
    are all noise: the angle falls and rises again, and k has to grow with n.

    Args:
        name: of a manifold that `pv.data.manifold` makes: "swiss_roll", "sphere", "torus", ....
        n: numbers of data.
        noise: as for `pv.data.manifold`.
        k: neighbours of each datum.
        find: from data [N, D] and d to their planes, `Planes` or [N, D, d], such as those of a model trained on them;
            None for `local_tangents` of k neighbours.
        seed: of the data.

    Returns:
        A DataFrame with columns manifold, n, noise, k, `degrees` (the median over the data), `degrees_90` (nine in ten
        are below), and, of `Planes`, the median `gap` and `residual`.

    Raises:
        ValueError: for an unknown manifold, and as `local_tangents`.

    >>> table = agreement("sphere", n=[200, 800], noise=[0.0])
    >>> bool(table.degrees[1] < table.degrees[0])
    True
    """
    import pandas as pd

    from .. import data

    rows: list[dict[str, Any]] = []
    for size in n:
        for sigma in noise:
            made = data.manifold(name, n=size, noise=sigma, seed=seed)
            d = made.tangents.shape[2]
            planes = local_tangents(made.x, d, k) if find is None else find(made.x, d)
            angle = principal_angles(planes, made.tangents)[:, -1] * (180 / math.pi)
            row = {"manifold": name, "n": size, "noise": sigma, "k": None if find is not None else k}
            row |= {"degrees": float(angle.median()), "degrees_90": float(angle.quantile(0.9))}
            if isinstance(planes, Planes):
                row |= {"gap": float(planes.gap.median()), "residual": float(planes.residual.median())}
            rows.append(row)
    return pd.DataFrame(rows)
