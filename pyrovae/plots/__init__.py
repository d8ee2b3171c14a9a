"""Pictures of training, of what a model makes, of its latent space, and of objectives that are compared.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows as a cell's last expression, and leaves
pyplot alone: `figure.savefig("samples.png")`.
"""

from .graph import graph
from .information import dependence, divergences, entropy
from .laboratory import bias, bounds, cost, signal_to_noise, variance
from .manifold import sensitivity, spectrum, tangents, volume
from .neighbours import agreement, coordinates, ways
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
    "dependence",
    "distances",
    "divergences",
    "entropy",
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
    "sensitivity",
    "signal_to_noise",
    "spectrum",
    "tangents",
    "traversal",
    "variance",
    "volume",
    "ways",
]
