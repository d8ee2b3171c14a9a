"""Names of sites and plates, as they are written: numbers at their ends, runs z_0, …, z_9, and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..program.graph import Plate
from ..program.sites import DATA

RUN = 4  # so many sites z_0, z_1, ... in a row are written as z_0, …, z_9
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
    "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
}  # fmt: skip


def split(name: str) -> tuple[str, int | None]:
    """A name without the number at its end, and that number, if there is one.

    >>> split("z_12"), split("z12"), split("z_012")
    (('z', 12), ('z', 12), ('z_012', None))
    """
    found = re.fullmatch(r"(.*?[^\W\d_])_?(\d+)", name)
    return (found[1], int(found[2])) if found and str(int(found[2])) == found[2] else (name, None)


def runs(names: Iterable[str]) -> list[list[str]]:
    """Names in a row whose number goes up or down by one are a run, where it is long enough to be shortened.

    >>> runs(["a", "z_0", "z_1", "z_2", "z_3"])
    [['a'], ['z_0', 'z_1', 'z_2', 'z_3']]
    """
    found: list[list[str]] = []
    for name in names:
        if found and _continues(found[-1], name):
            found[-1].append(name)
        else:
            found.append([name])
    return [part for run in found for part in ([run] if len(run) >= RUN else [[n] for n in run])]


def _continues(run: list[str], name: str) -> bool:
    (stem, number), (last_stem, last) = split(name), split(run[-1])
    if number is None or last is None or stem != last_stem or abs(number - last) != 1:
        return False
    before = split(run[-2])[1] if len(run) > 1 else None
    return before is None or number - last == last - before


def shortened(names: Iterable[str], write: Callable[[str], str], dots: str) -> list[str]:
    """Names as they are written, with dots for the middle of a run.

    >>> shortened(["a", "z_0", "z_1", "z_2", "z_3"], str.upper, "…")
    ['A', 'Z_0', '…', 'Z_3']
    """
    found = []
    for first, *rest in runs(names):
        found += [write(first), dots, write(rest[-1])] if rest else [write(first)]
    return found


def symbol(name: str, index: str = "") -> str:
    """A site's name as LaTeX, with an index.

    >>> symbol("z_1"), symbol("theta", "n"), symbol("log_scale")
    ('z_1', '\\\\theta_n', '\\\\mathrm{log}_{\\\\mathrm{scale}}')
    """
    stem, number = split(name)
    first, *rest = stem.split("_") if stem.strip("_") else [stem]
    below = [*(_word(r) for r in rest if r), *([] if number is None else [str(number)]), *([index] if index else [])]
    inside = ",".join(below)
    return _word(first) + ("" if not inside else f"_{inside}" if len(inside) == 1 else f"_{{{inside}}}")


def _word(word: str) -> str:
    if word in GREEK:
        return f"\\{word}"
    plain = re.sub(r"([_#$%&{}])", r"\\\1", word)
    return plain if len(plain) == 1 else rf"\mathrm{{{plain}}}"


def plate_label(plate: Plate) -> str:
    """A plate's name and size, but for one over the data as they are given."""
    return plate.name if plate.name == DATA and plate.size == plate.rows else f"{plate.name} {plate.size:,}"
