"""The seconds of fresh processes: an import, and the help of the command line, one after the other, round by round."""

from __future__ import annotations

import subprocess
import sys
import time

from .driver import ROOT, Result

OURS, THEIRS, TORCH, HELP = "import pyrovae", "import torch, pyro", "import torch", "pyrovae --help"
COMMANDS = {
    OURS: ["-c", OURS],
    THEIRS: ["-c", THEIRS],
    TORCH: ["-c", TORCH],
    HELP: ["-m", "pyrovae", "--help"],
}


def race(rounds: int = 7) -> dict[str, Result]:
    """The seconds of every command by round, after one round that is not counted."""
    results = {name: Result(name) for name in COMMANDS}
    for r in range(rounds + 1):
        names = list(COMMANDS)
        shift = r % len(names)
        for name in names[shift:] + names[:shift]:
            if results[name].failed:
                continue
            started = time.perf_counter()
            done = subprocess.run([sys.executable, *COMMANDS[name]], cwd=ROOT, capture_output=True)
            seconds = time.perf_counter() - started
            if done.returncode:
                results[name].failed = f"failed: code {done.returncode}"
            elif r == 0:
                results[name].first = seconds
            else:
                results[name].seconds.append(seconds)
    return results
