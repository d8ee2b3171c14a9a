"""The tables of parts, one a role: a line here buys the whole suite of its role, and a name in `small_vae`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

import pyrovae as pv
from pyrovae import likelihoods, networks, posteriors, priors
from pyrovae.attached import Attached
from pyrovae.networks import pair

F64 = torch.float64
EVENT = [1, 5, 4]
SEQUENCE = [4, 3]
LEADING = [(), (4,), (3, 4), (2, 3, 4)]
L = 2  # latent dimensions, where sums and integrals over all of them are taken


class PriorCase(NamedTuple):
    """A prior: how it is built for so many latents, where its values lie (SPACES), a posterior over such values."""

    build: Callable[[int], nn.Module]
    space: str
    posterior: str = "DiagonalNormal"
    accuracy: float = 1e-8  # of the quadrature, for a density that is not smooth


class PosteriorCase(NamedTuple):
    """A posterior: its class and options, the prior over the same values, and what it can do."""

    cls: type[posteriors.Posterior]
    prior: str
    options: dict[str, Any] = {}  # noqa: RUF012
    pathwise: bool = True  # whether a gradient passes through a draw
    closed: bool = True  # whether its rate KL(q ‖ p) has a closed form
    accuracy: float = 1e-8


class LikelihoodCase(NamedTuple):
    """A likelihood: its class and options, data for it from uniform numbers, and what one element of it can be."""

    cls: type[likelihoods.Likelihood]
    options: dict[str, Any]
    data: Callable[[Tensor], Tensor]
    space: str = "reals"  # LINES


def attached_vamp(latent: int, q: type[posteriors.Posterior] = posteriors.DiagonalNormal, **options: Any) -> nn.Module:
    """A VampPrior that is a part of a small module with a posterior."""
    prior, model = priors.VampPrior(latent, EVENT, components=4, top=1.0), nn.Module()
    model.posterior = q(small_network(EVENT, q.code(latent, **options)), **options)
    prior.attach(model)
    return prior


def flow_case(kind: str, accuracy: float = 1e-8) -> PosteriorCase:
    """A small flow as posterior."""
    options = {"kind": kind, "transforms": 2, "hidden": [6], "context": 3}
    return PosteriorCase(posteriors.Flow, "StandardNormal", options, closed=False, accuracy=accuracy)


class NetworkCase(NamedTuple):
    """A kind of network in `pair`: its widths, the data that it is for, and its activation, where it has one."""

    hidden: list[int]
    event: list[int] = EVENT
    activation: str | None = "tanh"


PRIORS: dict[str, PriorCase] = {
    "StandardNormal": PriorCase(priors.StandardNormal, "reals"),
    "DiagonalNormal": PriorCase(priors.DiagonalNormal, "reals"),
    "Laplace": PriorCase(priors.Laplace, "reals", accuracy=1e-7),
    "StudentT": PriorCase(priors.StudentT, "reals", accuracy=1e-7),
    "Mixture": PriorCase(lambda n: priors.Mixture(n, components=3), "fine reals"),
    "Mixture of equals": PriorCase(lambda n: priors.Mixture(n, components=3, equal=True), "fine reals"),
    "VampPrior": PriorCase(attached_vamp, "fine reals"),
    "Hierarchical": PriorCase(lambda n: priors.Hierarchical(n, hidden=[5]), "fine reals"),
    "Autoregressive": PriorCase(lambda n: priors.Autoregressive(n, hidden=[6]), "fine reals"),
    "Autoregressive coins": PriorCase(lambda n: priors.Autoregressive(n, [6], "Bernoulli"), "coins", "Bernoulli"),
    "GaussianProcess": PriorCase(priors.GaussianProcess, "fine reals"),
    "Bernoulli": PriorCase(priors.Bernoulli, "coins", "Bernoulli"),
    "RelaxedBernoulli": PriorCase(priors.RelaxedBernoulli, "unit with ends", "RelaxedBernoulli"),
    "OneHotCategorical": PriorCase(priors.OneHotCategorical, "one-hot", "OneHotCategorical"),
    "Categorical": PriorCase(lambda n: priors.Categorical(n, 3), "categories", "Categorical"),
    "Gamma": PriorCase(lambda n: priors.Gamma(n, 0.7, 2.0), "positive", "Gamma"),
    "LogNormal": PriorCase(priors.LogNormal, "positive", "LogNormal"),
    "Beta": PriorCase(lambda n: priors.Beta(n, 2.0, 0.8), "unit", "Beta"),
    "Dirichlet": PriorCase(lambda n: priors.Dirichlet(n, 0.8), "simplex", "Dirichlet"),
    "LogisticNormal": PriorCase(priors.LogisticNormal, "simplex", "LogisticNormal"),
    "RelaxedOneHotCategorical": PriorCase(priors.RelaxedOneHotCategorical, "simplex", "RelaxedOneHotCategorical"),
    "UniformSphere": PriorCase(priors.UniformSphere, "sphere", "VonMisesFisher"),
    "VonMisesFisher": PriorCase(priors.VonMisesFisher, "sphere", "VonMisesFisher"),
    "Flow": PriorCase(lambda n: priors.Flow(n, hidden=[6]), "reals", accuracy=1e-4),
    "Flow MAF": PriorCase(lambda n: priors.Flow(n, "MAF", 2, [6, 5]), "reals"),
    "Flow RealNVP": PriorCase(lambda n: priors.Flow(n, "RealNVP", 2, [6]), "reals"),
}
POSTERIORS: dict[str, PosteriorCase] = {
    "DiagonalNormal": PosteriorCase(posteriors.DiagonalNormal, "StandardNormal"),
    "FullNormal": PosteriorCase(posteriors.FullNormal, "StandardNormal"),
    "LowRankNormal": PosteriorCase(posteriors.LowRankNormal, "StandardNormal", {"rank": 2}),
    "Mixture": PosteriorCase(posteriors.Mixture, "StandardNormal", {"components": 3}, closed=False),
    "Bernoulli": PosteriorCase(posteriors.Bernoulli, "Bernoulli", pathwise=False),
    "StraightThroughBernoulli": PosteriorCase(posteriors.StraightThroughBernoulli, "Bernoulli"),
    "RelaxedBernoulli": PosteriorCase(posteriors.RelaxedBernoulli, "RelaxedBernoulli"),
    "OneHotCategorical": PosteriorCase(posteriors.OneHotCategorical, "OneHotCategorical", pathwise=False),
    "StraightThroughOneHotCategorical": PosteriorCase(posteriors.StraightThroughOneHotCategorical, "OneHotCategorical"),
    "Categorical": PosteriorCase(posteriors.Categorical, "Categorical", {"categories": 3}, pathwise=False),
    "Gamma": PosteriorCase(posteriors.Gamma, "Gamma"),
    "LogNormal": PosteriorCase(posteriors.LogNormal, "LogNormal"),
    "Beta": PosteriorCase(posteriors.Beta, "Beta"),
    "Dirichlet": PosteriorCase(posteriors.Dirichlet, "Dirichlet"),
    "LogisticNormal": PosteriorCase(posteriors.LogisticNormal, "LogisticNormal"),
    "RelaxedOneHotCategorical": PosteriorCase(
        posteriors.RelaxedOneHotCategorical, "RelaxedOneHotCategorical", closed=False
    ),
    "SemiAmortised": PosteriorCase(posteriors.SemiAmortised, "StandardNormal", {"steps": 2}),
    "VonMisesFisher": PosteriorCase(posteriors.VonMisesFisher, "UniformSphere"),
    "Flow": flow_case("IAF"),
    "Flow NSF": flow_case("NSF", accuracy=1e-4),
    "Flow RealNVP": flow_case("RealNVP"),
}


def some_reals(u: Tensor) -> Tensor:
    return 4 * u - 2


def some_counts(u: Tensor) -> Tensor:
    return (6 * u.square()).floor()


def grey(u: Tensor) -> Tensor:
    """17 levels in [0, 1]."""
    return (17 * u).floor().clamp(max=16) / 16


_LEVELS = {"levels": 17}
LIKELIHOODS: dict[str, LikelihoodCase] = {
    "Bernoulli": LikelihoodCase(likelihoods.Bernoulli, {}, lambda u: (u < 0.5).to(u.dtype), "coins"),
    "ContinuousBernoulli": LikelihoodCase(likelihoods.ContinuousBernoulli, {}, lambda u: u, "unit"),
    "Binomial": LikelihoodCase(
        likelihoods.Binomial, {"total_count": 16}, lambda u: (17 * u).floor().clamp(max=16), "17 counts"
    ),
    "Beta": LikelihoodCase(likelihoods.Beta, {}, lambda u: u, "unit"),
    "Normal learned": LikelihoodCase(likelihoods.Normal, {}, some_reals),
    "Normal fixed": LikelihoodCase(likelihoods.Normal, {"scale": 0.5}, some_reals),
    "Normal per pixel": LikelihoodCase(likelihoods.Normal, {"scale": "per_pixel"}, some_reals),
    "Laplace": LikelihoodCase(likelihoods.Laplace, {}, some_reals),
    "Laplace per pixel": LikelihoodCase(likelihoods.Laplace, {"scale": "per_pixel"}, some_reals),
    "StudentT": LikelihoodCase(likelihoods.StudentT, {}, some_reals),
    "StudentT per pixel": LikelihoodCase(likelihoods.StudentT, {"df": 3.0, "scale": "per_pixel"}, some_reals),
    "Poisson": LikelihoodCase(likelihoods.Poisson, {}, some_counts, "counts"),
    "ZeroInflatedPoisson": LikelihoodCase(likelihoods.ZeroInflatedPoisson, {}, some_counts, "counts"),
    "NegativeBinomial": LikelihoodCase(likelihoods.NegativeBinomial, {}, some_counts, "counts"),
    "NegativeBinomial learned": LikelihoodCase(
        likelihoods.NegativeBinomial, {"dispersion": "learned"}, some_counts, "counts"
    ),
    "NegativeBinomial per pixel": LikelihoodCase(
        likelihoods.NegativeBinomial, {"dispersion": "per_pixel"}, some_counts, "counts"
    ),
    "ZeroInflatedNegativeBinomial": LikelihoodCase(likelihoods.ZeroInflatedNegativeBinomial, {}, some_counts, "counts"),
    "ZeroInflatedNegativeBinomial per pixel": LikelihoodCase(
        likelihoods.ZeroInflatedNegativeBinomial, {"dispersion": "per_pixel"}, some_counts, "counts"
    ),
    "Multinomial": LikelihoodCase(likelihoods.Multinomial, {"total_count": 7}, some_counts, "documents"),
    "Categorical": LikelihoodCase(likelihoods.Categorical, _LEVELS, grey, "grey"),
    "DiscretisedLogisticMixture": LikelihoodCase(
        likelihoods.DiscretisedLogisticMixture, {"components": 3, **_LEVELS}, grey, "grey"
    ),
}
NETWORKS: dict[str, NetworkCase] = {
    "mlp": NetworkCase([6]),
    "gated": NetworkCase([6], activation=None),
    "conv": NetworkCase([3, 4]),
    "resnet": NetworkCase([3, 4]),
    "gru": NetworkCase([6], SEQUENCE, None),
    "transformer": NetworkCase([8], SEQUENCE),
}


# Every likelihood and every kind of network, each with a plain other
PAIRS = [(name, network) for name in LIKELIHOODS for network in ("mlp", "conv")]
PAIRS += [
    (name, network)
    for name in ("Bernoulli", "Normal per pixel")
    for network in NETWORKS
    if network not in ("mlp", "conv")
]


# Where latents lie: values z [n, L] and weights [n] with which Σ w f(z) is the sum or integral of f over L = 2


def legendre(a: float, b: float, n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on (a, b)."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(n))
    return (a + b) / 2 + (b - a) / 2 * nodes, (b - a) / 2 * weights


def panels(*ends: float, n: int = 60) -> tuple[Tensor, Tensor]:
    """Nodes and weights on neighbouring intervals, for what has a kink where they meet."""
    nodes, weights = zip(*(legendre(a, b, n) for a, b in itertools.pairwise(ends)), strict=True)
    return torch.cat(nodes), torch.cat(weights)


def real_line(n: int = 60, pieces: int = 2) -> tuple[Tensor, Tensor]:
    """The real line as the sinh of an interval, so that heavy tails are inside."""
    y, w = panels(*np.linspace(-9, 9, pieces + 1), n=n)
    return y.sinh(), w * y.cosh()


def half_line() -> tuple[Tensor, Tensor]:
    """The positive numbers, in the logarithm."""
    y, w = panels(-45.0, -4.0, 0.0, 7.0)
    return y.exp(), w * y.exp()


def unit_interval(n: int = 60) -> tuple[Tensor, Tensor]:
    """(0, 1) in the logit."""
    y, w = panels(-36.0, -4.0, 0.0, 4.0, 36.0, n=n)
    return y.sigmoid(), w * y.sigmoid() * (-y).sigmoid()


def unit_with_ends(n: int = 100) -> tuple[Tensor, Tensor]:
    """(0, 1) in the logit, and the two ends, which have a mass."""
    y, w = legendre(-12, 12, n)
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    return torch.cat([y.sigmoid(), ends]), torch.cat([w * y.sigmoid() * (-y).sigmoid(), torch.ones_like(ends)])


def whole(n: int) -> tuple[Tensor, Tensor]:
    """0, ..., n − 1."""
    return torch.arange(n, dtype=F64), torch.ones(n, dtype=F64)


def square(z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """L independent dimensions from one."""
    return torch.cartesian_prod(*[z] * L), torch.cartesian_prod(*[w] * L).prod(-1)


def simplex() -> tuple[Tensor, Tensor]:
    """(u, 1 − u), u uniform in (0, 1): the measure of torch's simplex densities."""
    y, w = panels(-36.0, -4.0, 0.0, 4.0, 36.0)
    return torch.stack([y.sigmoid(), (-y).sigmoid()], -1), w * y.sigmoid() * (-y).sigmoid()


