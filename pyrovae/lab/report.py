"""A comparison on paper: the table as CSV, its pictures, and one page that explains both."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from .. import plots
from ..plots.quantities import GROUPS, count, is_measured, no_bounds, relative_bias, with_error, with_interval
from ..training.run_folder import write_whole
from .slopes import slopes

if TYPE_CHECKING:
    from pandas import DataFrame

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Objectives compared</title>
<style>
  :root { color-scheme: light dark; --ink: #222; --paper: #fff; --rule: #ddd; --quiet: #666 }
  @media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --rule: #444; --quiet: #aaa } }
  body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 }
  main { max-width: 1100px; margin: auto; padding: 1rem }
  p, ul { max-width: 46rem }
  .wide { overflow-x: auto; margin: 1rem 0 }
  .wide img { width: 100%; min-width: 640px; background: #fff; border-radius: 4px; display: block }
  table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
  th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap }
  th { vertical-align: bottom; font-weight: 600 }
  th small { display: block; font-weight: 400; color: var(--quiet) }
  th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
  td.words { text-align: left; white-space: normal; min-width: 18rem }
  td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem }
  .note { border-left: 4px solid #e69f00; padding-left: .8rem }
</style>
</head>
<body><main>
<h1>Objectives compared</h1>
$what
<h2>Bounds</h2>
$bounds
<h2>Signal-to-noise</h2>
$signal_to_noise
<h2>Variance and cost</h2>
$variance
$cost
<h2>Bias</h2>
$bias
<h2>Gradients</h2>
$gradients
<h2>What failed</h2>
$failed
<h2>What is exact, and what is not</h2>
<ul>
<li>Draws are those of the estimator alone: the data and the parameters are held fixed. All of it is about this batch
  and this state of the model; elsewhere in training estimators differ.</li>
<li>A reference by importance sampling, annealed or not, is itself a lower bound on average: the gaps are at least as
  large as they are told. An exact one is not. The gradient of log&nbsp;p(x) comes from the same place, by the
  weighted ends of annealed chains or by importance sampling; the interval of the distance from it is widened by the
  error of that gradient, and does not know its bias.</li>
<li>Bias is that of the gradient against the gradient of the bound that the objective reports, not against that of
  log&nbsp;p(x): an unbiased gradient of a loose bound has none. The distance from the gradient of log&nbsp;p(x) stands
  beside it, for the model's parameters. A bias below 1/100,000 of the gradient's length is that of the
  numbers' precision, and told as 0.</li>
<li>Lengths have the noise of the mean taken off: what cannot be told from noise is 0.</li>
<li>Intervals are 95&nbsp;% bootstrap intervals over the draws, approximate for few of them and wide near 0, and ± is
  one standard error.</li>
<li>Seconds are the median of one step on the machine and under the load of the time; all else is equal under one
  seed. Objectives have the same random numbers, so that their differences are surer than their intervals.</li>
</ul>
</main></body>
</html>
""")

READING = {
    "bounds": "Of lower bounds the higher is tighter: what is missing to the grey band is the gap. Those marked * "
    "claim no lower bound, and a small gap says nothing of them. Objectives that share a line have the same bound, and "
    "differ in its gradient alone.",
    "signal_to_noise": "The length of the mean gradient over its noise, on logarithmic axes. A slope of 0.5 is what an "
    "average over K gives; below 0, more particles make the gradient worse.",
    "variance": "Lower and further left is better. Along a grey line variance × cost is the same: what is on a lower "
    "one has the smaller variance when both may compute for as long. Compare what has the same mean.",
    "cost": "Signal-to-noise over √cost: that of an average of as many gradients as one decoder pass for each datum, "
    "or one second, pays for. Further right is better; the best per second stands at the top.",
    "bias": "How far the mean gradient is from that of the bound, in lengths of the mean gradient, at each objective's "
    "largest K. Hollow where the interval reaches 0: no bias was seen in so many draws.",
}


def write_table(table: DataFrame, folder: str | Path) -> None:
    """Write compare.csv, whole; the folder is made if need be."""
    write_whole(Path(folder) / "compare.csv", lambda p: table.to_csv(p, index=False))


