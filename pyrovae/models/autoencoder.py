"""Regularised autoencoders: programs with a flat prior in front, and a point in the place of a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn as nn
from pyro.distributions import constraints
from torch import Tensor

from ..arguments import check_positive, check_whole
from ..attached import attach
from ..config import Configured, nearest
from ..distributions.improper import ImproperUniform
from ..likelihoods import Missing, Normal
from ..networks import Chain, Corruption, GaussianNoise, Masking, Standardise, Transposed, Unstandardise, output_shape
from ..networks.pair import KINDS, pair
from .build import as_data, check_latent

SCALE = math.sqrt(0.5)  # σ for which −log 𝒩(x; g, σ²) is ‖x − g‖², and a constant
NOISES = {"gaussian": GaussianNoise, "masking": Masking}


class PointCoded(Configured, nn.Module):
    """Abstract: p(x | z) with a flat prior on z, and a guide that is sure of z = f(x).

    Args:
        encoder: f, from the event shape of x to [L].
        likelihood: p(x | z), around g(z).

    Raises:
        ValueError: for networks neither of which tells L, or that tell two.
    """

    def __init__(self, encoder: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.encoder, self.likelihood = encoder, likelihood
        coded = output_shape(encoder)
        told = [coded[0] if coded is not None and len(coded) == 1 else None, getattr(likelihood, "latent", None)]
        sizes = sorted({n for n in told if n is not None})
        if len(sizes) != 1:
            raise ValueError(
                f"{type(self).__name__} expects one number of latent dimensions from encoder and likelihood, got "
                f"{sizes or 'none'}; build both of pyrovae.networks, for one latent size"
            )
        self.latent = int(sizes[0])
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(x | z), z of any value; x: [B, *event]."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """z = f(x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(self.code(x), event_dim=1))

    def prior(self) -> ImproperUniform:
        """Density 1 on ℝ^L."""
        return ImproperUniform(constraints.independent(constraints.real, 1), (), (self.latent,))

    def code(self, x: Tensor) -> Tensor:
        """f(x): [B, *event] -> [B, L]."""
        return self.encoder(x).to(x.dtype)  # under autocast densities are still taken in full precision


class Autoencoder(PointCoded):
    """p(x, z) ∝ p(x | z) with a flat prior on z, and z = f(x): a code for every datum, and no distribution of codes.

    An encoder f makes a code of x, a decoder g makes x of the code again, and both learn to lose as little as they
    can. As a program this is a prior that is 1 everywhere, a Gaussian around g(z), and a guide that is sure of z. With
    σ² = 1/2 the bound of such a guide is minus the squared error, and a constant; any other σ would only multiply it,
    as no rate is weighed against it:

        −log p(x | z = f(x)) = ‖x − g(f(x))‖² / 2σ² + D/2 log 2πσ² = ‖x − g(f(x))‖² + D/2 log π

    A point has no density, and a flat prior no draws. Hence there is no log evidence, rate or importance weight, and
    nothing can be generated; what asks for one of these says so. Codes, reconstructions, walks between data and the
    squared error (`pyrovae.evaluation.fidelity`) are there. With linear f and g the best codes are principal
    components.

    Args:
        encoder: f, from the event shape of x to [L].
        likelihood: p(x | z), around g(z); likelihoods.Normal(decoder, scale=√½) for the squared error.

    Raises:
        ValueError: for networks neither of which tells L, or that tell two.

    References: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", 2006; Baldi and
    Hornik, "Neural networks and principal component analysis", 1989.

        pyrovae train Autoencoder --data digits --epochs 100

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> ae = pv.models.Autoencoder.build(data, latent=2)
    >>> pv.evaluation.fidelity(ae, data.test[:5]).squared_error.shape
    torch.Size([5])
    >>> pv.generate(ae, 3)
    Traceback (most recent call last):
    pyrovae.program.handlers.ImproperPriorError: data are drawn from z ~ p(z), and the prior of site 'z' is improper ...
    """

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 10,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
    ) -> Autoencoder:
        """An autoencoder whose sizes fit the data; f and g work on the data in units of their deviation.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event]. With missing=True the squared error is
                that of what is observed.
            latent: number of latent dimensions L.
            hidden: widths or channels from the data inwards, as for `VAE.build`; [] with network mlp for linear maps.
            network: mlp, gated, conv, resnet, gru or transformer, as for `VAE.build`.
            activation: as for `VAE.build`.

        Raises:
            ValueError: as `VAE.build` does.

        >>> import pyrovae as pv
        >>> pv.models.Autoencoder.build(pv.data.load("digits"), latent=3).latent
        3
        """
        return cls(*_parts(cls, data, latent, hidden, network, activation)[:2])


