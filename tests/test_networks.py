"""Networks: one table of constructors, one suite of properties."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn
from conftest import reached
from pieces import F64, NETWORKS

from pyrovae import networks
from pyrovae.config import construct, describe
from pyrovae.networks.images import Residual
from pyrovae.networks.sequences import GRULayer, StepLinear, TransformerBlock

IMAGES = [[1, 7, 9], [3, 32, 32], [1, 1, 1], [2, 28, 28], [1, 5, 4]]
SEQUENCES = [[2, 1], [5, 3], [12, 2]]


def centred(event):
    return networks.Standardise(event).to_data(3 + 2 * torch.randn(10, *event), rescale=True)


ENCODERS = {
    "mlp": lambda e: networks.MLP(e, [6], hidden=[5, 4], activation="tanh"),
    "mlp, linear": lambda e: networks.MLP(e, [6], hidden=[]),
    "gated": lambda e: networks.Gated(e, [6], hidden=[5, 4]),
    "conv": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.Conv(e, [2, 3], channels=[2], activation="gelu"),
    "conv, three layers": lambda e: networks.Conv(e, [6], channels=[2, 2, 3], activation="silu"),
    "conv, batch norm": lambda e: networks.Conv(e, [6], channels=[2, 3], activation="tanh", batch_norm=True),
    "resnet": lambda e: networks.ResNet(e, [6], channels=[2, 3], blocks=2, activation="tanh"),
    "resnet, one stage": lambda e: networks.ResNet(e, [2, 3], channels=[2], activation="gelu"),
    "standardised": lambda e: networks.Chain(centred(e), networks.MLP(e, [6], [5], "tanh")),
}
DECODERS = {
    "mlp": lambda e: networks.MLP([3], e, hidden=[5, 4], activation="tanh"),
    "gated": lambda e: networks.Gated([3], e, hidden=[5, 4]),
    "conv": lambda e: networks.TransposedConv([3], e, channels=[2, 3], activation="tanh"),
    "conv, one layer": lambda e: networks.TransposedConv([3], e, channels=[2], activation="elu"),
    "conv, batch norm": lambda e: networks.TransposedConv([3], e, [2, 3], activation="tanh", batch_norm=True),
    "resnet": lambda e: networks.ResNetDecoder([3], e, channels=[2, 3], blocks=2, activation="tanh"),
}
OF_SEQUENCES = {
    "gru": lambda e: networks.GRU(e, [6], hidden=[4]),
    "gru, two layers": lambda e: networks.GRU(e, [2, 3], hidden=[4, 3]),
    "transformer": lambda e: networks.Transformer(e, [6], hidden=[8]),
    "transformer, two blocks": lambda e: networks.Transformer(e, [2, 3], hidden=[6, 6], heads=2, activation="tanh"),
}
TO_SEQUENCES = {
    "gru": lambda e: networks.GRUDecoder([3], e, hidden=[4]),
    "gru, two layers": lambda e: networks.GRUDecoder([3], e, hidden=[4, 3]),
    "gru, half as many steps": lambda e: networks.GRUDecoder([3], [2 * e[0], e[1]], hidden=[4], steps=e[0]),
    "transformer": lambda e: networks.TransformerDecoder([3], e, hidden=[8]),
    "transformer, two blocks": lambda e: networks.TransformerDecoder([3], e, [6, 6], heads=2, activation="tanh"),
    "transformer, half": lambda e: networks.TransformerDecoder([3], [2 * e[0], e[1]], hidden=[4], steps=e[0]),
}
NETS = {f"{n} {e}": (f, e, e, None) for n, f in ENCODERS.items() for e in IMAGES}
NETS |= {f"de-{n} {e}": (f, e, [3], e) for n, f in DECODERS.items() for e in IMAGES}
NETS |= {f"{n} {e}": (f, e, e, None) for n, f in OF_SEQUENCES.items() for e in SEQUENCES}
NETS |= {
    f"de-{n} {e}": (f, e, [3], [2 * e[0], e[1]] if "half" in n else e)
    for n, f in TO_SEQUENCES.items()
    for e in SEQUENCES
}


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


MIRRORS = {
    "conv": (networks.Conv, networks.TransposedConv, (nn.Conv2d, nn.ConvTranspose2d)),
    "resnet": (networks.ResNet, networks.ResNetDecoder, (nn.Conv2d, nn.ConvTranspose2d, Residual)),
}


@pytest.mark.parametrize("channels", [[2], [2, 3], [2, 3, 4]])
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", MIRRORS)
def test_decoder_mirrors_encoder(name, image, channels):
    """Images pass through the same sizes both ways."""

    def sizes(net, x, kind):
        found = []
        hooks = [m.register_forward_hook(lambda m, i, o: found.append((i[0].shape[1:], o.shape[1:]))) for m in net.body]
        net(x)
        for h in hooks:
            h.remove()
        return [s for s, m in zip(found, net.body, strict=True) if isinstance(m, kind)]

    encoder, decoder, layers = MIRRORS[name]
    inwards = sizes(encoder(image, [4], channels), torch.zeros(2, *image), layers)
    outwards = sizes(decoder([4], image, channels), torch.zeros(2, 4), layers)
    assert len(inwards) == len(channels) * (len(layers) - 1)
    assert [(o, i) for i, o in outwards[::-1]] == inwards


def test_a_gated_layer_is_its_formula():
    net = networks.Gated([3], [2], hidden=[4]).double()
    x = torch.randn(5, 3, dtype=F64)
    both, out = (m for m in net.body if isinstance(m, nn.Linear))
    (w1, w2), (b1, b2) = both.weight.split(4), both.bias.split(4)
    h = (x @ w1.T + b1) * torch.sigmoid(x @ w2.T + b2)
    torch.testing.assert_close(net(x), h @ out.weight.T + out.bias)


def test_a_residual_block_is_its_formula():
    block, x = Residual(3, "tanh", 0.5).double(), torch.randn(2, 3, 5, 4, dtype=F64)
    torch.testing.assert_close(block(x), x + block.body[3](torch.tanh(block.body[1](torch.tanh(x)))))


@pytest.mark.parametrize("blocks", [1, 20])
def test_many_residual_blocks_start_no_larger_than_few(blocks):
    body = networks.ResNet([8, 16, 16], [1], channels=[8], blocks=blocks).body
    x = torch.randn(64, 8, 8, 8)
    y = nn.Sequential(*(m for m in body if isinstance(m, Residual)))(x)
    assert 1 <= y.std() / x.std() < 2


@pytest.mark.parametrize("hidden", [[4], [4, 3]])
def test_gru_is_that_of_torch(hidden):
    x = torch.randn(5, 7, 3, dtype=F64)
    h, n = x, 3
    net = networks.GRU([7, 3], [2], hidden).double()
    for layer in (m for m in net.body if isinstance(m, GRULayer)):
        other = nn.GRU(n, n := layer.width, batch_first=True).double()
        weights = (layer.inputs.weight, layer.state.weight, layer.inputs.bias, layer.state.bias)
        other.load_state_dict(dict(zip(other.state_dict(), weights, strict=True)))
        h = other(h)[0]
    torch.testing.assert_close(net(x), net.body[-2](h[:, -1]))


def test_a_gru_s_state_starts_with_rotations():
    """From smaller weights a decoder forgets the code, and the posterior collapses."""
    for u in GRULayer(3, 5).double().state.weight.chunk(3):
        torch.testing.assert_close(u @ u.T, torch.eye(5, dtype=F64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_transformer_block_is_that_of_torch(heads):
    block, x = TransformerBlock(4, heads, "gelu").double(), torch.randn(5, 7, 4, dtype=F64)
    other = nn.TransformerEncoderLayer(4, heads, 16, 0.0, "gelu", batch_first=True, norm_first=True).double()
    (n1, a), (n2, f1, _, f2) = block.attention, block.feed_forward
    parts = {"self_attn.out_proj": a.out, "norm1": n1, "norm2": n2, "linear1": f1, "linear2": f2}
    state = {f"{k}.{p}": v for k, m in parts.items() for p, v in m.state_dict().items()}
    state |= {"self_attn.in_proj_weight": a.qkv.weight, "self_attn.in_proj_bias": torch.zeros(12, dtype=F64)}
    other.load_state_dict(state)
    torch.testing.assert_close(block(x), other(x))


@pytest.mark.parametrize("hidden", [[4], [4, 4]])
def test_a_transformer_knows_the_order_of_its_steps(hidden):
    net, x = networks.Transformer([5, 3], [2], hidden).double(), torch.randn(4, 5, 3, dtype=F64)
    assert not torch.allclose(net(x), net(x.flip(1)))
    nn.init.zeros_(net.body[1].positions)
    torch.testing.assert_close(net(x), net(x.flip(1)))


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_parameters_of_a_sequence_lie_one_after_the_other(kind):
    """Parameter p of step t, feature d, at [p T + t, d], from as many steps as the data have."""
    t, d, p = 5, 3, 2
    _, decoder = networks.pair(kind, [t, d], [4], 2, [p * t, d])
    assert decoder.inputs == (2,)
    layer = next(m for m in decoder.modules() if isinstance(m, StepLinear))
    seen = []
    layer.register_forward_hook(lambda m, i, o: seen.append(m.linear(i[0])))
    y, steps = decoder(torch.randn(4, 2)), seen[0]
    assert steps.shape == (4, t, p * d)
    for i in range(p):
        for s in range(t):
            torch.testing.assert_close(y[:, i * t + s], steps[:, s, i * d : (i + 1) * d])
    loc, raw = y.chunk(p, -2)  # as a likelihood takes them apart
    torch.testing.assert_close(torch.cat([loc, raw], -1), steps)


def test_steps_of_a_decoder_come_in_order():
    """A recurrent decoder's first steps do not know how many follow."""
    long, short = (networks.GRUDecoder([2], [t, 3], [4]).double() for t in (7, 4))
    short.load_state_dict(long.state_dict())
    z = torch.randn(5, 2, dtype=F64)
    torch.testing.assert_close(long(z)[:, :4], short(z))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch imports it for forward derivatives
