"""Generative stories, one file each. A new model is a new model function."""

from .enumerable import EnumerableVAE
from .linear_gaussian import LinearGaussian
from .vae import VAE

__all__ = ["VAE", "EnumerableVAE", "LinearGaussian"]
