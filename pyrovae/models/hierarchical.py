"""Layers of latents, each the prior of the one below it, with a ladder or a chain for the way back from the data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from torch import Tensor

from ..attached import attach
from ..config import Configured, nearest
from ..networks import MLP
from ..posteriors import DiagonalNormal
from ..priors import Prior
from ..program.sites import family
from .build import Part, as_data, build_part, check_latent, find_part
from .vae import VAE


class Ladder(Configured, nn.Module):
    """q(z | x) ∝ Π_i p(z_i | z_{i+1}) 𝒩(z_i; μ̂_i(x), diag σ̂_i(x)²): the model's way down, corrected by the data.

    A deterministic pass upwards makes d_i = f_i(d_{i−1}) from d_0 = x, each of which is what the data say of z_i. The
    pass downwards draws zL first, and multiplies at each layer what the model expects there, 𝒩(m, s²), with what the
    data say. Precisions add, and means are weighed by them:

        q(z_i | z_{i+1}, x) = 𝒩(z_i; v (m / s² + μ̂_i / σ̂_i²), v),    v = 1 / (1 / s² + 1 / σ̂_i²)

    Data that say nothing leave the model's own conditional: an upper layer need not be learned again. The networks
    return d_i = (s μ̂_i / σ̂_i², log σ̂_i / s): what the data say in units of what the model expects. With (μ̂_i, log σ̂_i)
    as in the paper a latent on which data say little has no gradient left, and a model that narrows s takes the guide
    along, to latents without noise and without information. And the top layer is multiplied with its prior as well.

    Args:
        networks: f_1, …, f_L, from the event of x to [2 L_1] and from [2 L_i] to [2 L_{i+1}].

    Reference: Sønderby et al., "Ladder variational autoencoders", 2016.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def draw(self, x: Tensor, model: Any) -> None:
        """Samples the sites from the top down. Raises ValueError for a model whose latents are not Gaussian."""
        said, d = [], x
        for network in self.networks:
            said.append(d := network(d).to(x.dtype))
        p = model.prior()
        for i, d in reversed(list(enumerate(said, 1))):
            z = pyro.sample(f"z{i}", product(p, *d.chunk(2, -1)))
            p = model.conditionals[i - 2](z) if i > 1 else p


