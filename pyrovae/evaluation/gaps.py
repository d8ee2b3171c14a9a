"""How far an ELBO is from log p(x), and what of it is the family's fault and what the encoder's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..posteriors import DiagonalNormal, Posterior, SemiAmortised
from ..program import Densities, densities, evaluating, home, seeded
from .annealed import Part
from .arguments import check_count, check_data
from .evidence import _ELEMENTS, POINT_REMEDY, Evidence
from .grid import Grid, resolved

WHO = "gaps"
SETTLED = 1e-3  # nats that the last half of the steps may still add where an optimisation has converged
DRAWS = 8  # for each datum and step, beyond two dimensions
LEARNING_RATE = 0.05  # of the code there, which falls to 0
_ELEMENTS_Q = 2**18  # points of the grid, times data, that are optimised at once


@dataclass(frozen=True)
class Gaps:
    """log p(x) = ELBO + amortisation gap + approximation gap, of N data: all [N], in nats.

    Attributes:
        log_evidence: log p(x).
        elbo: the ELBO of the guide's q(z | x).
        best_elbo: the highest ELBO that was found within the guide's family.
        log_evidence_error: of log_evidence; on a grid the grid's `error`, which overstates it, else a standard error.
        elbo_error: standard error of elbo; 0 on a grid.
        best_elbo_error: standard error of best_elbo; 0 on a grid.
        amortisation_error: standard error of the amortisation gap, its draws paired; 0 on a grid.
        converged: whether the last half of the steps added less than 0.001 nats (beyond two dimensions, less than two
            standard errors or 0.01 nats) to best_elbo.
        grid: what the integrals were taken on; None beyond two dimensions.
        log_best: log q*(z | x) on the grid, [G, N]; None beyond two dimensions.
    """

    log_evidence: Tensor
    elbo: Tensor
    best_elbo: Tensor
    log_evidence_error: Tensor
    elbo_error: Tensor
    best_elbo_error: Tensor
    amortisation_error: Tensor
    converged: Tensor
    grid: Grid | None = None
    log_best: Tensor | None = None

    @property
    def approximation(self) -> Tensor:
        """log p(x) − max_q ELBO = min_q KL(q ‖ p(z | x)): what no member of the family can do: [N]."""
        return self.log_evidence - self.best_elbo

    @property
    def amortisation(self) -> Tensor:
        """max_q ELBO − ELBO: what the encoder loses against a q of each datum's own: [N]."""
        return self.best_elbo - self.elbo

    @property
    def approximation_error(self) -> Tensor:
        """Of the approximation gap: [N]."""
        return (self.log_evidence_error.square() + self.best_elbo_error.square()).sqrt()

    def to_dict(self) -> dict[str, Any]:
        """Means over the data, in nats per datum, and the share of the data whose optimisation converged."""
        figures = ("log_evidence", "elbo", "best_elbo", "approximation", "amortisation")
        return {name: float(getattr(self, name).mean()) for name in figures} | {
            "converged": float(self.converged.double().mean()),
            "data": len(self.elbo),
        }


