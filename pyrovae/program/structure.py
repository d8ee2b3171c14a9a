"""The factors of p and q: what each is a function of, whose data it reads, and which parameters it has."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
import torch.nn as nn
from pyro import poutine
from torch import Tensor

from .graph import Node, read_graph, site_density
from .handlers import Detached, StandIns
from .modes import evaluating, seeded
from .sites import FACTOR, sample_sites

ROWS = 16  # of the data that are looked at


@dataclass(frozen=True)
class Factor:
    """One factor p(name | given) of a program.

    Attributes:
        node: its random choice.
        given: names of the sites that it is conditioned on: its parents, then the observed sites whose data it reads.
        reads_itself: whether an observed site's distribution is a function of its own value, as an autoregressive
            one is, or one with a total or a mask of the data.
        reads_more: whether it reads of x what no other site observes, as the prior p(z | label) may.
        parameters: places of those parameters in the module's that log p(name | given) is a function of.
    """

    node: Node
    given: tuple[str, ...]
    reads_itself: bool
    reads_more: bool
    parameters: frozenset[int]

    @property
    def name(self) -> str:
        """The site's."""
        return self.node.name

    @property
    def is_factor(self) -> bool:
        """Whether it is a term from `pyro.factor`, no random choice."""
        return self.node.family == FACTOR


@dataclass(frozen=True)
class Structure:
    """The factors of p(x, z) and of q(z | x), None without a guide, and the module's parameters."""

    p: list[Factor]
    q: list[Factor] | None
    parameters: list[nn.Parameter]

    @property
    def nodes(self) -> dict[str, Node]:
        """Every random choice by its name, as it is in the model where it is there."""
        p = {f.name: f.node for f in self.p}
        return p | {f.name: f.node for f in self.q or () if f.name not in p}

    @property
    def observed(self) -> list[str]:
        """Names of the observed sites, without factors."""
        return [f.name for f in self.p if f.node.observed and not f.is_factor]

    @property
    def summed(self) -> list[str]:
        """Names of the sites that are summed over: marked in the model, and not in the guide."""
        drawn = {f.name for f in self.q or ()}
        return [f.name for f in self.p if f.node.marked and f.name not in drawn]


def read_structure(vae: Any, x: Any, who: str) -> Structure:
    """The factors of a program; a few rows of x are looked at.

    Args:
        vae: anything with a Pyro `model(x)`, and a `guide(x)` if there is one.
        x: data [N, *event].
        who: asks, for errors.

    Raises:
        ValueError: for something without a model, data that are no tensor, and a program that does not run on them.
    """
    guide = getattr(vae, "guide", None)
    if not callable(getattr(vae, "model", None)) or not (guide is None or callable(guide)):
        raise ValueError(
            f"{who} expects something with .model(x), and .guide(x) if it has one, got {type(vae).__name__}; wrap "
            "plain functions in pv.Program(model, guide)"
        )
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{who} expects data as a tensor [N, *event] with at least one row, got {got}; give some rows, as "
            "data.train[:16]"
        )
    x = x[:ROWS].detach()
    model_nodes = read_graph(vae.model, x, "model", vae)
    guide_nodes = None if guide is None else read_graph(guide, x, "guide", vae)
    # only now: the parameters of plain functions come into being when they run
    parameters = list(vae.parameters()) if isinstance(vae, nn.Module) else []
    runs = [_reach(program, x, vae, parameters) for program in (vae.model, guide) if program is not None]
    observed = [n.name for n in model_nodes if n.observed and n.family != FACTOR]
    shown = {name: runs[0].shown.get(name) for name in observed}
    return Structure(
        _factors(model_nodes, runs[0], shown, within=True),
        None if guide_nodes is None else _factors(guide_nodes, runs[1], shown, within=False),
        parameters,
    )


@dataclass
class _Reach:
    """Where derivatives lead from each site of one run: parameters, elements of x read, elements of x observed."""

    parameters: dict[str, frozenset[int]]
    read: dict[str, Tensor]  # a mask of the elements of one datum
    shown: dict[str, Tensor]


def _reach(program: Callable[[Tensor], Any], x: Tensor, vae: Any, parameters: list[nn.Parameter]) -> _Reach:
    leaf = x.clone().requires_grad_(x.is_floating_point())
    reach = _Reach({}, {}, {})
    with evaluating(vae), pyro.validation_enabled(False), _thawed(parameters), torch.enable_grad():
        with seeded(0, x.device):
            trace = poutine.trace(StandIns(x)(Detached()(program))).get_trace(leaf)
        for name, site in sample_sites(trace):
            density = site_density(site, site["value"].detach()).sum()
            found = _derivatives(density, [*parameters, leaf])
            reach.parameters[name] = frozenset(i for i, g in enumerate(found[:-1]) if g is not None)
            for masks, gradient in (
                (reach.read, found[-1]),
                (reach.shown, _derivatives(site["value"].sum(), [leaf])[0]),
            ):
                if gradient is not None and bool((gradient != 0).any()):
                    masks[name] = (gradient != 0).any(0)
    return reach


def _derivatives(y: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
    """dy / d(each input), None where no path leads there."""
    found: list[Tensor | None] = [None] * len(inputs)
    places = [i for i, t in enumerate(inputs) if t.requires_grad]
    if y.requires_grad and places:
        gradients = torch.autograd.grad(y, [inputs[i] for i in places], retain_graph=True, allow_unused=True)
        for i, g in zip(places, gradients, strict=True):
            found[i] = g
    return found


@contextmanager
def _thawed(parameters: list[nn.Parameter]) -> Generator[None]:
    """Frozen parameters take derivatives inside, so that they are found too."""
    frozen = [p for p in parameters if not p.requires_grad and p.is_floating_point()]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _factors(nodes: list[Node], reach: _Reach, shown: dict[str, Tensor | None], within: bool) -> list[Factor]:
    """Each node with what it is given. A model's (within) can be given only what is observed before it."""
    factors, before = [], set()
    for node in nodes:
        others = {n: m for n, m in shown.items() if n != node.name and (not within or n in before)}
        sources = _sources(reach.read.get(node.name), others) if node.reads_data else []
        own = shown.get(node.name)
        read = reach.read.get(node.name)
        itself = within and node.reads_data and node.observed
        if itself and read is not None and own is not None:
            itself = bool((read & own).any())
        elif itself:
            itself = not sources
        factors.append(
            Factor(
                node,
                (*node.parents, *sources),
                itself,
                node.reads_data and not sources and not itself,
                reach.parameters.get(node.name, frozenset()),
            )
        )
        before.add(node.name)
    return factors


def _sources(read: Tensor | None, shown: dict[str, Tensor | None]) -> list[str]:
    """The observed sites whose data are read: all of them where derivatives do not tell."""
    if read is None or any(m is None for m in shown.values()):
        return list(shown)
    return [n for n, m in shown.items() if m is not None and bool((m & read).any())]
