"""Pictures of training, of what a model makes, of its latent space, and of objectives that are compared.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows as a cell's last expression, and leaves
pyplot alone: `figure.savefig("samples.png")`.
"""

from .graph import graph
from .information import divergences
from .laboratory import bias, bounds, cost, signal_to_noise, variance
from .manifold import agreement, coordinates, spectrum, tangents, volume
from .novelty import distances, nearest_pairs
from .pictures import history, images, interpolation, latent_map, reconstructions, samples, traversal
from .posterior import aggregate_map, gap_bars, posteriors
from .race import race

__all__ = [
    "aggregate_map",
    "agreement",
    "bias",
    "bounds",
    "coordinates",
    "cost",
    "distances",
    "divergences",
    "gap_bars",
    "graph",
    "history",
    "images",
    "interpolation",
    "latent_map",
    "nearest_pairs",
    "posteriors",
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
