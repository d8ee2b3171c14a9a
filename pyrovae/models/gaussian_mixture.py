"""A latent space with a place for each kind of thing: clusters that nobody has named, found without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..attached import attach
from ..config import Configured
from ..priors import Mixture
from .build import Part, check_parts
from .vae import VAE


class GaussianMixtureVAE(Configured, nn.Module):
    """p(x, z, y) = p(y) p(z | y) p(x | z), y one of C clusters and each a Gaussian in the space of z.

    Data often come in kinds, such as ten digits, that nobody has written down. Here a kind y is chosen first, then a
    point z in its region of latent space, and z is decoded. Regions, shares and decoder are learned together, so that
    what is alike comes to lie together; which cluster a datum belongs to is then a question to Bayes' rule:

        y ~ Categorical(π),    z | y ~ 𝒩(m_y, diag s_y²),    x | z ~ p(x | z)
        p(y | z) = π_y 𝒩(z; m_y, diag s_y²) / p(z),    p(z) = Σ_y π_y 𝒩(z; m_y, diag s_y²)

    The guide is q(z | x) alone: y is marked for enumeration, and every bound has log p(x, z) = log Σ_y p(x, z, y). No
    q(y | x) has to be learned, and none can be wrong. The model is run at all C values of y; with y summed in closed
    form it is VAE(prior, likelihood, posterior) of the same parts, which costs less and cannot say "y".

    Which clusters are found depends on where they begin, and a better bound is not always a better clustering: several
    seeds show how far to trust one. `pyrovae.evaluation.clustering_accuracy` holds clusters against labels.

    Args:
        prior: p(z) as a `priors.Mixture`, which has π, m and s.
        likelihood: p(x | z), a module from z to a distribution.
        posterior: q(z | x), a module from x to a distribution.

    Raises:
        ValueError: for another prior, or parts that tell of different numbers of latent dimensions.

    References: Jiang et al., "Variational deep embedding: an unsupervised and generative approach to clustering", 2017;
    Dilokthanakul et al., "Deep unsupervised clustering with Gaussian mixture variational autoencoders", 2016.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.GaussianMixtureVAE.build(data, clusters=10, latent=4, hidden=[30])
    >>> vae.clusters(data.test[:5]).shape  # p(y | x)
    torch.Size([5, 10])

    On the command line: pyrovae train GaussianMixtureVAE --data digits --learning_rate 1e-2 --epochs 100
    """

    prior: Mixture

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        if not isinstance(prior, Mixture):
            raise ValueError(
                f"GaussianMixtureVAE expects prior as a priors.Mixture, got {type(prior).__name__}; give "
                "priors.Mixture(latent, components), or use models.VAE"
            )
        check_parts(prior, likelihood, posterior)
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(y) p(z | y) p(x | z); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior.logits), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(self.prior.loc[y], self.prior.log_scale[y].exp()).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))

    def clusters_of(self, z: Tensor) -> Tensor:
        """p(y | z) for z [*leading, L]: [*leading, C]."""
        each = dist.Normal(self.prior.loc, self.prior.log_scale.exp()).to_event(1)
        return (self.prior.logits.log_softmax(-1) + each.log_prob(z[..., None, :])).softmax(-1)

    def clusters(self, x: Tensor, particles: int = 100) -> Tensor:
        """p(y | x) for data [B, *event], without a gradient: [B, C].

            p(y | x) = E_p(z|x) p(y | z) ≈ Σ_k w_k p(y | z_k) / Σ_k w_k,    w_k = p(x, z_k) / q(z_k | x)

        with z_k drawn from q(z | x). Consistent in K; with one particle it is p(y | z) of a draw. It holds K·B data at
        once.

        Args:
            x: data.
            particles: K.

        Raises:
            ValueError: for a number of particles that is none.
        """
        check_whole("GaussianMixtureVAE.clusters", "particles", particles)
        with torch.no_grad():
            q = self.posterior(x)
            z = q.sample([particles])  # [K, B, L]
            log_weight = self.prior().log_prob(z) + self.likelihood(z).log_prob(x) - q.log_prob(z)
            return (log_weight.softmax(0)[..., None] * self.clusters_of(z)).sum(0)

    @classmethod
    def build(
        cls,
        data: Any,
        clusters: int = 10,
        latent: int = 10,
        equal: bool = True,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        likelihood: Part = "auto",
        posterior: Part = "DiagonalNormal",
    ) -> GaussianMixtureVAE:
        """A model whose sizes fit the data, by `VAE.build`.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event].
            clusters: C.
            latent: number of latent dimensions L.
            equal: hold π = 1/C and s = 1, so that the means alone are learned. The evidence is about the same, and the
                clusters are nearer to kinds: free to grow, one of them takes in several.
            hidden: widths or channels from the data inwards, as for `VAE.build`.
            network: mlp, gated, conv, resnet, gru or transformer, as for `VAE.build`.
            activation: as for `VAE.build`.
            likelihood: p(x | z), by name; "auto" is what the values of the data ask for.
            posterior: q(z | x), by name.

        Raises:
            ValueError: as `VAE.build` does, and for a number of clusters that is none.

        >>> import pyrovae as pv
        >>> pv.models.GaussianMixtureVAE.build(pv.data.load("digits"), clusters=7, latent=4).prior.loc.shape
        torch.Size([7, 4])
        """
        check_whole("GaussianMixtureVAE.build", "clusters", clusters)
        mixture = {"class_path": "Mixture", "init_args": {"components": clusters, "equal": equal}}
        vae = VAE.build(data, latent, hidden, network, activation, mixture, likelihood, posterior)
        return cls(vae.prior, vae.likelihood, vae.posterior)
