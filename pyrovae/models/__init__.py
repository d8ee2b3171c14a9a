"""Generative stories, one file each. A new model is a new model function."""

from .bayesian_decoder import BayesianDecoderVAE
from .conditional import ConditionalVAE
from .enumerable import EnumerableVAE
from .linear_gaussian import LinearGaussian
from .multimodal import MultimodalVAE
from .semi_supervised import SemiSupervisedVAE
from .sequential import SequentialVAE
from .vae import VAE

__all__ = [
    "VAE",
    "BayesianDecoderVAE",
    "ConditionalVAE",
    "EnumerableVAE",
    "LinearGaussian",
    "MultimodalVAE",
    "SemiSupervisedVAE",
    "SequentialVAE",
]
