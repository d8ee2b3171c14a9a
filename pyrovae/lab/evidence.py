"""log p(x), and its gradient by the model's parameters: exact, or as near to it as can be had."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..evaluation import evaluate
from ..evaluation.annealed import visit_ends
from ..program import Densities, Detached, densities, seeded
from .gradients import flat
from .statistics import Moments

PARTICLES = 5000
CHAINS, STEPS, LEAPFROG = 16, 200, 5
PARTS = 8  # of the particles or chains, whose spread is the error of a gradient
ENOUGH = 100.0  # effective draws of every datum, under which a gradient by importance sampling is not trusted
ROWS = 2**14  # particles times data at once, with gradients
Reference = str | int | Tensor


@dataclass(frozen=True)
class Evidence:
    """log p(x) of each datum, and its gradient.

    Attributes:
        log_evidence: [B] in nats.
        error: Monte Carlo standard error of its mean over the data; 0 where it is exact.
        by: how it was found.
        gradient: ∂ mean log p(x) by the model's parameters, [P]; None where it is not known.
        gradient_error: the length of its error.
    """

    log_evidence: Tensor
    error: float
    by: str
    gradient: Tensor | None = None
    gradient_error: float = 0.0


def find_evidence(
    vae: Any, x: Tensor, parameters: list[nn.Parameter], reference: Reference, seed: int, progress: bool
) -> Evidence:
    """log p(x) as asked for.

    Args:
        vae: the program.
        x: data [B, *event].
        parameters: of the model, by which its gradient is taken.
        reference: "exact" by the model's `log_evidence(x)`; "ais" by annealed importance sampling; a number of
            particles of importance sampling; log p(x) itself, [B]; or "auto", the first of "exact", "ais" and 5,000
            particles that the program allows.
        seed: of the draws.
        progress: show a progress bar.

    Raises:
        ValueError: for another word, "exact" without a `log_evidence(x)`, values of another shape, and as `evaluate`
            and `anneal`.
    """
    check_reference(reference)
    if isinstance(reference, Tensor):
        _check_shape("reference as log p(x) of each datum", reference, x)
        return Evidence(reference.to(x), 0.0, "given")
    if isinstance(reference, int):
        return _sampled(vae, x, parameters, reference, seed, progress)
    tractable = callable(getattr(vae, "log_evidence", None))
    if reference == "exact" and not tractable:
        raise ValueError(
            f"compare cannot have an exact reference: {type(vae).__name__} has no log_evidence(x); use reference='auto'"
        )
    if tractable and reference != "ais":
        return _exact(vae, x, parameters)
    try:
        return _annealed(vae, x, parameters, seed, progress)
    except ValueError:
        if reference == "ais":
            raise
        return _sampled(vae, x, parameters, PARTICLES, seed, progress)  # discrete latents, say


def check_reference(reference: Any) -> None:
    """Refuse what is none. Raises ValueError."""
    known = reference in ("auto", "exact", "ais") if isinstance(reference, str) else isinstance(reference, int | Tensor)
    if not known:
        raise ValueError(
            f"compare expects reference as 'auto', 'exact', 'ais', a number of particles or log p(x), got {reference!r}"
        )


def _check_shape(what: str, log_evidence: Tensor, x: Tensor) -> None:
    if log_evidence.shape != (len(x),):
        raise ValueError(f"compare expects {what}, [{len(x)}], got shape {list(log_evidence.shape)}")


def _exact(vae: Any, x: Tensor, parameters: list[nn.Parameter]) -> Evidence:
    with torch.enable_grad():
        log_evidence = vae.log_evidence(x)
        _check_shape(f"log_evidence(x) of {type(vae).__name__} for each datum", log_evidence, x)
        known = Evidence(log_evidence.detach(), 0.0, "exact")
        if not (log_evidence.requires_grad and parameters):
            return known
        return replace(known, gradient=_gradient(log_evidence.mean(), parameters))


def _gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    return flat(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True), parameters)


def _annealed(vae: Any, x: Tensor, parameters: list[nn.Parameter], seed: int, progress: bool) -> Evidence:
    """∂ log p(x) = E_{p(z | x)}[∂ log p(x, z)], over the ends of the chains with their weights."""
    part = torch.arange(CHAINS, device=x.device) * PARTS // CHAINS
    masks = [torch.ones_like(part, dtype=torch.bool), *(part == p for p in range(PARTS))]
    gradients = [torch.zeros(sum(p.numel() for p in parameters), dtype=x.dtype, device=x.device) for _ in masks]
    whole: list[bool] = []  # whether the chains of a batch came together: their weights are to be shared out at once

    def visit(batch: Tensor, log_weight: Tensor, latents: dict[str, Tensor]) -> None:
        k = len(log_weight)
        whole.append(k == CHAINS)
        with torch.enable_grad():
            log_joint = densities(vae, batch, k, given=latents).log_joint
            for total, mask in zip(gradients, masks, strict=True):
                share = log_weight.masked_fill(~mask[:k, None], -math.inf).softmax(0)
                total += _gradient((share * log_joint).sum(), parameters) / len(x)

    ev = visit_ends(vae, x, CHAINS, STEPS, LEAPFROG, seed, progress, visit if parameters else lambda *_: None)
    by = f"annealed importance sampling, {ev.chains} chains of {ev.steps} steps, {_count(ev, CHAINS)}"
    known = Evidence(ev.log_evidence.to(x), ev.log_evidence_monte_carlo_error, by)
    if not (parameters and all(whole)):
        return known
    error = _moments(gradients[1:]).error()
    return replace(known, gradient=gradients[0], gradient_error=error)


def _moments(parts: list[Tensor]) -> Moments:
    moments = Moments(len(parts))
    for part in parts:
        moments.add(part)
    return moments


def _sampled(
    vae: Any, x: Tensor, parameters: list[nn.Parameter], particles: int, seed: int, progress: bool
) -> Evidence:
    ev = evaluate(vae, x, particles, seed, progress)
    by = f"importance sampling, {particles:,} particles, {_count(ev, particles)}"
    known = Evidence(ev.log_evidence.to(x), ev.log_evidence_monte_carlo_error, by)
    if not parameters or _effective(ev, particles) < ENOUGH:
        return known
    moments = _moments(list(sampled_gradients(vae, x, parameters, particles, seed)))
    return replace(known, gradient=moments.mean(), gradient_error=moments.error())


def _effective(ev: Any, draws: int) -> float:
    """The effective draws, (Σ w)² / Σ w², of the datum that has fewest."""
    return float((draws / (1 + ev.standard_error.nan_to_num(0.0).square() * (draws - 1))).min())


def _count(ev: Any, draws: int) -> str:
    return f"an effective {_effective(ev, draws):,.0f} for the worst datum"


def sampled_gradients(
    vae: Any, x: Tensor, parameters: list[nn.Parameter], particles: int, seed: int
) -> Iterator[Tensor]:
    """∂ log p(x) ≈ Σ_k w_k ∂ log p(x, z_k) / Σ_k w_k, z_k ~ q(z | x), by each of eight parts of the particles: [P].

    The bias of a part is of order one over its effective particles, and not seen in their spread.
    """
    each = max(2, particles // PARTS)
    chunk = max(1, min(each, ROWS // len(x)))
    sizes = [min(chunk, each - start) for start in range(0, each, chunk)]
    for part in range(PARTS):

        def chunks(first: int = seed + part * len(sizes)) -> Iterator[Densities]:
            """The same draws each time."""
            for i, size in enumerate(sizes):
                with seeded(first + i, x.device):
                    yield densities(vae, x, size, drawn=Detached())

        log_total = torch.stack([d.log_weight.logsumexp(0) for d in chunks()]).logsumexp(0)  # [B]
        gradient = torch.zeros(sum(p.numel() for p in parameters), dtype=x.dtype, device=x.device)
        with torch.enable_grad():
            for d in chunks():
                share = (d.log_weight.detach() - log_total).exp()
                gradient += _gradient((share * d.log_joint).sum(0).mean(), parameters)
        yield gradient
