"""The distribution of one latent given features of the data and the latents before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..networks import Network
from ..networks.base import linear
from ..posteriors import DiagonalNormal, Flow, FullNormal, Mixture, Posterior, VonMisesFisher
from ..program.sites import DATA
from .spec import Spec

FAMILIES: dict[str, tuple[type[Posterior], dict[str, Any]]] = {
    "normal": (DiagonalNormal, {}),
    "full": (FullNormal, {}),
    "flow": (Flow, {"kind": "NSF"}),  # bends a single dimension as well
    "mixture": (Mixture, {}),
}
CALM = 0.1  # size of the last weights at the start, against Glorot's, in a network that takes other latents
NARROW = math.log(0.1)  # log σ of a global latent at the start


class Head(Network):
    """Codes for one site: linear in [*leading, n], or constants, laid out in the dimensions of the site's plates.

    Args:
        inputs: n; 0 for constants.
        code: numbers that the site's distribution takes.
        inner: dimension and size of each plate but the data's.
        data: the dimension of the data plate; None for a site outside it.
        nesting: plate dimensions of the program.
    """

    def __init__(
        self,
        inputs: int,
        code: int,
        inner: Sequence[tuple[int, int]] = (),
        data: int | None = -1,
        nesting: int = 1,
    ) -> None:
        super().__init__([max(inputs, 1)], [code])
        self.inner, self.data, self.nesting = [(int(d), int(s)) for d, s in inner], data, nesting
        size = math.prod(s for _, s in self.inner) * code
        self.linear = linear(inputs, size) if inputs else None
        self.constant = None if inputs else nn.Parameter(0.1 * torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        """[*leading, B, n] -> [*leading, *batch, code], of a site outside the data plate [n] -> [*batch, code]."""
        y = self._numbers(x)
        y = y.unflatten(-1, (*(s for _, s in self.inner), *self.outputs))
        dims = [*([] if self.data is None else [self.data]), *(d for d, _ in self.inner)]
        leading = y.shape[: y.dim() - len(dims) - 1]
        order = sorted(range(len(dims)), key=dims.__getitem__)
        y = y.permute(*range(len(leading)), *(len(leading) + i for i in order), -1)
        sizes = dict(zip(sorted(dims), y.shape[len(leading) :], strict=False))
        first = -self.nesting if leading else min(dims, default=0)
        return y.reshape(*leading, *(sizes.get(d, 1) for d in range(first, 0)), *self.outputs)

    def _numbers(self, x: Tensor) -> Tensor:
        """[*leading, n] -> [*leading, Π inner · code]."""
        if self.linear is not None:
            return self.linear(x)
        assert self.constant is not None
        # a view of a parameter has no gradient function where gradients are off, which torch's counter stumbles over
        return self.constant.expand(*x.shape[:-1], -1).clone()


class Conditional(nn.Module):
    """The distribution of one factor: a head, after one hidden layer where other latents are given, and the family.

    Args:
        factor: what it is.
        features: numbers of the data that are given.
        values: numbers of other latents that are given.
        width: of the hidden layer.
        nesting: plate dimensions of the program.
    """

    def __init__(self, factor: Spec, features: int, values: int, width: int, nesting: int) -> None:
        super().__init__()
        self.factor = factor
        data = next((dim for name, _, dim in factor.plates if name == DATA), None)
        space = factor.space
        kind: Any = None
        options: dict[str, Any] = {}
        if not space.discrete:
            kind, options = (VonMisesFisher, {}) if factor.family is None else FAMILIES[factor.family]
        code = space.size if kind is None else kind.code(space.size, **options)[0]
        self.of_features = linear(features, width) if values and features else None
        self.of_values = linear(values, width) if values else None
        self.head = Head(width if values else features, code, factor.inner, data, nesting)
        if self.of_values is not None and self.head.linear is not None:
            # a scale that is an exponential of a draw of such a scale is soon beyond all numbers
            with torch.no_grad():
                self.head.linear.weight.mul_(CALM)
        self.posterior: Any = None if kind is None else kind(self.head, **options)

    def forward(self, features: Tensor, values: Sequence[Tensor] = ()) -> Any:
        """q given features [B, F], where F may be 0, and values of others, each [*leading, B, n]."""
        space, x = self.factor.space, features
        if self.of_values is not None:
            leading = torch.broadcast_shapes(*(v.shape[:-1] for v in values))
            x = self.of_values(torch.cat([v.expand(*leading, -1) for v in values], -1))
            if self.of_features is not None:
                x = x + self.of_features(features)  # once a datum, however many particles
            x = x.relu()
        if self.posterior is None:
            return space.of_numbers(self.head(x).to(x.dtype))
        q = self.posterior(x)
        return q if self.factor.family is None else space.of_coordinates(q, self.factor.centre, self.factor.spread)

    def start_at(self, value: Tensor) -> None:
        """Puts the constants of a global latent around a value [*batch, *event], closely."""
        f, constant = self.factor, self.head.constant
        assert constant is not None
        loc = (f.space.coordinates(value) - f.centre) / f.spread  # [*batch, n]
        with torch.no_grad():
            code = constant.view(*loc.shape[:-1], -1)
            if f.family == "mixture":
                code = code.unflatten(-1, (self.posterior.components, -1))[..., 1:]
                loc = loc[..., None, :]
            n = loc.shape[-1]
            code[..., :n] += loc  # what is there keeps components apart
            code[..., n : 2 * n] += NARROW
