"""A comparison in a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..plots.quantities import count, is_measured, no_bounds, relative_bias, with_error

if TYPE_CHECKING:
    from pandas import DataFrame


def summary(table: DataFrame) -> str:
    """A line for each objective and number of particles with the columns that say most; then what failed, and why.

    An asterisk marks what claims no lower bound. Bias is that of the gradient of a group over the length of that
    gradient; "< 0.06" where none was seen, and 0.06 is the upper end of its interval.
    """
    rows, failed = relative_bias(table[is_measured(table)]), table[~is_measured(table)]
    lines = []
    for _, members in rows.groupby(["objective", "particles"], sort=False, dropna=False):
        first = members.iloc[0]
        line = {
            "objective": str(first["objective"]) + ("" if first["lower"] else " *"),
            "K": count(first["particles"]),
            "bound": with_error(first["bound"], first["bound_error"]),
            "gap": with_error(first["gap"], first["gap_error"]),
            "passes": f"{first['decoder_passes']:g}",
            "ms": f"{1000 * first['seconds']:.2g}",
        }
        line |= {f"snr {own['group']}": with_error(own["snr"]) for _, own in members.iterrows()}
        lines.append(line | {f"bias {own['group']}": _bias(own) for _, own in members.iterrows()})
    text = []
    if len(rows):
        first = rows.iloc[0]
        evidence = with_error(first["evidence"], first["evidence_error"] or first["bound_error"])
        evidence = (
            evidence if first["evidence_error"] else evidence.partition(" ±")[0]
        )  # exact, to the digits of a bound
        text.append(f"log p(x) = {evidence} nats per datum ({table.attrs.get('reference', 'reference not told')})\n")
        text += _columns(lines)
        if no_bounds(rows):
            text.append("\n* no lower bound: a small gap is no tightness")
    if len(failed):
        text.append("\nfailed:")
        text += [
            f"  {row['objective']}, K = {count(row['particles'])}: {row['failed']}" for _, row in failed.iterrows()
        ]
    return "\n".join(text)


def _columns(lines: list[dict[str, str]]) -> list[str]:
    """Lines of one width, with a head; words to the left, numbers to the right."""
    head = list(dict.fromkeys(name for line in lines for name in line))
    cells = [head, *([line.get(name, "–") for name in head] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def _bias(row: Any) -> str:
    if row["low"] == 0 and row["high"] > 0:
        return f"< {row['high']:.2g}"
    return "–" if math.isnan(row["relative"]) else with_error(row["relative"], (row["high"] - row["low"]) / 4)
