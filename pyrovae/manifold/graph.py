"""The manifold without a model: a graph of nearest neighbours, its tangent planes and coordinates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluation.arguments import check_count, check_data
from .decoder import in_chunks
from .planes import Planes

ELEMENTS = 2**23  # of one chunk of neighbourhoods, in double precision 64 MiB
METHODS = ("isomap", "ltsa")


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of the other data to each of N.

    Attributes:
        index: their rows, nearest first, [N, k].
        distance: Euclidean, in units of x, [N, k].
    """

    index: Tensor
    distance: Tensor

    def graph(self) -> Any:
        """The graph as a scipy csr_array [N, N] of distances, an edge each way between neighbours; 0 for no edge."""
        from scipy.sparse import csr_array

        n, k = self.index.shape
        # a copy at distance 0 is a neighbour, too
        distance = self.distance.double().clamp_min(torch.finfo(torch.double).tiny)
        ends = torch.arange(0, n * k + 1, k)
        one = csr_array((distance.flatten().numpy(), self.index.flatten().numpy(), ends.numpy()), shape=(n, n))
        return one.maximum(one.T)

    def parts(self) -> Tensor:
        """How many data each connected part of the graph has, the largest first."""
        from scipy.sparse.csgraph import connected_components

        label = torch.from_numpy(connected_components(self.graph(), directed=False)[1])
        return label.bincount().sort(descending=True).values


def neighbours(x: Tensor, k: int = 20) -> Neighbours:
    """The k nearest neighbours of each datum among the others, by scikit-learn: exact.

    Memory is that of x and of 16 bytes for each of the N k neighbours; time goes as N² D beyond 15 dimensions or so.

    Args:
        x: data [N, *event], as vectors.
        k: how many, below N.

    Raises:
        ValueError: for k neighbours of no more than k data, and values that are not finite.

    >>> neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1).index.flatten()
    tensor([1, 0, 1])
    """
    from sklearn.neighbors import NearestNeighbors

    x = _vectors("neighbours", x)
    check_count("neighbours", "k of at least 1", "k", k)
    if k >= len(x):
        raise ValueError(f"neighbours expects fewer neighbours than data, got k={k} of {len(x)}; lower k")
    distance, index = NearestNeighbors(n_neighbors=k).fit(x.numpy()).kneighbors()
    return Neighbours(torch.from_numpy(index), torch.from_numpy(distance).to(x.dtype))


