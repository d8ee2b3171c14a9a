"""`describe`: the equations with their counts, the table and the notes, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..program.structure import read_structure
from .formulae import Equation, Latex, Text, Writer
from .table import counts, notes, table

WIDTH = 100  # characters that a line may fill
FACTORS = 6  # in a line of LaTeX


@dataclass(frozen=True, repr=False)
class Description:
    """What `describe` says: `text`, which is what it prints as, and `latex`, which a notebook shows."""

    text: str
    latex: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"


def describe(vae: Any, x: Tensor) -> Description:
    """The factorisation of p and q with its parameters, and every site with its distributions, values and plates.

    It is read off one run of each program, so what a site depends on is what it depended on there. For a program whose
    sites are all in the data plate the formula is that of one datum; with a site outside, its product is written out.
    Parameters of p are those that log p(x, z) is a function of at fixed z, and of q those of log q(z | x).

    Args:
        vae: anything with a Pyro `model(x)`, and a `guide(x)` if there is one.
        x: data [N, *event], of which 16 rows are looked at.

    Raises:
        ValueError: for something without a model, data that are no tensor, and a program that does not run on them.

    >>> import torch, pyrovae as pv
    >>> x = torch.rand(16, 6).round()
    >>> print(pv.describe(pv.models.VAE.build(x, latent=2, hidden=[5]), x))
    p(x, z) = p(z) p(x | z)     51 parameters
    q(z | x) = q(z | x)         59 parameters
    <BLANKLINE>
    site   in p        in q     values   shape   plates   role
    z      Normal      Normal   ℝ        [2]     data     latent
    x      Bernoulli            {0, 1}   [6]     data     observed
    """
    structure = read_structure(vae, x, "describe")
    writer = Writer(structure, Text())
    parts = [_beside(writer.equations(), counts(structure)), table(structure, writer.letters)]
    parts += ["\n".join(said)] if (said := notes(structure, writer.argument)) else []
    return Description("\n\n".join(parts), _aligned(Writer(structure, Latex(structure)).equations()))


def _beside(equations: list[Equation], numbers: list[str]) -> str:
    """Equations, broken between factors where they are long, each with its count in one column."""
    blocks = [_wrapped(f"{left} = ", right) for left, right in equations]
    edge = max(len(line) for block in blocks for line in block)
    lines = []
    for block, number in zip(blocks, numbers, strict=True):
        lines += [*block[:-1], f"{block[-1]:{edge}}     {number}" if number else block[-1]]
    return "\n".join(lines)


def _wrapped(left: str, pieces: list[str]) -> list[str]:
    """Lines of no more than WIDTH, where the pieces let them be."""
    indent = " " * min(len(left), 12)
    lines, line = [], left
    for piece in pieces:
        if len(line) + len(piece) > WIDTH and line.strip() and line != left:
            lines.append(line.rstrip())
            line = indent
        line += piece + " "
    return [*lines, line.rstrip()]


def _aligned(equations: list[Equation]) -> str:
    """LaTeX of the equations, broken where they are long."""
    lines = []
    for left, right in equations:
        broken = [r"\, ".join(right[i : i + FACTORS]) for i in range(0, len(right), FACTORS)]
        lines.append(f"{left} &= " + " \\\\\n&\\quad ".join(broken))
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
