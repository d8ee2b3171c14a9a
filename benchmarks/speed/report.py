"""What was measured, as Markdown and as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from . import bars, flops
from .cases import Case
from .contenders import CONTENDERS, HAND, PEAK
from .driver import Result
from .ratios import Spread, ratio, spread

_UNITS = {"step": ("ms a step", 1e3), "epoch": ("s an epoch", 1.0), "evidence": ("s", 1.0), "import": ("s", 1.0)}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def titled(case: Case) -> str:
    """The title, with the number of images where there is one."""
    return f"{case.title}; {case.images:,} images" if case.images else case.title


def of_case(case: Case, results: Mapping[str, Result]) -> str:
    """The table of a case: medians with quartiles over the rounds."""
    unit, factor = _UNITS[case.measure]
    reference = "import torch, pyro" if case.measure == "import" else HAND
    header = ["", unit, f"/ {'`import torch, pyro`' if case.measure == 'import' else 'by hand'}"]
    if case.measure == "import":
        rows = [
            [f"`{r.name}`", _told(spread(r.seconds), factor), _told(ratio(r, results[reference]), 1)]
            for r in results.values()
        ]
        return table(header, rows)
    header += ["first, s", "peak, MiB", "rise", "steps", "GFLOP/s", "of matmul"]
    header += ["particles·images / s"] if case.measure == "evidence" else []
    top = _rate(results.get(PEAK), flops.MATMUL)
    rows = []
    for name, r in results.items():
        title = CONTENDERS[name].title
        if r.failed:
            rows.append([title, r.failed] + ["—"] * (len(header) - 2))
            continue
        row = [title, _told(spread(r.seconds), factor)]
        if name == PEAK:
            rows.append([*row, *["—"] * 5, f"{top:.0f}", "1.00"] + ["—"] * (len(header) - 9))
            continue
        rate = _rate(r, flops.of(case, name))
        row += [_told(ratio(r, results.get(reference)), 1), f"{r.first:.1f}"]
        row += [
            f"{r.peak:.0f}",
            f"{r.rise:.0f}",
            f"{r.steps:.0f}" if r.steps else "—",
            f"{rate:.0f}",
            f"{rate / top:.2f}" if top else "—",
        ]
        if case.measure == "evidence":
            row.append(f"{case.images * (case.particles or 1) / _median(r):,.0f}")
        rows.append(row)
    notes = "".join(f"\n{CONTENDERS[r.name].title}: {r.note}.\n" for r in results.values() if r.note)
    return table(header, rows) + notes


def whole(
    machine: Mapping[str, str],
    measured: Mapping[str, Mapping[str, Result]],
    cases: Mapping[str, Case],
    small: bool,
    protocol: str,
) -> str:
    """All that was measured, as one page."""
    parts = ["# Speed, side by side\n", "".join(f"- {k}: {v}\n" for k, v in machine.items()), protocol + "\n"]
    if small:
        parts.append("**A smoke run in sizes that mean nothing.**\n")
    for name, results in measured.items():
        parts.append(f"## {name}: {titled(cases[name])}\n\n{of_case(cases[name], results)}")
    if found := bars.rows(measured):
        parts.append(f"## Bars\n\n{table(['', 'wanted', 'measured', ''], found)}")
    return "\n".join(parts)


def plain(machine: Mapping[str, str], measured: Mapping[str, Mapping[str, Result]]) -> dict[str, Any]:
    """Every round, as plain data."""
    cases = {case: {n: asdict(r) for n, r in results.items()} for case, results in measured.items()}
    return {"machine": dict(machine), "cases": cases}


def _told(s: Spread | None, factor: float) -> str:
    if s is None:
        return "—"
    return f"{s.median * factor:.3g} ({s.low * factor:.3g} to {s.high * factor:.3g})"


def _median(r: Result) -> float:
    found = spread(r.seconds)
    return found.median if found else float("nan")


def _rate(r: Result | None, operations: int) -> float:
    """GFLOP/s at the median; 0 where there is none."""
    return operations / _median(r) / 1e9 if r is not None and r.seconds else 0.0
