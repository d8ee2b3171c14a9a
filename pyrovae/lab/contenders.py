"""Who is compared: objectives, each with as many particles as asked for, under a name of its own."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro

from .. import objectives as known
from ..config import find_class, nearest
from ..objectives import Objective, PyroELBO
from ..objectives.checks import as_objective
from ..program import check_particles

USUAL = (
    "ELBO",
    "ELBO(kl=analytic)",
    "ELBO(gradient=stl)",
    "ELBO(gradient=score, baseline=leave_one_out)",
    "IWAE",
    "IWAE(gradient=stl)",
    "IWAE(gradient=dreg)",
    "IWAE(gradient=vimco)",
    "MIWAE",
    "PIWAE",
    "CIWAE",
    "VRIWAE(gradient=dreg)",
    "TVO",
    "CUBO",
    "WakeSleep",
    "TailAdaptive",
)


@dataclass(frozen=True)
class Contender:
    """One objective to be measured.

    Attributes:
        name: of the curve that it belongs to, which does not tell the particles.
        particles: K; None for an objective that takes none.
        make: builds the objective; raises what its constructor raises.
    """

    name: str
    particles: int | None
    make: Callable[[], Objective]


def contenders(objectives: Any, particles: int | Iterable[int] | None = None) -> list[Contender]:
    """Every objective with every number of particles; one that takes no particles once, as it stands.

    Args:
        objectives: a list of objectives (objects, `pyro.infer` ELBOs, classes of either, or text such as
            "IWAE(gradient=dreg)"), or a dict of them by name, in which functions from K to an objective may stand too.
            Text that tells its particles keeps them.
        particles: the numbers K, or one; None leaves the objectives as they stand.

    Raises:
        ValueError: for no objectives, two of one name and number, what is no objective, or numbers of particles that
            are none.
    """
    if isinstance(objectives, str) or not isinstance(objectives, Mapping | Iterable):
        objectives = [objectives]
    entries = objectives.items() if isinstance(objectives, Mapping) else ((None, o) for o in objectives)
    counts = None
    if particles is not None:
        counts = list(dict.fromkeys(particles if isinstance(particles, Iterable) else [particles]))
    for k in counts or ():
        check_particles("the laboratory", k)
    found: list[Contender] = []
    for given, objective in entries:
        objective = read_objective(objective) if isinstance(objective, str) else objective
        name, (make, own, takes) = given or _name(objective), _maker(objective)
        if counts is None and own is None and takes:
            raise ValueError(
                f"the laboratory expects particles=[...] for {name!r}, which is a function of their number"
            )
        for k in counts if counts is not None and takes else [None]:
            found.append(Contender(name, own if k is None else k, partial(make, k)))
            if [(c.name, c.particles) for c in found].count((name, found[-1].particles)) > 1:
                raise ValueError(
                    f"the laboratory got two objectives called {name!r}; give a dict of objectives by name"
                )
    if not found:
        raise ValueError("the laboratory expects at least one objective and one number of particles, got none")
    return found


def _maker(objective: Any) -> tuple[Callable[[int | None], Objective], int | None, bool]:
    """A function from K (None: as it stands) to the objective, its own K, and whether it takes another."""
    if isinstance(objective, PyroELBO):
        objective = objective.elbo
    if isinstance(objective, pyro.infer.ELBO):
        return partial(_of_pyro, objective), objective.num_particles, True
    if isinstance(objective, Objective):
        takes = "particles" in _parameters(type(objective))
        return partial(_rebuilt, objective), getattr(objective, "particles", None), takes
    if not _is_class(objective):
        if not callable(objective):
            as_objective(objective)  # says what is expected
        return lambda k: as_objective(objective(k)), None, True
    cls, given = _class(objective), _arguments(objective)
    word = "particles" if issubclass(cls, Objective) else "num_particles"
    known = _parameters(cls)
    own = given.get(word, known[word].default if word in known else None)

    def make(k: int | None) -> Objective:
        return as_objective(objective() if k is None else objective(**{word: k}))

    return make, own if isinstance(own, int) else None, word in known and word not in given


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What a class is built with."""
    return {n: p for n, p in inspect.signature(cls.__init__).parameters.items() if n != "self"}