def report(table: DataFrame, folder: str | Path) -> Path:
    """Write compare.csv, compare.json (its protocol), figures/*.png, and report.html: one page that holds all of it.

    A figure that cannot be drawn is left out, and the page says why.

    Args:
        table: what `compare` returns.
        folder: made if need be.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    write_table(table, folder)
    facts = json.dumps(table.attrs, indent=2, default=str) + "\n"
    write_whole(folder / "compare.json", lambda p: p.write_text(facts, encoding="utf-8"))
    measured = is_measured(table)
    parts = {name: f"<p>{READING[name]}</p>\n{_figure(name, table, folder)}" for name in READING}
    parts["bounds"] += _bounds(table[measured])
    parts["signal_to_noise"] += _slopes(table[measured])
    parts["failed"] = _failures(table[~measured])
    page = PAGE.substitute(parts, what=_what(table), gradients=_gradients(table[measured]))
    path = folder / "report.html"
    write_whole(path, lambda p: p.write_text(page, encoding="utf-8"))
    return path


def _figure(name: str, table: DataFrame, folder: Path) -> str:
    """Draws a figure and keeps it in figures/; as HTML, with its bytes in it."""
    path = folder / "figures" / f"{name}.png"
    try:
        figure = getattr(plots, name)(table)
        write_whole(path, lambda p: figure.savefig(p, format="png"))
    except Exception as error:  # hours of measuring may lie behind: a picture is not worth the page
        path.unlink(missing_ok=True)  # that of another table
        return f'<p class="note">No figure: {escape(str(error) or type(error).__name__)}.</p>\n'
    shown = base64.b64encode(path.read_bytes()).decode()
    return f'<div class="wide"><img alt="{name.replace("_", " ")}" src="data:image/png;base64,{shown}"></div>\n'


def _what(table: DataFrame) -> str:
    """What was compared, in words."""
    known = table.attrs
    counts = ", ".join(f"{k:g}" for k in sorted(table["particles"].dropna().unique()))
    words = [f"{table['objective'].nunique()} objectives" + (f", with particles K = {counts}" if counts else "")]
    if "data" in known:
        words.append(f"{known['data']} data, held fixed")
    if "draws" in known:
        words.append(f"{known['draws']} draws of each gradient, seed {known.get('seed', 'not told')}")
    facts = {"model": known.get("model")} | known.get("protocol", {})
    words += [f"{name}: {value}" for name, value in facts.items() if isinstance(value, str)]
    evidence = "log p(x)" + (f", {known['reference']}" if "reference" in known else "")
    for _, row in table[is_measured(table)].head(1).iterrows():
        words.append(f"{evidence}: {with_error(*_floats(row, 'evidence', 'evidence_error'))} nats per datum")
    text = "<ul>\n" + "".join(f"<li>{escape(w)}</li>\n" for w in words) + "</ul>"
    if table.attrs.get("interrupted", False):
        text += '\n<p class="note">Stopped by hand (Ctrl-C): objectives that were not done by then are missing.</p>'
    return text


def _bounds(rows: DataFrame) -> str:
    """A row for each objective and K."""
    if not len(rows):
        return "<p>None was measured.</p>"
    others = no_bounds(rows)
    head = ["objective", "K", "bound|nats per datum", "gap to log p(x)|nats per datum"]
    head += ["decoder passes|per datum", "one step|seconds", "peak memory|MB"]
    body = [
        [
            row["objective"] + (" *" if row["objective"] in others else ""),
            count(row["particles"]),
            with_error(*_floats(row, "bound", "bound_error")),
            with_error(*_floats(row, "gap", "gap_error")),
            count(row["decoder_passes"]),
            with_error(*_floats(row, "seconds")),
            with_error(_floats(row, "peak_memory")[0] / 1e6),
        ]
        for _, row in rows.drop_duplicates(["objective", "particles"]).iterrows()
    ]
    return _table(head, body)


def _gradients(rows: DataFrame) -> str:
    """A row for each objective, K and group."""
    if not len(rows):
        return "<p>None was measured.</p>"
    unit = "nats per datum per unit"
    head = ["objective", "K", "group", f"length ‖μ‖|{unit}", "bias / length", f"bias|{unit}"]
    head += [f"from ∂ log p(x)|{unit}", f"variance tr Σ|({unit})²", "signal-to-noise"]
    head += ["signal-to-noise|per √decoder pass", "signal-to-noise|per √second"]
    body = [
        [
            row["objective"],
            count(row["particles"]),
            row["group"],
            _interval(row, "gradient"),
            with_interval(*_floats(share, "relative", "low", "high")),
            *(_interval(row, name) for name in ("bias", "evidence_bias", "variance", "snr")),
            *(with_error(*_floats(row, name)) for name in ("snr_per_pass", "snr_per_second")),
        ]
        for (_, row), (_, share) in zip(rows.iterrows(), relative_bias(rows).iterrows(), strict=True)
    ]
    words = "; ".join(f"{name}: the {text}" for name, text in GROUPS.items() if name in set(rows["group"]))
    return f"<p>A unit is one of the parameters. {escape(words)}.</p>\n{_table(head, body)}"


def _slopes(rows: DataFrame) -> str:
    """The fitted slopes."""
    found = slopes(rows)
    if not len(found):
        return "<p>Slopes need two numbers of particles or more, with intervals.</p>\n"
    head = ["objective", "group", "slope|of log signal-to-noise over log K", "points"]
    body = [[o, g, with_error(s, e), str(n)] for o, g, s, e, n in found.itertuples(index=False)]
    return _table(head, body)


def _failures(rows: DataFrame) -> str:
    """Who failed, and why."""
    if not len(rows):
        return "<p>Nothing.</p>"
    body = [[row["objective"], count(row["particles"]), str(row["failed"])] for _, row in rows.iterrows()]
    return _table(["objective", "K", "reason"], body, words=2)


def _table(head: Iterable[str], body: Iterable[Iterable[str]], words: int | None = None) -> str:
    """HTML of a table: "name|unit" for a head; the column `words` holds sentences."""
    heads = (h.partition("|") for h in head)
    lines = ["".join(f"<th>{escape(n)}{f'<small>{escape(u)}</small>' if u else ''}</th>" for n, _, u in heads)]
    for row in body:
        marks = (' class="words"' if i == words else "" for i in range(99))
        lines.append("".join(f"<td{mark}>{escape(str(c))}</td>" for c, mark in zip(row, marks, strict=False)))
    return '<div class="wide"><table>\n' + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table></div>\n"


def _interval(row: Any, name: str) -> str:
    return with_interval(*_floats(row, name, f"{name}_low", f"{name}_high"))


def _floats(row: Any, *names: str) -> list[float]:
    """Figures of a row; NaN for what is not known."""
    return [float("nan") if str(row[n]) == "<NA>" else float(row[n]) for n in names]
