"""The manifold near which data lie: its tangent planes, distances and coordinates, from a model and from neighbours.

`tangents`, `metric` and `geodesics` read a decoder z -> E[x | z]; `neighbours` and what is built on them read data
alone, without a model. Planes of either kind are compared by `principal_angles`.
"""

from .agreement import agreement
from .geodesics import Geodesics, geodesics
from .graph import Coordinates, Neighbours, coordinates, graph_distances, local_tangents, neighbours
from .metric import log_volume, metric
from .planes import Planes, principal_angles
from .tangents import contractive_penalty, encoder_tangents, reconstruction_tangents, tangents

__all__ = [
    "Coordinates",
    "Geodesics",
    "Neighbours",
    "Planes",
    "agreement",
    "contractive_penalty",
    "coordinates",
    "encoder_tangents",
    "geodesics",
    "graph_distances",
    "local_tangents",
    "log_volume",
    "metric",
    "neighbours",
    "principal_angles",
    "reconstruction_tangents",
    "tangents",
]
