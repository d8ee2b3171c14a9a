"""One factor of a derived guide, in plain data: enough to build it again without its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..program.sites import DATA
from .spaces import Space


@dataclass(frozen=True)
class Spec:
    """q(z_i | those before it, x) in plain data.

    Attributes:
        name: of the site.
        given: latents that it is drawn given.
        data: whether it is drawn given x.
        space: where its values lie.
        family: of its coordinates, a name in FAMILIES; none for discrete values and on spheres.
        centre: of its coordinates under the prior.
        spread: theirs.
        plates: name, size and dimension of each, outermost first; the size None where it is that of the batch.
        enumerate: whether its values are few enough to be summed over.
    """

    name: str
    given: tuple[str, ...]
    data: bool
    space: Space
    family: str | None
    centre: float = 0.0
    spread: float = 1.0
    plates: tuple[tuple[str, int | None, int], ...] = ()
    enumerate: bool = False

    @property
    def local(self) -> bool:
        """Whether it is inside the data plate."""
        return any(name == DATA for name, _, _ in self.plates)

    @property
    def inner(self) -> list[tuple[int, int]]:
        """Dimension and size of its plates but the data's."""
        return [(dim, size) for name, size, dim in self.plates if name != DATA and size is not None]

    def plain(self) -> dict[str, Any]:
        """As dicts and lists."""
        return asdict(self)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Spec:
        """The inverse of `plain`."""
        arguments: dict[str, Any] = dict(plain)
        inside: dict[str, Any] = dict(plain["space"])
        inside["event"] = tuple(inside["event"])
        arguments["space"] = Space(**inside)
        arguments["given"] = tuple(plain["given"])
        arguments["plates"] = tuple((str(n), s, int(d)) for n, s, d in plain["plates"])
        return cls(**arguments)

    def __str__(self) -> str:
        given = ", ".join([*self.given, *(["x"] if self.data else [])])
        return f"q({self.name} | {given})" if given else f"q({self.name})"
