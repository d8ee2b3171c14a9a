"""What is told below the equations and beside them: the table of sites, the counts of parameters, the notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ..program.graph import Node, Plate
from ..program.sites import FACTOR, unwrapped
from ..program.structure import Factor, Structure
from .names import plate_label, runs, shortened, split

HEADS = ("site", "in p", "in q", "values", "shape", "plates", "role")


def table(structure: Structure, letters: dict[str, str]) -> str:
    """A row for each site, and one for a run of like sites; columns that say nothing are left out."""
    p, q = ({f.name: f.node for f in side or ()} for side in (structure.p, structure.q))
    rows: dict[str, tuple[str, ...]] = {}
    for name, node in structure.nodes.items():
        factor = node.family == FACTOR
        rows[name] = (
            ("pyro.factor" if factor else node.family) if name in p else "",
            q[name].family if name in q else "",
            "" if factor else _values(node),
            "" if factor else str(list(node.event_shape)),
            ", ".join(_plate(plate, letters.get(plate.name)) for plate in node.plates),
            _role(structure, node, name in p, q.get(name)),
        )
    lines = [HEADS, *((" ".join(shortened(run, str, "…")), *rows[run[0]]) for run in _alike(rows))]
    used = [k for k, head in enumerate(HEADS) if head in ("site", "role") or any(line[k] for line in lines[1:])]
    widths = {k: max(len(line[k]) for line in lines) for k in used}
    return "\n".join("   ".join(line[k].ljust(widths[k]) for k in used).rstrip() for line in lines)


def _alike(rows: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """Sites z_0, z_1, ... with equal rows together, though others stand between them."""
    groups: dict[Any, list[str]] = {}
    for name, row in rows.items():
        stem, number = split(name)
        groups.setdefault(name if number is None else (stem, row), []).append(name)
    return [run for names in groups.values() for run in runs(names)]


def _plate(plate: Plate, letter: str | None) -> str:
    """A plate with its index in the formula."""
    return f"{letter}: {plate_label(plate)}" if letter else plate_label(plate)


def _role(structure: Structure, node: Node, in_p: bool, q: Node | None) -> str:
    if node.family == FACTOR:
        return "factor"
    if node.observed:
        return "observed"
    if node.name in structure.summed:
        return "summed over"
    role = "latent" if node.local or not any(f.node.local for f in structure.p) else "global latent"
    if q is not None and q.marked:
        role += ", summed over in q"
    if not in_p:
        return role + ", in q alone"
    return role + ", not in q" if structure.q is not None and q is None else role


# Values


def _values(node: Node) -> str:
    """Where one number of a value lies, or the whole value where it is one thing."""
    try:
        support = unwrapped(node.distribution).support
    except (NotImplementedError, AttributeError):
        return ""
    return _space(support)


def _space(support: Any) -> str:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(base := getattr(support, "base", None), constraints.Constraint):  # or missing
        return _space(base)
    for known, text in _SPACES:
        if support is known:
            return text
    low, high = (_bound(getattr(support, f"{side}_bound", None)) for side in ("lower", "upper"))
    if isinstance(support, constraints.integer_interval):
        return f"{low}..{high}"
    if low and high:
        return f"[{low}, {high}]"
    if low:
        return f"({low}, ∞)"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(support).__name__.strip("_")).replace("_", " ").lower()


_SPACES: list[tuple[Any, str]] = [
    (constraints.real, "ℝ"),
    (constraints.boolean, "{0, 1}"),
    (constraints.nonnegative, "[0, ∞)"),
    (constraints.nonnegative_integer, "0, 1, 2, …"),
    (constraints.simplex, "simplex"),
    (constraints.one_hot, "one-hot"),
]


def _bound(value: Any) -> str:
    """A bound as a number; a letter where it is another one for every datum, nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, Tensor):
        if value.numel() == 0 or not torch.equal(value, value.flatten()[0].expand_as(value)):
            return "n"
        value = value.flatten()[0].item()
    return f"{value:g}"


# Counts and notes


def counts(structure: Structure) -> list[str]:
    """The number of parameters of p, and of q if there is a guide."""
    sides = [structure.p] if structure.q is None else [structure.p, structure.q]
    if not structure.parameters:
        return [""] * len(sides)
    numbers = [f"{_size(structure, _reached(side)):,}" for side in sides]
    width = max(map(len, numbers))
    return [f"{n:>{width}} parameter{'' if n == '1' else 's'}" for n in numbers]


def notes(structure: Structure, argument: str) -> list[str]:
    """What p and q share, what neither depends on, what is frozen, and what signs of the formulae mean."""
    p, q = _reached(structure.p), _reached(structure.q or ())
    every = set(range(len(structure.parameters)))
    said = []
    if n := _size(structure, p & q):
        said.append(f"{n:,} parameters are shared by p and q")
    if n := _size(structure, every - p - q):
        said.append(f"{n:,} parameters are " + ("not of p" if structure.q is None else "of neither"))
    if n := _size(structure, (i for i in every if not structure.parameters[i].requires_grad)):
        said.append(f"{n:,} parameters are frozen, {_size(structure, every) - n:,} trained")
    said += [
        f"{f.name}_<: the distribution of {f.name} is computed from {f.name} itself, as in an autoregressive model"
        for f in structure.p
        if f.reads_itself
    ]
    if any(f.reads_more for f in structure.p):
        said.append(f"{argument}: the argument of the program, read beside what its observed sites say")
    return said


def _reached(factors: Iterable[Factor]) -> set[int]:
    return {i for f in factors for i in f.parameters}


def _size(structure: Structure, places: Iterable[int]) -> int:
    return sum(structure.parameters[i].numel() for i in places)