def circle() -> tuple[Tensor, Tensor]:
    """The unit circle by its angle."""
    n = 4000
    angle = torch.arange(n, dtype=F64) * (2 * torch.pi / n)
    return torch.stack([angle.cos(), angle.sin()], -1), torch.full((n,), 2 * torch.pi / n, dtype=F64)


SPACES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "reals": lambda: square(*real_line()),
    "fine reals": lambda: square(*real_line(180)),  # for what is narrow in places
    "positive": lambda: square(*half_line()),
    "unit": lambda: square(*unit_interval()),
    "unit with ends": lambda: square(*unit_with_ends()),
    "coins": lambda: square(*whole(2)),
    "categories": lambda: square(*whole(3)),
    "one-hot": lambda: (torch.eye(L, dtype=F64), torch.ones(L, dtype=F64)),
    "simplex": simplex,
    "sphere": circle,
}


# What one element of a datum can be, likewise
LINES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "reals": lambda: real_line(12, 400),
    "unit": unit_interval,
    "coins": lambda: whole(2),
    "17 counts": lambda: whole(17),
    "counts": lambda: whole(20_000),
    "grey": lambda: (whole(17)[0] / 16, whole(17)[1]),
}


def some_functions(z: Tensor) -> Tensor:
    """Bounded functions of z, whose means tell distributions apart: [*, L] -> [*, m]."""
    t = z.to(F64)
    return torch.cat([t.tanh(), t.sin(), t.tanh().square(), t.tanh().prod(-1, True), (3 * t.sum(-1, True)).tanh()], -1)


