"""Generative stories, one file each. A new model is a new model function."""

from .autoencoder import Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder
from .enumerable import EnumerableVAE
from .linear_gaussian import LinearGaussian
from .vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "EnumerableVAE",
    "LinearGaussian",
]
