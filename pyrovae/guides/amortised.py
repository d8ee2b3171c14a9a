"""A guide in factors: one encoder of the data, and for every latent a small network of what it is drawn given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..config import Configured
from ..networks import Chain, Standardise, features
from ..program.sites import DATA
from .conditional import Conditional
from .spec import Spec


class Amortised(Configured, nn.Module):
    """q(z | x) = Π_i q(z_i | some of those before it, x): a guide, as `pyrovae.amortize` derives it from a model.

    x goes through one encoder; each z_i has a small network of its features and of the z before it, in unbounded
    coordinates. What is outside the data plate has variational parameters of its own.

    Args:
        factors: in the order in which they are drawn, as `Spec.plain` writes them.
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
        self.factors = [Spec.of_plain(f) for f in factors]
        self.event = list(event)
        self.takes_missing = missing
        width = 1
        self.encoder: nn.Module | None = None
        if any(f.data for f in self.factors):
            event = self.event or [1]
            centre = Standardise(event, missing, each=len(event) == 1)
            made, width = features(network, event, hidden, activation)
            self.encoder = Chain(centre, made)
        self.nesting = max((-d for f in self.factors for _, _, d in f.plates), default=1)
        self.given = {n for f in self.factors for n in f.given}
        spaces = {f.name: f for f in self.factors}
        self.conditionals = nn.ModuleList()
        for f in self.factors:
            above = [spaces[n] for n in f.given]
            size = sum(g.space.size * math.prod(s for _, s in g.inner) for g in above)
            self.conditionals.append(Conditional(f, width * f.data, size, width, self.nesting))

    def forward(self, x: Tensor) -> None:
        """Draws z_1, z_2, … with pyro.sample, in the plates that they have in the model; x: [B, *event]."""
        nothing = x.new_zeros(len(x), 0)
        features = nothing if self.encoder is None else self.encoder(x if self.event else x[..., None])  # [B, F]
        plates: dict[str, Any] = {}
        values: dict[str, Tensor] = {}
        for f, conditional in zip(self.factors, self.conditionals, strict=True):
            told = features if f.data else nothing if f.local else nothing[0]
            with ExitStack() as stack:
                for name, size, dim in f.plates:
                    if name not in plates:
                        plates[name] = _plate(name, size, dim, x)
                    stack.enter_context(plates[name])
                infer: Any = {"enumerate": "parallel"} if f.enumerate else {}
                value = pyro.sample(f.name, conditional(told, [values[n] for n in f.given]), infer=infer)
            if f.name in self.given:
                values[f.name] = self._inputs_of(f, value).to(x.dtype)

    def _inputs_of(self, factor: Spec, value: Tensor) -> Tensor:
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
        return " ".join(map(str, self.factors)) or "1"

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
