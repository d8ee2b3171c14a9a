"""Whether a model makes new data, or gives back those that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..program import seeded
from .arguments import check_count
from .samples import generate, shown_site

VERDICTS = ("memorised", "novel", "off the data")
LOW, HIGH = 0.01, 0.99  # quantiles of the held-out distances that the verdicts turn at
MOST = 1000  # held-out data that are looked at
_PAIRS = 2**22  # distances at once


@dataclass(frozen=True)
class Novelty:
    """How near what a model makes comes to its training data, in units of x.

    Attributes:
        generated: what it made, [n, *event].
        distance: Euclidean distance of each to the nearest training datum, [n].
        nearest: the index of that in data.train, [n].
        held_out: the same distance for data of the test split, [m].
        training: the same for training data, each against all others, [m].
        low: 1 % quantile of held_out: what is nearer is "memorised".
        high: 99 % quantile of held_out: what is further away is "off the data".
    """

    generated: Tensor
    distance: Tensor
    nearest: Tensor
    held_out: Tensor
    training: Tensor
    low: float
    high: float

    @property
    def verdicts(self) -> list[str]:
        """ "memorised", "novel" or "off the data", for each that was generated."""
        place = (self.distance >= self.low).long() + (self.distance > self.high).long()
        return [VERDICTS[i] for i in place.tolist()]

    @property
    def shares(self) -> dict[str, float]:
        """The share of each verdict; of held-out data 0.01, 0.98 and 0.01."""
        found = self.verdicts
        return {verdict: found.count(verdict) / len(found) for verdict in VERDICTS}


def novelty(vae: Any, data: Dataset, n: int = 100, seed: int = 0, mean: bool = False) -> Novelty:
    """The nearest training datum to each that is generated, against the same for data that were held out.

        d(x) = min_n ‖x − x_n‖,    memorised: d(x) < Q_1%,    off the data: d(x) > Q_99%,    else novel

    Q are quantiles of d over at most 1,000 held-out data: these are new and of the data's distribution, so that of a
    perfect model one in a hundred is called memorised, and one in a hundred off the data. Where held-out data repeat
    training data exactly, Q_1% is 0 and nothing can be told apart from new data.

    Draws x ~ p(x | z) are compared, as the data are draws themselves: binary with binary, noise with noise. Means
    E[x | z] are smoother than any datum and lie nearer to all of them, so that with `mean` the verdict is for the eye,
    and "memorised" is too easily said. Draws of a likelihood with more noise than the data, such as pixels that are
    independent given z, are off the data for that noise.

    Args:
        vae: anything with a Pyro `model(x)`.
        data: a Dataset with a test split, without missing entries; under dynamic binarisation one draw of it.
        n: how many to generate.
        seed: of the draws and of the choice of held-out and training data.
        mean: compare E[x | z] instead of x.

    Raises:
        ValueError: for what is no Dataset, one without a test split or with NaN, fewer than two training data, and a
            model that makes data of another shape.

    References: Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016; Meehan, Chaudhuri
    and Dasgupta, "A non-parametric test to detect data-copying in generative models", 2020.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> pv.evaluation.novelty(pv.models.VAE.build(data, latent=2), data, n=5).verdicts  # not trained
    ['off the data', 'off the data', 'off the data', 'off the data', 'off the data']
    """
    check_count("novelty", "n of at least 1", "n", n)
    if not isinstance(data, Dataset):
        raise ValueError(
            f"novelty expects a Dataset with training and test data, got {type(data).__name__}; use "
            "pv.data.from_arrays(train, test=test)"
        )
    train, test = data.train, data.test
    if test is None or len(train) < 2:
        raise ValueError(
            f"novelty expects data with two training data and a test split, got {data!r}; load it with one, or give "
            "from_arrays(..., test=x)"
        )
    if bool(train.isnan().any()) or bool(test.isnan().any()):
        raise ValueError("novelty expects data without NaN, as distances to what is missing are not known; impute them")
    made = shown_site("novelty", generate(vae, n, seed, mean, train))
    if made.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"novelty expects a model that makes data of shape {list(train.shape[1:])}, got {list(made.shape[1:])}; "
            "give it the data that it was trained on"
        )
    train, test, made = train.to(made), test.to(made), made.detach()
    with seeded(seed):
        some = torch.randperm(len(test))[:MOST]
        own = torch.randperm(len(train))[:MOST]
    distance, nearest = _nearest(made, train)
    held_out, _ = _nearest(test[some.to(test.device)], train)
    training, _ = _nearest(train[own.to(train.device)], train, own)
    low, high = held_out.double().quantile(torch.tensor([LOW, HIGH], dtype=torch.float64)).tolist()
    return Novelty(made.cpu(), distance, nearest, held_out, training, low, high)


def _nearest(x: Tensor, among: Tensor, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance and index of the nearest of `among`, which x does not find in its own place `itself`: [n] each."""
    flat, others = x.flatten(1), among.flatten(1)
    found = []
    for rows in torch.arange(len(flat)).split(max(1, _PAIRS // len(others))):
        pairs = torch.cdist(flat[rows.to(flat.device)], others)
        if itself is not None:
            pairs.scatter_(1, itself[rows].to(pairs.device)[:, None], torch.inf)
        found.append(pairs.argmin(1))
    nearest = torch.cat(found)
    distance = (flat - others[nearest]).norm(dim=1)  # cdist takes a difference of squares, which rounding spoils
    return distance.cpu(), nearest.cpu()
