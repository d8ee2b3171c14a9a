"""The table of objectives: a line here buys every test that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pieces import small_vae

from pyrovae.objectives import (
    CIWAE,
    CUBO,
    DIPVAE,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    REBAR,
    TVO,
    VRIWAE,
    BetaELBO,
    BetaTCVAE,
    Capacity,
    DisARM,
    InfoVAE,
    Objective,
    Renyi,
    TailAdaptive,
    VRMax,
    WakeSleep,
)


def half_warm(**options: Any) -> BetaELBO:
    objective = BetaELBO(warmup=2, **options)
    objective.advance(1)
    return objective


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "ELBO": ELBO,
    "ELBO 3": lambda: ELBO(3),
    "ELBO analytic": lambda: ELBO(kl="analytic"),
    "ELBO analytic 3": lambda: ELBO(3, kl="analytic"),
    "IWAE 1": lambda: IWAE(1),
    "IWAE 3": lambda: IWAE(3),
    "beta": lambda: BetaELBO(beta=4.0),
    "beta sampled 3": lambda: BetaELBO(beta=0.5, particles=3, kl="sampled"),
    "warm-up": lambda: half_warm(beta=4.0),
    "free bits": lambda: BetaELBO(free_bits=0.05, particles=3),
    "ELBO stl": lambda: ELBO(3, gradient="stl"),
    "ELBO score": lambda: ELBO(gradient="score"),
    "ELBO mean": lambda: ELBO(3, gradient="score", baseline="mean"),
    "ELBO network": lambda: ELBO(3, gradient="score", baseline="network"),
    "ELBO leave one out": lambda: ELBO(3, gradient="score", baseline="leave_one_out"),
    "IWAE stl": lambda: IWAE(3, "stl"),
    "IWAE dreg": lambda: IWAE(3, "dreg"),
    "IWAE score": lambda: IWAE(3, "score"),
    "IWAE vimco": lambda: IWAE(3, "vimco"),
    "IWAE backward 1": lambda: IWAE(3, backward_particles=1),
    "IWAE backward 2": lambda: IWAE(3, "dreg", backward_particles=2),
    "MIWAE": lambda: MIWAE(2, 3),
    "MIWAE dreg": lambda: MIWAE(2, 3, "dreg"),
    "PIWAE": lambda: PIWAE(2, 3),
    "PIWAE dreg": lambda: PIWAE(2, 3, "dreg"),
    "CIWAE": lambda: CIWAE(3, 0.3),
    "CIWAE dreg": lambda: CIWAE(3, 0.3, "dreg"),
    "Renyi": lambda: Renyi(3, 0.5),
    "Renyi 1": lambda: Renyi(3, 1),
    "Renyi above": lambda: Renyi(3, -1),
    "Renyi 2": lambda: Renyi(3, 2.5),
    "VRIWAE dreg": lambda: VRIWAE(3, 0.4, "dreg"),
    "VRMax": lambda: VRMax(3),
    "CUBO": lambda: CUBO(3),
    "TVO": lambda: TVO(3, 4),
    "TVO linear": lambda: TVO(3, 4, "linear"),
    "TVO moments": lambda: TVO(3, 4, "moments"),
    "TVO 1": lambda: TVO(3, 1),
    "wake": lambda: WakeSleep(3),
    "wake and sleep": lambda: WakeSleep(3, "both"),
    "sleep": lambda: WakeSleep(1, "sleep"),
    "tail-adaptive": lambda: TailAdaptive(3),
    "capacity": lambda: Capacity(capacity=2.0, warmup=0, particles=3),
    "beta-TC": lambda: BetaTCVAE(particles=3),
    "InfoVAE": lambda: InfoVAE(particles=3),
    "WAE": lambda: InfoVAE(alpha=1.0),
    "DIP 1": lambda: DIPVAE(kind=1, particles=3),
    "DIP 2": lambda: DIPVAE(),
}
# Those of one site of Bernoulli latents
BERNOULLI: dict[str, Callable[[], Objective]] = {
    "DisARM": DisARM,
    "DisARM of two pairs": lambda: DisARM(2),
    "REBAR": lambda: REBAR(3),
}
ALL = OBJECTIVES | BERNOULLI


def vae_for(name: str) -> Any:
    """A small VAE whose latents the objective of this name is for, in float32."""
    return small_vae(posterior="Bernoulli" if name in BERNOULLI else "DiagonalNormal")


def holds_draws(objective: Objective) -> bool:
    """Whether it takes no derivative of a draw, and so is for every guide."""
    return getattr(objective, "gradient", None) in ("score", "vimco")
