"""Device placement without a device: what generates and evaluates runs on a fake CUDA, no CPU tensor mixed in."""

import pytest
import torch
from pieces import LIKELIHOODS, NETWORKS
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


PAIRS = [(name, "mlp") for name in LIKELIHOODS] + [("Bernoulli", name) for name in NETWORKS if name != "mlp"]


@pytest.mark.parametrize(("likelihood", "network"), PAIRS)
@pytest.mark.parametrize("call", CALLS)
def test_it_stays_on_the_device(call, likelihood, network):
    cls, options, *_ = LIKELIHOODS[likelihood]
    with FakeTensorMode():
        with torch.device("cuda"):
            widths, event, activation = NETWORKS[network]
            encoder, decoder = pv.networks.pair(
                network, event, [4], 2, cls.decoded(event, **options), widths, activation
            )
            posterior = pv.posteriors.DiagonalNormal(encoder)
            vae = pv.models.VAE(pv.priors.StandardNormal(2), cls(decoder, **options), posterior)
            x = torch.zeros(5, *event)
        assert CALLS[call](vae, x).device.type == "cuda"
