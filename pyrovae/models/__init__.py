"""Generative stories, one file each. A new model is a new model function."""

from .vae import VAE

__all__ = ["VAE"]
