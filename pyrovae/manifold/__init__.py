"""The manifold near which data lie: its tangent planes, distances and coordinates, from a model and from neighbours.

`tangents`, `metric` and `geodesics` read a decoder z -> E[x | z]; `neighbours` and what is built on them read data
alone, without a model. Planes of either kind are compared by `principal_angles`; `sensitivity` tells how a model
treats what is off them.
"""

from .agreement import agreement
from .geodesics import Geodesics, geodesics
from .graph import Coordinates, Neighbours, coordinates, local_tangents, neighbours
from .metric import log_volume, metric
from .paths import Way, graph_distances, shortest_ways
from .planes import Planes, principal_angles
from .sensitivity import Sensitivity, sensitivity
from .tangents import contractive_penalty, encoder_tangents, reconstruction_tangents, tangents

__all__ = [
    "Coordinates",
    "Geodesics",
    "Neighbours",
    "Planes",
    "Sensitivity",
    "Way",
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
    "sensitivity",
    "shortest_ways",
    "tangents",
]
