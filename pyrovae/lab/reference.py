"""What is true, or as near to it as can be had: log p(x), and the gradients that estimators are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import RelaxedBernoulliStraightThrough, RelaxedOneHotCategoricalStraightThrough
from torch import Tensor, nn

from ..evaluation import anneal, evaluate
from ..objectives import Objective
from ..program import Densities, Detached, densities, seeded, unwrapped
from ..relaxed import RelaxedBernoulli
from .statistics import Moments

PARTICLES = 5000
PARTS = 4
ROWS = 2**14  # particles times data at once, with gradients
Reference = str | int | Tensor


@dataclass(frozen=True)
class Evidence:
    """log p(x) of each datum.

    Attributes:
        log_evidence: [B] in nats.
        error: Monte Carlo standard error of its mean over the data; 0 where it is exact.
        by: how it was found.
    """

    log_evidence: Tensor
    error: float
    by: str


def find_evidence(vae: Any, x: Tensor, reference: Reference, seed: int, progress: bool) -> Evidence:
    """log p(x) as asked for.

    Args:
        vae: the program.
        x: data [B, *event].
        reference: "exact" by the model's `log_evidence(x)`; "ais" by annealed importance sampling; a number of
            particles of importance sampling; log p(x) itself, [B]; or "auto", the first of "exact", "ais" and 5,000
            particles that the program allows.
        seed: of the draws.
        progress: show a progress bar.

    Raises:
        ValueError: for another word, "exact" without a `log_evidence(x)`, values of another shape, and as `evaluate`
            and `anneal`.
    """
    if isinstance(reference, Tensor):
        if reference.shape != (len(x),):
            got = list(reference.shape)
            raise ValueError(f"compare expects reference as log p(x) of each datum, [{len(x)}], got shape {got}")
        return Evidence(reference.to(x), 0.0, "given")
    if isinstance(reference, int):
        return _sampled(vae, x, reference, seed, progress)
    if reference not in ("auto", "exact", "ais"):
        raise ValueError(
            f"compare expects reference as 'auto', 'exact', 'ais', a number of particles or log p(x), got {reference!r}"
        )
    tractable = callable(getattr(vae, "log_evidence", None))
    if reference == "exact" and not tractable:
        raise ValueError(
            f"compare cannot have an exact reference: {type(vae).__name__} has no log_evidence(x); use reference='auto'"
        )
    if tractable and reference != "ais":
        with torch.no_grad():
            return Evidence(vae.log_evidence(x), 0.0, "exact")
    try:
        ev = anneal(vae, x, seed=seed, progress=progress)
    except ValueError:
        if reference == "ais":
            raise
        return _sampled(vae, x, PARTICLES, seed, progress)  # discrete latents, say
    by = f"annealed importance sampling, {ev.chains} chains of {ev.steps} steps"
    return Evidence(ev.log_evidence.to(x), ev.log_evidence_monte_carlo_error, by)


def _sampled(vae: Any, x: Tensor, particles: int, seed: int, progress: bool) -> Evidence:
    ev = evaluate(vae, x, particles, seed, progress)
    by = f"importance sampling, {particles:,} particles"
    return Evidence(ev.log_evidence.to(x), ev.log_evidence_monte_carlo_error, by)


def evidence_gradient(
    vae: Any, x: Tensor, parameters: list[nn.Parameter], exact: bool, particles: int, seed: int
) -> tuple[Tensor, float]:
    """∂ log p(x) / ∂θ, mean over the data, [P], and the length of its error: exact, or by importance sampling,

        ∂ log p(x) = E_{p(z | x)}[∂ log p(x, z)] ≈ Σ_k w_k ∂ log p(x, z_k) / Σ_k w_k,    w = p(x, z) / q(z | x)

    for each of four parts of the particles, whose spread is the error of their mean; the bias of a part, of order
    one over its particles, is not seen in it.
    """
    if exact:
        gradient = torch.autograd.grad(vae.log_evidence(x).mean(), parameters, allow_unused=True)
        return flat(gradient, parameters), 0.0
    each = max(2, particles // PARTS)
    chunk = max(1, min(each, ROWS // len(x)))
    sizes = [min(chunk, each - start) for start in range(0, each, chunk)]
    moments = Moments(PARTS)
    for part in range(PARTS):

        def chunks(first: int = seed + part * len(sizes)) -> Iterator[Densities]:
            """The same draws each time."""
            for i, size in enumerate(sizes):
                with seeded(first + i, x.device):
                    yield densities(vae, x, size, drawn=Detached())

        with torch.no_grad():
            log_total = torch.stack([d.log_weight.logsumexp(0) for d in chunks()]).logsumexp(0)  # [B]
        gradient = torch.zeros(sum(p.numel() for p in parameters), dtype=x.dtype, device=x.device)
        for d in chunks():
            share = (d.log_weight.detach() - log_total).exp()
            own = torch.autograd.grad((share * d.log_joint).sum(0).mean(), parameters, allow_unused=True)
            gradient += flat(own, parameters)
        moments.add(gradient)
    return moments.mean(), moments.error()


BROKEN = RelaxedBernoulli, RelaxedBernoulliStraightThrough, RelaxedOneHotCategoricalStraightThrough


def has_paths(vae: Any, x: Tensor) -> bool:
    """Whether every draw of the guide is a differentiable function of its parameters, in truth.

    A discrete draw with a straight-through gradient is none, and neither is a relaxed one with mass at its ends.
    """
    with torch.no_grad():
        d = densities(vae, x, exact=True)
    drawn = [s for n, s in d.posterior.items() if n not in d.enumerated]
    return not any(
        not s.reparametrised or s.distribution.support.is_discrete or isinstance(unwrapped(s.distribution), BROKEN)
        for s in drawn
    )


def own_gradient(
    vae: Any, x: Tensor, objective: Objective, parameters: list[nn.Parameter], baseline: Tensor, paths: bool
) -> Tensor | None:
    """One unbiased draw of the gradient of the expected bound that an objective reports, mean over the data: [P].

    The plain derivative of the bound; where the guide's draws have no path, with the score function in its place,

        ∂E_q[𝓛] = E_q[∂𝓛 + (𝓛 − baseline) Σ_k ∂ log q(z_k | x)]

    None for an objective that does not say its bound by the log weights, and for latents outside the data plate.

    Args:
        vae: the program.
        x: data [B, *event].
        objective: whose bound it is.
        parameters: of the gradient.
        baseline: [B], of no influence on the mean.
        paths: as `has_paths` says.
    """
    d = densities(vae, x, objective.draws, exact=True, drawn=None if paths else Detached())
    bound = None if d.global_sites else objective.bound_of(d.log_weight, d.log_mass)
    if bound is None or (d.shared > 1 and not paths):
        return None
    if not paths:
        bound = bound + (bound.detach() - baseline) * d.log_sampled.sum(0)
    return flat(torch.autograd.grad(bound.mean(), parameters, allow_unused=True), parameters)


def flat(gradient: Any, parameters: list[nn.Parameter]) -> Tensor:
    """A gradient as one vector [P]; what is not reached is 0."""
    rows = zip(gradient, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in rows])


def parameter_groups(vae: Any, x: Tensor) -> dict[str, list[nn.Parameter]]:
    """The parameters that log p(x, z) depends on ("model"), log q(z | x) ("guide"), or both of them ("both").

    They are told apart by the gradients that reach them at values of z that are held fixed. Raises ValueError where
    there are none.
    """
    parameters = [p for p in vae.parameters() if p.requires_grad]
    d = densities(vae, x)
    with torch.enable_grad():
        d = densities(vae, x, given={n: v.detach() for n, v in d.passed.items()})
        sides = [[*d.prior.values(), *d.likelihood.values()], [*d.posterior.values()]]
        totals = [sum(s.log_prob.sum() for s in sites) for sites in sides]
        reached = [
            torch.autograd.grad(t, parameters, retain_graph=True, allow_unused=True)
            if isinstance(t, Tensor) and t.requires_grad
            else [None] * len(parameters)
            for t in totals
        ]
    groups: dict[str, list[nn.Parameter]] = {"model": [], "guide": [], "both": []}
    names = {(True, False): "model", (False, True): "guide", (True, True): "both"}
    for p, *gradients in zip(parameters, *reached, strict=True):
        name = names.get((gradients[0] is not None, gradients[1] is not None))
        if name is not None:
            groups[name].append(p)
    if not any(groups.values()):
        raise ValueError(f"{type(vae).__name__} has no parameters, so that there are no gradients to compare")
    return {name: members for name, members in groups.items() if members}
