"""The bars: what pyrovae is to reach, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import imports
from .contenders import FLUSHED, HAND
from .driver import Result
from .ratios import Spread, difference, memory_ratio, ratio

Measured = Mapping[str, Mapping[str, Result]]  # case, contender


@dataclass(frozen=True)
class Bar:
    """At most `limit`, of a contender against another one."""

    what: str
    case: str
    ours: str
    theirs: str
    limit: float
    of: Callable[[Result | None, Result | None], Spread | None] = ratio


_ALWAYS, _NEVER, _ONE = "ours-always", "ours-never", "ours-one-always"

BARS = [
    Bar("step, MLP, B = 128: compiled / by hand", "mlp128", _ALWAYS, HAND, 0.80),
    Bar("step, MLP, B = 128: compiled / Pyro", "mlp128", _ALWAYS, "pyro", 0.50),
    Bar("step, MLP, B = 128: compiled / NumPyro's jitted step", "mlp128", _ALWAYS, "numpyro", 1.0),
    Bar("IWAE, K = 50, B = 100: compiled / by hand", "iwae100", _ALWAYS, HAND, 0.80),
    Bar("IWAE, K = 50, B = 100: compiled / by hand, denormals flushed", "iwae100", _ALWAYS, FLUSHED, 0.80),
    Bar("IWAE, K = 50, B = 100: one backward particle / by hand, denormals flushed", "iwae100", _ONE, FLUSHED, 0.45),
    Bar("IWAE, K = 50, B = 100: compiled / Pyro, vectorised", "iwae100", _ALWAYS, "pyro", 0.55),
    Bar("IWAE, K = 50, B = 100: one backward particle / by hand", "iwae100", _ONE, HAND, 0.45),
    Bar("epoch of MNIST: compiled / Pyro's tutorial", "epoch", _ALWAYS, "pyro", 0.17),
    Bar("epoch of MNIST: compiled / Pythae", "epoch", _ALWAYS, "pythae", 0.40),
    Bar("epoch of MNIST: compiled / NumPyro's fori_loop", "epoch", _ALWAYS, "numpyro-loop", 1.05),
    *(
        Bar(f"step, {words}: not compiled / by hand", case, _NEVER, HAND, 1.10)
        for case, words in {
            "mlp20": "MLP, B = 20",
            "mlp128": "MLP, B = 128",
            "mlp1000": "MLP, B = 1000",
            "iwae20": "IWAE, B = 20",
            "iwae100": "IWAE, B = 100",
            "conv": "convolutions",
        }.items()
    ),
    Bar("IWAE, K = 50, B = 100: memory of the steps, compiled / by hand", "iwae100", _ALWAYS, HAND, 1.0, memory_ratio),
    Bar(
        "IWAE, K = 50, B = 100: memory of the steps, not compiled / by hand", "iwae100", _NEVER, HAND, 1.0, memory_ratio
    ),
    Bar("`import pyrovae` / `import torch, pyro`", "import", imports.OURS, imports.THEIRS, 1.15),
    Bar("`pyrovae --help` less `import torch`, seconds", "import", imports.HELP, imports.TORCH, 1.0, difference),
]


def rows(measured: Measured) -> list[list[str]]:
    """What is wanted, what was measured, and whether it is met; a bar whose case was not run is left out."""
    found = []
    for bar in BARS:
        if bar.case not in measured:
            continue
        of_case = measured[bar.case]
        ours, theirs = of_case.get(bar.ours), of_case.get(bar.theirs)
        s = bar.of(ours, theirs)
        if s is None:
            lacking = [r.failed for r in (ours, theirs) if r is not None and r.failed]
            found.append([bar.what, f"≤ {bar.limit:.2f}", "—", lacking[0] if lacking else "not measured"])
        else:
            told = f"{s.median:.2f} ({s.low:.2f} to {s.high:.2f})"
            found.append([bar.what, f"≤ {bar.limit:.2f}", told, "met" if s.median <= bar.limit else "missed"])
    return found
