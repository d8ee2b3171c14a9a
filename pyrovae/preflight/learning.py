"""Mistakes in what depends on what, and in what learns: each a small function from facts to findings."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from ..objectives.checks import check_estimate
from ..program import seeded
from ..program.checks import redrawing
from ..program.graph import Node
from .facts import Facts, run, sites_of
from .finding import Finding, of_error, of_refusal

PATHWISE = ("pathwise", "stl", "dreg")
JITTER = 0.01
NAMED = 4  # parameters that a finding names


def global_reads_data(facts: Facts) -> Iterator[Finding]:
    """A latent for all data whose guide is another one for every batch."""
    for node in facts.guide_graph if facts.sound else ():
        if not node.local and node.reads_data and not node.observed:
            message = f"guide site {node.name!r} is one for all data, and its distribution is a function of the batch"
            remedy = "give it parameters of its own, or put it inside the plate in model and guide"
            yield Finding("global reads data", node.name, message, remedy)


def guide_ignores_data(facts: Facts) -> Iterator[Finding]:
    """A latent of a datum whose guide does not look at the datum."""
    nodes = {n.name: n for n in facts.guide_graph} if facts.sound else {}
    for node in nodes.values():
        if node.local and not node.observed and not any(n.reads_data for n in _ancestry(node, nodes)):
            message = f"guide site {node.name!r} does not depend on x: its posterior is the same for every datum"
            yield Finding(
                "guide ignores data", node.name, message, "make its distribution a function of x", fatal=False
            )


def unused_latents(facts: Facts) -> Iterator[Finding]:
    """A latent that explains nothing."""
    nodes = {n.name: n for n in facts.model_graph} if facts.sound else {}
    used = {n.name for node in nodes.values() if node.observed for n in _ancestry(node, nodes)}
    for node in nodes.values():
        if node.name not in used and not node.observed:
            message = f"no observed site of the model depends on {node.name!r}: its posterior is its prior"
            yield Finding("unused latent", node.name, message, "use it in the likelihood, or take it out", fatal=False)


def no_path(facts: Facts) -> Iterator[Finding]:
    """A latent that acts by a comparison, an index or a detached value, under an objective that follows derivatives."""
    if not facts.sound or getattr(facts.objective, "gradient", None) not in PATHWISE:
        return
    values = {n: v.detach().requires_grad_(v.is_floating_point()) for n, v in facts.values.items()}
    with torch.enable_grad():
        trace = run(facts.vae, "model", facts.x, values)
        terms = {n: s["fn"].log_prob(s["value"]).sum() for n, s in sites_of(trace)}
    for name, site in facts.posterior.items():
        after = [terms[n.name] for n in facts.model_graph if name in n.parents and n.name in terms]
        if not after or not site["fn"].has_rsample or not values[name].requires_grad:
            continue
        if not any(_reaches(term, values[name]) for term in after):
            message = f"site {name!r} acts on others by a comparison, an index or a detached value alone"
            remedy = "let it act by a smooth function, or take an objective with gradient='score' or 'vimco'"
            yield Finding("no gradient", name, f"{message}: its draws have no gradient", remedy, fatal=False)


def _reaches(y: Tensor, x: Tensor) -> bool:
    """Whether a path of derivatives leads from y to x."""
    return y.requires_grad and torch.autograd.grad(y, x, retain_graph=True, allow_unused=True)[0] is not None


def _ancestry(node: Node, nodes: dict[str, Node]) -> Iterator[Node]:
    """A node, and all that it depends on."""
    seen, rest = {node.name}, [node]
    while rest:
        node = rest.pop()
        yield node
        rest += [nodes[p] for p in node.parents if p not in seen]
        seen.update(node.parents)


def unowned_parameters(facts: Facts) -> Iterator[Finding]:
    """Parameters in Pyro's global store, which no optimiser of ours sees."""
    own = {p.data_ptr() for p in facts.vae.parameters()} if isinstance(facts.vae, nn.Module) else set()
    traces = [t for t in (facts.model, facts.guide) if t]
    params = {n: s["value"] for t in traces for n, s in t.nodes.items() if s["type"] == "param"}
    stray = [n for n, p in params.items() if p.data_ptr() not in own]
    if stray:
        message = f"{_names(stray)} is in Pyro's param store alone and no parameter of {type(facts.vae).__name__}"
        remedy = "make it an nn.Parameter or a submodule, or wrap plain functions in pv.Program(model, guide)"
        yield Finding("unowned parameters", None, f"{message}: fit would not train it", remedy, fatal=False)


def dropout(facts: Facts) -> Iterator[Finding]:
    """Dropout, or other noise, under an objective that runs the guide twice."""
    drops = [module for _, module in redrawing(facts.vae)]
    if not drops or not facts.sound:
        return
    try:
        for m in drops:
            m.training = True
        with seeded(0, facts.x.device), torch.enable_grad():
            facts.objective(facts.vae, facts.x)
    except ValueError as error:
        if (found := of_refusal(error)).kind == "dropout":
            yield found
    finally:
        for m in drops:
            m.training = False


def gradients(facts: Facts) -> Iterator[Finding]:
    """What the objective refuses, and parameters that it does not reach."""
    if not facts.sound:
        return
    vae = facts.vae
    named = dict(vae.named_parameters()) if isinstance(vae, nn.Module) else {}
    named = {n: p for n, p in named.items() if p.requires_grad}
    try:
        found = _gradients(facts, named)
    except ValueError as error:
        yield of_refusal(error, "objective")
        return
    except Exception as error:
        yield of_error(error, type(facts.objective).__name__, facts.x)
        return
    none = [n for n, g in found.items() if g is None]
    zero = {n: named[n] for n, g in found.items() if g is not None and _is_zero(g)}
    if zero:
        with _jittered(named):
            try:
                again = _gradients(facts, zero)
            except Exception:  # other weights need not be allowed
                again = {}
        zero = {n: zero[n] for n, g in again.items() if g is None or _is_zero(g)}
    for names, what in ((none, "no gradient"), (list(zero), "a gradient of exactly zero")):
        if names:
            message = f"{_names(names)} gets {what} from {type(facts.objective).__name__}"
            remedy = "use it in the model or the guide, give it requires_grad=False, or take it out"
            yield Finding("no gradient", None, message, remedy, fatal=False)


def _gradients(facts: Facts, named: dict[str, nn.Parameter]) -> dict[str, Tensor | None]:
    """Of −mean(surrogate), by name; nothing is added to .grad."""
    if not named:
        return {}
    with seeded(0, facts.x.device), torch.enable_grad():
        loss = -check_estimate(facts.objective, facts.vae, facts.x).surrogate.mean()
        return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


def _is_zero(gradient: Tensor) -> bool:
    return not bool(gradient.any())


@contextmanager
def _jittered(named: dict[str, nn.Parameter]) -> Generator[None]:
    """A little noise on all parameters, so that a layer that starts at zero lets gradients through; put back after."""
    kept = {n: p.detach().clone() for n, p in named.items()}
    try:
        with torch.no_grad(), seeded(1, next(iter(kept.values())).device):
            for p in named.values():
                p.add_(JITTER * torch.randn_like(p))
        yield
    finally:
        with torch.no_grad():
            for n, p in named.items():
                p.copy_(kept[n])


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'parameter' if len(names) == 1 else 'each of the parameters'} {', '.join(names[:NAMED])}{more}"
