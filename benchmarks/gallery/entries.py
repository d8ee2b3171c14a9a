"""The table of the gallery: a model, the command that trains it, and the figure that it has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.commands import load_data
from pyrovae.options import read_train

from . import pictures
from .baselines import (
    autoregression,
    bernoulli_pixels,
    negative_binomials,
    pixels,
    pixels_of_a_class,
    principal_components,
    probabilistic_pca,
    unigrams,
)

Data = pv.data.Dataset


class Entry(NamedTuple):
    """One command of the gallery."""

    words: str  # after `pyrovae train`; the model first
    formula: str  # p, and what is new in q
    epochs: int
    short: int  # epochs in which the test suite has to see the baseline beaten
    baseline: Callable[[Data], float]  # of the test split
    named: str  # what the baseline is
    picture: Callable[[Any, Data], Figure] = pictures.samples
    figure: str = "log_evidence"  # of metrics.json; of "squared_error" less is better

    @property
    def model(self) -> str:
        """The class in pyrovae.models."""
        return self.words.split()[0]

    def train(self, epochs: int | None = None) -> list[str]:
        """The words of the command."""
        return ["train", *self.words.split(), "--epochs", str(self.epochs if epochs is None else epochs)]

    def data(self) -> Data:
        """The data set of the command."""
        return load_data(read_train(self.train()[1:]))


PIXELS = "a histogram for every pixel"
WORDS = "all documents of the same words"
# What the class can tell of an image is then not told by z.
CLASS_FIRST = "--latent 6 --learning_rate 3e-3 --objective BetaELBO --objective.start 5 --objective.warmup 30"
LESS = 0.01  # nats that the maximum in closed form may be above what is found by gradients


def _of_pixels(data: Data) -> float:
    return pixels(data.train, data.test)


def _of_words(data: Data) -> float:
    return unigrams(data.train, data.test)


def _by_chance(data: Data) -> float:
    return pixels(data.train[:, 1:], data.test[:, 1:]) - math.log(data.classes)


def _lossy(words: str, formula: str) -> Entry:
    """An entry of a model without a posterior, of ten numbers a datum."""
    return Entry(
        f"{words} --data digits --latent 10 --learning_rate 3e-3",
        formula,
        200,
        20,
        lambda data: principal_components(data.train, data.test, 10),
        "ten principal components",
        pictures.codes,
        "squared_error",
    )


ENTRIES: dict[str, Entry] = {
    "VAE": Entry("VAE --data digits --learning_rate 3e-3", "p(z) p(x | z);  q(z | x)", 100, 30, _of_pixels, PIXELS),
    "VAE, factors": Entry(
        "VAE --data sprites --latent 6 --hidden [400,200] --objective BetaTCVAE --objective.beta 6",
        "the same, with a penalty on the total correlation of the codes",
        150,
        5,
        lambda data: bernoulli_pixels(data.train, data.test),
        "a Bernoulli for every pixel",
        pictures.walks,
    ),
    "HierarchicalVAE": Entry(
        "HierarchicalVAE --data digits --learning_rate 1e-2",
        "p(z2) p(z1 | z2) p(x | z1);  a ladder",
        100,
        20,
        _of_pixels,
        PIXELS,
    ),
    "GaussianMixtureVAE": Entry(
        "GaussianMixtureVAE --data digits --learning_rate 1e-2",
        "p(y) p(z | y) p(x | z);  q(z | x), y summed over",
        100,
        15,
        _of_pixels,
        PIXELS,
        pictures.clusters,
    ),
    "SemiSupervisedVAE": Entry(
        f"SemiSupervisedVAE --data digits --labelled 100 {CLASS_FIRST}",
        "p(y) p(z) p(x | z, y), y told for some;  q(y | x) q(z | x, y), y summed over",
        100,
        40,
        _by_chance,
        f"a label by chance, and {PIXELS}",
        pictures.classes,
    ),
    "ConditionalVAE": Entry(
        f"ConditionalVAE --data digits --labelled true {CLASS_FIRST}",
        "p(z) p(x | z, y), y given;  q(z | x, y)",
        100,
        60,
        lambda data: pixels_of_a_class(data.train, data.test, given=True),
        "a histogram for every pixel in each class",
        pictures.classes,
    ),
    "MultimodalVAE": Entry(
        "MultimodalVAE --data digits --learning_rate 3e-3",
        "p(z) Π p(x_m | z), some x_m missing;  a mixture of products of experts",
        100,
        45,
        _of_pixels,
        PIXELS,
        pictures.halves,
    ),
    "SequentialVAE": Entry(
        "SequentialVAE --data pendulums --missing true --learning_rate 2e-2",
        "Π p(z_t | z_t−1) p(x_t | z_t);  Π q(z_t | z_t−1, x_t, …, x_T)",
        60,
        20,
        lambda data: autoregression(data.train, data.test),
        "a vector autoregression of second order",
        pictures.forecasts,
    ),
    "TopicModel": Entry(
        "TopicModel --data topics --topics 8 --learning_rate 1e-2",
        "p(θ) Multinomial(x | softmax(θ β));  q(θ | x)",
        100,
        15,
        _of_words,
        WORDS,
        pictures.words,
    ),
    "TopicModel, mixture": Entry(
        "TopicModel --data topics --topics 8 --mixture true --learning_rate 1e-2",
        "p(θ) Multinomial(x | θ softmax(β));  q(θ | x)",
        100,
        15,
        _of_words,
        WORDS,
        pictures.words,
    ),
    "CountVAE": Entry(
        "CountVAE --data cells --latent 5 --learning_rate 1e-2",
        "p(z) p(l) NB(x | l softmax(f(z)), r);  q(z | x) q(l | x)",
        100,
        10,
        lambda data: negative_binomials(data.train, data.test),
        "a negative binomial for every gene",
        pictures.cells,
    ),
    "BayesianDecoderVAE": Entry(
        "BayesianDecoderVAE --data digits --learning_rate 1e-2",
        "p(W) Π p(z_n) p(x_n | z_n, W);  q(W) Π q(z_n | x_n)",
        100,
        30,
        _of_pixels,
        PIXELS,
        pictures.codes,  # the prior of W has not seen any data
    ),
    "DiscreteVAE": Entry(
        "DiscreteVAE --data digits --learning_rate 1e-2",
        "p(z) p(x | z), z of few values;  q(z | x), straight through",
        100,
        30,
        _of_pixels,
        PIXELS,
    ),
    "Autoencoder": _lossy("Autoencoder", "p(x | z), the prior flat;  z = f(x)"),
    "DenoisingAutoencoder": _lossy("DenoisingAutoencoder", "the same;  z = f(x and noise)"),
    "ContractiveAutoencoder": _lossy("ContractiveAutoencoder", "the same, with −λ ‖∂f/∂x‖²"),
    "LinearGaussian": Entry(
        "LinearGaussian --data digits --latent 10 --posterior exact --learning_rate 3e-2 --objective ELBO "
        "--objective.gradient stl",
        "𝒩(z; 0, I) 𝒩(x; W z + b, σ² I);  p(z | x)",
        200,
        200,
        lambda data: probabilistic_pca(data.train, data.test, 10) - LESS,
        "its maximum in closed form, less 0.01",
    ),
}