class DenoisingAutoencoder(PointCoded):
    """p(x, z) ∝ p(x | z) with a flat prior on z, and z = f(x̃), x̃ a corrupted x: it has to know what belongs together.

    In training the encoder sees the datum with noise on it, fresh in every step, and the datum itself is to come out.
    Copying no longer helps: what is learned is the way back to where the data lie, however large the code is. In
    evaluation mode x̃ = x, and it is an `Autoencoder`. Followed is

        E[‖x − g(f(x̃))‖²],    x̃ = x + 𝒩(0, s² I), or x with some of its elements 0

    Args:
        encoder: f, from the event shape of x to [L].
        likelihood: p(x | z), around g(z).
        corruption: x̃ from x: networks.GaussianNoise, networks.Masking or a module of your own, in the units of x.

    Raises:
        ValueError: as `Autoencoder` does.

    Reference: Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with denoising
    autoencoders", 2008.

        pyrovae train DenoisingAutoencoder --data digits --noise 0.5 --epochs 100

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> ae = pv.models.DenoisingAutoencoder.build(data, latent=2, noise=0.5)
    >>> torch.equal(ae.code(data.test[:5]), ae.code(data.test[:5])), torch.equal(*[ae.eval().code(data.test[:5])] * 2)
    (False, True)
    """

    def __init__(self, encoder: nn.Module, likelihood: nn.Module, corruption: nn.Module) -> None:
        super().__init__(encoder, likelihood)
        self.corruption = corruption

    def code(self, x: Tensor) -> Tensor:
        """f(x̃), x̃ = x in evaluation mode: [B, *event] -> [B, L]."""
        return super().code(self.corruption(x))

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 10,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        noise: float = 0.5,
        corruption: str = "gaussian",
    ) -> DenoisingAutoencoder:
        """A denoising autoencoder whose sizes fit the data.

        Args:
            data: as for `Autoencoder.build`.
            latent: number of latent dimensions L.
            hidden: widths or channels from the data inwards, as for `VAE.build`.
            network: mlp, gated, conv, resnet, gru or transformer, as for `VAE.build`.
            activation: as for `VAE.build`.
            noise: of gaussian corruption the deviation of the noise, in deviations of the data; of masking the share
                of the elements that are lost.
            corruption: gaussian or masking.

        Raises:
            ValueError: as `VAE.build` does, and for an unknown corruption or noise out of its range.
        """
        if corruption not in NOISES:
            raise ValueError(f"unknown corruption {corruption!r}; {nearest(str(corruption), NOISES)}")
        check_positive(f"{cls.__name__}.build", "noise", noise)
        encoder, likelihood, unit = _parts(cls, data, latent, hidden, network, activation)
        made: Corruption = GaussianNoise(noise * unit) if corruption == "gaussian" else Masking(noise)
        return cls(encoder, likelihood, made)


