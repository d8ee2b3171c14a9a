"""A guide in factors: one encoder of the data, and for every latent a small network of what it is drawn given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..config import Configured
from ..networks import KINDS, MLP, Chain, Network, Standardise, encoder
from ..networks.base import as_activation
from ..posteriors import DiagonalNormal, Flow, FullNormal, Mixture, Posterior, VonMisesFisher
from ..program.sites import DATA
from .spaces import Space

FAMILIES: dict[str, tuple[type[Posterior], dict[str, Any]]] = {
    "normal": (DiagonalNormal, {}),
    "full": (FullNormal, {}),
    "flow": (Flow, {"kind": "NSF"}),  # bends a single dimension as well
    "mixture": (Mixture, {}),
}
NARROW = math.log(0.1)  # log σ of a global latent at the start


@dataclass(frozen=True)
class Factor:
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
    def of_plain(cls, plain: Mapping[str, Any]) -> Factor:
        """The inverse of `plain`."""
        space = Space(**{**plain["space"], "event": tuple(plain["space"]["event"])})
        plates = tuple((str(n), s, int(d)) for n, s, d in plain["plates"])
        return cls(**{**plain, "given": tuple(plain["given"]), "space": space, "plates": plates})

    def __str__(self) -> str:
        given = ", ".join([*self.given, *(["x"] if self.data else [])])
        return f"q({self.name} | {given})" if given else f"q({self.name})"


class Head(Network):
    """Codes for one site: a network of [*leading, n], or constants, laid out in the dimensions of the site's plates.

    Args:
        inputs: n; 0 for constants.
        code: numbers that the site's distribution takes.
        hidden: widths.
        inner: dimension and size of each plate but the data's.
        data: the dimension of the data plate; None for a site outside it.
        nesting: plate dimensions of the program.
    """

    def __init__(
        self,
        inputs: int,
        code: int,
        hidden: Sequence[int] = (),
        inner: Sequence[tuple[int, int]] = (),
        data: int | None = -1,
        nesting: int = 1,
    ) -> None:
        super().__init__([max(inputs, 1)], [code])
        self.inner, self.data, self.nesting = [(int(d), int(s)) for d, s in inner], data, nesting
        size = math.prod(s for _, s in self.inner) * code
        self.body = MLP([inputs], [size], hidden) if inputs else None
        self.constant = None if inputs else nn.Parameter(0.1 * torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, B, n] -> [*leading, *batch, code], of a site outside the data plate [n] -> [*batch, code]."""
        y = self.body(x) if self.body is not None else self.constant
        assert y is not None
        if self.body is None:
            y = y.expand(*x.shape[:-1], *y.shape[-1:])
        y = y.unflatten(-1, (*(s for _, s in self.inner), *self.outputs))
        dims = [*([] if self.data is None else [self.data]), *(d for d, _ in self.inner)]
        leading = y.shape[: y.dim() - len(dims) - 1]
        order = sorted(range(len(dims)), key=dims.__getitem__)
        y = y.permute(*range(len(leading)), *(len(leading) + i for i in order), -1)
        sizes = dict(zip(sorted(dims), y.shape[len(leading) :], strict=False))
        first = -self.nesting if leading else min(dims, default=0)
        return y.reshape(*leading, *(sizes.get(d, 1) for d in range(first, 0)), *self.outputs)


class Conditional(nn.Module):
    """The distribution of one factor, from a head and the family's posterior."""

    def __init__(self, factor: Factor, inputs: int, hidden: Sequence[int], nesting: int) -> None:
        super().__init__()
        self.factor = factor
        data = next((dim for name, _, dim in factor.plates if name == DATA), None)
        space = factor.space
        kind: Any = None
        if not space.discrete:
            kind, options = (VonMisesFisher, {}) if factor.family is None else FAMILIES[factor.family]
        code = space.size if kind is None else kind.code(space.size, **options)[0]
        head = Head(inputs, code, hidden, factor.inner, data, nesting)
        self.posterior = head if kind is None else kind(head, **options)

    def forward(self, x: Tensor) -> Any:
        """q given [*leading, B, n]."""
        found, space = self.posterior(x), self.factor.space
        if space.discrete:
            return space.of_numbers(found.to(x.dtype))
        if space.kind == "sphere":
            return found
        return space.of_coordinates(found, self.factor.centre, self.factor.spread)

    def start_at(self, value: Tensor) -> None:
        """Puts the constants of a global latent around a value [*batch, *event], closely."""
        f, constant = self.factor, self.posterior.network.constant
        loc = (f.space.coordinates(value) - f.centre) / f.spread  # [*batch, n]
        with torch.no_grad():
            code = constant.view(*loc.shape[:-1], -1)
            if f.family == "mixture":
                code = code.unflatten(-1, (self.posterior.components, -1))[..., 1:]
                loc = loc[..., None, :]
            n = loc.shape[-1]
            code[..., :n] += loc  # what is there keeps components apart
            code[..., n : 2 * n] += NARROW