def _arguments(objective: Any) -> dict[str, Any]:
    """The arguments that text gives to a class, by name. Raises ValueError for one that it does not take."""
    cls, known = _class(objective), _parameters(_class(objective))
    refused = getattr(cls, "refused", {})
    for name in getattr(objective, "keywords", {}):
        if name not in known and name not in refused and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise ValueError(f"{cls.__name__} has no option {name!r}; {nearest(name, known)}")
    return dict(zip(known, getattr(objective, "args", ()), strict=False)) | getattr(objective, "keywords", {})


def _class(objective: Any) -> Any:
    """The class that is called."""
    return objective.func if isinstance(objective, partial) else objective


def _is_class(objective: Any) -> bool:
    """Whether it is a class of objectives, with or without some of its arguments."""
    cls = _class(objective)
    return inspect.isclass(cls) and issubclass(cls, Objective | pyro.infer.ELBO)


def _rebuilt(objective: Objective, k: int | None) -> Objective:
    """A copy, with another number of particles and the same state."""
    if k is None:
        return copy.deepcopy(objective)
    new = type(objective)(**objective.__dict__["_arguments"] | {"particles": k})
    new.load_state_dict(objective.state_dict())  # how far a warm-up is
    return new


def _of_pyro(elbo: Any, k: int | None) -> Objective:
    elbo = copy.copy(elbo)
    if k is not None:
        elbo.num_particles = k
    return PyroELBO(elbo)


def read_objective(text: str) -> partial[Any]:
    """An objective from text: NAME, NAME(option=value, ...), FILE.py:CLASS(...), pyro.infer.NAME(...).

    Raises ValueError for text of another form, or a class that is none, with the nearest match.
    """
    path, bracket, rest = text.strip().partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError(text)
        arguments = [_plain(a) for a in call.args]
        options = {str(k.arg): _plain(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the objective {text!r}; expected NAME or NAME(option=value, ...)") from error
    if not path.startswith("pyro.infer."):
        return partial(find_class(path, Objective, known.__name__), *arguments, **options)
    cls = getattr(pyro.infer, path.removeprefix("pyro.infer."), None)
    if not (inspect.isclass(cls) and issubclass(cls, pyro.infer.ELBO)):
        raise ValueError(f"{path} is no ELBO of pyro.infer; pyro.infer.Trace_ELBO is one")
    return partial(cls, *arguments, **options)


def _plain(node: ast.expr) -> Any:
    """A literal; a bare word is text."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def split_objectives(text: str) -> list[str]:
    """Objectives between commas, those inside brackets left alone: "A, B(x=1, y=2)" is two."""
    found, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            found.append("")
        else:
            found[-1] += c
    return [part.strip() for part in found if part.strip()]


def _name(objective: Any) -> str:
    """What an objective of a list is called. Raises ValueError for what has no name or is no objective."""
    if isinstance(objective, PyroELBO):
        objective = objective.elbo
    if isinstance(objective, Objective):
        cls, options = type(objective), objective.options()
    elif _is_class(objective):
        cls, options = _class(objective), _arguments(objective)
    elif isinstance(objective, pyro.infer.ELBO):
        cls, options = type(objective), {}
    elif callable(objective):
        raise ValueError("the laboratory cannot name a function; give a dict of them by name: {name: lambda k: ...}")
    else:
        as_objective(objective)  # says what is expected
        raise AssertionError
    told = ", ".join(f"{k}={v}" for k, v in options.items() if k not in ("particles", "num_particles"))
    name = cls.__name__ if issubclass(cls, Objective) else f"pyro.infer.{cls.__name__}"
    return f"{name}({told})" if told else name


def reason(error: Exception) -> str:
    """Why an objective has no figures, in one sentence."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
