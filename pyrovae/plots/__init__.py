"""Pictures of training, of what a model makes, and of its latent space.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows as a cell's last expression, and leaves
pyplot alone: `figure.savefig("samples.png")`.
"""

from .pictures import history, images, interpolation, latent_map, reconstructions, samples, traversal

__all__ = ["history", "images", "interpolation", "latent_map", "reconstructions", "samples", "traversal"]
