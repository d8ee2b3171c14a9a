"""How figures grow with the number of particles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..plots.quantities import power_law
from .bench import LENGTHS

if TYPE_CHECKING:
    from pandas import DataFrame


def slopes(table: DataFrame, figure: str = "snr", fit_from: int = 1) -> DataFrame:
    """The power of K that a figure follows: the slope of its logarithm against log K, for each objective and group.

    Least squares, weighted by the bootstrap intervals. With x = log K, y = log figure and means weighted by w,

        s = (log high − log low) / (2 · 1.96),    w = 1 / s²,    S = Σ w (x − x̄)²
        slope = Σ w (x − x̄) (y − ȳ) / S,    error = max(1, √(χ² / (n − 2))) / √S,    χ² = Σ w (y − fit)²

    Where χ² is beyond its degrees of freedom the figure is no power law within its intervals, as at small K it need
    not be; the error that they give is then too small, and is made larger by that root. With two points nothing can
    tell. Points are taken to be independent; that draws of one seed share random numbers between K is left aside.

    Args:
        table: what `compare` returns.
        figure: a column with an interval: gradient, bias, evidence_bias, variance or snr.
        fit_from: the fewest particles that are fitted; a power law is one of many.

    Returns:
        A DataFrame with objective, group, slope, error (of one standard deviation) and points. Points whose value is
        not finite and positive, or whose interval reaches 0 or is not known, are left out, and so are objectives with
        fewer than two numbers of particles left.

    Raises:
        ValueError: for another column, and a table without it.

    Reference: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018: −1/2 for the guide of an
    importance-weighted bound, 1/2 for its model.

    >>> import pandas as pd
    >>> rows = [("IWAE", k, "guide", k**-0.5, 0.9 * k**-0.5, k**-0.5 / 0.9) for k in (1, 10, 100)]
    >>> table = pd.DataFrame(rows, columns=["objective", "particles", "group", "snr", "snr_low", "snr_high"])
    >>> slopes(table).round(3).values.tolist()
    [['IWAE', 'guide', -0.5, 0.017, 3]]
    """
    import pandas as pd

    if figure not in LENGTHS:
        raise ValueError(f"slopes expects a figure with an interval, one of {list(LENGTHS)}, got {figure!r}; name one")
    ends = [figure, f"{figure}_low", f"{figure}_high"]
    needed = ["objective", "group", "particles", *ends]
    missing = [c for c in needed if c not in getattr(table, "columns", ())]
    if missing:
        raise ValueError(f"slopes expects a table with {missing[0]!r}, got none; give what pyrovae.lab.compare returns")
    rows, table = [], table[table["particles"] >= fit_from]
    for (objective, group), part in table.groupby(["objective", "group"], sort=False):
        numbers = part[["particles", *ends]].apply(pd.to_numeric, errors="coerce").astype("Float64")
        slope, error, points = power_law(*numbers.to_numpy(float, na_value=float("nan")).T)
        if slope == slope:  # not NaN
            rows.append((objective, group, slope, error, points))
    return pd.DataFrame(rows, columns=["objective", "group", "slope", "error", "points"])
