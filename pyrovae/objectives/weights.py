"""Every estimator here is one line of algebra: how much each particle counts, for the model and for the guide.

    gradient = Σ_k [ model_k ∂_θ log p(x, z_k)                 by the parameters of the model
                   + path_k  ∂_z log w_k · dz_k/dφ             through the draws of the guide
                   + score_k ∂_φ log q(z_k | x) ]              through its density, the draws held fixed

With v_k = ∂bound / ∂log w_k, of which Σ v_k = 1 for the bounds here:

    pathwise  path = v, score = −v          the plain derivative
    stl       path = v, score = 0           sticking the landing: drops a term that is zero in the mean for the ELBO
    dreg      path = v − ∂v_k/∂log w_k, score = 0      doubly reparametrised: that term turned into a path
    score     path = 0, score = bound − v   no derivative of a draw, so for discrete latents too
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..config import nearest
from ..program import Densities, Detached, GenerativeProgram, check_particles, densities
from .base import Estimate, Objective

TINY = 1e-12


@dataclass(frozen=True)
class Weights:
    """What each particle counts in the gradient, [K, B], without gradients of their own.

    Attributes:
        model: of ∂_θ log p(x, z).
        path: through the draws; None where they are held fixed.
        score: of ∂_φ log q over the sites that were drawn; None for −path, the plain derivative.
        enumerated: of ∂_φ log q over the sites that were enumerated; None where the estimator has none for them.
    """

    model: Tensor
    path: Tensor | None = None
    score: Tensor | None = None
    enumerated: Tensor | None = None


def surrogate(who: str, d: Densities, w: Weights) -> Tensor:
    """The function, [B], whose gradient is the estimator with these weights. Its value means nothing.

    Raises ValueError for enumerated sites of the guide where the estimator has no weight for them.
    """
    if w.enumerated is None:
        d.drawn_only(
            who, "leave it out of the guide, where the model sums over it inside any bound, or use ELBO or IWAE"
        )
    if w.path is None:
        assert w.score is not None
        terms = w.model * d.log_joint + w.score * d.log_sampled
    elif w.path is w.model:
        terms = w.model * (d.log_joint - d.log_sampled)
    else:  # ∂ log p / ∂z is taken once, for the model, and rescaled on its way to the guide
        least = TINY * w.path.abs()
        model = torch.where(w.model.abs() < least, least, w.model)  # to divide by; 0 where both are
        d.scale_path(torch.where(model == 0, 0.0, w.path / model))
        terms = model * d.log_joint - w.path * d.log_sampled
    if w.path is not None and w.score is not None:
        terms = terms + (w.path + w.score) * d.log_score
    if d.enumerated:
        assert w.enumerated is not None
        terms = terms + w.enumerated * d.log_enumerated
    return terms.sum(0)


class Weighted(Objective):
    """Abstract: an objective that is a bound of the log weights, and weights for its gradient.

    A new one defines `weigh`; densities, legality and the surrogate are here.
    """

    gradients: tuple[str, ...] = ("pathwise",)  # those that `gradient` may be
    fixed = ("score", "vimco")  # those that hold the draws fixed
    independent = ("dreg", "score", "vimco")  # those for rows that have no draw in common

    refused: ClassVar[dict[str, str]] = {  # options that may well be asked for, and why there are none
        "kl": "draws are weighed by p(x, z) / q(z | x), and a closed-form rate is not that of a draw: the result would "
        "be no such bound. Leave kl out, or use ELBO(kl='analytic') or BetaELBO"
    }

    def __new__(cls, *args: Any, **options: Any) -> Weighted:
        """Refuses such an option with its reason."""
        for name in cls.refused.keys() & options.keys():
            raise ValueError(f"{cls.__name__} has no {name}: {cls.refused[name]}")
        return super().__new__(cls)

    def __init__(self, particles: int = 5, gradient: str = "pathwise") -> None:
        super().__init__()
        check_particles(type(self).__name__, particles)
        check_gradient(type(self).__name__, gradient, self.gradients)
        self.particles, self.gradient = particles, gradient

    @abstractmethod
    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The bound [B] and the weights of its gradient.

        Args:
            log_weight: log w, [K, B].
            log_mass: log of each particle's share in a mean over particles, [K, B]: −log K, unless sites are
                enumerated.
        """

    def bound_of(self, log_weight: Tensor, log_mass: Tensor) -> Tensor:
        """The bound alone."""
        return self.weigh(log_weight, log_mass)[0]

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """The bound per datum. Raises ValueError for a program that the estimator is not for."""
        who, fixed = type(self).__name__, self.gradient in self.fixed
        d = densities(vae, x, self.draws, exact=True, drawn=Detached() if fixed else None)
        d.local_only(who)
        if not fixed:
            d.reparametrised(who)
        if d.shared > 1 and self.gradient in self.independent:
            raise ValueError(
                f"{who} with gradient={self.gradient!r} expects enumerated sites before those that are drawn, and the "
                f"guide draws a site before {', '.join(map(repr, sorted(d.enumerated)))}; change the order, or use "
                "gradient='pathwise' or ELBO(gradient='score')"
            )
        bound, weights = self.weigh(d.log_weight.detach(), d.log_mass.detach())
        return Estimate(bound, surrogate(who, d, weights))


