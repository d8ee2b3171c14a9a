"""The command line: which cases, which contenders, how long, and where to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import __doc__ as about
from . import driver, imports, machine, report
from .cases import CASES, Case
from .contenders import CONTENDERS, PEAK

SMOKE = ["ours-never", "pytorch", "pyro"]
ROUNDS = {"step": 11, "evidence": 5, "epoch": 3, "import": 7}


def names(known: dict) -> Callable[[str], list[str]]:
    """A list with commas of names that are known."""

    def parse(text: str) -> list[str]:
        found = [n for n in text.split(",") if n]
        if unknown := [n for n in found if n not in known]:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
        return found

    return parse


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = {n: c for n, c in CONTENDERS.items() if n != PEAK}
    p.add_argument("--cases", type=names(CASES), default=[], help=f"of {', '.join(CASES)}; by default all")
    p.add_argument("--only", type=names(known), default=[], help=f"contenders, of {', '.join(known)}")
    p.add_argument("--rounds", type=int, help=f"by default {ROUNDS}")
    p.add_argument(
        "--turn", type=float, default=0.3, help="seconds of a turn (an epoch or evaluation is not cut short)"
    )
    p.add_argument("--images", type=int, help="of an epoch or an evaluation; fewer, where time is short")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--smoke", action="store_true", help=f"tiny sizes, two rounds, {', '.join(SMOKE)}: does it run?")
    p.add_argument("--verbose", action="store_true", help="let the contenders' standard error through")
    p.add_argument("--output", type=Path, metavar="FILE.md", help="the page; every round goes beside it as .json")
    return p


def main() -> None:
    """Measures the cases one after the other; the page is written again after each of them."""
    given = parser().parse_args()
    wanted = given.cases or (["iwae100"] if given.smoke else list(CASES))
    cases = {name: CASES[name].small() if given.smoke else CASES[name] for name in wanted}
    known, measured = machine.describe(given.threads), {}
    for name, case in cases.items():
        if given.images and case.images:
            case = cases[name] = replace(case, images=given.images)
        rounds = given.rounds or (2 if given.smoke else ROUNDS[case.measure])
        if case.measure == "import":
            measured[name] = imports.race(rounds)
        else:
            turn, only = (0.01, given.only or SMOKE) if given.smoke else (given.turn, given.only)
            measured[name] = driver.race(case, only, rounds, turn, given.threads, given.smoke, given.verbose)
        print(f"## {name}: {report.titled(case)}\n\n{report.of_case(case, measured[name])}", flush=True)
        if given.output:
            write(given.output, known, measured, cases, given.smoke)
    if found := report.bars.rows(measured):
        print(report.table(["", "wanted", "measured", ""], found))


PROTOCOL = """
Medians over the rounds, in brackets their quartiles; ratios are taken within a round. "First" is from an imported
library to the end of the first step. "Peak" is the memory of the whole process, "rise" its part above what there was
before the model was built, and "steps" that of the steps alone in a process in which everything was loaded before.
GFLOP/s count the matrix products and convolutions of the architecture.
"""


def write(path: Path, known: dict[str, str], measured: dict, cases: dict[str, Case], small: bool) -> None:
    """The page, and every round beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.whole(known, measured, cases, small, PROTOCOL), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(report.plain(known, measured), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