def gaps(
    vae: Any,
    x: Tensor,
    steps: int | None = None,
    points: int | None = None,
    tolerance: float = 0.01,
    particles: int = 1000,
    evidence: Evidence | None = None,
    seed: int = 0,
) -> Gaps:
    """What the ELBO of each datum lacks: because of the family of q, and because one encoder serves all data.

        log p(x) = ELBO + (max_q ELBO − ELBO) + (log p(x) − max_q ELBO)
                          amortisation gap      approximation gap

    Both gaps together are KL(q(z | x) ‖ p(z | x)). The maximum is over the numbers that the encoder returns for a
    datum (`Posterior.code`), found by gradient steps from the encoder's own; what the posterior has in common for all
    data, such as the layers of a flow, stays. It is a local one: a bound of the amortisation gap from below, and of the
    approximation gap from above. On a grid a second start, and the better of both, is the q that covers p(z | x) best,
    which maximises ∫ p(z | x) log q.

    With one or two latent dimensions every integral is taken on the grid of `exact_posterior`, q normalised on it, so
    that no gap is negative and there is no Monte Carlo error. With more, steps are taken along draws, with the gradient
    that leaves the score out ("sticking the landing"), and both bounds are then estimated by new draws in common; log
    p(x) is importance-sampled from the best q. That is on average a lower bound, and so is the approximation gap.

    Args:
        vae: a model with a part `posterior`, one of `pyrovae.posteriors` or another with a `network`, that alone makes
            the guide, as in VAE and LinearGaussian; its latent continuous.
        x: data [N, *event].
        steps: for each datum; None for 200 of L-BFGS on a grid, or 1,000 of Adam beyond two dimensions.
        points: as in `exact_posterior`.
        tolerance: as in `exact_posterior`, for the mass of q(z | x) as well.
        particles: K that the bounds are estimated by, beyond two dimensions.
        evidence: of the same data, beyond two dimensions, in place of the best q's: `pv.anneal(vae, x)`, say.
        seed: of the draws; the caller's random numbers are untouched.

    Raises:
        ValueError: for a guide that is not made of such a posterior alone, discrete latents, draws without a path
            beyond two dimensions, evidence of other data, and as `exact_posterior` does.

    References: Cremer, Li and Duvenaud, "Inference suboptimality in variational autoencoders", 2018; Roeder, Wu and
    Duvenaud, "Sticking the landing", 2017.

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.LinearGaussian.build(data, latent=1)
    >>> found = pv.evaluation.gaps(vae, data.test[:3])
    >>> bool((found.approximation < 1e-6).all())  # the posterior of one dimension is normal
    True
    """
    check_data(WHO, x)
    check_count(WHO, "steps of at least 2", "steps", 2 if steps is None else steps, 2)
    check_count(WHO, "particles of at least 2", "particles", particles, 2)
    device, dtype = home(vae)
    x = x.to(device, dtype)
    with evaluating(vae), seeded(seed, device), pyro.validation_enabled(True):
        one = densities(vae, x[:2])
        one.local_only(WHO)
        one.weighable(WHO, POINT_REMEDY)
        name, family = _family_of(vae, x[:2], one)
        part = Part(one.posterior[name], one.shape, WHO)
    latent = part.rows(part.start).shape[-1]
    if latent <= 2:
        return _on_grid(vae, x, family, steps or 200, points, tolerance, seed)
    if evidence is not None and len(evidence.log_evidence) != len(x):
        raise ValueError(f"gaps expects evidence of the same {len(x)} data, got that of {len(evidence.log_evidence)}")
    if not one.posterior[name].reparametrised:
        raise ValueError(
            f"gaps expects draws of q(z | x) with a gradient beyond two dimensions, and those of site {name!r} have "
            "none; build the model with latent=2, or take another posterior"
        )
    return _by_draws(vae, x, name, family, steps or 1000, particles, evidence, seed)


class _Given(nn.Module):
    """A network that returns the code it was given."""

    code: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.code


class _Family:
    """The distributions that a posterior makes of codes [N, *code], in the place of an encoder's output."""

    def __init__(self, posterior: Posterior) -> None:
        self.encoder, self._given = posterior.network, _Given()
        if isinstance(posterior, SemiAmortised):  # its steps stay within the family
            self._posterior: nn.Module = DiagonalNormal(self._given)
        else:
            self._posterior = copy.deepcopy(posterior, {id(self.encoder): self._given})

    def __call__(self, code: Tensor) -> Any:
        """q: batch shape [N], event shape [L]."""
        self._given.code = code
        return self._posterior(code)  # of x it reads the dtype alone

    def to(self, dtype: torch.dtype) -> _Family:
        self._posterior.to(dtype)
        return self