def check_several(who: str, particles: int) -> None:
    """Refuse a single particle where particles are compared. Raises ValueError."""
    if particles < 2:
        raise ValueError(f"{who} compares particles and expects at least 2, got particles={particles}")


def check_gradient(who: str, gradient: Any, known: tuple[str, ...]) -> None:
    """Refuse an estimator that a bound does not have. Raises ValueError."""
    if gradient not in known:
        hint = " For the ELBO, 'stl' is what 'dreg' is." if (who, gradient) == ("ELBO", "dreg") else ""
        raise ValueError(f"{who} has no gradient {gradient!r}; {nearest(str(gradient), known)}{hint}")


def power_mean(log_weight: Tensor, log_mass: Tensor, t: float) -> Tensor:
    """1/t log Σ_k m_k w_k^t: [..., K, B] -> [..., B]; Σ m log w for t = 0, the largest for t = ∞.

    It rises with t: ELBO at 0, IWAE at 1, a Rényi bound of order α at 1 − α.
    """
    if t == 0:
        return (log_mass.exp() * log_weight).sum(-2)
    if t == float("inf"):
        return log_weight.amax(-2)
    if abs(t) < 0.1:  # the logarithm of a number near 1, to be divided by t
        end = log_weight.amax(-2, keepdim=True) if t > 0 else log_weight.amin(-2, keepdim=True)
        return end.squeeze(-2) + (log_mass.exp() * torch.expm1(t * (log_weight - end))).sum(-2).log1p() / t
    return (t * log_weight + log_mass).logsumexp(-2) / t


def elbo_of(objective: Any, log_weight: Tensor, log_mass: Tensor) -> Tensor:
    """Σ_k m_k log w_k: the `bound_of` of the objectives that report the ELBO."""
    return power_mean(log_weight, log_mass, 0)


def shares(log_weight: Tensor, log_mass: Tensor, t: float) -> Tensor:
    """v_k = ∂power_mean / ∂log w_k = m_k w_k^t / Σ m w^t: [..., K, B]; for t = 0, m_k.

    What is below the square of the floating-point resolution is 0.
    """
    if t == 0:
        return log_mass.exp().expand_as(log_weight)
    if t == float("inf"):
        best = log_weight.argmax(-2, keepdim=True)
        return torch.zeros_like(log_weight).scatter(-2, best, 1.0)
    v = (t * log_weight + log_mass).softmax(-2)
    # denormal numbers, and their products all along the backward pass, cost a CPU a hundred times the others
    return torch.where(v < torch.finfo(v.dtype).eps ** 2, 0.0, v)


def of_power_mean(log_weight: Tensor, log_mass: Tensor, t: float, gradient: str) -> Weights:
    """The weights of a power mean's gradient; ∂v_k/∂log w_k = t v_k (1 − v_k)."""
    v = shares(log_weight, log_mass, t)
    by_mass = v * log_weight if t == 0 else v / t  # ∂power_mean / ∂log m
    enumerated = by_mass - v  # and −v for the log q inside log w
    if gradient == "pathwise":
        return Weights(v, v, None, enumerated)
    if gradient == "score":
        return Weights(v, None, power_mean(log_weight, log_mass, t)[..., None, :] - v, enumerated)
    path = v if gradient == "stl" else (1 - t) * v + t * v.square()
    return Weights(v, path, torch.zeros_like(v), enumerated)
