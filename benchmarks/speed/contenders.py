"""Who takes part: a name, the module that builds it, and its options.

The module has a function for each measure that it takes part in, `step`, `evidence` or `epoch`, called with the case,
its data as an array, and the options. It returns `go`: go(n) does so many steps, evaluations or epochs, and returns
when they are done: their seconds where the library's own clock is the one to read, None where it is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cases import Case


@dataclass(frozen=True)
class Contender:
    """One row of a table."""

    title: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()  # whose versions are told


def _ours(title: str, **options: Any) -> Contender:
    return Contender(f"pyrovae, {title}", "ours", options, ("pyrovae",))


HAND, FLUSHED, PEAK = "pytorch", "pytorch-flushed", "matmul"

CONTENDERS: dict[str, Contender] = {
    "ours": _ours("`pv.evaluate`"),
    "ours-always": _ours('compile="always"', compile="always"),
    "ours-captured": _ours("captured", compile="captured"),
    "ours-never": _ours('compile="never"', compile="never"),
    "ours-one-always": _ours('backward_particles=1, compile="always"', compile="always", backward_particles=1),
    "ours-one-never": _ours('backward_particles=1, compile="never"', compile="never", backward_particles=1),
    HAND: Contender("PyTorch by hand", "by_hand", packages=("torch",)),
    FLUSHED: Contender("PyTorch by hand, denormals flushed", "by_hand", {"flush": True}),
    "pytorch-compiled": Contender("PyTorch by hand, `torch.compile`", "by_hand", {"compiled": True}),
    "pyro": Contender("Pyro, `SVI.step`", "with_pyro", packages=("pyro-ppl",)),
    "pyro-inline": Contender("Pyro, `SVI.step`, loader in the process", "with_pyro", {"workers": 0}),
    "numpyro": Contender("NumPyro, jitted step", "with_numpyro", packages=("numpyro", "jax")),
    "numpyro-donated": Contender("NumPyro, jitted step, donated state", "with_numpyro", {"donated": True}),
    "numpyro-loop": Contender("NumPyro, `lax.fori_loop`", "with_numpyro", {"loop": True}),
    "pythae": Contender("Pythae's trainer", "with_pythae", packages=("pythae",)),
    PEAK: Contender("matmul, 2048³ float32", "matmul"),
}

_NUMPYRO = ["numpyro", "numpyro-donated", "numpyro-loop"]
_USUAL = {
    "step": ["ours-always", "ours-never", HAND, "pyro", *_NUMPYRO],
    "epoch": ["ours-always", "ours-never", HAND, "pyro", "pythae", "numpyro-loop"],
    "evidence": ["ours", HAND],
}


def taking_part(case: Case, only: Sequence[str] = ()) -> list[str]:
    """The usual names of a case, or those that are asked for; and always the matmul."""
    usual = list(_USUAL[case.measure])
    if case.measure == "step" and case.particles:
        usual[2:2] = ["ours-one-always", "ours-one-never"]
        usual.insert(usual.index(HAND) + 1, FLUSHED)
    return [*(only or usual), PEAK]
