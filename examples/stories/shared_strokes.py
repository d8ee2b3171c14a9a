"""Digits share strokes about which there is some doubt: latents that all data have in common.

    W_kd ~ 𝒩(0, 1/4),    b_d ~ 𝒩(0, 9),    c_d ~ Gamma(2, 0.2)    once for all data
    z_n ~ 𝒩(0, I),    x_nd | z_n, W, b, c ~ BetaBinomial(16, mean σ(z_n W + b)_d, concentration c_d)

    pyrovae train examples/stories/shared_strokes.py:SharedStrokes --learning_rate 3e-2 --epochs 100

Test log predictive density, nats per datum: −94.64 ± 0.56. Baseline, a histogram for every pixel: −107.57.
The density is that of a datum under the guide's W, b and c.
"""

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor


class SharedStrokes(nn.Module):
    """p(W, b, c) Π_n p(z_n) Π_d BetaBinomial(x_nd | 16, mean σ(z_n W + b)_d, concentration c_d)."""

    def __init__(self, latent: int = 10, size: int = 1295) -> None:
        super().__init__()
        self.latent, self.size = latent, size

    def model(self, x: Tensor) -> None:
        """x: [B, 1, 8, 8]."""
        zero = x.new_zeros(())
        # Outside of the plate, once for all data: strokes, background, and how far pixels scatter.
        w = pyro.sample("W", dist.Normal(zero, 0.5).expand([self.latent, 64]).to_event(2))
        b = pyro.sample("b", dist.Normal(zero, 3.0).expand([64]).to_event(1))
        c = pyro.sample("c", dist.Gamma(zero + 2.0, 0.2).expand([64]).to_event(1))
        # The plate says N, of which a batch is a part: without it a batch would pass for all the data there are.
        rows = torch.arange(len(x), device=x.device)
        with pyro.plate("data", self.size, subsample=rows, dim=-1):
            z = pyro.sample("z", dist.Normal(zero, 1.0).expand([self.latent]).to_event(1))
            mean = ((z[..., None, :] @ w).squeeze(-2) + b).sigmoid().clamp(1e-4, 1 - 1e-4)
            ones, zeros = ((c * p).unflatten(-1, (1, 8, 8)) for p in (mean, 1 - mean))
            pyro.sample("x", dist.BetaBinomial(ones, zeros, 16).to_event(3), obs=x)