def _family_of(vae: Any, x: Tensor, d: Any) -> tuple[str, _Family]:
    """The site of the guide, and its family. Raises ValueError where the guide is not a posterior's alone."""
    posterior = getattr(vae, "posterior", None)
    remedy = "build the model as VAE(prior, likelihood, posterior)"
    if not isinstance(posterior, Posterior) or len(d.posterior) != 1:
        got = f"posterior of type {type(posterior).__name__} and latents {list(d.posterior)}"
        raise ValueError(
            f"gaps optimises the code that an encoder gives a posterior, and expects a guide of one latent with a "
            f"vae.posterior of pyrovae.posteriors, got {got}; {remedy}"
        )
    ((name, site),) = d.posterior.items()
    if getattr(site.distribution.support, "is_discrete", False):
        raise ValueError(f"gaps expects a continuous latent, and site {name!r} is discrete; use pv.evaluate")
    with pyro.validation_enabled(False):
        own = posterior(x).log_prob(site.value)
    if own.shape != d.log_posterior.shape[1:] or not torch.allclose(own, d.log_posterior[0], rtol=1e-3, atol=1e-3):
        raise ValueError(f"gaps expects a guide that is q(z | x) = vae.posterior(x), and this one is another; {remedy}")
    return name, _Family(posterior)


# One or two dimensions


