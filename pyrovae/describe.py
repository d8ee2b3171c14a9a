"""A program as maths: the factorisation of p and of q, the sites, and the number of parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from .program.graph import Node, Plate
from .program.sites import DATA, unwrapped
from .program.structure import FACTOR, Factor, Structure, read_structure

WIDTH = 100  # characters that a line may fill
RUN = 4  # so many sites z_0, z_1, ... in a row are written as z_0, …, z_9
REPEATS = 3  # so many like factors in a row are written as a product
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
    "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
}  # fmt: skip


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
    text, latex = _Writer(structure, _Text()), _Writer(structure, _Latex(structure))
    sides = [text.p(), *([] if structure.q is None else [text.q()])]
    parts = [_beside(sides, _counts(structure)), _table(structure, text.letters)]
    notes = [*_parameter_notes(structure), *_notes(structure)]
    equations = [latex.p(), *([] if structure.q is None else [latex.q()])]
    aligned = " \\\\\n".join(f"{left} &= {_broken(right)}" for left, right in equations)
    return Description(
        "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]),
        f"\\begin{{aligned}}\n{aligned}\n\\end{{aligned}}",
    )


# Names


def _split(name: str) -> tuple[str, int | None]:
    """ "z_12" and "z12" are ("z", 12); a name without a number at its end has None."""
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
    (stem, number), (last_stem, last) = _split(name), _split(run[-1])
    if number is None or last is None or stem != last_stem or abs(number - last) != 1:
        return False
    before = _split(run[-2])[1] if len(run) > 1 else None
    return before is None or number - last == last - before


def symbol(name: str, index: str = "") -> str:
    """A site's name as LaTeX, with an index.

    >>> symbol("z_1"), symbol("theta", "n"), symbol("log_scale")
    ('z_1', '\\\\theta_n', '\\\\mathrm{log}_{\\\\mathrm{scale}}')
    """
    stem, number = _split(name)
    first, *rest = stem.split("_") if stem.strip("_") else [stem]
    below = [*(_word(r) for r in rest if r), *([] if number is None else [str(number)]), *([index] if index else [])]
    inside = ",".join(below)
    return _word(first) + ("" if not inside else f"_{inside}" if len(inside) == 1 else f"_{{{inside}}}")


def _word(word: str) -> str:
    if word in GREEK:
        return f"\\{word}"
    plain = re.sub(r"([_#$%&{}])", r"\\\1", word)
    return plain if len(plain) == 1 else rf"\mathrm{{{plain}}}"


class _Text:
    """Formulae in plain text: sites as they are named in the program."""

    product, total, dots, given = "Π", "Σ", "…", " | "
    less = "<"

    def name(self, name: str, index: str = "") -> str:
        if not index:
            return name
        return f"{name}[{index}]" if "_" in name else f"{name}_{index}"

    def step(self, stem: str, offset: str, index: str) -> str:
        """z_{t-1}, or with indices of plates z_{t-1}[n]."""
        name = f"{stem}_{offset}" if len(offset) == 1 else f"{stem}_{{{offset}}}"
        return name + (f"[{index}]" if index else "")

    def over(self, sign: str, what: str, until: str = "") -> str:
        return f"{sign}_{what}" if not until else f"{sign}_{{{what}..{until}}}"

    def density(self, letter: str, inside: str, parameters: bool = False) -> str:
        return f"{letter}({inside})"


class _Latex:
    """Formulae in LaTeX: θ in factors of p that have parameters, φ in those of q, where no site has that name."""

    product, total, dots, given = r"\prod", r"\sum", r"\ldots", r" \mid "
    less = "<"

    def __init__(self, structure: Structure) -> None:
        names = {f.name for f in (*structure.p, *(structure.q or ()))}
        self.subscripts = {} if names & {"theta", "phi"} else {"p": r"_\theta", "q": r"_\phi"}

    def name(self, name: str, index: str = "") -> str:
        return symbol(name, index)

    def step(self, stem: str, offset: str, index: str) -> str:
        return f"{self.name(stem)}_{{{offset}{',' + index if index else ''}}}"

    def over(self, sign: str, what: str, until: str = "") -> str:
        return f"{sign}_{{{what}}}" + (f"^{{{until}}}" if until else "")

    def density(self, letter: str, inside: str, parameters: bool = False) -> str:
        return f"{letter}{self.subscripts.get(letter, '') if parameters else ''}({inside})"


# Formulae


class _Writer:
    """Writes both sides of the equations of p and q in one script."""

    def __init__(self, structure: Structure, script: Any) -> None:
        self.structure, self.script = structure, script
        factors = [*structure.p, *(structure.q or ())]
        self.nodes: dict[str, Node] = {f.name: f.node for f in reversed(factors)}  # as in p where it is in both
        self.argument = "data" if "x" in structure.observed else "x"
        taken = set(self.nodes) | {_split(n)[0] for n in self.nodes}
        # one datum needs no index: its plate is written where something is outside of it
        per_datum = all(f.node.local for f in factors)
        self.letters: dict[str, str] = {}
        for plate in {p.name: p for f in factors for p in f.node.plates}.values():
            if not (plate.name == DATA and per_datum):
                wish = "n" if plate.name == DATA else plate.name[:1].lower()
                self.letters[plate.name] = _letter(wish + "nijklmrs", taken)
                taken.add(self.letters[plate.name])
        self.counter = _letter("tlkijmrs", taken)

    def p(self) -> tuple[str, list[str]]:
        """The left side, and the right side in pieces."""
        s, summed = self.structure, set(self.structure.summed)
        latent = [f.name for f in s.p if not f.node.observed and f.name not in summed]
        left = self.names([*s.observed, *latent])
        if any(f.reads_more for f in s.p):
            left += self.script.given + self.script.name(self.argument)
        pieces = self.group("p", s.p, 0, summed)
        return self.script.density("p", left, any(f.parameters for f in s.p)), pieces

    def q(self) -> tuple[str, list[str]]:
        """The same for the guide."""
        factors = self.structure.q or []
        read = {n for f in factors for n in f.given} & set(self.structure.observed)
        given = [n for n in self.structure.observed if n in read]
        left = self.names([f.name for f in factors])
        conditions = [*([self.names(given)] if given else []), *self.more(factors)]
        if conditions:
            left += self.script.given + ", ".join(conditions)
        return self.script.density("q", left, any(f.parameters for f in factors)), self.group("q", factors, 0, set())

    def more(self, factors: Sequence[Factor]) -> list[str]:
        return [self.script.name(self.argument)] if any(f.reads_more for f in factors) else []

    def names(self, names: Iterable[str]) -> str:
        """A list of sites, long runs shortened."""
        dots = f", {self.script.dots}, "
        names = list(names)
        stems = [_split(n)[0] for n in names]
        ordered = sorted(names, key=lambda n: (stems.index(_split(n)[0]), _split(n)[1] or 0))  # z1, z2 for z2, z1
        return ", ".join(dots.join(map(self.script.name, [r[0], r[-1]] if len(r) > 1 else r)) for r in runs(ordered))

    def group(self, letter: str, factors: Sequence[Factor], depth: int, summed: set[str]) -> list[str]:
        """The factors inside the same plates: those in inner ones as a product, in brackets if more comes after it."""
        own = [f.name for f in factors if f.name in summed and len(f.node.plates) == depth]
        # every sum is in front: it may go over all of the group, and so the next needs no brackets
        sums = [] if not own else [self.script.over(self.script.total, self.sum_names(own))]
        pieces: list[str] = []
        parts = [(key, list(g)) for key, g in groupby(factors, lambda f: f.node.plates[depth : depth + 1])]
        for i, (plates, part) in enumerate(parts):
            if not plates:
                pieces += self.row(letter, part)
                continue
            index = self.letters.get(plates[0].name)
            inside = self.group(letter, part, depth + 1, summed)
            closed = i < len(parts) - 1 and len(inside) > 1
            pieces += inside if index is None else _signed(self.script.over(self.script.product, index), inside, closed)
        return _signed(sums[0], pieces) if sums else pieces

    def sum_names(self, names: list[str]) -> str:
        text = (
            ", ".join(self.indexed(n, self.nodes[n].plates) for n in names) if len(names) < RUN else self.names(names)
        )
        return text if len(names) == 1 else f"{{{text}}}" if isinstance(self.script, _Text) else text

    def row(self, letter: str, factors: list[Factor]) -> list[str]:
        """Factors in a row; those of one pattern, as of a chain, as a product over their number."""
        pieces, i = [], 0
        while i < len(factors):
            period, repeats = max(((n, _repeats(factors, i, n)) for n in (1, 2, 3, 4)), key=lambda r: (r[1] - 1) * r[0])
            later = any(_repeats(factors, i + k, period) == repeats for k in range(1, period))
            if repeats < REPEATS or later:  # from a later one, as many: x_0 goes with z_0, not with z_1
                pieces.append(self.factor(letter, factors[i]))
                i += 1
                continue
            first, last = (_split(factors[i + k * period].name)[1] or 0 for k in (0, repeats - 1))
            low, high = sorted([first, last])
            product = self.script.over(self.script.product, f"{self.counter}={low}", str(high))
            inside = [
                self.factor(letter, a, _moving(a, b), first)
                for a, b in zip(factors[i : i + period], factors[i + period :], strict=False)
            ]
            i += repeats * period
            pieces += _signed(product, inside, closed=i < len(factors) and len(inside) > 1)
        return pieces

    def factor(self, letter: str, f: Factor, moving: set[str] | None = None, first: int = 0) -> str:
        """p(name | given); the names that move with a product over their number are written with its index."""

        def write(name: str) -> str:
            plates = [p for p in self.nodes[name].plates if p in f.node.plates]
            if name not in (moving or ()):
                return self.indexed(name, plates)
            stem, number = _split(name)
            away = (number or 0) - first
            offset = self.counter if not away else f"{self.counter}{away:+d}"
            return self.script.step(stem, offset, self.indices(plates))

        given = [write(n) for n in f.given] if len(f.given) < RUN else self.shortened(f.given, write)
        given += [self.before(f)] if f.reads_itself else []
        given += [self.script.name(self.argument, self.letters.get(DATA, "") if f.node.local else "")] * f.reads_more
        if f.is_factor:
            return f"{self.script.name(f.name)}({', '.join(given)})"
        inside = write(f.name) + (self.script.given + ", ".join(given) if given else "")
        return self.script.density(letter, inside, bool(f.parameters))

    def shortened(self, names: Iterable[str], write: Callable[[str], str]) -> list[str]:
        parts = ([r[0], r[-1]] if len(r) > 1 else r for r in runs(names))
        return [
            t for p in parts for t in ([write(p[0]), self.script.dots, write(p[1])] if len(p) > 1 else [write(p[0])])
        ]

    def before(self, f: Factor) -> str:
        """x_<: what comes before in x."""
        return self.script.name(f.name, self.script.less)

    def indices(self, plates: Iterable[Plate]) -> str:
        return "".join(self.letters.get(p.name, "") for p in plates)

    def indexed(self, name: str, plates: Iterable[Plate]) -> str:
        return self.script.name(name, self.indices(plates))


def _signed(sign: str, pieces: list[str], closed: bool = False) -> list[str]:
    """Pieces after the sign of a sum or product, in brackets where it ends before the formula does."""
    last = pieces[-1] + "]" if closed else pieces[-1]
    pieces = [*pieces[:-1], last]
    return [f"{sign} {'[' if closed else ''}{pieces[0]}", *pieces[1:]]


def _letter(wishes: str, taken: set[str]) -> str:
    return next((c for c in wishes if c.isalpha() and c not in taken), "i")


def _repeats(factors: list[Factor], i: int, period: int) -> int:
    """How many blocks of so many factors, from the i-th, differ only in numbers that all move by one."""
    block = factors[i : i + period]
    moves = None
    count = 1
    while len(following := factors[i + count * period : i + (count + 1) * period]) == period:
        steps = [_steps(a, b) for a, b in zip(block, following, strict=True)]
        flat = {m for s in steps for m in (s or ())}
        if any(s is None for s in steps) or not (flat <= {0, 1} or flat <= {0, -1}):
            break
        if any(not s or s[0] == 0 for s in steps) or (moves is not None and steps != moves):
            break
        moves, block, count = steps, following, count + 1
    return count


def _steps(a: Factor, b: Factor) -> tuple[int, ...] | None:
    """By how much the numbers of the site and of what it is given differ, or None where more than numbers does."""
    flags = [(f.is_factor, f.reads_itself, f.reads_more, bool(f.parameters), f.node.marked) for f in (a, b)]
    names = list(zip((a.name, *a.given), (b.name, *b.given), strict=False))
    if flags[0] != flags[1] or a.is_factor or len(a.given) != len(b.given):
        return None
    pairs = [(_split(m), _split(n)) for m, n in names]
    if any(m[0] != n[0] or (m[1] is None) != (n[1] is None) for m, n in pairs):
        return None
    return tuple((n[1] or 0) - (m[1] or 0) for m, n in pairs)


def _moving(a: Factor, b: Factor) -> set[str]:
    return {m for m, n in zip((a.name, *a.given), (b.name, *b.given), strict=True) if m != n}


# The text around them


def _beside(sides: list[tuple[str, list[str]]], counts: list[str]) -> str:
    """Equations, broken between factors where they are long, each with its count in one column."""
    blocks = [_wrapped(f"{left} = ", right) for left, right in sides]
    edge = max(len(line) for block in blocks for line in block)
    lines = []
    for block, count in zip(blocks, counts, strict=True):
        lines += [*block[:-1], f"{block[-1]:{edge}}     {count}" if count else block[-1]]
    return "\n".join(lines)


def _wrapped(left: str, pieces: list[str]) -> list[str]:
    indent = " " * min(len(left), 12)
    lines, line = [], left
    for piece in pieces:
        if len(line) + len(piece) > WIDTH and line.strip() and line != left:
            lines.append(line.rstrip())
            line = indent
        line += piece + " "
    return [*lines, line.rstrip()]


def _broken(pieces: list[str]) -> str:
    """LaTeX of a right side, six factors to a line."""
    lines = [r"\, ".join(pieces[i : i + 6]) for i in range(0, len(pieces), 6)]
    return " \\\\\n&\\quad ".join(lines)


def _counts(structure: Structure) -> list[str]:
    """The number of parameters of p, and of q."""
    sides = [structure.p, *([] if structure.q is None else [structure.q])]
    if not structure.parameters:
        return [""] * len(sides)
    numbers = [f"{_size(structure, _reached(side)):,}" for side in sides]
    width = max(map(len, numbers))
    return [f"{n:>{width}} parameter{'' if n == '1' else 's'}" for n in numbers]


def _reached(factors: Iterable[Factor]) -> set[int]:
    return {i for f in factors for i in f.parameters}


def _size(structure: Structure, places: Iterable[int]) -> int:
    return sum(structure.parameters[i].numel() for i in places)


def _parameter_notes(structure: Structure) -> list[str]:
    """What p and q share, what neither depends on, and what is frozen."""
    p, q = _reached(structure.p), _reached(structure.q or ())
    every = set(range(len(structure.parameters)))
    frozen = {i for i in every if not structure.parameters[i].requires_grad}
    total = _size(structure, every)
    said = []
    if n := _size(structure, p & q):
        said.append(f"{n:,} parameters are shared by p and q")
    if n := _size(structure, every - p - q):
        said.append(f"{n:,} parameters are of neither" if structure.q is not None else f"{n:,} parameters are not of p")
    if n := _size(structure, frozen):
        said.append(f"{n:,} parameters are frozen, {total - n:,} trained")
    return said


def _table(structure: Structure, letters: dict[str, str]) -> str:
    """A row for each site, and one for a run of like sites."""
    q = {f.name: f.node for f in structure.q or ()}
    p = {f.name: f.node for f in structure.p}
    rows: dict[str, tuple[str, ...]] = {}
    for name, node in (p | {n: v for n, v in q.items() if n not in p}).items():
        rows[name] = (
            ("pyro.factor" if node.family == FACTOR else node.family) if name in p else "",
            q[name].family if name in q else "",
            "" if node.family == FACTOR else _values(node),
            "" if node.family == FACTOR else str(list(node.event_shape)),
            ", ".join(_plate(plate, letters.get(plate.name)) for plate in node.plates),
            _role(structure, node, name in p, q.get(name)),
        )
    heads = ("site", "in p", "in q", "values", "shape", "plates", "role")
    lines = [heads, *((_run_name(names), *rows[names[0]]) for names in _alike(rows))]
    used = [k for k, head in enumerate(heads) if head in ("site", "role") or any(line[k] for line in lines[1:])]
    widths = {k: max(len(line[k]) for line in lines) for k in used}
    return "\n".join("   ".join(line[k].ljust(widths[k]) for k in used).rstrip() for line in lines)


def _alike(rows: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """Sites z_0, z_1, ... with equal rows together, though others stand between them."""
    groups: dict[Any, list[str]] = {}
    for name, row in rows.items():
        stem, number = _split(name)
        groups.setdefault(name if number is None else (stem, row), []).append(name)
    return [run for names in groups.values() for run in runs(names)]


def _run_name(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _plate(plate: Plate, letter: str | None) -> str:
    """A plate with its index in the formula, and its size, but for one over the data as they are given."""
    size = "" if plate.name == DATA and plate.size == plate.rows else f" {plate.size:,}"
    return f"{letter}: {plate.name}{size}" if letter else plate.name + size


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


def _notes(structure: Structure) -> list[str]:
    """What signs of the formulae mean that are not everyday."""
    argument = "data" if "x" in structure.observed else "x"
    notes = [
        f"{f.name}_<: the distribution of {f.name} is computed from {f.name} itself, as in an autoregressive model"
        for f in structure.p
        if f.reads_itself
    ]
    if any(f.reads_more for f in structure.p):
        notes.append(f"{argument}: the argument of the program, read beside what its observed sites say")
    return notes


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
        if support is known or (isinstance(known, type) and isinstance(support, known)):
            return text
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if isinstance(support, constraints.integer_interval):
        return f"{_bound(low)}..{_bound(high)}"
    if low is not None and high is not None:
        return f"[{_bound(low)}, {_bound(high)}]"
    if low is not None:
        return f"({_bound(low)}, ∞)"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(support).__name__.strip("_")).replace("_", " ").lower()


_SPACES: list[tuple[Any, str]] = [
    (constraints.real, "ℝ"),
    (constraints.real_vector, "ℝ"),
    (constraints.boolean, "{0, 1}"),
    (constraints.positive, "(0, ∞)"),
    (constraints.nonnegative, "[0, ∞)"),
    (constraints.nonnegative_integer, "0, 1, 2, …"),
    (constraints.unit_interval, "[0, 1]"),
    (constraints.simplex, "simplex"),
    (constraints.one_hot, "one-hot"),
]


def _bound(value: Any) -> str:
    """A bound as a number; a letter where it is another one for every datum."""
    if isinstance(value, Tensor):
        if value.numel() == 0 or not torch.equal(value, value.flatten()[0].expand_as(value)):
            return "n"
        value = value.flatten()[0].item()
    return f"{value:g}"
