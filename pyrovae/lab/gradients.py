"""Gradients as vectors, the groups of parameters they are of, and what they are held against."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import RelaxedBernoulliStraightThrough, RelaxedOneHotCategoricalStraightThrough
from torch import Tensor, nn

from ..distributions.relaxed import RelaxedBernoulli
from ..objectives import Objective
from ..program import Detached, densities, unwrapped

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

    They are told apart by the gradients that reach them at values of z that are held fixed; one that a draw alone
    depends on, as in a point estimate, is the guide's. Raises ValueError where there are none.
    """
    parameters = [p for p in vae.parameters() if p.requires_grad]
    with torch.enable_grad():
        d = densities(vae, x)
        still = densities(vae, x, given={n: v.detach() for n, v in d.passed.items()})
        sides = [[*still.prior.values(), *still.likelihood.values()], [*still.posterior.values()]]
        drawn = [[*d.prior.values(), *d.likelihood.values()]]
        reached = [
            torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
            if isinstance(total, Tensor) and total.requires_grad
            else [None] * len(parameters)
            for total in (sum(s.log_prob.sum() for s in sites) for sites in sides + drawn)
        ]
    groups: dict[str, list[nn.Parameter]] = {"model": [], "guide": [], "both": []}
    for p, *gradients in zip(parameters, *reached, strict=True):
        model, guide, path = (g is not None for g in gradients)
        if model or guide or path:
            groups["both" if model and guide else "model" if model else "guide"].append(p)
    if not any(groups.values()):
        raise ValueError(f"{type(vae).__name__} has no parameters with a gradient, so that there are none to compare")
    return {name: members for name, members in groups.items() if members}
