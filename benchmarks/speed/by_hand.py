"""PyTorch as an expert writes it for this one model: data in memory, fused Adam, densities in single calls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import networks
from .cases import LEARNING_RATE, Case
from .networks import Net

Loss = Callable[..., Tensor]


def elbo_loss(net: Net, x: Tensor, scale: float | None = None, noise: Tensor | None = None) -> Tensor:
    """−ELBO, the mean over the batch, with the closed-form KL and one draw."""
    loc, log_scale = net.encoder(x).chunk(2, -1)
    z = loc + log_scale.exp() * (torch.randn_like(loc) if noise is None else noise)
    y = net.decoder(z)
    if scale is None:
        distortion = F.binary_cross_entropy_with_logits(y, x, reduction="sum")
    else:
        constant = math.log(scale) + math.log(2 * math.pi) / 2
        distortion = F.mse_loss(y, x, reduction="sum") / (2 * scale**2) + constant * x.numel()
    kl = 0.5 * (loc.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
    return (distortion + kl) / len(x)


def log_weights(net: Net, x: Tensor, loc: Tensor, log_scale: Tensor, noise: Tensor) -> Tensor:
    """log p(x, z) − log q(z | x) under noise [K, B, L]: [K, B]. The constants of prior and guide cancel."""
    z = loc + log_scale.exp() * noise
    logits = net.decoder(z)
    distortion = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    return (0.5 * (noise.square() - z.square()) + log_scale).sum(-1) - distortion


def iwae_loss(net: Net, x: Tensor, particles: int, noise: Tensor | None = None) -> Tensor:
    """−𝓛_K, the mean over the batch."""
    loc, log_scale = net.encoder(x).chunk(2, -1)
    noise = torch.randn(particles, *loc.shape) if noise is None else noise
    return math.log(particles) - log_weights(net, x, loc, log_scale, noise).logsumexp(0).mean()


def loss_of(case: Case) -> Loss:
    """The loss of a case, of a net and a batch."""
    return partial(iwae_loss, particles=case.particles) if case.particles else partial(elbo_loss, scale=case.scale)


def trainer(case: Case, compiled: bool = False, flush: bool = False) -> Callable[[Tensor], None]:
    """A step of training on a batch.

    Weights of many particles soon become denormal numbers, at which a CPU takes a hundred times as long; `flush` is for
    an expert who knows, and says so before torch starts its threads.
    """
    torch.set_flush_denormal(flush)
    net, loss = Net(case), loss_of(case)
    if compiled:
        loss = torch.compile(loss)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)

    def take(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(net, x).backward()
        optimizer.step()

    return take


def step(case: Case, data: np.ndarray, **options: bool) -> Callable[[int], None]:
    """Steps over batches in memory."""
    take, pool = trainer(case, **options), itertools.cycle(networks.batches(case, data))

    def go(n: int) -> None:
        for x in itertools.islice(pool, n):
            take(x)

    return go


def epoch(case: Case, data: np.ndarray, **options: bool) -> Callable[[int], None]:
    """Epochs over bytes in memory: a permutation, rows by it, float32."""
    take, x = trainer(case, **options), networks.rows(case, data)

    def go(n: int) -> None:
        for _ in range(n):
            for chosen in torch.randperm(len(x)).split(case.batch):
                take(x[chosen].float())

    return go


def evidence(case: Case, data: np.ndarray, images: int = 20, chunk: int = 100) -> Callable[[int], None]:
    """log 1/K Σ w of every image, 100 particles of 20 images at a time, each encoded once."""
    net, x, particles = Net(case), networks.rows(case, data), case.particles or 1

    def go(n: int) -> None:
        with torch.inference_mode():
            for _ in range(n):
                torch.cat([log_evidence(net, part, particles, chunk) for part in x.split(images)])

    return go


def log_evidence(net: Net, x: Tensor, particles: int, chunk: int) -> Tensor:
    """log 1/K Σ w, [B], in chunks of particles."""
    loc, log_scale = net.encoder(x).chunk(2, -1)
    total = torch.full((len(x),), -math.inf)
    for start in range(0, particles, chunk):
        noise = torch.randn(min(chunk, particles - start), *loc.shape)
        total = total.logaddexp(log_weights(net, x, loc, log_scale, noise).logsumexp(0))
    return total - math.log(particles)
