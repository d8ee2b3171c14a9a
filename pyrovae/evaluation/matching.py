"""Clusters held against labels: which cluster is which label, and how often that is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def best_matching(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a table in pairs, each used once at most, so that the sum over the pairs is the largest.

        max_π Σ_i table[i, π(i)]

    As many pairs as the shorter side has; the rows are in rising order. Raises ValueError for what is no table of
    finite numbers.

    >>> rows, columns = best_matching([[5, 0, 1], [9, 8, 0]])
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [0, 1])
    """
    table = np.asarray(table.detach().cpu() if isinstance(table, Tensor) else table)
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.number) or not np.isfinite(table).all():
        raise ValueError(
            f"best_matching expects a table [rows, columns] of finite numbers, got {table.dtype} of shape "
            f"{list(table.shape)}; count pairs, or give scores, with nothing missing"
        )
    from scipy.optimize import linear_sum_assignment  # here: importing it takes a second

    return linear_sum_assignment(table, maximize=True)


def clustering_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """The share of data whose cluster is that of their label, by the best matching of clusters to labels.

        max_π 1/N Σ_n [π(cluster_n) = label_n],    π one to one

    Where there are more clusters than labels, the data of those left over count as wrong.

    Args:
        clusters: a whole number for each datum [N], or p(y | x) [N, C], of which the most probable is taken.
        labels: a whole number for each datum [N].

    Raises:
        ValueError: for other shapes, no data, or numbers that are not whole.

    Reference: Yang et al., "Image clustering using local discriminant models and global integration", 2010.

    >>> clustering_accuracy(torch.tensor([2, 2, 0, 1]), torch.tensor([0, 0, 1, 1]))
    0.75
    """
    clusters, labels = torch.as_tensor(clusters), torch.as_tensor(labels)
    clusters = clusters.argmax(-1) if clusters.dim() == 2 else clusters
    for name, t in (("clusters", clusters), ("labels", labels)):
        if t.dim() != 1 or len(t) != len(labels) or not len(t) or bool((t != t.round()).any()):
            raise ValueError(
                f"clustering_accuracy expects {name} as a whole number for each of {len(labels)} data, got "
                f"{str(t.dtype).removeprefix('torch.')} of shape {list(t.shape)}; give clusters [N] or their "
                "probabilities [N, C], and labels [N]"
            )
    (a, i), (b, j) = (t.cpu().unique(return_inverse=True) for t in (clusters, labels))
    table = torch.bincount(i * len(b) + j, minlength=len(a) * len(b)).reshape(len(a), len(b))  # how often together
    return float(table.numpy()[best_matching(table)].sum() / len(labels))
