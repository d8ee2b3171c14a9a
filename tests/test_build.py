"""VAE.build, what it is written down as, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn as nn
from pieces import EVENT, F64, NETWORKS, PAIRS, Toy, small_data, small_vae

import pyrovae as pv
from pyrovae import likelihoods, networks, posteriors, priors
from pyrovae.config import construct, describe


@pytest.mark.parametrize("kind", networks.KINDS)
@pytest.mark.parametrize(
    ("values", "levels", "expected"),
    [
        ("binary", None, "Bernoulli"),
        ("counts", 16, "Binomial"),
        ("unit", None, "ContinuousBernoulli"),
        ("real", None, "Normal"),
    ],
)
def test_build_fits_the_data(values, levels, expected, kind):
    event = NETWORKS[kind].event
    vae = pv.models.VAE.build(Toy(values, event, levels), latent=3, hidden=[4], network=kind)
    assert type(vae.likelihood).__name__ == expected
    assert levels is None or vae.likelihood.total_count == levels
    x = vae.likelihood(torch.randn(5, 3)).sample()
    assert x.shape == (5, *event)
    assert pv.densities(vae, x, 2).log_weight.shape == (2, 5)
    assert (vae.posterior.network.first.scale != 1) == (values in ("counts", "real"))


def test_build_with_options():
    spec = {"class_path": "Normal", "init_args": {"scale": "per_pixel"}}
    vae = pv.models.VAE.build(Toy("unit"), latent=3, hidden=[4], likelihood=spec)
    assert vae.likelihood.scale == "per_pixel"
    assert vae.likelihood(torch.zeros(2, 3)).event_shape == tuple(EVENT)
    path = "pyrovae.likelihoods.Binomial"
    spec = {"class_path": path, "init_args": {"total_count": 4}}
    assert pv.models.VAE.build(Toy("counts", levels=16), likelihood=spec).likelihood.total_count == 4


@pytest.mark.parametrize("of", [torch.tensor, np.array])
def test_build_takes_a_tensor_as_fit_does(of):
    x = of([[2.0, 4.0], [4.0, 9.0]])
    vae = pv.models.VAE.build(x, latent=1)
    assert isinstance(vae.likelihood, likelihoods.Normal)
    assert vae.posterior.network.first.loc.tolist() == [3.0, 6.5]


def test_a_checkpoint_keeps_its_names():
    vae = pv.models.VAE.build(Toy(), latent=2, hidden=[3], network="mlp")
    encoder = [n.removeprefix("posterior.network.") for n in vae.state_dict() if n.startswith("posterior")]
    assert encoder == ["first.loc", "first.scale", *(f"then.body.{i}.{p}" for i in (1, 3) for p in ("weight", "bias"))]


def test_hidden_reads_from_the_data_inwards():
    vae = pv.models.VAE.build(Toy(), latent=3, hidden=[7, 5])
    assert [m.out_features for m in vae.posterior.network.then.body if isinstance(m, nn.Linear)] == [7, 5, 6]
    assert [m.out_features for m in vae.likelihood.network.body if isinstance(m, nn.Linear)] == [5, 7, 20]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_vae_round_trip(name, kind):
    vae, x = small_vae(name, kind).double(), small_data(name, network=kind)
    again = construct(describe(vae)).double()
    again.load_state_dict(vae.state_dict())
    assert describe(again) == describe(vae)
    outputs = []
    for v in (vae, again):
        torch.manual_seed(3)
        outputs.append(pv.densities(v, x, 3).log_weight)
    assert torch.equal(*outputs)


def test_describe_follows_a_swapped_part():
    vae = small_vae()
    vae.prior = priors.RelaxedBernoulli(2, temperature=0.3)
    assert construct(describe(vae)).prior.temperature == 0.3


def vae_of(prior, decoder, encoder):
    """A VAE whose parts are for so many latents each."""
    likelihood = likelihoods.Bernoulli(networks.MLP([decoder], [4]))
    return pv.models.VAE(
        priors.StandardNormal(prior), likelihood, posteriors.DiagonalNormal(networks.MLP([4], [2 * encoder]))
    )


MESSAGES = {
    "latent sizes, prior": (
        lambda: vae_of(3, 2, 2),
        r"got StandardNormal has 3, Bernoulli has 2, DiagonalNormal has 2; build the prior",
    ),
    "latent sizes, decoder": (lambda: vae_of(2, 3, 2), r"StandardNormal has 2, Bernoulli has 3, DiagonalNormal has 2"),
    "latent sizes, encoder": (lambda: vae_of(2, 2, 3), r"StandardNormal has 2, Bernoulli has 2, DiagonalNormal has 3"),
    "latent": (lambda: priors.StandardNormal(-1), r"StandardNormal expects at least one .* got latent=-1"),
    "scale": (lambda: likelihoods.Normal(nn.Identity(), scale=-0.5), r"Normal expects a positive scale, got -0.5"),
    "scale, nan": (lambda: likelihoods.Normal(nn.Identity(), scale=math.nan), r"Normal expects a positive scale"),
    "scale, word": (
        lambda: likelihoods.Normal(nn.Identity(), scale="learnt"),
        r"Normal expects scale as a number, 'learned' or 'per_pixel', got 'learnt'",
    ),
    "count": (lambda: likelihoods.Binomial(nn.Identity(), 0), r"Binomial expects total_count of at least 1, got 0"),
    "scale, Laplace": (lambda: likelihoods.Laplace(nn.Identity(), scale=0), r"Laplace expects a positive scale, got 0"),
    "df": (
        lambda: likelihoods.StudentT(nn.Identity(), df=-2.0),
        r"StudentT expects df as a finite number above 0, got -2.0; give a number above 0, or 'learned'",
    ),
    "df, word": (lambda: likelihoods.StudentT(nn.Identity(), df="learnt"), r"StudentT expects df as .* got 'learnt'"),
    "precision": (
        lambda: likelihoods.Beta(nn.Identity(), maximum_precision=math.inf),
        r"Beta expects maximum_precision as a finite number above 0, got inf",
    ),
    "dispersion": (
        lambda: likelihoods.NegativeBinomial(nn.Identity(), dispersion="per_gene"),
        r"NegativeBinomial expects dispersion as 'per_feature', 'learned' or 'per_pixel', got 'per_gene'",
    ),
    "words": (
        lambda: likelihoods.Multinomial(nn.Identity(), total_count=2.5),
        r"Multinomial expects total_count as a whole number of at least 1, got 2.5",
    ),
    "levels": (
        lambda: likelihoods.Categorical(nn.Identity(), levels=1),
        r"Categorical expects levels as a whole number of at least 2, got 1",
    ),
    "maximum": (
        lambda: likelihoods.Categorical(nn.Identity(), maximum=math.nan),
        r"Categorical expects maximum as a finite number above 0, got nan",
    ),
    "components": (
        lambda: likelihoods.DiscretisedLogisticMixture(nn.Identity(), components=0),
        r"DiscretisedLogisticMixture expects components as a whole number of at least 1, got 0",
    ),
    "activation": (
        lambda: networks.MLP([2], [2], activation="rellu"),
        r"unknown activation 'rellu'; did you mean 'relu'\? Known: elu, gelu",
    ),
    "activation, no match": (lambda: networks.MLP([2], [2], activation="x9"), r"unknown activation 'x9'; Known: elu"),
    "network": (
        lambda: pv.models.VAE.build(Toy(), network="cnv"),
        r"unknown network 'cnv'; did you mean 'conv'\? Known: conv, gated, gru, mlp, resnet, transformer\.",
    ),
    "likelihood": (
        lambda: pv.models.VAE.build(Toy(), likelihood="bernouli"),
        r"unknown likelihood 'bernouli'; did you mean 'Bernoulli'\? Known: Bernoulli",
    ),
    "prior": (
        lambda: pv.models.VAE.build(Toy(), prior="Standardnormal"),
        r"unknown prior 'Standardnormal'; did you mean 'StandardNormal'\?",
    ),
    "posterior": (
        lambda: pv.models.VAE.build(Toy(), posterior="DiagNormal"),
        r"unknown posterior 'DiagNormal'; did you mean 'DiagonalNormal'\?",
    ),
    "option": (
        lambda: pv.models.VAE.build(
            Toy("counts"), likelihood={"class_path": "Binomial", "init_args": {"count": 3}}, hidden=[3]
        ),
        r"Binomial does not take these options: .*'count'",
    ),
    "not a likelihood": (
        lambda: pv.models.VAE.build(Toy(), likelihood="pyrovae.priors.StandardNormal"),
        r"'pyrovae.priors.StandardNormal' is no likelihood; its class must be a pyrovae.likelihoods.Likelihood",
    ),
    "sizes": (lambda: networks.MLP([0], [2]), r"MLP expects inputs as positive sizes, got \[0\]; give a list"),
    "sizes, none": (
        lambda: networks.MLP([2], []),
        r"MLP expects outputs as positive sizes, got \[\]; give scalars as \[1\]",
    ),
    "sizes, a number": (lambda: networks.MLP(3, [2]), r"MLP expects inputs as positive sizes, got 3; give a list"),
    "sizes, event": (lambda: networks.Standardise([]), r"Standardise expects event as positive sizes, got \[\]"),
    "hidden, a number": (
        lambda: pv.models.VAE.build(Toy(), hidden=5),
        r"MLP expects hidden as positive sizes, got 5; give a list of whole numbers",
    ),
    "hidden, none": (
        lambda: pv.models.VAE.build(Toy(), hidden=[0]),
        r"MLP expects hidden as positive sizes, got \[0\]; give a list of whole numbers",
    ),
    "hidden, conv": (
        lambda: pv.models.VAE.build(Toy(), hidden=[2.5], network="conv"),
        r"Conv expects channels as positive sizes, got \[2.5\]",
    ),
    "channels": (lambda: networks.TransposedConv([2], [1, 4, 4], 3), r"TransposedConv expects channels as .* got 3"),
    "latent, build": (
        lambda: pv.models.VAE.build(Toy(), latent=2.7),
        r"VAE.build expects latent of at least 1, got 2.7; give a whole number",
    ),
    "an object for a name": (
        lambda: pv.models.VAE.build(Toy(), prior=priors.StandardNormal(3)),
        r"VAE.build expects prior as a name or .*, got an object of class StandardNormal; VAE\(prior, .* takes objects",
    ),
    "no class path": (
        lambda: pv.models.VAE.build(Toy(), likelihood={"scale": 1}),
        r"VAE.build expects likelihood as a name or .*, got {'scale': 1}",
    ),
    "no data": (
        lambda: pv.models.VAE.build("digits"),
        r"VAE.build expects data as a Dataset or a tensor \[N, \*event\], got str; make one by pv.data.load",
    ),
    "scalars": (
        lambda: pv.models.VAE.build(torch.randn(9)),
        r"VAE.build expects events of at least one dimension, got scalars \[N\]; give x\[:, None\]",
    ),
    "minimum scale": (
        lambda: likelihoods.Normal(nn.Identity(), minimum_scale=-1),
        r"Normal expects minimum_scale of at least 0, got -1",
    ),
    "no image": (lambda: networks.Conv([20], [2]), r"Conv expects images \[C, H, W\], got events of shape \[20\]"),
    "no image, a sequence": (
        lambda: pv.models.VAE.build(Toy(event=[4, 3]), network="resnet"),
        r"ResNet expects images \[C, H, W\], got events of shape \[4, 3\]; use network='gru'",
    ),
    "no sequence": (
        lambda: pv.models.VAE.build(Toy(), network="gru"),
        r"GRU expects sequences \[T, D\], got events of shape \[1, 5, 4\]; use network='conv'",
    ),
    "no sequence, a vector": (
        lambda: pv.models.VAE.build(Toy(event=[7]), network="transformer"),
        r"Transformer expects sequences \[T, D\], got events of shape \[7\]; use network='mlp'",
    ),
    "no sequence out": (
        lambda: networks.TransformerDecoder([2], [20]),
        r"TransformerDecoder expects sequences \[T, D\], got events of shape \[20\]",
    ),
    "steps": (
        lambda: networks.GRUDecoder([2], [8, 3], steps=5),
        r"GRUDecoder expects outputs \[P · steps, D\] .*, got \[8, 3\] and steps=5; give the length of the data",
    ),
    "steps, none": (lambda: networks.GRUDecoder([2], [8, 3], steps=0), r"GRUDecoder expects steps as a whole number"),
    "blocks": (lambda: networks.ResNet([1, 5, 4], [2], blocks=0), r"ResNet expects blocks as a whole number .* got 0"),
    "widths of a transformer": (
        lambda: networks.Transformer([4, 3], [2], hidden=[8, 4]),
        r"Transformer expects one width for all of its blocks, got \[8, 4\]; give \[8, 8\]",
    ),
    "heads": (
        lambda: networks.Transformer([4, 3], [2], hidden=[6]),
        r"Transformer expects a width that its 4 heads divide, got 6; give hidden as multiples of 4",
    ),
    "no width": (lambda: networks.GRU([4, 3], [2], hidden=[]), r"GRU expects hidden as at least one width, got \[\]"),
    "activation of gates": (
        lambda: pv.models.VAE.build(Toy(), network="gated", activation="relu"),
        r"network 'gated' has gates and no activation, got 'relu'; leave activation out",
    ),
    "no image out": (lambda: networks.TransposedConv([2], [20]), r"TransposedConv expects images \[C, H, W\]"),
    "event": (
        lambda: networks.MLP([1, 5, 4], [2])(torch.zeros(3, 1, 4, 5)),
        r"MLP expects events of shape \[1, 5, 4\], got a tensor of shape \[3, 1, 4, 5\]",
    ),
    "describe": (
        lambda: describe(pv.models.VAE(priors.StandardNormal(2), nn.Identity(), nn.Identity())),
        r"model.likelihood is a Identity, which pyrovae cannot rebuild",
    ),
    "construct": (
        lambda: construct({"class_path": "pyrovae.networks.MLP", "init_args": {"inputs": [2], "outs": [2]}}),
        r"model: pyrovae.networks.MLP does not take these arguments",
    ),
    "construct, name": (
        lambda: construct({"class_path": "pyrovae.networks.MPL"}),
        r"'pyrovae.networks.MPL' is not a class; did you mean 'MLP'\?",
    ),
    "construct, module": (lambda: construct({"class_path": "nowhere.MLP"}), r"cannot import 'nowhere.MLP'"),
    "construct, no module": (
        lambda: construct({"class_path": "pathlib.Path", "init_args": {}}),
        r"model names 'pathlib.Path', which is not a torch module",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case):
    build, message = MESSAGES[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_event_shape_of_data():
    with pytest.raises(
        ValueError, match=r"MLP expects events of shape \[1, 5, 4\], got a tensor of shape \[4, 1, 4, 5\]"
    ):
        pv.densities(small_vae().double(), torch.zeros(4, 1, 4, 5, dtype=F64))


def test_the_bernoulli_s_density_takes_every_transform():
    """Second derivatives, and vmap over the logits, the data, or the gradients."""
    logits, x = torch.randn(4, 5, dtype=F64), (torch.rand(4, 5, dtype=F64) < 0.5).to(F64)

    def density(logits, x):
        return likelihoods.Bernoulli(nn.Identity()).distribution(logits, 1).log_prob(x)

    exact = x * logits - torch.nn.functional.softplus(logits)
    slope = torch.diag_embed((x - logits.sigmoid()).flatten()).unflatten(0, (4, 5)).unflatten(-1, (4, 5))
    for over in ((0, 0), (None, 0), (0, None)):
        rows = [t[0] if d is None else t for t, d in zip((logits, x), over, strict=True)]
        found = torch.func.vmap(density, in_dims=over)(*rows)
        torch.testing.assert_close(found, density(*torch.broadcast_tensors(*rows)))
    torch.testing.assert_close(density(logits, x), exact)
    torch.testing.assert_close(torch.func.jacrev(density)(logits, x), slope)
    again = torch.autograd.functional.jacobian(lambda t: density(t, x), logits, vectorize=True)
    torch.testing.assert_close(again, slope)
    torch.autograd.gradgradcheck(lambda t: density(t, x), logits.clone().requires_grad_())
