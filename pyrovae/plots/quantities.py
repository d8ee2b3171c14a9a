"""What the pictures and the report of a comparison are to tell alike: its rows, how numbers are written, slopes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

UPRIGHT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NORMAL = 1.96  # standard errors from the middle of a 95 % interval to its end
GROUPS = {"model": "model's gradient", "guide": "guide's gradient", "both": "gradient of what they share"}


def with_error(value: float, error: float = math.nan) -> str:
    """value ± error, rounded at the error's first digit, or its second where the first is a 1.

    >>> with_error(-178.4567, 0.189), with_error(-0.5012, 0.031), with_error(1.23456), with_error(math.inf)
    ('−178.46 ± 0.19', '−0.50 ± 0.03', '1.23', '∞')
    """
    texts, power = _rounded([value, error] if error > 0 and math.isfinite(error) else [value], error)
    return _with_power(" ± ".join(texts), power)


def with_interval(value: float, low: float, high: float) -> str:
    """value [low, high], rounded as `with_error` rounds for an error of half the interval's width.

    >>> with_interval(2.107, 2.092, 2.163), with_interval(1223, 1164, 1239), with_interval(0, 0, 0)
    ('2.11 [2.09, 2.16]', '1220 [1160, 1240]', '0')
    """
    if not (math.isfinite(low) and math.isfinite(high)) or value == low == high:
        return with_error(value)
    texts, power = _rounded([value, low, high], (high - low) / 2)
    return _with_power(f"{texts[0]} [{texts[1]}, {texts[2]}]", power)


def _rounded(values: list[float], error: float) -> tuple[list[str], int]:
    """Each value in as many digits as the error allows, three without one; and the power of ten taken out of them."""
    size = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    top = math.floor(math.log10(size)) if size > 0 else 0
    power = top if not -4 < top < 6 else 0
    last = top - 2  # the place of the last digit
    if error > 0 and math.isfinite(error):
        first = math.floor(math.log10(error))
        last = first - (error < 1.95 * 10.0**first)
    places = power - last
    return [_digits(v / 10.0**power, places) for v in values], power


def _digits(value: float, places: int) -> str:
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    value = round(value, places) + 0.0  # no negative zero
    return "0" if value == 0 else f"{value:.{max(places, 0)}f}".replace("-", "−")


def _with_power(text: str, power: int) -> str:
    if not power:
        return text
    return f"{text if ' ' not in text else f'({text})'}·10{str(power).translate(UPRIGHT)}"


def power_law(particles: Any, value: Any, low: Any, high: Any) -> tuple[float, float, int]:
    """The slope of log value against log particles, its standard error, and how many points it is fitted to.

    Least squares with weights from 95 % intervals. With x = log K, y = log value and means weighted by w,

        s = (log high − log low) / (2 · 1.96),    w = 1 / s²,    S = Σ w (x − x̄)²
        slope = Σ w (x − x̄) (y − ȳ) / S,    error = max(1, √(χ² / (n − 2))) / √S

    where χ² = Σ w (y − fit)². Where χ² is beyond its degrees of freedom, the curve is no power law within its
    intervals, and the error that they give is too small by that root. Points are taken to be independent. Those
    without a positive, finite value and interval, or without K, are left out. NaN with fewer than two K.
    """
    k, value, low, high = (np.asarray(a, float) for a in (particles, value, low, high))
    with np.errstate(invalid="ignore"):
        kept = (k > 0) & (value > 0) & (low > 0) & (high > low) & np.isfinite(k + value + high)
    x, y = np.log(k[kept]), np.log(value[kept])
    n = len(x)
    if n < 2 or np.ptp(x) == 0:
        return math.nan, math.nan, n
    w = (2 * NORMAL / (np.log(high[kept]) - np.log(low[kept]))) ** 2
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    spread = float((w * x**2).sum())
    slope = float((w * x * y).sum()) / spread
    excess = float((w * (y - slope * x) ** 2).sum()) / (n - 2) if n > 2 else 0.0
    return slope, math.sqrt(max(1.0, excess) / spread), n


# The rows


def measured(table: Any, who: str, *needed: str) -> DataFrame:
    """The rows that have figures, as floats. Raises ValueError."""
    import pandas as pd

    remedy = "give what pyrovae.lab.compare returns"
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{who} expects a table of objectives, got {type(table).__name__}; {remedy}")
    missing = [c for c in ("objective", "particles", "group", "failed", *needed) if c not in table]
    if missing:
        raise ValueError(f"{who} expects a table with the column {missing[0]!r}, got one without it; {remedy}")
    if not len(table):
        raise ValueError(f"{who} expects at least one objective, got an empty table; let compare finish one")
    rows = table[is_measured(table)].copy()
    if not len(rows):
        raise ValueError(
            f"{who} expects an objective that was measured, got {len(table)} that failed; see their reasons"
        )
    for name in ("particles", *needed):
        numbers = pd.to_numeric(rows[name], errors="coerce").astype("Float64").to_numpy(float, na_value=np.nan)
        rows[name] = numbers
    return rows


def is_measured(table: DataFrame) -> Any:
    """Which rows have figures: those without words on why they have none."""
    words = table["failed"].astype(object)
    return words.isna() | (words == "")


def drawable(rows: DataFrame, who: str, figure: str, positive: bool = False) -> DataFrame:
    """The rows whose figure is finite and, for a logarithmic axis, positive. Raises ValueError for none."""
    seen = rows[np.isfinite(rows[figure]) & ((rows[figure] > 0) if positive else True)]
    if not len(seen):
        kind = "finite, positive" if positive else "finite"
        raise ValueError(f"{who} expects at least one {kind} {figure}, got none in {len(rows)} rows; take more draws")
    return seen.copy()


def with_ends(rows: DataFrame, figure: str) -> DataFrame:
    """The interval of a figure as columns low and high."""
    return rows.assign(low=rows[f"{figure}_low"], high=rows[f"{figure}_high"])


def relative_bias(rows: DataFrame) -> DataFrame:
    """With the bias over the gradient's length as relative, low and high."""
    return rows.assign(relative=rows.relative_bias, low=rows.relative_bias_low, high=rows.relative_bias_high)