class Amortised(Configured, nn.Module):
    """q(z | x) = Π_i q(z_i | some of those before it, x): a guide, as `pyrovae.amortize` derives it from a model.

    x goes through one encoder; each z_i has a small network of its features and of the z before it, in unbounded
    coordinates. What is outside the data plate has variational parameters of its own.

    Args:
        factors: in the order in which they are drawn, as `Factor.plain` writes them.
        event: shape of a datum.
        network: kind of the encoder, a name in `networks.KINDS`.
        hidden: its widths; None for those of the kind.
        activation: its activation; None for that of the kind.
        missing: whether a NaN in the data means "not observed".
    """

    def __init__(
        self,
        factors: Sequence[Mapping[str, Any]],
        event: Sequence[int],
        network: str = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.factors = [Factor.of_plain(f) for f in factors]
        self.event = list(event)
        self.takes_missing = missing
        widths = list(KINDS[network].hidden if hidden is None and network in KINDS else hidden or [])
        width = widths[-1] if widths else 1
        self.encoder: nn.Module | None = None
        if any(f.data for f in self.factors):
            event = self.event or [1]
            inside = widths[:-1] if network in ("mlp", "gated") else widths  # their last layer is the one returned
            centre = Standardise(event, missing, each=len(event) == 1)
            made = encoder(network, event, [width], inside, activation)
            self.encoder = nn.Sequential(Chain(centre, made), as_activation(activation or "relu"))
        self.nesting = max((-d for f in self.factors for _, _, d in f.plates), default=1)
        spaces = {f.name: f for f in self.factors}
        self.conditionals = nn.ModuleList()
        for f in self.factors:
            above = [spaces[n] for n in f.given]
            inputs = width * f.data + sum(g.space.size * math.prod(s for _, s in g.inner) for g in above)
            hidden_of_head = [width] if f.given else []
            self.conditionals.append(Conditional(f, inputs, hidden_of_head, self.nesting))

    def forward(self, x: Tensor) -> None:
        """Draws z_1, z_2, … with pyro.sample, in the plates that they have in the model; x: [B, *event]."""
        features = None
        if self.encoder is not None:
            features = self.encoder(x if self.event else x[..., None])  # [B, F]
        plates: dict[str, Any] = {}
        values: dict[str, Tensor] = {}
        for f, conditional in zip(self.factors, self.conditionals, strict=True):
            inputs = [features] if f.data else []
            inputs += [values[n] for n in f.given]
            with ExitStack() as stack:
                for name, size, dim in f.plates:
                    if name not in plates:
                        plates[name] = _plate(name, size, dim, x)
                    stack.enter_context(plates[name])
                infer = {"enumerate": "parallel"} if f.enumerate else {}
                nothing = x.new_zeros(*([len(x)] if f.local else []), 0)
                value = pyro.sample(f.name, conditional(_beside(inputs) if inputs else nothing), infer=infer)
            if f.local:
                values[f.name] = self._inputs_of(f, value).to(x.dtype)

    def _inputs_of(self, factor: Factor, value: Tensor) -> Tensor:
        """A value of a local site as [*leading, B, n], its plates' elements side by side."""
        u = factor.space.coordinates(value)  # [*batch, n]
        if not factor.space.discrete:
            u = (u - factor.centre) / factor.spread
        u = u.reshape(*[1] * (self.nesting + 1 - u.dim()), *u.shape)
        leading = u.dim() - 1 - self.nesting
        data = next(dim for name, _, dim in factor.plates if name == DATA)
        u = u.movedim(data - 1, leading)
        return u.flatten(leading + 1)

    def __str__(self) -> str:
        return " ".join(map(str, self.factors))

    def __repr__(self) -> str:
        names = max((len(f.name) for f in self.factors), default=0)
        rows = [f"  {f.name:<{names}}  {f.family or 'discrete'}, {f.space}" for f in self.factors]
        return "\n".join([str(self), *rows])


def _plate(name: str, size: int | None, dim: int, x: Tensor) -> Any:
    """The plate of the model: the data's with the rows of this batch, out of the size that the model says."""
    if name != DATA:
        return pyro.plate(name, size, dim=dim)
    if size is None:
        return pyro.plate(name, len(x), dim=dim)
    return pyro.plate(name, max(size, len(x)), subsample=torch.arange(len(x), device=x.device), dim=dim)


def _beside(inputs: Sequence[Tensor]) -> Tensor:
    """[*leading, B, n_i] -> [*leading, B, Σ n_i], what has fewer leading dimensions repeated without a copy."""
    leading = torch.broadcast_shapes(*(t.shape[:-1] for t in inputs))
    return torch.cat([t.expand(*leading, -1) for t in inputs], -1)
