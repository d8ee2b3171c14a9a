"""Networks: one table of constructors, one suite of properties."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn
from conftest import reached
from pieces import (
    F64,
)

from pyrovae import networks
from pyrovae.config import construct, describe

IMAGES = [[1, 7, 9], [3, 32, 32], [1, 1, 1], [2, 28, 28], [1, 5, 4]]


def centred(event):
    return networks.Standardise(event).to_data(3 + 2 * torch.randn(10, *event), rescale=True)


ENCODERS = {
    "mlp": lambda e: networks.MLP(e, [6], hidden=[5, 4], activation="tanh"),
    "mlp, linear": lambda e: networks.MLP(e, [6], hidden=[]),
    "conv": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.Conv(e, [2, 3], channels=[2], activation="gelu"),
    "conv, three layers": lambda e: networks.Conv(e, [6], channels=[2, 2, 3], activation="silu"),
    "conv, batch norm": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh", batch_norm=True),
    "standardised": lambda e: networks.Chain(centred(e), networks.MLP(e, [6], [5], "tanh")),
}
DECODERS = {
    "mlp": lambda e: networks.MLP([3], e, hidden=[5, 4], activation="tanh"),
    "conv": lambda e: networks.TransposedConv([3], e, channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.TransposedConv([3], e, channels=[2], activation="elu"),
    "conv, batch norm": lambda e: networks.TransposedConv([3], e, [2, 3], activation="tanh", batch_norm=True),
}
NETS = {f"{n} {e}": (f, e, e, None) for n, f in ENCODERS.items() for e in IMAGES}
NETS |= {f"de-{n} {e}": (f, e, [3], e) for n, f in DECODERS.items() for e in IMAGES}


@pytest.mark.parametrize("key", NETS)
class TestNetworks:
    def test_shapes_rows_and_gradient(self, key):
        build, event, inputs, outputs = NETS[key]
        net = build(event).double()
        x = torch.randn(3, 4, *inputs, dtype=F64)
        y = net(x)
        assert y.dtype == F64
        assert y.shape[:2] == (3, 4)
        assert outputs is None or list(y.shape[2:]) == outputs
        reached(net, y.pow(3).sum())
        net.eval()
        y = net(x)
        torch.testing.assert_close(y, torch.stack([net(row) for row in x]))
        torch.testing.assert_close(y[0, 0], net(x[0, 0]))  # no leading dimension at all

    def test_round_trip(self, key):
        build, event, inputs, _ = NETS[key]
        net = build(event)
        again = construct(describe(net))
        again.load_state_dict(net.state_dict())
        x = torch.randn(4, *inputs)
        assert torch.equal(net.eval()(x), again.eval()(x))


def test_particles_are_rows_to_batch_norm():
    net = networks.Conv([1, 7, 9], [6], channels=[2, 3], batch_norm=True).double()
    other, x = copy.deepcopy(net), torch.randn(3, 4, 1, 7, 9, dtype=F64)
    torch.testing.assert_close(net(x), other(x.flatten(0, 1)).reshape(3, 4, 6))
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert net.body[1].num_batches_tracked == 1


@pytest.mark.parametrize("channels", [[2], [2, 3], [2, 3, 4]])
@pytest.mark.parametrize("image", IMAGES)
def test_decoder_mirrors_encoder(image, channels):
    """Images pass through the same sizes both ways."""

    def sizes(net, x, kind):
        found = []
        hooks = [m.register_forward_hook(lambda m, i, o: found.append((i[0].shape[1:], o.shape[1:]))) for m in net.body]
        net(x)
        for h in hooks:
            h.remove()
        return [s for s, m in zip(found, net.body, strict=True) if isinstance(m, kind)]

    inwards = sizes(networks.Conv(image, [4], channels), torch.zeros(2, *image), nn.Conv2d)
    outwards = sizes(networks.TransposedConv([4], image, channels), torch.zeros(2, 4), nn.ConvTranspose2d)
    assert [(o, i) for i, o in outwards[::-1]] == inwards


@pytest.mark.parametrize("name", networks.ACTIVATIONS)
def test_activations(name):
    assert networks.MLP([2], [2], activation=name)(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("rescale", [False, True])
def test_standardise(rescale):
    x = 3 + 2 * torch.randn(50, 2, 3, dtype=F64)
    y = networks.Standardise([2, 3]).double().to_data(x, rescale)(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2, 3, dtype=F64))
    torch.testing.assert_close(
        y.square().mean().sqrt(), x.new_ones(()) if rescale else (x - x.mean(0)).std(correction=0)
    )
    assert not list(networks.Standardise([2, 3]).parameters())


def test_standardise_constant_data():
    x = torch.full((5, 2), 7.0)
    assert torch.isfinite(networks.Standardise([2]).to_data(x, rescale=True)(x)).all()
