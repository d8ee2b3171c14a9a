"""The linear Gaussian model: probabilistic PCA and factor analysis, where everything is known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from ..attached import attach
from ..config import Configured, nearest
from ..networks import MLP, Chain, Standardise, as_event
from ..posteriors import Posterior
from ..priors import StandardNormal
from ..program.sites import family
from .build import Part, as_data, build_part, check_latent, find_part

NOISE = ("isotropic", "diagonal")


class LinearGaussian(Configured, nn.Module):
    """z ~ 𝒩(0, I), x | z ~ 𝒩(W z + b, diag σ²): a VAE with a linear decoder, whose evidence is known.

    With one σ for all features this is probabilistic PCA, with one σ each it is factor analysis. Both x and z | x are
    Gaussian, so that an estimate of a bound, a gradient or a posterior can be held against the truth:

        p(x) = 𝒩(x; b, W Wᵀ + diag σ²)
        p(z | x) = 𝒩(z; M⁻¹ Wᵀ (x − b) / σ², M⁻¹),    M = I + Wᵀ diag(σ⁻²) W

    An event of any shape is taken as a vector of D features in its own order.

    Args:
        event: shape of the event of x, [C, H, W] or [D].
        latent: number of latent dimensions L.
        noise: "isotropic" for one σ (probabilistic PCA), "diagonal" for one σ a feature (factor analysis).
        posterior: q(z | x), a module from x to a distribution over [L]; None for the exact p(z | x).

    Attributes:
        weight: W, [D, L], in the units of x.
        bias: b, [D].
        log_scale: log σ, [] or [D].

    Raises:
        ValueError: for sizes that are none or an unknown noise, and, from the methods, for x or z of another shape.

    References: Tipping and Bishop, "Probabilistic principal component analysis", 1999; Bishop, "Pattern recognition and
    machine learning", 2006, section 12.2.

    >>> import torch, pyrovae as pv
    >>> vae, x = pv.models.LinearGaussian([5], latent=2), torch.randn(3, 5)
    >>> log_weight = pv.densities(vae, x, particles=4).log_weight  # the guide is exact: w = p(x) for every draw
    >>> torch.allclose(log_weight, vae.log_evidence(x).expand(4, 3), atol=1e-4)
    True
    """

    def __init__(
        self, event: Sequence[int], latent: int, noise: str = "isotropic", posterior: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.event = as_event(self, "event", event)
        check_latent("LinearGaussian", latent)
        if noise not in NOISE:
            raise ValueError(f"unknown noise {noise!r}; {nearest(str(noise), NOISE)}")
        features = math.prod(self.event)
        self.latent, self.noise = latent, noise
        self.weight = nn.Parameter(0.1 * torch.randn(features, latent))
        self.bias = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(() if noise == "isotropic" else features))
        self.prior, self.posterior = StandardNormal(latent), posterior
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self._approximation(x))

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z): z is [*leading, L], the distribution has batch shape [*leading] and the event shape of x."""
        self._check("z", [self.latent], z)
        with torch.autocast(z.device.type, enabled=False):  # what is exact stays so in a bfloat16 run
            loc = F.linear(z, self.weight, self.bias)  # [*leading, D]
        scale = self.log_scale.exp().expand(len(self.bias))
        return dist.Normal(loc.unflatten(-1, self.event), scale.unflatten(0, self.event)).to_event(len(self.event))

    def true_posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x): x is [*leading, *event], the distribution has batch shape [*leading] and event shape [L].

        An L × L matrix is all that is inverted, however many features there are.
        """
        self._check("x", self.event, x)
        scale = self.log_scale.exp()
        with torch.autocast(x.device.type, enabled=False):
            whitened = self.weight / scale.unsqueeze(-1)  # [D, L]
            precision = torch.eye(self.latent, dtype=x.dtype, device=x.device) + whitened.mT @ whitened  # M
            residual = (x.flatten(-len(self.event)) - self.bias) / scale  # [*leading, D]
            loc = residual @ whitened @ torch.linalg.inv(precision)
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) = log 𝒩(x; b, W Wᵀ + diag σ²): [B] in nats.

        By Bayes' rule p(x) = p(x, z) / p(z | x), which holds for every z. At z = E[z | x] nothing large cancels: in
        float32, with 784 features and σ = 0.1, it is off by 4e-4 nats, where Woodbury's identity, as in torch's
        LowRankMultivariateNormal, is off by 0.3.
        """
        posterior = self.true_posterior(x)
        return self._log_joint(x, posterior.mean) - posterior.log_prob(posterior.mean)

    def elbo(self, x: Tensor) -> Tensor:
        """E_q[log p(x | z)] − KL(q(z | x) ‖ p(z)) without a draw, for a Gaussian q = 𝒩(m, S): [B] in nats.

            ELBO = log p(x, m) − tr(M S) / 2 + H[q]

        as log p(x, z) is quadratic in z, with second derivative −M: the precision of the exact posterior.

        Raises:
            ValueError: for a q(z | x) that is not Gaussian.
        """
        q = self._approximation(x)
        if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
            covariance = q.variance.diag_embed()
        elif isinstance(q, MultivariateNormal | LowRankMultivariateNormal):
            covariance = q.covariance_matrix
        else:
            raise ValueError(
                f"LinearGaussian.elbo expects a Gaussian q(z | x), Normal with .to_event(1) or MultivariateNormal, got "
                f"{family(q)}; estimate its bound by draws: pv.evaluate(vae, x).elbo"
            )
        precision = self.true_posterior(x).precision_matrix
        return self._log_joint(x, q.mean) - (precision * covariance).sum((-2, -1)) / 2 + q.entropy()

    def _approximation(self, x: Tensor) -> Any:
        """The distribution of the guide."""
        return self.true_posterior(x) if self.posterior is None else self.posterior(x)

    def _log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z): [B]."""
        return self.prior().log_prob(z) + self.likelihood(z).log_prob(x)

    def _check(self, name: str, shape: Sequence[int], t: Tensor) -> None:
        if tuple(t.shape[t.dim() - len(shape) :]) != tuple(shape):
            raise ValueError(
                f"LinearGaussian expects {name} of event shape {list(shape)}, got a tensor of shape {list(t.shape)}; "
                "reshape it, or build the model with event and latent for it"
            )

    @classmethod
    def build(
        cls, data: Any, latent: int = 2, noise: str = "isotropic", posterior: Part = "DiagonalNormal"
    ) -> LinearGaussian:
        """A model that begins at the data: b their mean, σ their deviation from it, W small and random.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            latent: number of latent dimensions L.
            noise: "isotropic" (probabilistic PCA) or "diagonal" (factor analysis).
            posterior: q(z | x) by name, its encoder one linear layer; "exact" for the true posterior.

        Raises:
            ValueError: as `VAE.build` does.

        >>> import pyrovae as pv
        >>> pv.models.LinearGaussian.build(pv.data.load("digits"), latent=3).weight.shape
        torch.Size([64, 3])
        """
        data = as_data("LinearGaussian.build", data)
        check_latent("LinearGaussian.build", latent)
        if getattr(data, "missing", False):
            raise ValueError(
                "LinearGaussian.build expects data that are observed throughout, got data with missing=True; use "
                "VAE.build(data, hidden=[]), or impute them"
            )
        event = list(data.event_shape)
        centre = Standardise(event).to_data(next(data.batches("train", 10_000, shuffle=False)), rescale=True)
        q = None
        if posterior != "exact":
            part, options = find_part(cls, "posterior", posterior, Posterior)
            q = build_part(part, options, Chain(centre, MLP(event, build_part(part.code, options, latent), hidden=[])))
        model = cls(event, latent, noise, q)
        with torch.no_grad():
            model.weight.mul_(centre.scale)
            model.bias.copy_(centre.loc.flatten())
            model.log_scale.fill_(centre.scale.log())
        return model
