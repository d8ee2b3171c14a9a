"""Whether each number of a code tells of one factor that the data were made from, where these are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .arguments import check_count

TREES = 50
HELD_OUT = 3  # one in so many rows tells how well the factors are predicted


def mutual_information(codes: Any, factors: Any, bins: int = 20) -> np.ndarray:
    """I(z_l; v_f) in nats of every number of the code with every factor, [L, F], from their table of counts.

        I(z; v) = Σ_ij n_ij / N log (N n_ij / n_i n_j)

    A number that has more than `bins` values is put into so many bins of equal width. With few data the tables are too
    uneven, and I is too large: by about (bins − 1)(values − 1) / 2N where z says nothing of v.

    Args:
        codes: [N, L], such as `pv.encode(vae, x)`; an array or a tensor.
        factors: whole numbers [N, F], such as `data.factors["test"]`.
        bins: how many.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, factors that are no whole numbers or have
            one value alone, and less than 2 bins.

    >>> v = np.arange(6)[:, None] % 3
    >>> bool(np.isclose(mutual_information(v, v)[0, 0], np.log(3)))
    True
    """
    z, v = _read("mutual_information", codes, factors)
    check_count("mutual_information", "at least 2 bins", "bins", bins, 2)
    return _information(z, v, bins)


def mig(codes: Any, factors: Any, bins: int = 20) -> float:
    """The mutual information gap: how much more the best number of the code knows of a factor than the second best.

        MIG = 1/F Σ_f (I(z_first; v_f) − I(z_second; v_f)) / H(v_f)

    1 where each factor is known to one number of the code and to no other, 0 where two know as much of it, or none
    does. Nothing holds one number back from knowing several factors: `dci` sees that.

    Args:
        codes: [N, L]; an array or a tensor.
        factors: whole numbers [N, F].
        bins: as in `mutual_information`.

    Raises:
        ValueError: as `mutual_information`.

    Reference: Chen, Li, Grosse and Duvenaud, "Isolating sources of disentanglement in variational autoencoders", 2018.

    >>> v = np.indices((3, 4)).reshape(2, -1).T
    >>> round(mig(v, v), 6), round(mig(np.stack([v.sum(1)] * 2, 1), v), 6)
    (1.0, 0.0)
    """
    z, v = _read("mig", codes, factors)
    check_count("mig", "at least 2 bins", "bins", bins, 2)
    information = np.sort(np.vstack([_information(z, v, bins), np.zeros((1, v.shape[1]))]), 0)  # a second, if of one
    return float(np.mean((information[-1] - information[-2]) / [_entropy(np.bincount(f)) for f in v.T]))


@dataclass(frozen=True)
class DCI:
    """How codes and factors belong together, each figure between 0 and 1.

    Attributes:
        disentanglement: 1 where no number of the code is for more than one factor.
        completeness: 1 where no factor needs more than one number of the code.
        informativeness: the share of held-out factors that the code predicts rightly.
        importance: [L, F], of each number for each factor, columns that sum to one.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def dci(codes: Any, factors: Any, seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness: from how a random forest predicts each factor by the code.

    R_lf is how important z_l is to the forest of factor f: its share in all that the splits of 50 trees lower the Gini
    impurity. Every split may choose among all of the code, so that what is of no use is not made use of. With
    P_lf = R_lf / Σ_f R_lf and Q_lf = R_lf / Σ_l R_lf,

        D = Σ_l ρ_l (1 − H(P_l·) / log F),    ρ_l = Σ_f R_lf / ΣΣ R,    C = 1/F Σ_f (1 − H(Q_·f) / log L)

    A third of the data is held out; informativeness is the share of it that the forests classify rightly, the mean over
    the factors.

    Args:
        codes: [N, L]; an array or a tensor.
        factors: whole numbers [N, F], at least 2 of them.
        seed: of the split and the forests.

    Raises:
        ValueError: as `mutual_information`; for one factor or one number alone, which are always disentangled.

    Reference: Eastwood and Williams, "A framework for the quantitative evaluation of disentangled representations",
    2018.

    >>> v = np.indices((3, 4, 5)).reshape(3, -1).T
    >>> found = dci(v, v)
    >>> found.disentanglement > 0.99, found.completeness > 0.99
    (True, True)
    """
    from sklearn.ensemble import RandomForestClassifier

    z, v = _read("dci", codes, factors)
    check_count("dci", "a seed of at least 0", "seed", seed, 0)
    if min(z.shape[1], v.shape[1]) < 2:
        raise ValueError(
            f"dci expects at least 2 numbers in a code and 2 factors, got {z.shape[1]} and {v.shape[1]}; one alone is "
            "always disentangled: use mig"
        )
    order = np.random.default_rng(seed).permutation(len(z))
    held, rest = np.split(order, [len(z) // HELD_OUT])
    columns, right = [], []
    for f in v.T:
        forest = RandomForestClassifier(TREES, max_features=None, random_state=seed).fit(z[rest], f[rest])
        columns.append(forest.feature_importances_)
        right.append(forest.score(z[held], f[held]))
    importance = np.stack(columns, 1)  # [L, F]
    weight = importance.sum(1) / importance.sum()
    concentrated = [1 - _entropy(row) / np.log(len(row)) for row in importance]
    complete = [1 - _entropy(column) / np.log(len(column)) for column in importance.T]
    return DCI(float(weight @ concentrated), float(np.mean(complete)), float(np.mean(right)), importance)


def _information(z: np.ndarray, v: np.ndarray, bins: int) -> np.ndarray:
    """I(z_l; v_f), [L, F]."""
    binned, factors = ([_levels(column, most) for column in t.T] for t, most in ((z, bins), (v, len(v))))
    found = np.zeros((len(binned), len(factors)))
    for i, a in enumerate(binned):
        for j, b in enumerate(factors):
            table = np.zeros((a.max() + 1, b.max() + 1))
            np.add.at(table, (a, b), 1.0)
            found[i, j] = _entropy(table.sum(1)) + _entropy(table.sum(0)) - _entropy(table.ravel())
    return found


def _levels(column: np.ndarray, most: int) -> np.ndarray:
    """Numbers as 0, 1, ...: one for each value, or for each of `most` bins of equal width where there are more."""
    values, level = np.unique(column, return_inverse=True)
    if len(values) <= most:
        return level
    edges = np.linspace(values[0], values[-1], most + 1)
    return np.digitize(column, edges[1:-1])


def _entropy(weights: np.ndarray) -> float:
    """Of weights that need not sum to one, in nats; 0 for none."""
    p = weights[weights > 0] / max(weights.sum(), np.finfo(float).tiny)
    return float(-(p * np.log(p)).sum())


def _read(who: str, codes: Any, factors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, L] and factors [N, F], numbered 0, 1, .... Raises ValueError."""
    z, v = (np.asarray(t.detach().cpu() if isinstance(t, Tensor) else t) for t in (codes, factors))
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or 0 in (*z.shape, *v.shape):
        raise ValueError(
            f"{who} expects codes [N, L] and factors [N, F] of the same data, got {list(z.shape)} and {list(v.shape)}; "
            "give a row for each datum"
        )
    if not np.isfinite(z).all():
        raise ValueError(f"{who} expects finite codes, got NaN or infinity; look at the encoder")
    if not np.issubdtype(v.dtype, np.integer):
        raise ValueError(f"{who} expects factors as whole numbers, got {v.dtype}; number their values, or bin them")
    levels = np.stack([np.unique(f, return_inverse=True)[1] for f in v.T], 1)
    if alone := [i for i, f in enumerate(levels.T) if f.max() == 0]:
        raise ValueError(f"{who} expects factors that vary, got one value alone of factor {alone[0]}; leave it out")
    return z.astype(float), levels
