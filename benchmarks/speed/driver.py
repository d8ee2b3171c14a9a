"""Starts the contenders of a case, and asks them in turn, round by round."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case
from .contenders import PEAK, taking_part

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 900.0  # seconds that an answer may take
PAUSE = 0.02  # seconds in which the threads of the last one go to sleep


@dataclass
class Result:
    """What was measured of one contender.

    Attributes:
        name: of the contender.
        failed: why there are no figures; "" where there are.
        note: what its library warned of; a step that could not be compiled, say.
        first: seconds from an imported library to the end of the first step, building and compiling included.
        seconds: of one step, epoch or evaluation, by round.
        peak: the most memory that its process held, in MiB.
        rise: the same over what it held right before the model was built.
        steps: the most memory that the steps held above what there was before the model was built, in MiB; 0 where it
            was not measured.
    """

    name: str
    failed: str = ""
    note: str = ""
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0
    rise: float = 0.0
    steps: float = 0.0


class Gone(RuntimeError):
    """A worker that has no figures to give."""


class Worker:
    """A contender's process."""

    def __init__(
        self, name: str, case: Case, threads: int, small: bool, verbose: bool = False, warm: bool = False
    ) -> None:
        command = [sys.executable, "-m", f"{__package__}.worker", name, case.name, "--threads", str(threads)]
        command += ["--images", str(case.images)]
        self.process = subprocess.Popen(
            command + ["--small"] * small + ["--warm"] * warm,
            cwd=ROOT,
            env=os.environ | limits(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            text=True,
        )

    def ask(self, line: str = "") -> dict[str, Any]:
        """The answer to a line, or the one that it gives unasked. Raises Gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            if line:
                print(line, file=self.process.stdin, flush=True)
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
            text = self.process.stdout.readline() if ready else ""
        except BrokenPipeError:
            text = ""
        if not text:
            self.stop()
            raise Gone(f"failed: no answer in {LIMIT:.0f} s, or ended (code {self.process.returncode})")
        answer = json.loads(text)
        if "failed" in answer:
            raise Gone(answer["failed"])
        return answer

    def stop(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.communicate()


def limits(threads: int) -> dict[str, str]:
    """What holds every library to so many threads; XLA takes the number of cores that its process may use."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NPROC")
    several = "true" if threads > 1 else "false"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={several}".strip()
    return dict.fromkeys(names, str(threads)) | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def race(
    case: Case,
    only: Sequence[str] = (),
    rounds: int = 11,
    turn: float = 0.3,
    threads: int = 2,
    small: bool = False,
    verbose: bool = False,
) -> dict[str, Result]:
    """The results of a case by contender, after so many rounds with turns of so many seconds."""
    results = {name: Result(name) for name in taking_part(case, only)}
    workers: dict[str, Worker] = {}
    steps: dict[str, int] = {}

    def asked(name: str, line: str = "") -> dict[str, Any] | None:
        """An answer; None, and the reason noted, from one that has failed."""
        try:
            return workers[name].ask(line)
        except Gone as gone:
            results[name].failed = str(gone)
            workers.pop(name).stop()
            _say(f"{case.name}: {name} {gone}")
            return None

    try:
        for name, result in results.items():  # one after the other: they compile
            workers[name] = Worker(name, case, threads, small, verbose)
            if ready := asked(name):
                result.first, result.note = ready["first"], ready["note"]
                _say(f"{case.name}: {name}, first step {result.first:.1f} s")
                one = asked(name, "go 1") if case.measure != "epoch" or name == PEAK else {"seconds": turn}
                steps[name] = max(1, round(turn / one["seconds"])) if one else 1
        for r in range(rounds):
            _say(f"{case.name}: round {r + 1} of {rounds}")
            names = list(results)
            shift = r % len(names)
            for name in names[shift:] + names[:shift]:
                if name in workers and (answer := asked(name, f"go {steps[name]}")):
                    results[name].seconds.append(answer["seconds"] / steps[name])
                    time.sleep(PAUSE)
        for name, result in results.items():
            if name in workers and (answer := asked(name, "peak")):
                result.peak, result.rise = answer["peak"], answer["rise"]
    finally:
        for worker in workers.values():
            worker.stop()
    for name, result in results.items():
        if case.memory and name != PEAK and not result.failed:
            result.steps = memory_of_steps(Worker(name, case, threads, small, verbose, warm=True))
    return results


def memory_of_steps(worker: Worker, steps: int = 5) -> float:
    """MiB that the steps of a contender hold, from a process in which everything was loaded before."""
    try:
        worker.ask()
        worker.ask(f"go {steps}")
        return worker.ask("peak")["steps"]
    except Gone:
        return 0.0
    finally:
        worker.stop()


def _say(line: str) -> None:
    """How far it has come, on standard error."""
    print(line, file=sys.stderr, flush=True)
