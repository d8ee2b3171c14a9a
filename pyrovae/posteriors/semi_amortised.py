"""Posteriors that an encoder proposes and gradient steps improve."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..attached import Attached
from .base import Posterior

NORM = 5.0  # that a datum's gradient is shortened to


class SemiAmortised(Attached, Posterior):
    """q(z | x) = 𝒩(z; μ_T, diag σ_T²): the encoder's μ₀ and σ₀, improved by T gradient steps for each datum.

        λ_{t+1} = λ_t + α ∇_λ ELBO(λ_t; x),    λ = (μ, log σ)
        ELBO(λ; x) = mean_s [log p(x | μ + σ s) + log p(μ + σ s)] + Σ log σ + constant

    The mean is over fixed points s in {−1, 1}^L, in mirrored pairs, so that q is one function of x. It is that of
    normal draws for functions that are linear, or sums of cubic functions of one dimension; for all cubic functions
    when there are twice as many points as the power of two from L on.
    A step that would lower a datum's ELBO is not taken, and that datum's α is halved; a gradient longer than 5 is
    shortened to that. A bound at q is therefore no worse than the encoder's, as far as the points tell.

    Gradient: exact, through the steps, and so of second order in the model: encoder, likelihood and prior are trained
    for what they do after the steps. The steps need the gradients that `torch.no_grad` switches off, and take them
    there too; `torch.inference_mode` does not allow that. Every step runs the decoder on all points, forwards and
    backwards: (steps + 1) · points rows a datum, whatever the number of particles.

    It has to be part of a model with a `prior` and a `likelihood`, such as a VAE.
    Reference: Kim, Wiseman, Miller, Sontag and Rush, "Semi-amortized variational autoencoders", 2018.

    Args:
        network: an encoder from the event shape of x to [2L].
        steps: T.
        step_size: α, in the units of μ² (of 1 for log σ) a nat.
        points: an even number of values z that each step looks at.

    Raises:
        ValueError: for a number that is none; in use, outside of a model with a prior and a likelihood.

    >>> import pyrovae as pv
    >>> vae = pv.models.VAE.build(pv.data.load("digits"), latent=2, posterior="SemiAmortised")
    >>> vae.posterior(torch.zeros(7, 1, 8, 8))
    Independent(Normal(loc: torch.Size([7, 2]), scale: torch.Size([7, 2])), 1)
    """

    def __init__(self, network: nn.Module, steps: int = 5, step_size: float = 0.1, points: int = 4) -> None:
        super().__init__(network)
        self._busy = False
        self.steps = check_whole("SemiAmortised", "steps", steps, least=0)
        self.step_size = check_positive("SemiAmortised", "step_size", step_size)
        self.points = check_whole("SemiAmortised", "points", points, least=2, remedy="give an even number")
        if self.points % 2:
            raise ValueError(f"SemiAmortised expects points in pairs, got points={points}; give an even number")

    @classmethod
    def code(cls, latent: int, **options: Any) -> list[int]:
        """[2L]: μ₀, then log σ₀."""
        return [2 * latent]

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """𝒩(μ_T, diag σ_T²) over [L]."""
        proposed = self.network(x).to(x.dtype)
        loc, log_scale = self.refined(x, proposed).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def elbo(self, x: Tensor, code: Tensor) -> Tensor:
        """The bound that the steps climb: x is [*leading, *event], code (μ, log σ) is [*leading, 2L] -> [*leading]."""
        loc, log_scale = code.chunk(2, dim=-1)
        s = signs(self.points, loc.shape[-1], loc).unflatten(0, (-1, *[1] * (loc.dim() - 1)))  # [S, 1, ..., L]
        z = loc + log_scale.exp() * s
        log_joint = self.others("likelihood")(z).log_prob(x) + self.others("prior")().log_prob(z)  # [S, *leading]
        return log_joint.mean(0) + log_scale.sum(-1)

    def refined(self, x: Tensor, code: Tensor) -> Tensor:
        """λ_T from λ_0 = `code`, each [*leading, 2L]."""
        through = torch.is_grad_enabled()

        def look(code: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
            """The bound, and its slope where a step follows."""
            elbo = self.elbo(x, code)
            if not slope:
                return elbo.detach(), code
            return elbo.detach(), torch.autograd.grad(elbo.sum(), code, create_graph=through)[0]

        with torch.enable_grad(), self._refining():
            code = code if through and code.requires_grad else code.detach().requires_grad_()
            elbo, gradient = look(code, slope=self.steps > 0)
            size = torch.full_like(elbo, self.step_size)
            for step in range(self.steps):
                short = NORM / gradient.norm(dim=-1, keepdim=True).clamp(min=NORM)
                ahead = code + size[..., None] * short * gradient
                ahead = ahead if through else ahead.detach().requires_grad_()
                there, next_gradient = look(ahead, slope=step + 1 < self.steps)
                better = there >= elbo  # not where it is NaN
                size, elbo = torch.where(better, size, size / 2), torch.where(better, there, elbo)
                code = torch.where(better[..., None], ahead, code)
                gradient = torch.where(better[..., None], next_gradient, gradient)
        return code if through else code.detach()

    @contextmanager
    def _refining(self) -> Generator[None]:
        if self._busy:
            prior = type(self.others("prior")).__name__
            raise ValueError(
                f"SemiAmortised takes its steps on the prior, and {prior} is made of this very posterior; take another "
                "prior"
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def signs(points: int, latent: int, like: Tensor) -> Tensor:
    """Points in {−1, 1}^L, [S, L]: rows of a Hadamard matrix, which are orthogonal, then their mirror images.

    S is `points`, or twice the size of the matrix where that is less.
    """
    bits = (latent - 1).bit_length()
    rows = torch.arange(min(points // 2, 2**bits), device=like.device)
    both = rows[:, None] & torch.arange(latent, device=like.device)
    common = torch.zeros_like(both)  # number of ones that a row and a column have in common, in binary
    for bit in range(bits):
        common = common + ((both >> bit) & 1)
    half = (1 - 2 * (common % 2)).to(like.dtype)
    return torch.cat([half, -half])