@pytest.mark.parametrize("name", NETWORKS)
def test_every_derivative(name):
    """Forward and second derivatives, and vmap over them, which geometry and curvature need."""
    widths, event, activation = NETWORKS[name]
    encoder, decoder = networks.pair(name, event, [2], 2, event, widths, activation)
    for net, x in (
        (decoder.double(), torch.randn(3, 2, dtype=F64)),
        (encoder.double(), torch.randn(3, *event).to(F64)),
    ):
        backward = torch.func.vmap(torch.func.jacrev(net))(x)
        tangent = torch.randn_like(x)
        dims = x.dim() - 1
        _, forward = torch.func.jvp(net, (x,), (tangent,))
        expected = torch.stack([torch.tensordot(j, t, dims) for j, t in zip(backward, tangent, strict=True)])
        torch.testing.assert_close(forward, expected)
        assert torch.autograd.gradgradcheck(net, x[:1].requires_grad_())


@pytest.mark.parametrize("name", networks.KINDS)
def test_a_pair_s_own_widths(name):
    event = NETWORKS[name].event
    encoder, decoder = networks.pair(name, event, [4], 2, event)
    assert encoder(torch.randn(3, *event)).shape == (3, 4)
    assert decoder(torch.randn(3, 2)).shape == (3, *event)


def test_every_kind_of_network_is_in_the_table():
    assert set(NETWORKS) == set(networks.KINDS)


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


def test_features_get_a_scale_each_and_what_is_far_comes_nearer():
    x = torch.stack([torch.randn(1000), 700 + 50 * torch.randn(1000), torch.full((1000,), 2.0)], 1)
    x[::7, 0] = torch.nan
    centre = networks.Standardise([3], missing=True, each=True).to_data(x, rescale=True)
    y = centre(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y.std(0)[1], torch.tensor(1.0), rtol=0.1, atol=0.0)
    assert (y[:, 2] == 0).all()  # constant: neither stretched nor NaN
    assert (y[::7, 0] == 0).all()
    far = centre(torch.tensor([[0.0, 700 + 50 * 200.0, 2.0]]))
    assert 10 < far[0, 1] < 20
    small = torch.linspace(-0.3, 0.3, 7)[:, None] * torch.tensor([1.0, 50.0, 0.0]) + centre.loc
    torch.testing.assert_close(centre(small)[:, 1], torch.linspace(-0.3, 0.3, 7), rtol=0.1, atol=0.01)
