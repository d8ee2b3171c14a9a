"""The multimodal VAE: one latent for several views of a thing, of which some may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..attached import attach
from ..config import Configured, nearest
from ..likelihoods import Likelihood, Missing
from ..networks import Chain, Standardise, pair
from ..priors import StandardNormal
from .build import Part, as_data, build_part, check_latent, find_part
from .experts import EXPERTS
from .vae import natural_likelihood, with_data


class MultimodalVAE(Configured, nn.Module):
    """p(x_1, …, x_M, z) = p(z) Π_m p(x_m | z), approximated by a q(z | x) of as many experts.

    A thing is seen and heard, or its upper and its lower half are seen. What the views have in common is z, and given
    z they are independent:

        z ~ 𝒩(0, I),    x_m | z ~ p(x_m | z) for every view m

    A view that is NaN throughout is missing: the bound is one on the evidence of the others, and the encoders of the
    others say what z is. From there the missing view is drawn: `pv.reconstruct(vae, x)`.

    q(z | x) is made of a normal q_m(z | x_m) for each view: their product is sharp, their mixture makes each of them
    know all that it can about the others, and the mixture of all products (the default) has both.

    Args:
        likelihoods: p(x_m | z), a module for every view.
        encoders: from the event shape of x_m to [2L], μ and log σ of its expert, a module for every view.
        latent: number of latent dimensions L.
        sizes: of the views, along one dimension of a datum.
        dim: that dimension, counted from the right: −2 for the rows of an image.
        experts: "product", "mixture" or "mixture_of_products".

    Raises:
        ValueError: for an unknown way to combine experts, other numbers of modules than of views, and a dim that is not
            negative.

    References: Wu and Goodman, "Multimodal generative models for scalable weakly-supervised learning", 2018; Shi et
    al., "Variational mixture-of-experts autoencoders for multi-modal deep generative models", 2019; Sutter, Daunhawer
    and Vogt, "Generalized multimodal ELBO", 2021.

    >>> import torch, pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.MultimodalVAE.build(data, latent=4)  # upper and lower halves
    >>> x = data.test[:3].clone()
    >>> x[:, :, 4:] = torch.nan
    >>> {name: half.shape for name, half in pv.reconstruct(vae, x).items()}
    {'x1': torch.Size([3, 1, 4, 8]), 'x2': torch.Size([3, 1, 4, 8])}

    pyrovae train MultimodalVAE --data digits --epochs 100 --learning_rate 3e-3
    """

    takes_missing: ClassVar[bool] = True

    def __init__(
        self,
        likelihoods: Sequence[nn.Module],
        encoders: Sequence[nn.Module],
        latent: int,
        sizes: Sequence[int],
        dim: int = -1,
        experts: str = "mixture_of_products",
    ) -> None:
        super().__init__()
        if not len(likelihoods) == len(encoders) == len(sizes):
            raise ValueError(
                f"MultimodalVAE expects a likelihood, an encoder and a size for every view, got {len(likelihoods)}, "
                f"{len(encoders)} and {len(sizes)}; give as many of each"
            )
        if experts not in EXPERTS:
            raise ValueError(f"MultimodalVAE has no experts {experts!r}; {nearest(str(experts), EXPERTS)}")
        if not isinstance(dim, int) or dim >= 0:
            raise ValueError(f"MultimodalVAE expects dim from the right, −1 for the last, got {dim!r}; give −1 or −2")
        self.prior = StandardNormal(latent)
        self.likelihoods, self.encoders = nn.ModuleList(likelihoods), nn.ModuleList(encoders)
        self.latent, self.sizes, self.dim, self.experts = latent, list(sizes), dim, experts
        attach(self)

    def model(self, x: Tensor) -> None:
        """p(z) Π_m p(x_m | z); x: [B, *event], its views side by side."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            for m, view in enumerate(self.views(x)):
                pyro.sample(f"x{m + 1}", self.likelihoods[m](z), obs=view)

    def guide(self, x: Tensor) -> None:
        """q(z | x) of the experts for the views that are observed."""
        views = self.views(x)
        codes = torch.stack([encode(view) for encode, view in zip(self.encoders, views, strict=True)], -2)  # [B, M, 2L]
        there = torch.stack([~view.isnan().flatten(1).all(1) for view in views], -1)  # [B, M]
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", EXPERTS[self.experts](*codes.chunk(2, -1), there))

    def views(self, x: Tensor) -> tuple[Tensor, ...]:
        """x [*, *event] in its views."""
        return x.split(self.sizes, self.dim)

    @classmethod
    def build(
        cls,
        data: Any,
        latent: int = 20,
        hidden: Sequence[int] | None = None,
        network: str = "mlp",
        activation: str | None = None,
        likelihood: Part = "auto",
        experts: str = "mixture_of_products",
        modalities: int = 2,
        sizes: Sequence[int] | None = None,
    ) -> MultimodalVAE:
        """A model whose sizes fit the data.

        Args:
            data: a `pyrovae.data.Dataset`, or a tensor or array [N, *event], the views of a datum side by side: along
                the rows of an image (upper and lower part), and along the last dimension of anything else. A view is
                missing where it is NaN (`missing=True`).
            latent: number of latent dimensions L.
            hidden: as for `VAE.build`.
            network: as for `VAE.build`.
            activation: as for `VAE.build`.
            likelihood: p(x_m | z), by name, the same for every view; "auto" is what the values of the data ask for.
            experts: "product", "mixture" or "mixture_of_products".
            modalities: M, views of equal size.
            sizes: of the views, where they are not equal.

        Raises:
            ValueError: as `VAE.build` does, and for views that do not make up a datum.

        >>> import pyrovae as pv
        >>> pv.models.MultimodalVAE.build(pv.data.load("wine"), latent=2, sizes=[5, 8]).dim
        -1
        """
        data = as_data("MultimodalVAE.build", data)
        check_latent("MultimodalVAE.build", latent)
        event = list(data.event_shape)
        dim = -2 if len(event) == 3 else -1
        sizes = _sizes(event[dim], modalities, sizes)
        likelihood = natural_likelihood(data) if likelihood == "auto" else likelihood
        r, r_options = find_part(cls, "likelihood", likelihood, Likelihood)
        r_options = with_data(r, r_options, data)
        some = next(data.batches("train", 10_000, shuffle=False))
        likelihoods, encoders = [], []
        for view in some.split(sizes, dim):
            shape = list(view.shape[1:])
            decoded = build_part(r.decoded, r_options, shape)
            encoder, decoder = pair(network, shape, [2 * latent], latent, decoded, hidden, activation)
            centre = Standardise(shape, missing=True).to_data(view, rescale=data.values in ("counts", "real"))
            encoders.append(Chain(centre, encoder))
            likelihoods.append(Missing(build_part(r, r_options, decoder)))
        return cls(likelihoods, encoders, latent, sizes, dim, experts)


def _sizes(length: int, modalities: int, sizes: Sequence[int] | None) -> list[int]:
    """The sizes of the views. Raises ValueError."""
    if sizes is None:
        check_whole("MultimodalVAE.build", "modalities", modalities)
        if length % modalities:
            raise ValueError(
                f"MultimodalVAE.build expects {modalities} views of equal size, got a datum of {length} along their "
                "dimension; give their sizes, as sizes=[5, 8]"
            )
        return [length // modalities] * modalities
    if sum(sizes) != length or min(sizes) < 1:
        raise ValueError(
            f"MultimodalVAE.build expects sizes of views that sum up to {length}, got {list(sizes)}; change them"
        )
    return list(sizes)
