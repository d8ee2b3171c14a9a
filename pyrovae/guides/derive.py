"""A guide derived from a model: its trace read, its graph inverted, a network for every latent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch.nn as nn
from pyro import poutine
from torch import Tensor

from ..config import nearest
from ..networks import Standardise
from ..program import evaluating, function_of, home, read_site, sample_sites, seeded
from ..program.checks import check_support, explain_plate, plain_errors
from ..program.graph import Node, read_graph
from ..program.sites import DATA
from .amortised import Amortised
from .conditional import FAMILIES, Conditional
from .inverse import DATA as GIVEN_DATA
from .inverse import faithful_inverse
from .spaces import Space, space_of
from .spec import Spec

ROWS = 256  # of the data that the model is read at
SEEN = 10_000  # of the data that the encoder is centred at
FEW = 64  # combinations of discrete values that are summed over, and not drawn
DRAWS = 10_000  # of the prior
SURE = 5.0  # standard errors by which the prior's coordinates have to differ from mean 0 and deviation 1


def amortize(
    model: Any,
    x: Any,
    family: str | dict[str, str] = "normal",
    network: str = "mlp",
    hidden: Sequence[int] | None = None,
    activation: str | None = None,
) -> Amortised:
    """An amortised guide q(z | x) for any model: its factors, their order and their supports are read from a trace.

    The order is that of a faithful inverse, children before parents, so that no dependence of the posterior is left
    out and none is made up. A latent of the data plate is drawn given features of x, which one encoder makes for all of
    them, and given latents before it; one outside of the plate gets variational parameters. Sites that the model sums
    over are left out; where it sums over all, q is 1. Discrete latents get logits, and are summed over in the guide
    where all of them together have 64 values at most (infer={"enumerate": "parallel"}); with more, take an objective
    with gradient="score" or "vimco". Coordinates are in units of the prior's, so that q(z | x) starts about where draws
    from the prior are.

    Local latents are not drawn given global ones, q(θ) Π_n q(z_n | x_n), which is exact where q(θ) has narrowed to a
    point; and latents of one site in one plate are independent given what they are drawn given.

    Args:
        model: a function of x, or anything with a Pyro `model(x)`.
        x: some data [N, *event], or a Dataset: the model is read at the first, and the encoder centred at them.
        family: of the coordinates of real, positive and other continuous latents: "normal" (factorised within a site),
            "full" (normal with every correlation within a site), "flow" (a neural spline flow) or "mixture" (of
            normals); one for all, or by name of a site, "normal" for the rest.
        network: kind of the encoder, as in `VAE.build`: "mlp", "conv", "gru", ...
        hidden: its widths; None for those of the kind.
        activation: its activation; None for that of the kind.

    Raises:
        ValueError: for an unknown family, network or site, with the nearest match; for a model that `densities` would
            refuse; and for latents whose support no family is for, naming the site.

    Reference: Webb et al., "Faithful inversion of generative models for effective amortized inference", 2018;
    Stuhlmüller, Taylor and Goodman, "Learning stochastic inverses", 2013.

    >>> import pyro, pyro.distributions as dist, torch, pyrovae as pv
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         tone = pyro.sample("tone", dist.Gamma(2.0, 1.0))
    ...         level = pyro.sample("level", dist.Normal(tone, 1.0))
    ...         pyro.sample("x", dist.Normal(level, 0.1), obs=x)
    >>> guide = pv.amortize(model, torch.randn(100))
    >>> print(guide)
    q(level | x) q(tone | level)
    >>> pv.densities(pv.Program(model, guide), torch.randn(7), particles=5).log_weight.shape
    torch.Size([5, 7])
    """
    # a plain function's parameters are its program's, and no one else's; what is around the call is not about it
    with pyro.get_param_store().scope(), poutine.block():
        return _derived(model, x, family, network, hidden, activation)


def _derived(
    model: Any,
    x: Any,
    family: str | Mapping[str, str],
    network: str,
    hidden: Sequence[int] | None,
    activation: str | None,
) -> Amortised:
    function = function_of(model, "model")
    if not callable(function):
        raise ValueError(f"amortize expects a model, a function of x or something with .model(x), got {model!r}")
    x, rescale = _some_data(model, x)
    few = x[: max(1, min(ROWS, len(x) - 1))]  # not all: a plate of as many rows may be of that size, or of the batch
    _check_model(function, model, few)
    nodes = read_graph(function, few, "model", model)
    latents = {n.name: n for n in nodes if not n.observed and not n.marked}
    if not latents and not any(n.marked for n in nodes):
        raise ValueError("amortize expects a model with a latent, and this one has none; add pyro.sample without obs=")
    families = _families(family, latents)
    spaces = {name: space_of(name, node.distribution) for name, node in latents.items()}
    given = {n: () for n in latents if not latents[n].local} | _inverse(nodes, latents)
    missing = x.is_floating_point() and bool(x.isnan().any())
    factors, values = [], 1
    for name, conditions in given.items():
        f = _spec(latents[name], spaces[name], conditions, families[name])
        summed = f.local and not f.inner and 0 < f.space.combinations <= FEW // values
        values *= f.space.combinations if summed else 1
        factors.append(replace(f, enumerate=summed))
    event = list(x.shape[1:])
    guide = Amortised([f.plain() for f in factors], event, network, hidden, activation, missing)
    for module in guide.modules():
        if isinstance(module, Standardise):
            module.to_data(x.float() if event else x.float()[:, None], rescale=rescale)
    for f, conditional in zip(factors, guide.conditionals, strict=True):
        if isinstance(conditional, Conditional) and f.family is not None and not f.local:
            conditional.start_at(latents[f.name].value)
    return guide.to(x) if x.is_floating_point() else guide.to(x.device)


def _some_data(model: Any, x: Any) -> tuple[Tensor, bool]:
    """Data to read the model at, where its parameters are, and whether a network wants them in another scale.

    Raises ValueError.
    """
    if hasattr(x, "batches"):
        x = next(x.batches("train", SEEN, shuffle=False))
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"amortize expects data as a tensor [N, *event] with a row at least, or a Dataset, got {got}")
    unit = bool(((x >= 0) & (x <= 1) | x.isnan()).all())
    device, dtype = home(model)
    x = x[:SEEN]
    if isinstance(model, nn.Module) and next(model.parameters(), None) is not None:
        x = x.to(device, dtype)
    return x, not unit


def _check_model(function: Callable[[Tensor], Any], model: Any, x: Tensor) -> None:
    """Refuse a model whose sites have no density per datum. Raises ValueError."""
    with evaluating(model), seeded(0, x.device), plain_errors(), pyro.validation_enabled(True):
        try:
            trace = poutine.trace(function).get_trace(x)
        except ValueError as error:
            explain_plate(error, "model")
            raise
        with pyro.validation_enabled(False):
            for name, site in sample_sites(trace):
                found = read_site(site, (1, len(x)), None, "model")
                if site["is_observed"]:
                    check_support(name, site["fn"], site["value"])
                _ = found.log_prob


def _families(family: str | Mapping[str, str], latents: Mapping[str, Node]) -> dict[str, str]:
    """The family of each latent. Raises ValueError."""
    chosen = dict(family) if isinstance(family, Mapping) else dict.fromkeys(latents, family)
    for site, name in chosen.items():
        if site not in latents:
            raise ValueError(f"amortize has no latent {site!r} to give a family; {nearest(str(site), latents)}")
        if name not in FAMILIES:
            raise ValueError(f"amortize has no family {name!r}; {nearest(str(name), FAMILIES)}")
    return dict.fromkeys(latents, "normal") | chosen


def _inverse(nodes: Sequence[Node], latents: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    """Local latents in the order of drawing. Global ones are given to all of them, and drop out of the graph."""
    inside = {n.name for n in nodes if n.observed or n.local}
    parents = {
        n.name: [p for p in n.parents if p in inside] + ([GIVEN_DATA] if n.reads_data else [])
        for n in nodes
        if n.name in inside
    }
    local = [n for n in latents if latents[n].local]
    return faithful_inverse(parents, local, [n.name for n in nodes if n.marked])


def _spec(node: Node, space: Space, conditions: Sequence[str], family: str) -> Spec:
    """The factor of a latent under what it is drawn given."""
    plates = tuple((p.name, None if p.name == DATA and p.rows == p.size else p.size, p.dim) for p in node.plates)
    given = tuple(n for n in conditions if n != GIVEN_DATA)
    data = GIVEN_DATA in conditions
    if space.discrete or space.kind == "sphere":
        return Spec(node.name, given, data, space, None, plates=plates)
    return Spec(node.name, given, data, space, family, *_where(space, node.distribution), plates=plates)


def _where(space: Space, prior: Any) -> tuple[float, float]:
    """Centre and spread of a site's coordinates under its prior; 0 and 1 where they may be that."""
    with seeded(0):
        u = space.coordinates(prior.sample((1 + DRAWS // prior.batch_shape.numel(),))).flatten()[:DRAWS].double()
    low, centre, high = (float(q) for q in u.quantile(u.new_tensor([0.1587, 0.5, 0.8413])))  # -1, 0, 1 of a normal
    spread, error = (high - low) / 2, SURE * 1.3 / len(u) ** 0.5
    if not 0 < spread < float("inf") or (abs(centre) < error and abs(spread - 1) < error):
        return 0.0, 1.0
    return centre, spread