class ContractiveAutoencoder(PointCoded):
    """p(x, z) ∝ p(x | z) exp(−λ ‖∂f/∂x‖²) with a flat prior on z, and z = f(x): codes that stay where x is pushed.

    The encoder pays for every direction of x in which the code moves. It goes on paying where that is needed to tell
    the data apart, along the manifold on which they lie, and becomes flat across it, so that the singular vectors of
    ∂f/∂x are a basis of the tangent plane. Followed is minus

        ‖x − g(f(x))‖² + λ Σ_ld (∂f_l / ∂x_d)²

    The second term is a `pyro.factor` of the model in training mode alone, as noise and dropout are: what is reported
    of held-out data is the squared error, which can be compared between λ. λ has the units of x⁴ / z² where σ² = 1/2.
    A code that is c times as small costs c² as much, so that something has to fix its scale, or g makes up for it:
    tied weights do (networks.Transposed, which `build` takes).

    Args:
        encoder: f, from the event shape of x to [L], each datum by itself (no batch norm in training mode).
        likelihood: p(x | z), around g(z).
        penalty: λ.
        probes: None for the exact penalty, L passes backward through f; m for the mean of ‖vᵀ ∂f/∂x‖² over m directions
            v ~ 𝒩(0, I_L), drawn anew each time: the same in the mean, for m passes.

    Raises:
        ValueError: as `Autoencoder` does, and for a penalty or number of probes that is none.

    References: Rifai, Vincent, Muller, Glorot and Bengio, "Contractive auto-encoders", 2011; Rifai et al., "The
    manifold tangent classifier", 2011.

        pyrovae train ContractiveAutoencoder --data digits --penalty 0.1 --epochs 100

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> ae = pv.models.ContractiveAutoencoder.build(data, latent=2)
    >>> ae.contraction(data.test[:5]).shape
    torch.Size([5])
    """

    def __init__(self, encoder: nn.Module, likelihood: nn.Module, penalty: float, probes: int | None = None) -> None:
        super().__init__(encoder, likelihood)
        self.penalty = check_positive(type(self).__name__, "penalty", penalty)
        self.probes = None if probes is None else check_whole(type(self).__name__, "probes", probes)

    def model(self, x: Tensor) -> None:
        """p(x | z), z of any value, and in training mode exp(−λ ‖∂f/∂x‖²)."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)
            if self.training:
                pyro.factor("contraction", -self.penalty * self.contraction(x))

    def contraction(self, x: Tensor) -> Tensor:
        """‖∂f/∂x‖² = Σ_ld (∂f_l / ∂x_d)², or its estimate: [B]."""
        return pull_back(self.encoder, x, self.probes).square().flatten(2).sum((0, 2)) / (self.probes or 1)

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 10,
        hidden: Sequence[int] | None = None,
        activation: str = "tanh",
        penalty: float = 0.1,
        probes: int | None = None,
    ) -> ContractiveAutoencoder:
        """A contractive autoencoder of fully connected networks with tied weights, whose sizes fit the data.

        Args:
            data: as for `Autoencoder.build`.
            latent: number of latent dimensions L.
            hidden: widths from the data inwards; [400] by default.
            activation: as for `VAE.build`.
            penalty: λ for x in units of its deviation s, so that one number suits data in any units: λ s⁴ of the
                constructor.
            probes: as in the constructor.

        Raises:
            ValueError: as `VAE.build` does, and as the constructor.
        """
        check_positive(f"{cls.__name__}.build", "penalty", penalty)
        encoder, likelihood, unit = _parts(cls, data, latent, hidden, "mlp", activation, tied=True)
        return cls(encoder, likelihood, penalty * unit**4, probes)


def pull_back(f: Callable[[Tensor], Tensor], x: Tensor, probes: int | None = None) -> Tensor:
    """The rows of ∂f/∂x, f: [B, *event] -> [B, L], as [L, B, *event]; or so many vᵀ ∂f/∂x for v ~ 𝒩(0, I_L)."""
    z, pull, *_ = torch.func.vjp(f, x)
    if probes is None:
        v = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None].expand(-1, len(x), -1)  # [L, B, L]
    else:
        v = torch.randn(probes, *z.shape, dtype=z.dtype, device=z.device)
    return torch.func.vmap(lambda v: pull(v)[0])(v)


def _parts(
    cls: type,
    data: Any,
    latent: int,
    hidden: Sequence[int] | None,
    network: str,
    activation: str | None,
    tied: bool = False,
) -> tuple[nn.Module, nn.Module, float]:
    """Encoder and likelihood for data, and the deviation of the data."""
    data = as_data(f"{cls.__name__}.build", data)
    check_latent(f"{cls.__name__}.build", latent)
    event = list(data.event_shape)
    encoder, decoder = pair(network, event, [latent], latent, event, hidden, activation)
    if tied:
        widths = KINDS["mlp"].hidden if hidden is None else hidden
        decoder = Transposed([latent], event, widths[::-1], activation or "relu")
    missing = getattr(data, "missing", False)
    some = next(data.batches("train", 10_000, shuffle=False))
    centre = Standardise(event, missing).to_data(some, rescale=True)
    likelihood = Normal(Chain(decoder, Unstandardise(event).to_undo(centre)), scale=SCALE)
    return Chain(centre, encoder), Missing(likelihood) if missing else likelihood, float(centre.scale)
