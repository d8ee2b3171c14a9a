"""The equations of p and q, written in one of two scripts: plain text or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ..program.graph import Plate
from ..program.sites import DATA
from ..program.structure import Factor, Structure
from .names import RUN, shortened, split, symbol

REPEATS = 3  # so many like factors in a row are written as a product
Equation = tuple[str, list[str]]  # its left side, and its right side in pieces


class Text:
    """Formulae in plain text: sites as they are named in the program."""

    dots, given = "…", " | "

    def name(self, name: str, index: str = "") -> str:
        """x_n, or log_scale[n]."""
        if not index:
            return name
        return f"{name}[{index}]" if "_" in name else f"{name}_{index}"

    def step(self, stem: str, offset: str, index: str) -> str:
        """z_{t-1}, or with indices of plates z_{t-1}[n]."""
        name = f"{stem}_{offset}" if len(offset) == 1 else f"{stem}_{{{offset}}}"
        return name + (f"[{index}]" if index else "")

    def total(self, names: list[str]) -> str:
        """The sign of a sum over these sites."""
        return f"Σ_{names[0]}" if len(names) == 1 else f"Σ_{{{', '.join(names)}}}"

    def product(self, index: str, until: str = "") -> str:
        """The sign of a product over an index, from t=1 until a number if there is one."""
        return f"Π_{{{index}..{until}}}" if until else f"Π_{index}"

    def density(self, letter: str, inside: str, parameters: bool = False) -> str:
        """p(inside)."""
        return f"{letter}({inside})"


class Latex:
    """Formulae in LaTeX: θ in factors of p that have parameters, φ in those of q, where no site has that name."""

    dots, given = r"\ldots", r" \mid "

    def __init__(self, structure: Structure) -> None:
        self.subscripts = {} if structure.nodes.keys() & {"theta", "phi"} else {"p": r"_\theta", "q": r"_\phi"}

    def name(self, name: str, index: str = "") -> str:
        """x_n."""
        return symbol(name, index)

    def step(self, stem: str, offset: str, index: str) -> str:
        """z_{t-1}, or with indices of plates z_{t-1,n}."""
        return f"{symbol(stem)}_{{{offset}{',' + index if index else ''}}}"

    def total(self, names: list[str]) -> str:
        """The sign of a sum over these sites."""
        return rf"\sum_{{{', '.join(names)}}}"

    def product(self, index: str, until: str = "") -> str:
        """The sign of a product over an index, from t=1 until a number if there is one."""
        return rf"\prod_{{{index}}}" + (f"^{{{until}}}" if until else "")

    def density(self, letter: str, inside: str, parameters: bool = False) -> str:
        """p(inside), with θ or φ where it has parameters."""
        return f"{letter}{self.subscripts.get(letter, '') if parameters else ''}({inside})"


class Writer:
    """Writes the equations of p and q in one script.

    Attributes:
        letters: the index of each plate that has one.
        argument: what the program's argument is called.
    """

    def __init__(self, structure: Structure, script: Text | Latex) -> None:
        self.structure, self.script, self.nodes = structure, script, structure.nodes
        self.argument = "data" if "x" in structure.observed else "x"
        taken = set(self.nodes) | {split(n)[0] for n in self.nodes}
        every = [f.node for f in (*structure.p, *(structure.q or ()))]
        # one datum needs no index: its plate is written where something is outside of it
        per_datum = all(node.local for node in every)
        self.letters: dict[str, str] = {}
        for name in dict.fromkeys(p.name for node in every for p in node.plates):
            if not (name == DATA and per_datum):
                wish = "n" if name == DATA else name[:1].lower()
                self.letters[name] = _letter(wish + "nijklmrs", taken)
                taken.add(self.letters[name])
        self.counter = _letter("tlkijmrs", taken)

    def equations(self) -> list[Equation]:
        """That of p, and of q if there is a guide."""
        return [self._p()] if self.structure.q is None else [self._p(), self._q(self.structure.q)]

    def _p(self) -> Equation:
        p, summed = self.structure.p, set(self.structure.summed)
        latent = [f.name for f in p if not f.node.observed and f.name not in summed]
        names = self._listed([*self.structure.observed, *latent])
        return self._left("p", p, names, self._more(p)), self._group("p", p, 0, summed)

    def _q(self, q: list[Factor]) -> Equation:
        read = {n for f in q for n in f.given}
        given = self._listed([n for n in self.structure.observed if n in read])
        names = self._listed([f.name for f in q])
        return self._left("q", q, names, given + self._more(q)), self._group("q", q, 0, set())

    def _left(self, letter: str, factors: list[Factor], names: list[str], given: list[str]) -> str:
        return self._density(letter, ", ".join(names), given, any(f.parameters for f in factors))

    def _density(self, letter: str, name: str, given: list[str], parameters: bool) -> str:
        inside = name + (self.script.given + ", ".join(given) if given else "")
        return self.script.density(letter, inside, parameters)

    def _more(self, factors: list[Factor]) -> list[str]:
        return [self.script.name(self.argument)] if any(f.reads_more for f in factors) else []

    def _listed(self, names: list[str]) -> list[str]:
        """Sites, z1 before z2, long runs shortened."""
        stems = [split(n)[0] for n in names]
        ordered = sorted(names, key=lambda n: (stems.index(split(n)[0]), split(n)[1] or 0))
        return shortened(ordered, self.script.name, self.script.dots)

    def _group(self, letter: str, factors: Sequence[Factor], depth: int, summed: set[str]) -> list[str]:
        """The factors inside the same plates: those in inner ones as a product, in brackets if more comes after it."""
        pieces: list[str] = []
        parts = [(key, list(g)) for key, g in groupby(factors, lambda f: f.node.plates[depth : depth + 1])]
        for i, (plates, part) in enumerate(parts):
            if not plates:
                pieces += self._row(letter, part)
                continue
            index = self.letters.get(plates[0].name)
            inside = self._group(letter, part, depth + 1, summed)
            closed = i < len(parts) - 1 and len(inside) > 1
            pieces += inside if index is None else _signed(self.script.product(index), inside, closed)
        # every sum is in front: it may go over all of the group, and so the next needs no brackets
        own = [f.name for f in factors if f.name in summed and len(f.node.plates) == depth]
        return _signed(self._sum(own), pieces) if own else pieces

    def _sum(self, names: list[str]) -> str:
        few = len(names) < RUN
        return self.script.total(
            [self._indexed(n, self.nodes[n].plates) for n in names] if few else self._listed(names)
        )

    def _row(self, letter: str, factors: list[Factor]) -> list[str]:
        """Factors in a row; those of one pattern, as of a chain, as a product over their number."""
        pieces, i = [], 0
        while i < len(factors):
            period, repeats = max(((n, _repeats(factors, i, n)) for n in (1, 2, 3, 4)), key=lambda r: (r[1] - 1) * r[0])
            later = any(_repeats(factors, i + k, period) == repeats for k in range(1, period))
            if repeats < REPEATS or later:  # from a later one, as many: x_0 goes with z_0, not with z_1
                pieces.append(self._factor(letter, factors[i]))
                i += 1
                continue
            first, last = (split(factors[i + k * period].name)[1] or 0 for k in (0, repeats - 1))
            low, high = sorted([first, last])
            product = self.script.product(f"{self.counter}={low}", str(high))
            block = zip(factors[i : i + period], factors[i + period : i + 2 * period], strict=True)
            inside = [self._factor(letter, a, _moving(a, b), first) for a, b in block]
            i += repeats * period
            pieces += _signed(product, inside, closed=i < len(factors) and len(inside) > 1)
        return pieces

    def _factor(self, letter: str, f: Factor, moving: Iterable[str] = (), first: int = 0) -> str:
        """p(name | given); the names that move with a product over their number are written with its index."""

        def write(name: str) -> str:
            plates = [p for p in self.nodes[name].plates if p in f.node.plates]
            if name not in moving:
                return self._indexed(name, plates)
            stem, number = split(name)
            away = (number or 0) - first
            offset = self.counter if not away else f"{self.counter}{away:+d}"
            return self.script.step(stem, offset, self._indices(plates))

        given = shortened(f.given, write, self.script.dots)
        if f.reads_itself:
            given.append(self.script.name(f.name, "<"))  # what comes before in x
        if f.reads_more:
            given.append(self.script.name(self.argument, self.letters.get(DATA, "") if f.node.local else ""))
        if f.is_factor:
            return f"{self.script.name(f.name)}({', '.join(given)})"
        return self._density(letter, write(f.name), given, bool(f.parameters))

    def _indices(self, plates: Iterable[Plate]) -> str:
        return "".join(self.letters.get(p.name, "") for p in plates)

    def _indexed(self, name: str, plates: Iterable[Plate]) -> str:
        return self.script.name(name, self._indices(plates))


def _signed(sign: str, pieces: list[str], closed: bool = False) -> list[str]:
    """Pieces after the sign of a sum or product, in brackets where it ends before the formula does."""
    if closed:
        pieces = ["[" + pieces[0], *pieces[1:-1], pieces[-1] + "]"]
    return [f"{sign} {pieces[0]}", *pieces[1:]]


def _letter(wishes: str, taken: set[str]) -> str:
    return next((c for c in wishes if c.isalpha() and c not in taken), "i")


def _repeats(factors: list[Factor], i: int, period: int) -> int:
    """How many blocks of so many factors, from the i-th, differ only in numbers that all move by one."""
    block, moves, count = factors[i : i + period], None, 1
    while len(following := factors[i + count * period : i + (count + 1) * period]) == period:
        steps = [_steps(a, b) for a, b in zip(block, following, strict=True)]
        if any(not s or s[0] == 0 for s in steps) or moves not in (None, steps):
            break
        every = {m for s in steps for m in s or ()}
        if not (every <= {0, 1} or every <= {0, -1}):
            break
        moves, block, count = steps, following, count + 1
    return count


def _steps(a: Factor, b: Factor) -> tuple[int, ...] | None:
    """By how much the numbers of the site and of what it is given differ, or None where more than numbers does."""
    if a.is_factor or _kind(a) != _kind(b):
        return None
    pairs = [(split(m), split(n)) for m, n in zip(_sites(a), _sites(b), strict=True)]
    if any(m[0] != n[0] or (m[1] is None) != (n[1] is None) for m, n in pairs):
        return None
    return tuple((n[1] or 0) - (m[1] or 0) for m, n in pairs)


def _kind(f: Factor) -> tuple[bool | int, ...]:
    return f.is_factor, f.reads_itself, f.reads_more, bool(f.parameters), f.node.marked, len(f.given)


def _sites(f: Factor) -> tuple[str, ...]:
    return f.name, *f.given


def _moving(a: Factor, b: Factor) -> set[str]:
    return {m for m, n in zip(_sites(a), _sites(b), strict=True) if m != n}
