"""Generative stories, one file each. A new model is a new model function."""

from .conditional import ConditionalVAE
from .enumerable import EnumerableVAE
from .linear_gaussian import LinearGaussian
from .multimodal import MultimodalVAE
from .semi_supervised import SemiSupervisedVAE
from .sequential import SequentialVAE
from .vae import VAE

__all__ = [
    "VAE",
    "ConditionalVAE",
    "EnumerableVAE",
    "LinearGaussian",
    "MultimodalVAE",
    "SemiSupervisedVAE",
    "SequentialVAE",
]