def local_tangents(x: Tensor, d: int, k: int = 20, near: Neighbours | None = None) -> Planes:
    """Local principal components: the plane through each datum and its k neighbours that they lie nearest to.

    Noise of size σ across the manifold turns a plane by about σ / (r √k), r the radius of the neighbourhood, and
    curvature by about r: more data allow a smaller r, down to where noise fills it. `Planes.gap` and `.residual` tell
    how flat a neighbourhood is.

    Args:
        x: data [N, *event], as vectors of D numbers.
        d: dimensions of the manifold, at most k and D.
        k: neighbours of each datum.
        near: these, where they are known already: `neighbours(x, k)`.

    Returns:
        `Planes`: .basis [N, D, d] in the dtype of x, which is most of the memory, and .singular_values [N, min(k, D)]:
        standard deviations of the neighbourhood along each direction, in units of x.

    Raises:
        ValueError: for more dimensions than neighbours or numbers in a datum, neighbours of other data, and as
            `neighbours`.

    Reference: Zhang and Zha, "Principal manifolds and nonlinear dimensionality reduction via tangent space alignment",
    2004.

    >>> t = torch.linspace(0, 1, 50)[:, None]
    >>> local_tangents(torch.cat([t, 2 * t], 1), d=1, k=5).basis[0].abs().flatten()
    tensor([0.4472, 0.8944])
    """
    x = _vectors("local_tangents", x)
    check_count("local_tangents", "d of at least 1", "d", d)
    k = k if near is None else near.index.shape[1]
    if d > min(k, x.shape[1]):
        raise ValueError(
            f"local_tangents expects at most as many dimensions as neighbours and numbers in a datum, got d={d} with "
            f"{k} neighbours in {x.shape[1]} dimensions; raise k or lower d"
        )
    near = neighbours(x, k) if near is None else near
    if len(near.index) != len(x):
        raise ValueError(
            f"local_tangents expects neighbours of the same data, got {len(near.index)} for {len(x)}; give "
            "near=neighbours(x, k)"
        )
    basis = x.new_empty(len(x), x.shape[1], d)
    values = x.new_empty(len(x), min(k, x.shape[1]))
    rows = max(1, ELEMENTS // ((k + 1) * x.shape[1]))
    for start, stop in in_chunks("local_tangents", len(x), rows):
        around = x[torch.cat([torch.arange(start, stop)[:, None], near.index[start:stop]], 1)].double()  # [n, k + 1, D]
        around -= around.mean(1, keepdim=True)
        u, s = _directions(around, d)
        basis[start:stop], values[start:stop] = u, s[:, : values.shape[1]] / k**0.5
    return Planes(basis, values)


def _directions(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """The first d right singular vectors of matrices [n, m, D] as columns [n, D, d], and the singular values."""
    if x.shape[2] <= x.shape[1]:
        _, s, vh = torch.linalg.svd(x, full_matrices=False)
        return vh[:, :d].mT, s
    squares, left = torch.linalg.eigh(x @ x.mT)  # of [m, m] in place of [D, D]
    s = squares.clamp_min(0).sqrt().flip(1)
    return torch.linalg.qr(x.mT @ left.flip(2)[..., :d]).Q, s  # orthonormal, though s_d be nearly 0


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of N data on their manifold.

    Attributes:
        z: [N, d]; of isomap in units of x, of ltsa of variance 1 / N, up to a linear map.
        error: what they leave: of isomap the root mean square of what the matrix of squared distances, centred, is off
            by, in x²; of ltsa how far neighbourhoods are from flat in them, without units.
    """

    z: Tensor
    error: float

    @property
    def spread(self) -> float:
        """The share of the data that carry a coordinate, (Σ z²)² / N Σ z⁴, the least of the d: distrust it under 0.05.

        It is 0.56 of an even spread. ltsa puts all data but a few in one place where many ways of aligning their planes
        leave nothing over: where neighbourhoods are not of d dimensions, or overlap too little; more neighbours help.
        """
        squares = (self.z - self.z.mean(0)).double().square()
        return float((squares.sum(0).square() / (len(self.z) * squares.square().sum(0))).min())


def coordinates(x: Tensor, d: int = 2, k: int = 20, method: str = "isomap", seed: int = 0) -> Coordinates:
    """Coordinates on the manifold from the graph of neighbours alone, by scikit-learn.

    isomap: distances through the graph, laid out in d dimensions as true to them as can be. Takes 8 N² bytes.
    ltsa: the local tangent planes, aligned where neighbourhoods overlap.

    Args:
        x: data [N, *event], as vectors.
        d: how many coordinates.
        k: neighbours of each datum, more than d.
        method: isomap or ltsa.
        seed: of the eigensolver's start.

    Raises:
        ValueError: for an unknown method, no more neighbours than dimensions, a graph in several parts, and as
            `neighbours`.

    References: Tenenbaum, de Silva and Langford, 2000; Zhang and Zha, 2004, as above.

    >>> t = torch.linspace(0, 3, 40)
    >>> found = coordinates(torch.stack([t.cos(), t.sin()], 1), d=1, k=4).z[:, 0]  # half a circle, unrolled
    >>> bool(torch.corrcoef(torch.stack([t, found]))[0, 1].abs() > 0.9999)
    True
    """
    from sklearn.manifold import Isomap, LocallyLinearEmbedding

    x = _vectors("coordinates", x)
    if method not in METHODS:
        raise ValueError(f"coordinates expects method as one of {list(METHODS)}, got {method!r}; choose one")
    check_count("coordinates", "d of at least 1", "d", d)
    if not d < k:
        raise ValueError(f"coordinates expects more neighbours than dimensions, got k={k} and d={d}; raise k")
    check_connected("coordinates", neighbours(x, k))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == "isomap":
            made = Isomap(n_neighbors=k, n_components=d)
            values, error = made.fit_transform(x.double().numpy()), made.reconstruction_error()
        else:
            # arpack looks for null vectors of a matrix that is singular, of flat data exactly so
            solver = "dense" if len(x) <= 2000 else "auto"
            made = LocallyLinearEmbedding(
                n_neighbors=k, n_components=d, method="ltsa", eigen_solver=solver, random_state=seed
            )
            values, error = made.fit_transform(x.double().numpy()), made.reconstruction_error_
    return Coordinates(torch.from_numpy(values).to(x.dtype), float(error))


def check_connected(who: str, near: Neighbours) -> None:
    """Refuse a graph in several parts. Raises ValueError."""
    sizes = near.parts().tolist()
    if len(sizes) > 1:
        shown = ", ".join(map(str, sizes[:5])) + (", …" if len(sizes) > 5 else "")
        raise ValueError(
            f"{who} expects a connected graph, got {len(sizes)} parts, of {shown} data; raise k, or take "
            "the largest part"
        )


def _vectors(who: str, x: Any) -> Tensor:
    """Data [N, *event] as finite vectors [N, D] on the CPU. Raises ValueError."""
    check_data(who, x)
    x = x.detach().cpu()
    x = (x if x.is_floating_point() else x.float()).reshape(len(x), -1)
    if not x.isfinite().all():
        raise ValueError(f"{who} expects finite values, got NaN or infinity; leave out those data, or impute them")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
