"""Pictures of training, of what a model makes, of its latent space, and of objectives that are compared.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows as a cell's last expression, and leaves
pyplot alone: `figure.savefig("samples.png")`.
"""

from .graph import graph
from .laboratory import bias, bounds, cost, signal_to_noise, variance
from .manifold import agreement, coordinates, spectrum, tangents, volume
from .pictures import history, images, interpolation, latent_map, reconstructions, samples, traversal
from .race import race

__all__ = [
    "agreement",
    "bias",
    "bounds",
    "coordinates",
    "cost",
    "graph",
    "history",
    "images",
    "interpolation",
    "latent_map",
    "race",
    "reconstructions",
    "samples",
    "signal_to_noise",
    "spectrum",
    "tangents",
    "traversal",
    "variance",
    "volume",
]