class BottomUp(Configured, nn.Module):
    """q(z | x) = q(z1 | x) q(z2 | z1) … q(zL | z_{L−1}): each layer is inferred from the draw below it.

    Args:
        posteriors: q(z1 | x), q(z2 | z1), …, modules that return a distribution.

    Reference: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016.
    """

    def __init__(self, posteriors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.posteriors = nn.ModuleList(posteriors)

    def draw(self, x: Tensor, model: Any) -> None:
        """Samples the sites from the data upwards; the model is not asked."""
        z = x
        for i, posterior in enumerate(self.posteriors, 1):
            z = pyro.sample(f"z{i}", posterior(z))


GUIDES: dict[str, Any] = {"ladder": Ladder, "bottom_up": BottomUp}


def product(p: Any, pull: Tensor, log_ratio: Tensor) -> dist.TorchDistribution:
    """The Gaussian in proportion to p(z) 𝒩(z; μ̂, diag σ̂²), p = 𝒩(m, diag s²), pull = s μ̂ / σ̂², ratio = σ̂ / s.

    Raises ValueError for a p that is no Gaussian of independent dimensions.
    """
    if family(p) != "Normal":
        raise ValueError(
            f"Ladder multiplies Gaussians, got p(z) {family(p)}; use a prior and conditionals that are Normal with "
            ".to_event(1), or posterior='bottom_up'"
        )
    share = 1 / (1 + (-2 * log_ratio).exp())  # of p in the precision
    return dist.Normal(share * (p.mean + p.stddev * pull), p.stddev * share.sqrt()).to_event(1)


class Conditional(Configured, nn.Module):
    """p(z_i | z_{i+1}) = 𝒩(m(z_{i+1}), diag s(z_{i+1})²), the network returning m and r, s = e^tanh(r).

    The unit of a latent is free, since the network below it can stretch it: s stays within a factor e of 1, and a chain
    of layers within bounds.

    Args:
        network: from [L_{i+1}] to [2 L_i].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """𝒩(m, diag s²) over [L_i]."""
        loc, r = self.network(z).to(z.dtype).chunk(2, -1)
        return dist.Normal(loc, r.tanh().exp()).to_event(1)


class HierarchicalVAE(Configured, nn.Module):
    """p(x, z1, …, zL) = p(zL) Π_i p(z_i | z_{i+1}) p(x | z1): layers of latents, the upper ones more abstract.

    A `VAE` says that codes are spread like one round cloud, and leaves it to the decoder to make all that there is of
    that. Here the prior of the codes next to the data is a generative model of its own: zL says what kind of thing it
    is, each layer down adds detail, and z1 is decoded. With the upper layers integrated out p(z1) is a continuous
    mixture of Gaussians, so that it can follow the codes where they are:

        zL ~ 𝒩(0, I),    z_i | z_{i+1} ~ 𝒩(m_i(z_{i+1}), diag s_i²(z_{i+1})),    x | z1 ~ p(x | z1)

    The guide is `Ladder`, from the top down as the model is, or `BottomUp`, a chain away from the data.

    Args:
        prior: p(zL), a module that returns a distribution.
        conditionals: p(z1 | z2), …, p(z_{L−1} | zL), the lowest first: modules from a latent to a distribution.
        likelihood: p(x | z1), a module from z1 to a distribution.
        posterior: a module with a Pyro function `draw(x, model)` that samples the sites "z1", …, "zL" given x; it is
            called inside the data plate.

    Raises:
        ValueError: for less than two layers.

    References: Sønderby et al., "Ladder variational autoencoders", 2016; Burda, Grosse and Salakhutdinov, "Importance
    weighted autoencoders", 2016; Rezende, Mohamed and Wierstra, "Stochastic backpropagation and approximate inference
    in deep generative models", 2014.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.HierarchicalVAE.build(data, latents=[8, 4, 2], hidden=[30], between=[20])
    >>> {name: list(z.shape) for name, z in pv.encode(vae, data.test[:5]).items()}
    {'z3': [5, 2], 'z2': [5, 4], 'z1': [5, 8]}

    On the command line: pyrovae train HierarchicalVAE --data digits --learning_rate 1e-2 --epochs 100
    """

    def __init__(
        self, prior: nn.Module, conditionals: Sequence[nn.Module], likelihood: nn.Module, posterior: nn.Module
    ) -> None:
        super().__init__()
        if not len(conditionals):
            raise ValueError(
                "HierarchicalVAE expects at least one of p(z1 | z2), …, p(z_{L−1} | zL), got conditionals=[]; with one "
                "layer of latents use models.VAE"
            )
        self.prior, self.conditionals = prior, nn.ModuleList(conditionals)
        self.likelihood = likelihood
        self.posterior: Any = posterior
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(zL) Π_i p(z_i | z_{i+1}) p(x | z1); x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample(f"z{len(self.conditionals) + 1}", self.prior())
            for i, below in reversed(list(enumerate(self.conditionals, 1))):
                z = pyro.sample(f"z{i}", below(z))
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z1, …, zL | x)."""
        with pyro.plate("data", len(x), dim=-1):
            self.posterior.draw(x, self)

    @classmethod
    def build(
        cls,
        data: Any,
        latents: Sequence[int] = (20, 10),
        hidden: Sequence[int] | None = None,
        between: Sequence[int] = (200,),
        network: str = "mlp",
        activation: str | None = None,
        prior: Part = "StandardNormal",
        likelihood: Part = "auto",
        posterior: str = "ladder",
    ) -> HierarchicalVAE:
        """A model whose sizes fit the data.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event], as for `VAE.build`.
            latents: numbers of latent dimensions of z1, …, zL: from the data upwards.
            hidden: widths or channels between x and z1 from the data inwards, as for `VAE.build`.
            between: widths of the hidden layers between one layer of latents and the next.
            network: mlp, gated, conv, resnet, gru or transformer between x and z1, as for `VAE.build`.
            activation: as for `VAE.build`; relu between layers of latents where none is given.
            prior: p(zL), by name: a Gaussian one for a ladder.
            likelihood: p(x | z1), by name; "auto" is what the values of the data ask for.
            posterior: "ladder" or "bottom_up".

        Raises:
            ValueError: as `VAE.build` does, for less than two layers, and for another posterior.

        >>> import pyrovae as pv
        >>> len(pv.models.HierarchicalVAE.build(pv.data.load("digits"), latents=[8, 4]).conditionals)
        1
        """
        data = as_data("HierarchicalVAE.build", data)
        if len(latents) < 2:
            raise ValueError(
                f"HierarchicalVAE.build expects latents as the sizes of two layers or more, got {list(latents)}; give "
                "[20, 10], or use models.VAE"
            )
        for latent in latents:
            check_latent("HierarchicalVAE.build", latent)
        if posterior not in GUIDES:
            raise ValueError(f"unknown posterior {posterior!r}; {nearest(str(posterior), GUIDES)}")
        p, p_options = find_part(cls, "prior", prior, Prior)
        lowest = VAE.build(data, latents[0], hidden, network, activation, likelihood=likelihood)
        first: Any = lowest.posterior

        def mlp(inputs: int, outputs: int) -> MLP:
            network = MLP([inputs], [outputs], between, activation or "relu")
            with torch.no_grad():  # scales begin near 1: a chain of exponentials would soon be out of bounds
                last: Any = list(network.body.children())[-2]
                last.weight[outputs // 2 :].mul_(0.1)
            return network

        below_above = list(itertools.pairwise(latents))
        if posterior == "ladder":
            q = Ladder([first.network, *(mlp(2 * n, 2 * m) for n, m in below_above)])
        else:
            q = BottomUp([first, *(DiagonalNormal(mlp(n, 2 * m)) for n, m in below_above)])
        return cls(
            build_part(p.for_data, p_options, latents[-1], data),
            [Conditional(mlp(m, 2 * n)) for n, m in below_above],
            lowest.likelihood,
            q,
        )
