"""Operations of the matrix products and convolutions, from the architecture: a product of [R, n] and [n, m] has 2Rnm.

Backward there are two more products of the same size for each layer, by its weights and by its input; the data has no
gradient. Nothing else is counted: not the activations, not the densities, not Adam.
"""

from __future__ import annotations

import itertools
import math

from .cases import Case

SIZE = 2048  # of the matrices whose product is the measure of the machine
MATMUL = 2 * SIZE**3


def encoder(case: Case) -> list[int]:
    """Operations for one row, forward, of each layer."""
    if case.network == "mlp":
        return _dense([math.prod(case.event), *case.hidden, 2 * case.latent])
    (c, *_), sizes = case.event, _sizes(case)
    widths = list(itertools.pairwise([c, *case.hidden]))
    layers = [_kernel(n, m, size) for (n, m), size in zip(widths, sizes[1:], strict=True)]
    return [*layers, *_dense([case.hidden[-1] * math.prod(sizes[-1]), 2 * case.latent])]


def decoder(case: Case) -> list[int]:
    """Operations for one row, forward, of each layer."""
    if case.network == "mlp":
        return _dense([case.latent, *case.hidden[::-1], math.prod(case.event)])
    (c, *_), sizes = case.event, _sizes(case)
    widths = list(itertools.pairwise([c, *case.hidden]))
    layers = [_kernel(n, m, size) for (n, m), size in zip(widths, sizes[1:], strict=True)]
    return [*_dense([case.latent, case.hidden[-1] * math.prod(sizes[-1])]), *layers[::-1]]


def step(case: Case, backward_particles: int | None = None) -> int:
    """Of one step of training.

    With backward particles m alone differentiated, the encoder runs twice, forward and backward, and the decoder K + m
    times forward and m times backward.
    """
    drawn, m = case.particles or 1, backward_particles
    q, p = encoder(case), sum(decoder(case))
    q_forward, q_backward = sum(q), 2 * sum(q) - q[0]
    if m is None:
        return case.batch * (q_forward + q_backward + 3 * drawn * p)
    return case.batch * (2 * (q_forward + q_backward) + (drawn + 3 * m) * p)


def epoch(case: Case) -> int:
    """Of one epoch of training."""
    return step(case) // case.batch * case.images


def evidence(case: Case) -> int:
    """Of the decoder, for all particles of all images."""
    return case.images * (case.particles or 1) * sum(decoder(case))


def of(case: Case, contender: str) -> int:
    """Of one step, epoch or evaluation of a contender; 0 where nothing is counted."""
    if case.measure == "step":
        return step(case, 1 if "-one-" in contender else None)
    return {"epoch": epoch, "evidence": evidence}.get(case.measure, lambda _: 0)(case)


def _dense(widths: list[int]) -> list[int]:
    return [2 * n * m for n, m in itertools.pairwise(widths)]


def _kernel(n: int, m: int, size: tuple[int, int]) -> int:
    """A 3×3 convolution to a map of this size, or a transposed one from it."""
    return 2 * 9 * n * m * math.prod(size)


def _sizes(case: Case) -> list[tuple[int, int]]:
    """Height and width from the image inwards: each layer halves them, rounded up."""
    sizes = [(case.event[1], case.event[2])]
    for _ in case.hidden:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes
