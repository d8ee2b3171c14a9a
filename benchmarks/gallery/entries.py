"""The table of the gallery: a model, the command that trains it, and the figure that it has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pyrovae as pv
from pyrovae.commands import load_data
from pyrovae.options import read_train

from .baselines import (
    autoregression,
    negative_binomials,
    pixels,
    pixels_of_a_class,
    principal_components,
    probabilistic_pca,
    unigrams,
)

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
WORDS = "all documents of the same words"
GENES = "a negative binomial for every gene"


def _lossy(words: str, short: int) -> Entry:
    """An entry of a model without a posterior, of ten numbers a datum."""
    return Entry(
        f"{words} --latent 10 --learning_rate 3e-3",
        200,
        short,
        lambda data: principal_components(data.train, data.test, 10),
        "ten principal components",
        figure="squared_error",
    )


def _of_pixels(data: pv.data.Dataset) -> float:
    return pixels(data.train, data.test)


def _of_classes(data: pv.data.Dataset) -> float:
    return pixels_of_a_class(data.train, data.test)


def _of_words(data: pv.data.Dataset) -> float:
    return unigrams(data.train, data.test)


def _of_genes(data: pv.data.Dataset) -> float:
    return negative_binomials(data.train, data.test)


def _by_chance(data: pv.data.Dataset) -> float:
    return pixels(data.train[:, 1:], data.test[:, 1:]) - math.log(data.classes)


def _best(data: pv.data.Dataset) -> float:
    return probabilistic_pca(data.train, data.test, 10) - 0.01


ENTRIES: dict[str, Entry] = {
    "VAE": Entry("VAE --data digits --learning_rate 3e-3", 100, 30, _of_pixels, PIXELS),
    "HierarchicalVAE": Entry("HierarchicalVAE --data digits --learning_rate 1e-2", 100, 20, _of_pixels, PIXELS),
    "GaussianMixtureVAE": Entry("GaussianMixtureVAE --data digits --learning_rate 1e-2", 100, 15, _of_pixels, PIXELS),
    "SemiSupervisedVAE": Entry(
        "SemiSupervisedVAE --data digits --labelled 100 --learning_rate 3e-3",
        100,
        20,
        _by_chance,
        f"a label by chance, and {PIXELS}",
    ),
    "ConditionalVAE": Entry(
        "ConditionalVAE --data digits --labelled true --learning_rate 3e-3",
        100,
        30,
        _of_classes,
        "a histogram for every pixel in each class, and the share of the class",
    ),
    "MultimodalVAE": Entry("MultimodalVAE --data digits --learning_rate 3e-3", 100, 45, _of_pixels, PIXELS),
    "DiscreteVAE": Entry("DiscreteVAE --data digits --learning_rate 1e-2", 100, 30, _of_pixels, PIXELS),
    "Autoencoder": _lossy("Autoencoder --data digits", 20),
    "DenoisingAutoencoder": _lossy("DenoisingAutoencoder --data digits", 20),
    "ContractiveAutoencoder": _lossy("ContractiveAutoencoder --data digits", 20),
    "LinearGaussian": Entry(
        "LinearGaussian --data digits --latent 10 --posterior exact --learning_rate 3e-2 --objective ELBO "
        "--objective.gradient stl",
        200,
        200,
        _best,
        "0.01 less than probabilistic PCA of ten components at its maximum, in closed form",
    ),
    "TopicModel": Entry(
        "TopicModel --data topics --topics 8 --learning_rate 1e-2",
        100,
        15,
        _of_words,
        WORDS,
    ),
    "TopicModel, mixture": Entry(
        "TopicModel --data topics --topics 8 --mixture true --learning_rate 1e-2",
        100,
        15,
        _of_words,
        WORDS,
    ),
    "CountVAE": Entry(
        "CountVAE --data cells --latent 5 --learning_rate 1e-2",
        100,
        10,
        _of_genes,
        "a negative binomial for every gene",
    ),
    "BayesianDecoderVAE": Entry(
        "BayesianDecoderVAE --data digits --learning_rate 1e-2",
        100,
        30,
        _of_pixels,
        PIXELS,
    ),
    "SequentialVAE": Entry(
        "SequentialVAE --data pendulums --missing true --learning_rate 2e-2",
        60,
        20,
        lambda data: autoregression(data.train, data.test),
        "a vector autoregression of second order",
    ),
}
