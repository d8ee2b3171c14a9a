"""Generative stories, one file each. A new model is a new model function."""

from .discrete import DiscreteVAE
from .enumerable import EnumerableVAE
from .gaussian_mixture import GaussianMixtureVAE
from .hierarchical import HierarchicalVAE
from .linear_gaussian import LinearGaussian
from .vae import VAE

__all__ = ["VAE", "DiscreteVAE", "EnumerableVAE", "GaussianMixtureVAE", "HierarchicalVAE", "LinearGaussian"]