def _on_grid(vae: Any, x: Tensor, family: _Family, steps: int, points: int | None, tolerance: float, seed: int) -> Gaps:
    grid = resolved(vae, x, points, tolerance, seed, WHO, guide=True)
    half, family = grid.every_second(), family.to(torch.float64)
    size = max(1, _ELEMENTS_Q // len(half.z))
    found = []
    with evaluating(vae), seeded(seed, x.device), pyro.validation_enabled(False):
        start = family.encoder(x).double()
        for rows in torch.arange(len(x), device=x.device).split(size):
            part = half.of_data(rows)
            z = part.z.double()[:, None]

            def bound(code: Tensor, part: Grid = part, z: Tensor = z) -> Tensor:
                return -part.divergence(family(code).log_prob(z))

            def cover(code: Tensor, part: Grid = part, z: Tensor = z) -> Tensor:
                return part.mean(family(code).log_prob(z))

            # minus KL(p(z | x) ‖ q), which does not stay in a mode that the encoder happens to be near
            covering = _climbed(cover, start[rows], steps)[0]
            near, far = (_climbed(bound, code, steps) for code in (start[rows], covering))
            higher = far[1] > near[1]
            shape = -1, *[1] * (start.dim() - 1)
            code = torch.where(higher.view(shape), far[0], near[0])
            found.append((code, torch.where(higher, far[2], near[2])))
        code, last = (torch.cat(t) for t in zip(*found, strict=True))
        z = grid.z.double()[:, None]
        log_best = torch.cat([family(c).log_prob(z) for c in code.split(size)], 1)  # [G, N]
    elbo, best = grid.elbo(grid.log_guide), grid.elbo(log_best)
    mass = grid.log_integral(log_best)
    kept = (best >= elbo) & (mass.abs() <= tolerance)  # a q between the points, or out of the box, is none that is seen
    none = torch.zeros_like(elbo)
    return Gaps(
        log_evidence=grid.log_evidence,
        elbo=elbo,
        best_elbo=torch.where(kept, best, elbo),
        log_evidence_error=grid.error,
        elbo_error=none,
        best_elbo_error=none,
        amortisation_error=none,
        converged=(last < SETTLED) & (kept | (elbo - best < SETTLED)) & (mass.abs() <= tolerance),
        grid=grid,
        log_best=torch.where(kept, log_best, grid.log_guide),
    )


def _climbed(bound: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The code of the highest bound by L-BFGS, the bound, and what the last half of the steps added to it, [N]."""
    code = start.clone().requires_grad_()
    reached = []
    with torch.enable_grad():
        for _ in range(2):
            optimiser = torch.optim.LBFGS(
                [code],
                max_iter=steps // 2,
                history_size=20,
                tolerance_grad=1e-7,
                tolerance_change=1e-10,
                line_search_fn="strong_wolfe",
            )

            def loss() -> Tensor:
                code.grad = None
                total = -bound(code).sum()
                code.grad = torch.autograd.grad(total, code)[0]
                return total

            optimiser.step(loss)
            reached.append(bound(code).detach())
    return code.detach(), reached[1], (reached[1] - reached[0]).abs()


# More dimensions


def _by_draws(
    vae: Any,
    x: Tensor,
    name: str,
    family: _Family,
    steps: int,
    particles: int,
    evidence: Evidence | None,
    seed: int,
) -> Gaps:
    size = max(1, _ELEMENTS // (DRAWS * max(1, x[0].numel())))
    parts = []
    for batch in x.split(size):
        with evaluating(vae), seeded(seed, x.device), pyro.validation_enabled(False):
            half, code = _ascended(vae, batch, name, family, steps)
            chunk = max(2, size * DRAWS // len(batch))
            sizes = [min(chunk, particles - k) for k in range(0, particles, chunk)]
            logs = [_log_weights(vae, batch, name, family, (half, code), k, seed + i) for i, k in enumerate(sizes)]
        parts.append([torch.cat(t) for t in zip(*logs, strict=True)])
    own, half, best = (torch.cat(t, 1).double().cpu() for t in zip(*parts, strict=True))  # [K, N]
    kept = best.mean(0) >= own.mean(0)
    root = math.sqrt(particles)
    settled = (best - half).mean(0) < torch.clamp(2 * (best - half).std(0) / root, min=SETTLED * 10)
    best = torch.where(kept, best, own)
    log_evidence = best.logsumexp(0) - math.log(particles)
    return Gaps(
        log_evidence=log_evidence if evidence is None else evidence.log_evidence.double(),
        elbo=own.mean(0),
        best_elbo=best.mean(0),
        log_evidence_error=(
            (best - log_evidence).exp().std(0) / root if evidence is None else evidence.standard_error.double()
        ),
        elbo_error=own.std(0) / root,
        best_elbo_error=best.std(0) / root,
        amortisation_error=(best - own).std(0) / root,
        converged=settled,
    )


def _ascended(vae: Any, x: Tensor, name: str, family: _Family, steps: int) -> tuple[Tensor, Tensor]:
    """The code after half of the steps of Adam, and after all of them."""
    like = densities(vae, x, DRAWS)
    code = family.encoder(x).to(x.dtype).clone().requires_grad_()
    optimiser = torch.optim.Adam([code], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    middle = code
    with torch.enable_grad():
        for step in range(steps):
            log_weight = _log_weight(vae, x, like, name, family(code), family(code.detach()))
            code.grad = torch.autograd.grad(-log_weight.mean(0).sum(), code)[0]
            optimiser.step()
            schedule.step()
            if step + 1 == steps // 2:
                middle = code.detach().clone()
    return middle, code.detach()


def _log_weight(vae: Any, x: Tensor, like: Densities, name: str, q: Any, held: Any) -> Tensor:
    """log p(x, z) − log q(z) at draws of q, its density taken as that of `held`, as many as `like` has: [K, B]."""
    z = q.rsample(like.shape[:1])  # [K, B, L]
    site = like.posterior[name]
    value = Part(site, like.shape, WHO).placed(z, site.value)
    return densities(vae, x, len(z), given={name: value}).log_joint - held.log_prob(z)


def _log_weights(
    vae: Any, x: Tensor, name: str, family: _Family, codes: Sequence[Tensor], draws: int, seed: int
) -> list[Tensor]:
    """log w of new draws from the guide and from q of the codes, all from the same random numbers: [K, B]."""
    with seeded(-1 - seed, x.device):
        own = densities(vae, x, draws)
    found = [own.log_weight]
    for code in codes:
        with seeded(-1 - seed, x.device):
            found.append(_log_weight(vae, x, own, name, family(code), family(code)))
    return found
