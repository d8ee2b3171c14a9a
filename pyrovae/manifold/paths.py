"""Shortest ways through a graph of neighbours: what geodesics are without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Neighbours, check_connected


def graph_distances(near: Neighbours, sources: Tensor | None = None) -> Tensor:
    """Lengths of the shortest ways through the graph from each of S data to all, [S, N], in units of x.

    As data grow dense they approach geodesic distances on the manifold, if k grows as well: with k fixed, ways zigzag
    as much as before. They are too short by the chords between neighbours.

    Args:
        near: `neighbours(x, k)`.
        sources: rows to start from, [S]; None for all, which takes 8 N² bytes.

    Raises:
        ValueError: for a graph in several parts, between which there is no way.

    Reference: Tenenbaum, de Silva and Langford, "A global geometric framework for nonlinear dimensionality reduction",
    2000.

    >>> from pyrovae.manifold import neighbours
    >>> line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.1]])
    >>> graph_distances(neighbours(line, 2), torch.tensor([0]))
    tensor([[0.0000, 1.0000, 2.0000, 1.1000]])
    """
    from scipy.sparse.csgraph import dijkstra

    check_connected("graph_distances", near)
    indices = None if sources is None else torch.as_tensor(sources).numpy()
    found = torch.from_numpy(dijkstra(near.graph(), directed=False, indices=indices))
    return found.to(near.distance.dtype)


@dataclass(frozen=True)
class Way:
    """The shortest way between two data through the graph.

    Attributes:
        rows: the data that it goes through, both ends among them.
        length: in units of x.
    """

    rows: list[int]
    length: float


def shortest_ways(near: Neighbours, ends: Sequence[Sequence[int]]) -> list[Way]:
    """The shortest way through the graph between each pair of data: what `graph_distances` measures.

    Args:
        near: `neighbours(x, k)`.
        ends: pairs of rows, from and to.

    Raises:
        ValueError: for ends that are no pairs of rows, and as `graph_distances`.

    >>> from pyrovae.manifold import neighbours
    >>> line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.1]])
    >>> shortest_ways(neighbours(line, 2), [(0, 2)])
    [Way(rows=[0, 1, 2], length=2.0)]
    """
    from scipy.sparse.csgraph import dijkstra

    check_connected("shortest_ways", near)
    pairs = torch.as_tensor(ends)
    n = len(near.index)
    if (
        pairs.dim() != 2
        or pairs.shape[1:] != (2,)
        or pairs.is_floating_point()
        or not bool(((pairs >= 0) & (pairs < n)).all())
    ):
        raise ValueError(f"shortest_ways expects ends as pairs of rows from 0 to {n - 1}, got {ends!r}")
    distance, before = dijkstra(near.graph(), directed=False, indices=pairs[:, 0].numpy(), return_predecessors=True)
    found = []
    for i, (start, stop) in enumerate(pairs.tolist()):
        rows = [stop]
        while rows[-1] != start:
            rows.append(int(before[i, rows[-1]]))
        found.append(Way(rows[::-1], float(distance[i, stop])))
    return found
