"""Trains every model of the gallery by its command, and writes the table of docs/models.md with its pictures.

python -m benchmarks.gallery            # all of them: some ten minutes on two cores
python -m benchmarks.gallery CountVAE   # some of them again; the other rows stay as they are
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.cli import main as command

from .entries import ENTRIES, Entry

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = Path(__file__).parents[1] / "results" / "gallery.json"
BEGIN, END = "<!-- gallery -->\n", "<!-- end of gallery -->\n"
UNITS = {"log_evidence": "", "squared_error": " squared error"}


def measure(name: str, entry: Entry) -> dict[str, Any]:
    """The figures of a model that is trained by its command, and its picture."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if command([*entry.train(), "--run_dir", str(run)]):
            raise SystemExit(f"{name} was not trained")
        metrics = json.loads((run / "metrics.json").read_text())
        data, vae = entry.data(), pv.load(run)
        entry.picture(vae, data).savefig(picture_of(name), dpi=60)
    test = metrics["test"]
    return {
        "reached": test[entry.figure],
        "error": test[f"{entry.figure}_standard_error"],
        "baseline": entry.baseline(data),
        "seconds": metrics["training"]["seconds"],
    }


def picture_of(name: str) -> Path:
    """Where the picture of an entry is."""
    return DOCS / "gallery" / f"{name.lower().replace(', ', '-')}.png"


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The rows of the page, of figures as `measure` gives them."""
    lines = [
        "| model | formula | picture | test split | baseline | command: `pyrovae train ...` |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in ENTRIES.items():
        f, unit = figures[name], UNITS[entry.figure]
        picture = f"![{name}](gallery/{picture_of(name).name})"
        reached = f"{f['reached']:.2f} ± {f['error']:.2f}{unit}".replace("-", "−")
        baseline = f"{f['baseline']:.2f}: {entry.named}".replace("-", "−")
        formula = entry.formula.replace("|", "\\|")
        lines.append(f"| `{name}` | {formula} | {picture} | {reached} | {baseline} | `{' '.join(entry.train()[1:])}` |")
    return "\n".join(lines) + "\n"


def written(page: str, figures: dict[str, dict[str, Any]]) -> str:
    """The page with this table."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table(figures) + END + rest.split(END)[1]


def run(names: list[str]) -> int:
    """All entries, or those that are named."""
    if unknown := [n for n in names if n not in ENTRIES]:
        print(f"no entry {unknown[0]!r}; known: {', '.join(ENTRIES)}", file=sys.stderr)
        return 2
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    (DOCS / "gallery").mkdir(exist_ok=True)
    for name in names or ENTRIES:
        figures[name] = measure(name, ENTRIES[name])
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    if set(figures) >= set(ENTRIES):
        page = DOCS / "models.md"
        page.write_text(written(page.read_text(encoding="utf-8"), figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
