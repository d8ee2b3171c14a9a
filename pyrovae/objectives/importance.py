"""Bounds from importance weights: power means of w, over all particles or in groups."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..program import GenerativeProgram, check_particles, check_repeatable, densities
from .base import Estimate
from .weights import Weighted, Weights, check_several, of_power_mean, power_mean, shares, surrogate


class IWAE(Weighted):
    """𝓛_K = E[log 1/K Σ_k w_k], w_k = p(x, z_k) / q(z_k | x): ELBO = 𝓛_1 ≤ 𝓛_K ≤ log p(x), rising in K.

    Args:
        particles: K, draws per datum.
        gradient: with w̃ = w / Σ w the normalised weights,
            "pathwise": the plain derivative, unbiased; the guide's signal-to-noise ratio falls as 1/√K.
            "dreg": doubly reparametrised, unbiased, path weighed by w̃²; the guide's ratio does not fall.
            "stl": drops the score of log q; biased for the guide for K > 1 (unbiased for K = 1).
            "score": score function, unbiased, for discrete latents too; of high variance.
            "vimco": score function against the bound with each particle's weight replaced by the geometric mean of the
                others; unbiased, for discrete latents too, K ≥ 2.
        backward_particles: differentiate so many particles m alone, drawn with probabilities w̃ (stratified): unbiased
            for the same gradient, with K + m passes forward and m backward through the decoder, and one more pass
            through the encoder.

    Raises:
        ValueError: for options out of their range or a gradient that is not there; in use, for a site outside the data
            plate, or a guide whose draws have no path where one is needed, each with the remedy.

    References: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016; Roeder, Wu and Duvenaud,
    "Sticking the landing", 2017; Tucker et al., "Doubly reparameterized gradient estimators", 2019; Mnih and Rezende,
    "Variational inference for Monte Carlo objectives", 2016; Rainforth et al., "Tighter variational bounds are not
    necessarily better", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.IWAE(particles=5, gradient="dreg")(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    gradients = ("pathwise", "stl", "dreg", "score", "vimco")

    def __init__(self, particles: int = 5, gradient: str = "pathwise", backward_particles: int | None = None) -> None:
        super().__init__(particles, gradient)
        if gradient == "vimco":
            check_several("IWAE with gradient='vimco'", particles)
        if backward_particles is not None:
            check_particles("IWAE", backward_particles, "backward_particles")
            if backward_particles > particles:
                raise ValueError(
                    f"IWAE expects backward_particles of at most particles={particles}, got {backward_particles}; it "
                    "draws them from those"
                )
            if gradient in self.fixed:
                raise ValueError(
                    f"IWAE draws backward_particles by their share of the pathwise gradient, which {gradient!r} is "
                    "not; use 'pathwise', 'stl' or 'dreg', or leave backward_particles out"
                )
        self.backward_particles = backward_particles

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """𝓛_K and its weights."""
        bound = power_mean(log_weight, log_mass, 1)
        if self.gradient == "vimco":
            v = shares(log_weight, log_mass, 1)
            learning = bound - leave_one_out(log_weight, log_mass)
            return bound, Weights(v, None, learning - v, torch.zeros_like(v))
        return bound, of_power_mean(log_weight, log_mass, 1, self.gradient)

    def forward(self, vae: GenerativeProgram, x: Tensor) -> Estimate:
        """𝓛_K per datum."""
        if self.backward_particles is None or not torch.is_grad_enabled():
            return super().forward(vae, x)
        m = self.backward_particles
        d = densities(vae, x, self.particles, exact=True, still=True)
        d.local_only("IWAE")
        d.reparametrised("IWAE")
        d.drawn_only("IWAE with backward_particles", "leave backward_particles out, or the site out of the guide")
        check_repeatable(vae)
        log_weight, log_mass = d.log_weight.detach(), d.log_mass.detach()
        v = log_weight.softmax(0)  # [K, B]
        chosen = stratified(v, m)  # [m, B]
        few = densities(vae, x, m, given=d.select(chosen))
        share = torch.full_like(v[:1], 1 / m).expand(m, -1)  # Σ_k v_k g_k = E[g of a particle drawn by v]
        zero = torch.zeros_like(share)
        weights = {
            "pathwise": Weights(share, share),
            "stl": Weights(share, share, zero),
            "dreg": Weights(share, share * v.gather(0, chosen), zero),
        }[self.gradient]
        return Estimate(power_mean(log_weight, log_mass, 1), surrogate("IWAE", few, weights))


