"""Pyro: the model and guide of its VAE tutorial on the network of the case, and `SVI.step` with `pyro.optim.Adam`.

Validation is off, as in the tutorial. The bounds are `Trace_ELBO`, which draws its KL, and `RenyiELBO(alpha=0)` with
vectorised particles. In the steps the likelihood is given logits, which is faster than the tutorial's sigmoid; the
epoch keeps the sigmoid, and the tutorial's loader: torchvision's MNIST, an image at a time through PIL and `ToTensor`
in one process beside. It thresholds the batch, which the tutorial does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from . import networks
from .cases import LEARNING_RATE, Case
from .data import folder, grey
from .networks import Net


def svi_of(case: Case, sigmoid: bool = False) -> SVI:
    """Inference on the two functions of the tutorial."""
    net, event_dim = Net(case), 1 if case.network == "mlp" else len(case.event)

    def likelihood(y: Tensor) -> dist.TorchDistribution:
        if case.scale is not None:
            return dist.Normal(y, case.scale)
        return dist.Bernoulli(y.sigmoid()) if sigmoid else dist.Bernoulli(logits=y)

    def model(x: Tensor) -> None:
        pyro.module("decoder", net.decoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = x.new_zeros(x.shape[0], case.latent), x.new_ones(x.shape[0], case.latent)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pyro.sample("obs", likelihood(net.decoder(z)).to_event(event_dim), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", net.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = net.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

    pyro.enable_validation(False)
    pyro.clear_param_store()
    loss = Trace_ELBO()
    if case.particles:
        loss = RenyiELBO(alpha=0, num_particles=case.particles, vectorize_particles=True)
    return SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss=loss)


def step(case: Case, data: np.ndarray) -> Callable[[int], None]:
    """Steps over batches in memory."""
    svi, pool = svi_of(case), itertools.cycle(networks.batches(case, data))

    def go(n: int) -> None:
        for x in itertools.islice(pool, n):
            svi.step(x)

    return go


def epoch(case: Case, data: np.ndarray, workers: int = 1) -> Callable[[int], None]:
    """Epochs of the tutorial's loop; it reads the images itself."""
    images = Subset(mnist(case.images), range(case.images))
    loader = DataLoader(images, batch_size=case.batch, shuffle=True, num_workers=workers)
    svi = svi_of(case, sigmoid=True)

    def go(n: int) -> None:
        for _ in range(n):
            total = 0.0
            for x, _ in loader:
                total += svi.step((x > 0.5).float().flatten(1))

    return go


def mnist(n: int) -> Dataset:
    """torchvision's MNIST, or as much work on random bytes."""
    import torchvision.transforms as transforms
    from torchvision.datasets import MNIST

    root = folder()
    return MNIST(root, train=True, transform=transforms.ToTensor()) if root else _Decoded(n, transforms.ToTensor())


class _Decoded(Dataset):
    """What torchvision's MNIST does for each image."""

    def __init__(self, n: int, transform: Callable[..., Tensor]) -> None:
        self.data, self.transform = torch.from_numpy(grey(n))[:, 0], transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.data[i].numpy())), 0
