"""Documents about a few topics, whose words lie on a grid so that a topic is a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..arrays import Raw

GRID, BAND = 12, 3  # words are the cells of a 12 x 12 grid; a topic is a band of 3 rows or 3 columns
TOPICS = 2 * GRID // BAND
CONCENTRATION = 0.1  # of a document's shares
LENGTH = 60.0  # words of a document, in the mean


def topic_words() -> np.ndarray:
    """The probability of each word under each topic, [8, 12, 12]: nine tenths on a band, the rest on all words."""
    on = np.zeros((TOPICS, GRID, GRID))
    for k in range(GRID // BAND):
        on[k, BAND * k : BAND * (k + 1), :] = 1.0
        on[k + GRID // BAND, :, BAND * k : BAND * (k + 1)] = 1.0
    return 0.9 * on / (GRID * BAND) + 0.1 / GRID**2


def topics(name: str, root: Path) -> Raw:
    """3,000 documents of about 60 words out of 144, on eight topics: [1, 12, 12] counts, drawn by LDA.

        θ ~ Dirichlet(0.1, …, 0.1),    N ~ Poisson(60),    x ~ Multinomial(N, Σ_k θ_k φ_k)

    A word is a cell of a 12 x 12 grid, and a topic φ_k a band of three rows or three columns (`topic_words`): the bars
    of Griffiths and Steyvers ("Finding scientific topics", 2004). The label of a document is its largest topic. The
    draw is the same on every machine and under every seed.
    """
    rng, n = np.random.default_rng(0), 3_000
    shares = rng.dirichlet(np.full(TOPICS, CONCENTRATION), n)
    words = shares @ topic_words().reshape(TOPICS, -1)
    lengths = np.maximum(rng.poisson(LENGTH, n), 1)
    x = rng.multinomial(lengths, words / words.sum(1, keepdims=True))
    x = torch.from_numpy(x.astype(np.uint8)).reshape(n, 1, GRID, GRID)
    y = torch.from_numpy(shares.argmax(1).astype(np.int64))
    splits, labels = {"train": x[:2400], "test": x[2400:]}, {"train": y[:2400], "test": y[2400:]}
    origin = {"train": "drawn with a fixed seed", "test": "the last 600 of 3000, drawn alike"}
    return Raw(name, splits, labels, "counts", int(x.max()), origin=origin)