def stratified(v: Tensor, draws: int) -> Tensor:
    """Particles drawn with probabilities v [K, B], one in each of equal parts of [0, 1): [draws, B]."""
    grid = torch.arange(draws, device=v.device, dtype=v.dtype)[:, None]
    u = (grid + torch.rand(draws, v.shape[1], device=v.device, dtype=v.dtype)) / draws
    chosen = torch.searchsorted(v.cumsum(0).T.contiguous(), u.T.contiguous(), right=True).T
    return chosen.clamp(max=len(v) - 1)


def leave_one_out(log_weight: Tensor, log_mass: Tensor) -> Tensor:
    """𝓛_K with the term of z_k replaced by the geometric mean of the others': [K, B]. It does not depend on z_k."""
    terms = log_weight + log_mass  # 𝓛_K is the log of the sum of their exponentials
    others = (terms.sum(0) - terms) / (len(terms) - 1)
    none = torch.full_like(terms[:1], -math.inf)
    before = torch.cat([none, terms.logcumsumexp(0)[:-1]])  # no subtraction: a dominant weight would cancel the rest
    after = torch.cat([none, terms.flip(0).logcumsumexp(0)[:-1]]).flip(0)
    return torch.logaddexp(torch.logaddexp(before, after), others)


class Grouped(Weighted):
    """Abstract: M groups of K particles each."""

    gradients = ("pathwise", "stl", "dreg")

    def __init__(self, groups: int = 2, particles: int = 5, gradient: str = "pathwise") -> None:
        super().__init__(particles, gradient)
        check_particles(type(self).__name__, groups, "groups")
        self.groups = groups

    @property
    def draws(self) -> int:
        """M·K."""
        return self.groups * self.particles

    def of_groups(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The mean of the groups' IWAE bounds, and its weights, normalised over the K of a group."""
        grouped, mass = self.split(log_weight), self.split(log_mass) + math.log(self.groups)
        w = of_power_mean(grouped, mass, 1, self.gradient)
        model = self.join(w.model)
        assert w.path is not None
        path = model if w.path is w.model else self.join(w.path)
        score = None if w.score is None else self.join(w.score)
        return power_mean(grouped, mass, 1).mean(0), Weights(model, path, score, torch.zeros_like(model))

    def split(self, t: Tensor) -> Tensor:
        """[M·K, B] -> [M, K, B]."""
        return t.unflatten(0, (self.groups, -1))

    def join(self, t: Tensor) -> Tensor:
        """The share of each particle in a mean over groups: [M, K, B] -> [M·K, B]."""
        return t.flatten(0, 1) / self.groups


class MIWAE(Grouped):
    """The mean of M independent IWAE bounds of K particles each: E[1/M Σ_m log 1/K Σ_k w_mk], a lower bound.

    Args:
        groups: M.
        particles: K; M·K are drawn for each datum. M = 1 is IWAE(K), K = 1 is ELBO(M).
        gradient: "pathwise" (unbiased), "stl" (biased for the guide for K > 1) or "dreg" (unbiased), as in `IWAE`.

    Raises:
        ValueError: for options out of their range, and as `IWAE`.

    Reference: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.MIWAE(groups=3, particles=2)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The mean over groups and its weights."""
        return self.of_groups(log_weight, log_mass)


class PIWAE(Grouped):
    """The model follows IWAE(M·K), the guide MIWAE(M, K), of the same draws; the bound is that of the model.

    Args:
        groups: M.
        particles: K; M·K are drawn for each datum.
        gradient: of the guide, as in `MIWAE`; model and guide are unbiased for their own bound with "pathwise" and
            "dreg".

    Raises:
        ValueError: for options out of their range, and as `IWAE`.

    Reference: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.PIWAE(groups=3, particles=2)(pv.models.VAE.build(data), data.test[:5]).bound.shape
    torch.Size([5])
    """

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """IWAE over all particles; its weights for the model, MIWAE's for the guide."""
        _, guide = self.of_groups(log_weight, log_mass)
        model = shares(log_weight, log_mass, 1)
        return power_mean(log_weight, log_mass, 1), Weights(model, guide.path, guide.score, guide.enumerated)


class CIWAE(Weighted):
    """β ELBO + (1 − β) IWAE(K) of the same draws, a lower bound for β in [0, 1].

    Args:
        particles: K.
        beta: β; 0 is IWAE, 1 the ELBO of K particles.
        gradient: "pathwise" (unbiased), "stl" (biased for the guide for β < 1) or "dreg" (unbiased), as in `IWAE`.

    Raises:
        ValueError: for a β out of its range, and as `IWAE`.

    Reference: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.CIWAE(5, beta=0.2)(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    gradients = ("pathwise", "stl", "dreg")

    def __init__(self, particles: int = 5, beta: float = 0.5, gradient: str = "pathwise") -> None:
        super().__init__(particles, gradient)
        if not 0 <= beta <= 1:
            raise ValueError(f"CIWAE expects beta from 0 (IWAE) to 1 (ELBO), got {beta}")
        self.beta = beta

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The combination, of bounds and of weights."""
        parts = [of_power_mean(log_weight, log_mass, t, self.gradient) for t in (0, 1)]

        def combine(a: Tensor | None, b: Tensor | None) -> Tensor:
            assert a is not None
            assert b is not None
            return self.beta * a + (1 - self.beta) * b

        bound = combine(power_mean(log_weight, log_mass, 0), power_mean(log_weight, log_mass, 1))
        model = combine(parts[0].model, parts[1].model)
        enumerated = combine(parts[0].enumerated, parts[1].enumerated)
        if self.gradient == "pathwise":
            return bound, Weights(model, model, None, enumerated)
        return bound, Weights(model, combine(parts[0].path, parts[1].path), torch.zeros_like(model), enumerated)


class OfOrder(Weighted):
    """Abstract: the K-draw estimate of a Rényi bound of order α, a power mean with t = 1 − α."""

    alpha: float

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The power mean with t = 1 − α."""
        t = 1 - self.alpha
        return power_mean(log_weight, log_mass, t), of_power_mean(log_weight, log_mass, t, self.gradient)


class Renyi(OfOrder):
    """The variational Rényi bound 1/(1 − α) log E_q[w^(1−α)], from K draws: 1/(1 − α) log 1/K Σ_k w_k^(1−α).

    A lower bound for α > 0, log p(x) for α = 0, an upper bound for α < 0, all as K → ∞. The estimate of K draws is
    biased downwards for α < 1 (for α = 0 it is IWAE, for K = 1 the ELBO), and upwards for α > 1, where it stays below
    the ELBO.

    Gradient: pathwise, unbiased for the expectation of that K-draw estimate; both model and guide ascend it, as in the
    paper, also for α < 0.

    Args:
        particles: K.
        alpha: α, any real number; 1 is its limit, the ELBO.

    Raises:
        ValueError: for an α that is not finite, and as `IWAE`.

    Reference: Li and Turner, "Rényi divergence variational inference", 2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.Renyi(5, alpha=-1.0)(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    refused: ClassVar[dict[str, str]] = Weighted.refused | {
        "gradient": "it follows its plain derivative. For 0 ≤ α < 1 use VRIWAE, which has 'stl' and 'dreg' as well"
    }

    def __init__(self, particles: int = 5, alpha: float = 0.5) -> None:
        super().__init__(particles)
        if not math.isfinite(alpha):
            raise ValueError(f"Renyi expects alpha as a finite number, got {alpha}; VRMax is α = −∞")
        self.alpha, self.lower = alpha, alpha >= 0


class VRIWAE(OfOrder):
    """The K-draw Rényi estimate as a bound of its own: E[1/(1 − α) log 1/K Σ_k w_k^(1−α)], 0 ≤ α < 1.

    A lower bound for every K, between the ELBO (α → 1) and IWAE (α = 0).

    Args:
        particles: K.
        alpha: α in [0, 1).
        gradient: "pathwise" (unbiased), "stl" (biased for the guide for K > 1) or "dreg" (unbiased; path weighed by
            α v + (1 − α) v²).

    Raises:
        ValueError: for an α out of its range, and as `IWAE`.

    Reference: Daudel, Benton, Shi and Doucet, "Alpha-divergence variational inference meets importance weighted
    auto-encoders", 2023.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.VRIWAE(5, alpha=0.3, gradient="dreg")(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    gradients = ("pathwise", "stl", "dreg")

    def __init__(self, particles: int = 5, alpha: float = 0.5, gradient: str = "pathwise") -> None:
        super().__init__(particles, gradient)
        if not 0 <= alpha < 1:
            raise ValueError(f"VRIWAE expects alpha of at least 0 and under 1, got {alpha}; Renyi takes any, 1 is ELBO")
        self.alpha = alpha


class VRMax(Weighted):
    """max_k log w_k, the Rényi estimate for α → −∞: no bound, neither below log p(x) nor, for few draws, above.

    Gradient: pathwise, that of the particle with the largest weight; unbiased for the expected maximum. (One particle
    drawn by its weight in place of the largest is IWAE(K, backward_particles=1), unbiased for IWAE.)

    Args:
        particles: K.

    Raises:
        ValueError: as `IWAE`.

    Reference: Li and Turner, "Rényi divergence variational inference", 2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.VRMax(5)(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    lower = False

    def __init__(self, particles: int = 5) -> None:
        super().__init__(particles)

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The largest log weight."""
        return power_mean(log_weight, log_mass, math.inf), of_power_mean(log_weight, log_mass, math.inf, "pathwise")


class CUBO(Weighted):
    """The χ upper bound 1/n log E_q[w^n] ≥ log p(x), from K draws: 1/n log 1/K Σ_k w_k^n, biased downwards.

    Gradient: the guide lowers the bound, by (n − 1) Σ v_k ∂_z log w_k dz_k/dφ, v = w^n / Σ w^n: the doubly
    reparametrised gradient, self-normalised, with a bias of order 1/K. (The plain derivative of the estimate is worse
    than biased: for few draws it leads away from the posterior without end.) The model cannot follow an upper bound; it
    ascends IWAE(K) of the same draws.

    Args:
        particles: K.
        n: the order, above 1.

    Raises:
        ValueError: for an n out of its range, and as `IWAE`.

    References: Dieng et al., "Variational inference via χ upper bound minimization", 2017; Geffner and Domke, "On the
    difficulty of unbiased alpha divergence minimization", 2021.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.objectives.CUBO(500, n=2.0)(pv.models.VAE.build(data), data.test[:3]).bound.shape
    torch.Size([3])
    """

    lower = False

    def __init__(self, particles: int = 5, n: float = 2.0) -> None:
        super().__init__(particles)
        if not 1 < n < math.inf:
            raise ValueError(f"CUBO expects n above 1, got {n}; n = 1 is IWAE")
        self.n = n

    def weigh(self, log_weight: Tensor, log_mass: Tensor) -> tuple[Tensor, Weights]:
        """The power mean with t = n; IWAE's weights for the model."""
        v, model = shares(log_weight, log_mass, self.n), shares(log_weight, log_mass, 1)
        path, enumerated = (self.n - 1) * v, (1 - 1 / self.n) * v
        return power_mean(log_weight, log_mass, self.n), Weights(model, path, torch.zeros_like(v), enumerated)