# Small parts, and VAEs of them


def small_network(n: int | list[int], m: list[int]) -> networks.MLP:
    """A network of a few dozen weights."""
    return networks.MLP([n] if isinstance(n, int) else n, m, hidden=[5], activation="tanh")


def small_prior(name: str, latent: int = L, dtype: torch.dtype = F64) -> Any:
    """The prior of this name, and what it is attached to, in this dtype."""
    return as_dtype(PRIORS[name].build(latent), dtype)


def small_posterior(name: str, event: list[int] = EVENT, dtype: torch.dtype = F64) -> Any:
    """The posterior of this name over L latents."""
    return as_dtype(attached(POSTERIORS[name], small_network(event, code(name, L))), dtype)


def attached(case: PosteriorCase, encoder: nn.Module) -> Any:
    """The posterior of a case, attached to a prior and a likelihood if it wants to be part of a model."""
    posterior = case.cls(encoder, **case.options)
    if isinstance(posterior, Attached):
        torch.manual_seed(0)
        model = nn.Module()
        model.prior, model.likelihood = PRIORS[case.prior].build(L), small_likelihood("Normal fixed")
        posterior.attach(model)
    return posterior


def code(name: str, latent: int) -> list[int]:
    """What the encoder of a posterior returns."""
    case = POSTERIORS[name]
    return case.cls.code(latent, **case.options)