def no_bounds(rows: DataFrame) -> list[str]:
    """The objectives that claim no lower bound: high ones are not tight for it."""
    return list(rows.objective[rows.lower.eq(False).fillna(False)].unique())


def count(particles: Any) -> str:
    """A number of particles, as it stands in a table."""
    return "–" if str(particles) in ("<NA>", "nan", "None") else f"{particles:g}"


def names_of(rows: DataFrame) -> list[str]:
    """The objectives, in the table's order."""
    return list(rows.objective.unique())


def groups_of(rows: DataFrame) -> list[str]:
    """The groups of parameters, the model's first."""
    found = list(rows.group.unique())
    return [g for g in GROUPS if g in found] + [g for g in found if g not in GROUPS]


def one_count(rows: DataFrame) -> str:
    """ "K = 5" where that is the only number of particles; no words where there are several."""
    counts = rows.particles.dropna().unique()
    return "" if len(counts) > 1 else f"K = {counts[0]:g}" if len(counts) else "K not told"


def shared(rows: DataFrame, figure: str, whole: bool = True) -> list[list[str]]:
    """Names of objectives whose figures are equal at the same K; without `whole`, at those they have of the other's."""
    curves = {name: dict(zip(part.particles, part[figure], strict=True)) for name, part in rows.groupby("objective")}
    order = names_of(rows)
    found: list[list[str]] = []
    for name in sorted(order, key=lambda n: (-len(curves[n]), order.index(n))):
        for names in found:
            lead, own = curves[names[0]], curves[name]
            within = own.keys() == lead.keys() if whole else own.keys() <= lead.keys()
            if within and all(np.isclose(own[k], lead[k], rtol=1e-4, atol=1e-9) for k in own):
                names.append(name)
                break
        else:
            found.append([name])
    return sorted((sorted(names, key=order.index) for names in found), key=lambda names: order.index(names[0]))
