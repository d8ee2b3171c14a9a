"""Device placement without a device: what generates and evaluates runs on a fake CUDA, no CPU tensor mixed in."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pyrovae as pv

CALLS = {
    "generate": lambda vae, x: pv.generate(vae, 3),
    "generate, mean": lambda vae, x: pv.generate(vae, 3, mean=True),
    "encode": pv.encode,
    "decode": lambda vae, x: pv.decode(vae, torch.zeros(4, 2, device="cuda")),
    "reconstruct": pv.reconstruct,
    "interpolate": lambda vae, x: pv.interpolate(vae, x[0], x[1]),
    "traverse": lambda vae, x: pv.traverse(vae, x[0]),
    "densities": lambda vae, x: pv.densities(vae, x, particles=3).log_weight,
}
LIKELIHOODS = [
    pv.likelihoods.Bernoulli,
    pv.likelihoods.ContinuousBernoulli,
    pv.likelihoods.Binomial,
    pv.likelihoods.Normal,
]


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("call", CALLS)
def test_it_stays_on_the_device(call, likelihood, network):
    with FakeTensorMode():
        with torch.device("cuda"):
            encoder, decoder = pv.networks.pair(network, [1, 8, 8], [4], 2, [1, 8, 8], [6], "relu")
            vae = pv.models.VAE(pv.priors.StandardNormal(2), likelihood(decoder), pv.posteriors.DiagonalNormal(encoder))
            x = torch.zeros(5, 1, 8, 8)
        assert CALLS[call](vae, x).device.type == "cuda"