def as_dtype(part: nn.Module, dtype: torch.dtype) -> Any:
    """A part, with the model that it is attached to, in another dtype."""
    for module in part.modules():
        if isinstance(module, Attached) and module._model:
            module._model[0].to(dtype)
    return part.to(dtype)


def small_likelihood(name: str, event: list[int] = EVENT) -> Any:
    """The likelihood of this name, given L latents."""
    cls, options, *_ = LIKELIHOODS[name]
    return cls(small_network(L, cls.decoded(event, **options)), **options)


def small_vae(
    likelihood: str = "Bernoulli",
    network: str = "mlp",
    prior: str | None = None,
    posterior: str | None = None,
    latent: int = L,
    event: list[int] | None = None,
) -> pv.models.VAE:
    """A VAE of a few dozen weights; without another, prior and posterior are those over the other's values."""
    name = posterior or (PRIORS[prior].posterior if prior else "DiagonalNormal")
    (r, options, *_), q = LIKELIHOODS[likelihood], POSTERIORS[name]
    widths, own, activation = NETWORKS[network]
    event = event or own
    encoder, decoder = pair(network, event, code(name, latent), latent, r.decoded(event, **options), widths, activation)
    return pv.models.VAE(PRIORS[prior or q.prior].build(latent), r(decoder, **options), q.cls(encoder, **q.options))


def small_data(
    likelihood: str = "Bernoulli",
    n: int = 4,
    event: list[int] | None = None,
    dtype: Any = F64,
    network: str = "mlp",
) -> Tensor:
    """Data that the likelihood of this name gives a density to, and the network of this name is for."""
    return LIKELIHOODS[likelihood].data(torch.rand(n, *(event or NETWORKS[network].event), dtype=dtype))


class Toy:
    """A data set, as far as VAE.build looks at one."""

    def __init__(self, values: str = "binary", event: list[int] = EVENT, levels: int | None = None) -> None:
        self.event_shape, self.values, self.levels = tuple(event), values, levels

    def batches(self, split: str, batch_size: int, shuffle: bool = True) -> Iterator[Tensor]:
        yield 8 + 4 * torch.randn(batch_size, *self.event_shape)


class Output(nn.Module):
    """A decoder that ignores the latent: its output is given."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y

    def forward(self, z: Tensor) -> Tensor:
        return self.y.to(z.dtype).expand(len(z), *self.y.shape)
