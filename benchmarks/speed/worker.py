"""One contender, a process of its own: `python -m benchmarks.speed.worker CONTENDER CASE [--small] [--threads N]`.

It builds its model and takes the first step, says so, and then answers a line of JSON for each line that it reads:
"go N" with the seconds of N steps, "peak" with its memory in MiB. In between it waits and computes nothing. Whatever
the libraries print goes to standard error. With --warm it trains a tiny model before, so that everything is loaded.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TextIO

from .cases import CASES, Case
from .contenders import CONTENDERS


def hold_to(threads: int) -> None:
    """Holds this process to so many cores; before anything is imported that counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def answers_only() -> TextIO:
    """Standard output for the answers alone; everything that is printed elsewhere goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


class Notes(logging.Handler):
    """Keeps the warnings of a library: a step that is not compiled after all says so there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def prepare(name: str, case: Case, threads: int, warm: bool = False) -> tuple[Callable[[int], float], dict[str, float]]:
    """A function from a number of steps to their seconds, and what is known after the first of them."""
    contender = CONTENDERS[name]
    module = importlib.import_module(f".{contender.module}", __package__)
    build = getattr(module, case.measure, None)
    if build is None:
        raise RuntimeError(f"does not take part in {case.measure!r}")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
    from . import data, memory

    if warm:
        build(case.small(), data.of(case.small()), **contender.options)(2)
    x = None if contender.module == "matmul" else data.of(case)
    before, started = memory.resident(), time.perf_counter()
    go = build(case, x, **contender.options)

    def timed(n: int) -> float:
        began = time.perf_counter()
        own = go(n)
        return time.perf_counter() - began if own is None else own

    timed(1)
    first = time.perf_counter() - started
    memory.restart_peak()
    return timed, {"first": first, "before": before}


def main() -> None:
    """Answers until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    hold_to(given.threads)
    answers, notes = answers_only(), Notes()
    logging.getLogger("pyrovae").addHandler(notes)

    def answer(**known: Any) -> None:
        print(json.dumps(known), file=answers, flush=True)

    try:
        case = CASES[given.case].small() if given.small else CASES[given.case]
        case = replace(case, images=given.images)
        timed, known = prepare(given.contender, case, given.threads, given.warm)
        answer(first=known["first"], note="; ".join(dict.fromkeys(notes.lines)))
        from . import memory

        for line in sys.stdin:
            word, *rest = line.split()
            if word == "go":
                answer(seconds=timed(int(rest[0])))
            elif word == "peak":
                known |= {"steps": memory.peak(), "life": memory.peak_of_life()}
                answer(peak=known["life"], rise=known["life"] - known["before"], steps=known["steps"] - known["before"])
    except ModuleNotFoundError as error:
        answer(failed=f"not installed: {error.name}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        answer(failed=reason if reason.startswith("not available") else f"failed: {type(error).__name__}: {reason}")


if __name__ == "__main__":
    main()
