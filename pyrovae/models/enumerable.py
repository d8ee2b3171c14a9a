"""A VAE whose latent takes few values, so that every sum over it can be written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..attached import attach
from ..config import Configured
from ..program.checks import check_particles
from ..program.enumeration import LARGEST, support
from ..program.sites import family
from .build import Part
from .vae import VAE

MOST = 2**20  # tuples of particles that `expected` sums over


class EnumerableVAE(Configured, nn.Module):
    """p(x, z) = p(z) p(x | z), approximated by q(z | x), z one of S values: the exact answers of a `VAE`.

    The decoder is run on every value z_s, and integrals over z are sums over s:

        p(x) = Σ_s p(x, z_s),    p(z_s | x) = p(x, z_s) / p(x),    ELBO = Σ_s q(z_s | x) log p(x, z_s) / q(z_s | x)

    Objectives sum over z as well, or, with enumerate=False, draw it as for a `VAE`, so that what they estimate can be
    held against these sums. All are differentiable in every parameter: they say what a gradient is to be, too.

    Args:
        prior: p(z), a module that returns a distribution over few values: S = 2^L for priors.Bernoulli(L), S = L for
            priors.OneHotCategorical(L).
        likelihood: p(x | z), a module from z to a distribution.
        posterior: q(z | x), a module from x to a distribution over the same values.
        enumerate: mark z in the guide, so that every bound has the exact sum over its values in place of draws.

    Raises:
        ValueError: for a prior or posterior over other values, or more than 65,536 of them.

    Reference: Mnih and Rezende, "Variational inference for Monte Carlo objectives", 2016, for the bound of `expected`.

    >>> import torch, pyrovae as pv
    >>> x = torch.bernoulli(torch.full((4, 6), 0.5))
    >>> vae = pv.models.EnumerableVAE.build(x, latent=3)
    >>> bool((vae.log_evidence(x) >= vae.elbo(x)).all()), vae.true_posterior(x).probs.shape
    (True, torch.Size([4, 8]))
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module, enumerate: bool = True) -> None:
        super().__init__()
        self.prior, self.likelihood, self.posterior, self.enumerate = prior, likelihood, posterior, enumerate
        attach(self)
        self.values()  # a prior over other values is refused at once

    def model(self, x: Tensor) -> None:
        """p(z) p(x | z); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x), infer={"enumerate": "parallel"} if self.enumerate else {})

    def values(self) -> Tensor:
        """Every value of z: [S, *event of z]."""
        return _values("prior", self.prior())

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z_s): [S, B] in nats. The decoder is run on S values, whatever B is."""
        z = self.values()
        log_prior = self.prior().log_prob(z)  # [S]
        return log_prior[:, None] + self.likelihood(z[:, None]).log_prob(x)  # [S, 1, *event] -> [S, B]

    def log_posterior(self, x: Tensor) -> Tensor:
        """log q(z_s | x): [S, B] in nats. Raises ValueError for a posterior over other values than the prior's."""
        z, q = self.values(), self.posterior(x)
        if (own := _values("posterior", q)).shape != z.shape:
            raise ValueError(
                f"EnumerableVAE expects prior and posterior over the same values, got {list(z.shape)} (values, event "
                f"of z) and {list(own.shape)}; give both one name and one latent"
            )
        return q.log_prob(z[:, None])

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) = log Σ_s p(x, z_s): [B] in nats."""
        return self.log_joint(x).logsumexp(0)

    def true_posterior(self, x: Tensor) -> dist.Categorical:
        """p(z_s | x), a distribution over s with batch shape [B]; `values()[s]` is the latent."""
        return dist.Categorical(logits=self.log_joint(x).mT)

    def elbo(self, x: Tensor) -> Tensor:
        """Σ_s q(z_s | x) log p(x, z_s) / q(z_s | x): [B] in nats."""
        log_q = self.log_posterior(x)
        return (log_q.exp() * (self.log_joint(x) - log_q)).sum(0)

    def expected(self, x: Tensor, particles: int, bound: Callable[[Tensor], Tensor]) -> Tensor:
        """E[bound(log w_1, …, log w_K)], z_k ~ q(z | x) independent: [B], a sum over all S^K tuples of particles.

            Σ_{s_1} … Σ_{s_K} Π_k q(z_{s_k} | x) · bound(log w_{s_1}, …, log w_{s_K}),    w_s = p(x, z_s) / q(z_s | x)

        Args:
            x: data [B, *event].
            particles: K.
            bound: from log weights [K, *, B] to [*, B]; lambda w: w.logsumexp(0) - math.log(K) makes it the value of
                IWAE with K particles.

        Raises:
            ValueError: for a number of particles that is none, more than 2^20 tuples, or a bound of another shape.

        >>> import math, torch, pyrovae as pv
        >>> x = torch.bernoulli(torch.full((4, 6), 0.5))
        >>> vae = pv.models.EnumerableVAE.build(x, latent=2)
        >>> iwae = [vae.expected(x, k, lambda w: w.logsumexp(0) - math.log(len(w))) for k in (1, 2, 3)]
        >>> torch.allclose(iwae[0], vae.elbo(x)), bool((iwae[0] <= iwae[1]).all() and (iwae[1] <= iwae[2]).all())
        (True, True)
        """
        check_particles("EnumerableVAE.expected", particles)
        log_q = self.log_posterior(x)
        if particles * math.log(len(log_q)) > math.log(MOST):
            raise ValueError(
                f"EnumerableVAE.expected sums over {len(log_q)}^{particles} tuples of particles, more than {MOST}; "
                "give fewer particles, or a model with fewer latent values"
            )
        log_weight = self.log_joint(x) - log_q
        one = torch.arange(len(log_q), device=log_q.device)
        tuples = torch.cartesian_prod(*[one] * particles).reshape(-1, particles).mT  # [K, S^K]
        probability = log_q[tuples].sum(0).exp()  # [K, S^K, B] -> [S^K, B]
        value = bound(log_weight[tuples])
        if value.shape != probability.shape:
            raise ValueError(
                f"EnumerableVAE.expected expects bound as a function from [K, *, B] to [*, B], got "
                f"{list(value.shape)} from {[particles, *probability.shape]}; take the sum over the particles alone, "
                "dimension 0"
            )
        return (probability * value).sum(0)

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 3,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        prior: Part = "Bernoulli",
        likelihood: Part = "auto",
        posterior: Part = "Bernoulli",
        enumerate: bool = True,
    ) -> EnumerableVAE:
        """A model whose sizes fit the data, by `VAE.build`.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            latent: number of latent dimensions L; with Bernoulli latents there are 2^L values.
            hidden: widths or channels from the data inwards, as for `VAE.build`.
            network: mlp, gated, conv, resnet, gru or transformer, as for `VAE.build`.
            activation: as for `VAE.build`.
            prior: p(z), by name.
            likelihood: p(x | z), by name; "auto" is what the values of the data ask for.
            posterior: q(z | x), by name.
            enumerate: sum over z inside every bound, in place of draws.

        Raises:
            ValueError: as `VAE.build` does, and for a prior that is not over few values.

        >>> import pyrovae as pv
        >>> pv.models.EnumerableVAE.build(pv.data.load("digits"), latent=4).values().shape
        torch.Size([16, 4])
        """
        vae = VAE.build(data, latent, hidden, network, activation, prior, likelihood, posterior)
        return cls(vae.prior, vae.likelihood, vae.posterior, enumerate)


def _values(role: str, distribution: Any) -> Tensor:
    """Every value of one event, [S, *event]. Raises ValueError where there is no end to them."""
    try:
        return support("z", distribution)
    except ValueError as error:
        raise ValueError(
            f"EnumerableVAE expects a {role} over at most {LARGEST} values, got {family(distribution)} over "
            f"{list(distribution.event_shape)}; use {role}s.Bernoulli or {role}s.OneHotCategorical, with fewer latents"
        ) from error
