"""What anybody would try first: models without latents, fitted to the training split.

Each returns the mean log density of a datum of the test split, in nats; principal components a squared error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

LEVELS = 17  # of a pixel of the digits: 0..16


def pixels(train: Tensor, test: Tensor) -> float:
    """Every pixel's own histogram, a count added to each of its 17 levels: stronger than a binomial or Poisson."""
    return float(_histograms(train.flatten(1), test.flatten(1)).mean())


def _histograms(train: Tensor, test: Tensor) -> Tensor:
    share = (F.one_hot(train.long(), LEVELS).double().sum(0) + 1) / (len(train) + LEVELS)  # [D, 17]
    return share.log().expand(len(test), -1, -1).gather(-1, test.long()[..., None]).sum((-1, -2))


def pixels_of_a_class(train: Tensor, test: Tensor, given: bool = False) -> float:
    """log p(y) + log p(x | y): the share of the class, and its histograms of pixels; the latter alone if `given`."""
    share = torch.bincount(train[:, 0].long(), minlength=10) / len(train)
    total = 0.0
    for y in range(10):
        of_train, of_test = (x[x[:, 0] == y] for x in (train, test))
        of_class = 0.0 if given else share[y].log()
        total += float((of_class + _histograms(of_train[:, 1:], of_test[:, 1:])).sum())
    return total / len(test)


def negative_binomials(train: Tensor, test: Tensor) -> float:
    """Every pixel a negative binomial by maximum likelihood: its mean that of the data, r the best of a grid."""
    a, b = train.flatten(1).double(), test.flatten(1).double()
    mean = (a.sum(0) + 0.5) / (len(a) + 1)  # a pixel that never had ink may have some
    r = torch.logspace(-3, 3, 300, dtype=torch.float64)[:, None]
    total = 0.0
    for of_train, of_test, m in zip(a.T, b.T, mean, strict=True):
        counts, where = torch.cat([of_train, of_test]).unique(return_inverse=True)
        log_p = torch.distributions.NegativeBinomial(r, logits=(m / r).log()).log_prob(counts)  # [300, counts]
        how_often = torch.bincount(where[: len(a)], minlength=len(counts)).double()
        total += float(log_p[(log_p @ how_often).argmax()][where[len(a) :]].sum())
    return total / len(b)


def unigrams(train: Tensor, test: Tensor) -> float:
    """All documents of the same words: a multinomial with the shares of the words, one added to how often each was."""
    a, b = train.flatten(1).double(), test.flatten(1).double()
    share = (a.sum(0) + 1) / (a.sum() + a.shape[1])
    arrangements = torch.lgamma(b.sum(1) + 1) - torch.lgamma(b + 1).sum(1)
    return float((arrangements + b @ share.log()).mean())


def columns(train: Tensor, test: Tensor, family: str) -> float:
    """Every column's own distribution, of a family of scipy's, by maximum likelihood."""
    total, fixed = 0.0, {"floc": 0} if family == "lognorm" else {}
    for a, b in zip(train.double().T.numpy(), test.double().T.numpy(), strict=True):
        unit = a.std()  # the fit of scipy wants numbers around 1
        kind = getattr(stats, family)
        total += kind(*kind.fit(a / unit, **fixed)).logpdf(b / unit).mean() - np.log(unit)
    return float(total)


def first_order(train: Tensor, test: Tensor) -> float:
    """x_1 ~ 𝒩(m, s²), x_t ~ 𝒩(a x_{t−1} + c, σ²): least squares over all steps that are there."""
    first = torch.distributions.Normal(train[:, 0].mean(), train[:, 0].std())
    before, after = (x[~train[:, 1:].isnan()].double() for x in (train[:, :-1], train[:, 1:]))
    slope, shift = np.polyfit(before.numpy(), after.numpy(), 1)
    sigma = float((after - slope * before - shift).square().mean().sqrt())
    log_p = torch.distributions.Normal(slope * test[:, :-1] + shift, sigma, validate_args=False).log_prob(test[:, 1:])
    return float((first.log_prob(test[:, 0]) + log_p.nansum(1)).mean())


def principal_components(train: Tensor, test: Tensor, latent: int) -> float:
    """The squared error of a datum of the test split behind so many principal components of the training split."""
    from sklearn.decomposition import PCA

    a, b = train.flatten(1).double().numpy(), test.flatten(1).double().numpy()
    fitted = PCA(latent).fit(a)
    return float(np.square(b - fitted.inverse_transform(fitted.transform(b))).sum(1).mean())


def bernoulli_pixels(train: Tensor, test: Tensor) -> float:
    """Every pixel a Bernoulli of its own, a zero and a one added to what it was seen with."""
    a, b = train.flatten(1).double(), test.flatten(1).double()
    p = (a.sum(0) + 1) / (len(a) + 2)
    return float((b * p.log() + (1 - b) * (1 - p).log()).sum(1).mean())


def probabilistic_pca(train: Tensor, test: Tensor, latent: int) -> float:
    """𝒩(b, W Wᵀ + σ² I) at its maximum: W of the first eigenvectors of the covariance, σ² the mean of the others.

    Reference: Tipping and Bishop, "Probabilistic principal component analysis", 1999.
    """
    x, y = (t.flatten(1).double() for t in (train, test))
    loc = x.mean(0)
    values, vectors = torch.linalg.eigh((x - loc).mT @ (x - loc) / len(x))  # ascending
    noise = values[:-latent].mean()
    w = vectors[:, -latent:] * (values[-latent:] - noise).sqrt()
    covariance = w @ w.mT + noise * torch.eye(len(loc), dtype=x.dtype)
    return float(torch.distributions.MultivariateNormal(loc, covariance).log_prob(y).mean())


def autoregression(train: Tensor, test: Tensor) -> float:
    """A normal vector autoregression of first or of second order, which of them has more density in training."""
    orders = [_autoregression(train.double(), order) for order in (1, 2)]
    best = max(orders, key=lambda log_p: float(log_p(train.double()).mean()))
    return float(best(test.double()).mean())


def _autoregression(train: Tensor, order: int) -> Callable[[Tensor], Tensor]:
    """x_t ~ 𝒩(A_1 x_{t−1} + … + A_p x_{t−p} + c, Σ) by least squares over all steps; the first p steps are normal.

    All series, [N, T, D] with NaN behind their end, are of more than p steps.
    """

    def apart(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first steps, [N, p·D]; every window of p + 1 steps, [N, T − p, (p + 1) D]; which are there."""
        windows = x.unfold(1, order + 1, 1).mT.flatten(2)
        return x[:, :order].flatten(1), windows, ~windows.isnan().any(-1)

    def normal(x: Tensor) -> torch.distributions.MultivariateNormal:
        return torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.mT, correction=0))

    def split(windows: Tensor) -> tuple[Tensor, Tensor]:
        before, now = windows.split([order * train.shape[-1], train.shape[-1]], -1)
        return F.pad(before, (0, 1), value=1.0), now

    start, windows, there = apart(train)
    before, now = split(windows[there])
    rule = torch.linalg.lstsq(before, now).solution
    first, residual = normal(start), normal(now - before @ rule)

    def log_prob(x: Tensor) -> Tensor:
        start, windows, there = apart(x)
        before, now = split(windows.nan_to_num())
        return first.log_prob(start) + residual.log_prob(now - before @ rule).where(there, 0.0).sum(-1)

    return log_prob
