"""The table of the gallery: a model, the command that trains it, and the figure that it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pyrovae as pv
from pyrovae.commands import load_data
from pyrovae.options import read_train

from .baselines import autoregression, pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Entry(NamedTuple):
    """One command of the gallery."""

    words: str  # after `pyrovae train`; the model first
    epochs: int
    short: int  # epochs in which the test suite has to see the baseline beaten
    baseline: Callable[[pv.data.Dataset], float]  # of the test split
    named: str  # what the baseline is
    picture: Callable[[object, pv.data.Dataset], Figure] | None = None  # None: samples
    figure: str = "log_evidence"  # of metrics.json; of "squared_error" less is better

    @property
    def model(self) -> str:
        """The class in pyrovae.models."""
        return self.words.split()[0]

    def train(self, epochs: int | None = None) -> list[str]:
        """The words of the command."""
        return ["train", *self.words.split(), "--epochs", str(self.epochs if epochs is None else epochs)]

    def data(self) -> pv.data.Dataset:
        """The data set of the command."""
        return load_data(read_train(self.train()[1:]))


PIXELS = "a histogram for every pixel"

ENTRIES: dict[str, Entry] = {
    "BayesianDecoderVAE": Entry(
        "BayesianDecoderVAE --data digits --learning_rate 1e-2",
        100,
        30,
        lambda data: pixels(data.train, data.test),
        PIXELS,
    ),
    "SequentialVAE": Entry(
        "SequentialVAE --data pendulums --missing true --learning_rate 2e-2",
        60,
        20,
        lambda data: autoregression(data.train, data.test),
        "a vector autoregression of second order",
    ),
    "VAE": Entry("VAE --data digits", 100, 30, lambda data: pixels(data.train, data.test), PIXELS),
}
