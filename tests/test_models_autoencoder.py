"""Autoencoders: their squared error, noise and penalty written out, and what a guide that is a point cannot report."""

from __future__ import annotations

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import F64, TIGHT, z_test
from pyro.distributions import constraints

import pyrovae as pv
from benchmarks.gallery.baselines import principal_components
from pyrovae.cli import main
from pyrovae.evaluation import fidelity
from pyrovae.models import Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder
from pyrovae.networks import MLP, GaussianNoise, Masking, Transposed
from pyrovae.objectives import ELBO


def linear(event: int = 5, latent: int = 2) -> Autoencoder:
    encoder, decoder = MLP([event], [latent], hidden=[]), MLP([latent], [event], hidden=[])
    return Autoencoder(encoder, pv.likelihoods.Normal(decoder, scale=math.sqrt(0.5))).double()


def maps(ae: nn.Module) -> tuple[torch.Tensor, ...]:
    """A, a of f(x) = A x + a and W, w of g(z) = W z + w."""
    f, g = (next(m for m in part.modules() if isinstance(m, nn.Linear)) for part in (ae.encoder, ae.likelihood))
    return f.weight, f.bias, g.weight, g.bias


# The squared error


def test_the_bound_is_the_squared_error_and_a_constant():
    ae, x = linear(), torch.randn(7, 5, dtype=F64)
    a, b, w, c = maps(ae)
    squared = (x - (x @ a.T + b) @ w.T - c).square().sum(1)
    bound = ELBO()(ae, x).bound
    torch.testing.assert_close(-bound, squared.detach() + 2.5 * math.log(math.pi), rtol=1e-6, atol=1e-6)  # σ in float32
    near = fidelity(ae, x)
    torch.testing.assert_close(near.squared_error, squared.detach(), **TIGHT)
    torch.testing.assert_close(near.distortion, -bound, **TIGHT)
    assert near.points == ("z",)
    assert near.per_dimension == pytest.approx(squared.mean().item() / 5)


def test_a_linear_autoencoder_finds_the_principal_subspace():
    x = torch.randn(60, 5, dtype=F64) @ torch.randn(5, 5, dtype=F64) + 3
    ae = linear()
    optimiser = torch.optim.LBFGS(ae.parameters(), max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -ELBO()(ae, x).surrogate.mean()
        value.backward()
        return value

    optimiser.step(loss)
    error = float(fidelity(ae, x).squared_error.mean())
    assert error == pytest.approx(principal_components(x, x, 2), rel=1e-6)
    axes = torch.linalg.svd(x - x.mean(0)).Vh[:2]
    decoder = maps(ae)[2].detach()
    outside = decoder - axes.T @ (axes @ decoder)
    assert outside.norm() < 1e-3 * decoder.norm()


def test_principal_components_are_what_they_are_called():
    """Rows of a rank-2 set are given back by two components, and by one but for the second singular value."""
    u, _ = torch.linalg.qr(torch.randn(20, 2, dtype=F64) - 0)
    u = torch.linalg.qr(u - u.mean(0))[0]
    x = u * torch.tensor([5.0, 2.0], dtype=F64) @ torch.linalg.qr(torch.randn(6, 2, dtype=F64))[0].T + 1
    assert principal_components(x, x, 2) == pytest.approx(0, abs=1e-12)
    assert principal_components(x, x, 1) == pytest.approx(4 / 20)


def test_the_squared_error_of_any_model_is_that_of_its_reconstruction():
    x = torch.bernoulli(torch.full((6, 8), 0.5))
    vae = pv.models.VAE.build(x, latent=2, hidden=[4])
    expected = (x - pv.reconstruct(vae, x)).square().sum(1)
    torch.testing.assert_close(fidelity(vae, x).squared_error, expected)
    assert fidelity(vae, x).points == ()
    torch.testing.assert_close(pv.encode(vae.train(), x), vae.posterior(x).mean)


def test_what_is_not_observed_is_no_part_of_the_squared_error():
    x = torch.randn(6, 4)
    data = pv.data.from_arrays(torch.where(torch.rand(6, 4) < 0.3, torch.nan, x), validation_size=0, missing=True)
    ae = Autoencoder.build(data, latent=2, hidden=[4])
    made, there = pv.reconstruct(ae, data.train), ~data.train.isnan()
    expected = torch.where(there, data.train - made, 0).square().sum(1)
    near = fidelity(ae, data.train)
    torch.testing.assert_close(near.squared_error, expected)
    assert near.per_dimension == pytest.approx(float(expected.sum() / there.sum()))


def test_a_label_has_no_squared_error():
    class Labels(pv.models.VAE):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", self.prior())
                pyro.sample("y", dist.Categorical(logits=z), obs=(x[:, 0] > 0).long())

    vae = pv.models.VAE.build(torch.randn(5, 3), latent=2)
    labels = Labels(vae.prior, vae.likelihood, vae.posterior)
    with pytest.raises(
        ValueError, match="fidelity expects an observed site with a mean, got none: there is no squared"
    ):
        fidelity(labels, torch.randn(5, 3))


# Noise


def test_noise_is_drawn_in_training_alone():
    x = torch.ones(1000, 3)
    for noise in (GaussianNoise(0.5), Masking(0.25)):
        assert not torch.equal(noise(x), noise(x))
        assert torch.equal(noise.eval()(x), x)
    assert set(Masking(0.25)(x).unique().tolist()) == {0.0, 1.0}
    z_test((Masking(0.25)(x.double()) == 0).double(), torch.full((3,), 0.25, dtype=F64))
    z_test(GaussianNoise(0.5)(x.double()).sub(1).square(), torch.full((3,), 0.25, dtype=F64))


def test_the_expected_error_of_a_linear_denoiser():
    """E‖x − W(A(x + ε) + a) − w‖² = ‖x − W(A x + a) − w‖² + s² ‖W A‖²."""
    plain, x = linear(), torch.randn(4, 5, dtype=F64)
    ae = DenoisingAutoencoder(plain.encoder, plain.likelihood, GaussianNoise(0.7))
    w_a = maps(ae)[2] @ maps(ae)[0]
    expected = fidelity(plain, x).squared_error + 0.49 * w_a.square().sum()
    with torch.no_grad():
        draws = -ELBO()(ae, x.repeat(20_000, 1)).bound.unflatten(0, (-1, 4)) - 2.5 * math.log(math.pi)
    z_test(draws, expected.detach() + 0 * draws[0], failure_rate=1e-6)
    torch.testing.assert_close(fidelity(ae, x).squared_error, fidelity(plain, x).squared_error)


def test_noise_is_refused_where_the_guide_runs_twice():
    ae = DenoisingAutoencoder.build(torch.randn(9, 4), latent=2, hidden=[3])
    with pytest.raises(ValueError, match=r"and dropout or noise \('corruption'\) would make it another one"):
        pv.objectives.BetaTCVAE()(ae, torch.randn(9, 4))


# The penalty


def one_layer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """f(x) = tanh(A x + a), and ‖∂f/∂x‖² = Σ_l (1 − f_l²)² ‖A_l‖² at some x."""
    encoder = MLP([2, 3], [4], hidden=[]).double()
    f = nn.Sequential(encoder, nn.Tanh())
    x = torch.randn(6, 2, 3, dtype=F64)
    layer = next(m for m in encoder.modules() if isinstance(m, nn.Linear))
    slopes = (1 - f(x).square()).square() @ layer.weight.square().sum(1)
    return f, x, slopes


def contractive(f: nn.Module, **options) -> ContractiveAutoencoder:
    likelihood = pv.likelihoods.Normal(MLP([4], [2, 3], hidden=[]), scale=1.0).double()
    return ContractiveAutoencoder(f, likelihood, penalty=0.3, **options)


def test_the_penalty_of_one_layer():
    f, x, slopes = one_layer()
    torch.testing.assert_close(contractive(f).contraction(x), slopes, **TIGHT)


def test_probes_estimate_the_penalty_without_bias():
    f, x, slopes = one_layer()
    ae = contractive(f, probes=2)
    with torch.no_grad():
        draws = torch.stack([ae.contraction(x) for _ in range(2000)])
    z_test(draws, slopes.detach())


def test_the_penalty_lowers_the_bound_in_training_alone():
    f, x, slopes = one_layer()
    ae = contractive(f)
    with_penalty, without = ELBO()(ae.train(), x).bound, ELBO()(ae.eval(), x).bound
    torch.testing.assert_close(without - with_penalty, 0.3 * slopes.detach(), **TIGHT)
    surrogate = ELBO()(ae.train(), x).surrogate.mean() - ELBO()(ae.eval(), x).surrogate.mean()
    layer = f[0].body[1]
    got, expected = (torch.autograd.grad(t, layer.weight)[0] for t in (surrogate, -0.3 * slopes.mean()))
    torch.testing.assert_close(got, expected, **TIGHT)


def test_tied_weights_are_the_encoders():
    data = torch.randn(9, 4)
    ae = ContractiveAutoencoder.build(data, latent=2, hidden=[5, 3])
    first, second, third = (m for m in ae.encoder.modules() if isinstance(m, nn.Linear))
    c = [b for n, b in ae.named_parameters() if "biases" in n]
    z = torch.randn(7, 2)
    h = torch.tanh(z @ third.weight + c[0])
    h = torch.tanh(h @ second.weight + c[1]) @ first.weight + c[2]
    expected = data.mean(0) + (data - data.mean(0)).square().mean().sqrt() * h
    torch.testing.assert_close(pv.decode(ae, z), expected)
    assert not [n for n, _ in ae.named_parameters() if "likelihood" in n and "biases" not in n]
    other = MLP([4], [2], hidden=[6])
    with pytest.raises(
        ValueError, match=r"encoder of linear layers with widths \[4, 5, 2\], got \[4, 6, 2\]; build both"
    ):
        pv.reconstruct(Autoencoder(other, pv.likelihoods.Normal(Transposed([2], [4], [5]))), data)


def test_contraction_contracts():
    data = pv.data.load("digits")
    found = {}
    for penalty in (1e-6, 10.0):
        torch.manual_seed(0)
        ae = ContractiveAutoencoder.build(data, latent=5, hidden=[30], penalty=penalty)
        pv.fit(ae, data, epochs=10, learning_rate=3e-3, progress=False)
        found[penalty] = ae.contraction(data.test).mean().item()
    assert found[10.0] < 0.5 * found[1e-6]


def test_the_penalty_is_in_units_of_the_data():
    x = torch.randn(50, 4)
    penalties = [ContractiveAutoencoder.build(c * x, latent=2, penalty=0.1).penalty for c in (1.0, 10.0)]
    assert penalties[1] == pytest.approx(1e4 * penalties[0], rel=1e-4)
    noise = [DenoisingAutoencoder.build(c * x, latent=2, noise=0.5).corruption.scale for c in (1.0, 10.0)]
    assert noise[1] == pytest.approx(10 * noise[0], rel=1e-4)


# What a guide that is a point can report, and what not


@pytest.fixture
def ae():
    torch.manual_seed(0)
    return Autoencoder.build(torch.rand(40, 1, 4, 4), latent=3, hidden=[6])


def test_what_needs_no_density_is_there(ae):
    x = torch.rand(20, 1, 4, 4)
    torch.testing.assert_close(pv.encode(ae, x), ae.encoder(x))
    torch.testing.assert_close(pv.decode(ae, pv.encode(ae, x)), pv.reconstruct(ae, x))
    torch.testing.assert_close(pv.interpolate(ae, x[0], x[1], steps=3)[0], pv.reconstruct(ae, x)[0])
    ends = torch.stack([pv.encode(ae, x[:1])[0]] * 2, 1)
    torch.testing.assert_close(
        pv.traverse(ae, x[0], steps=2, span=ends)[:, 1], pv.reconstruct(ae, x[:1]).expand(3, 1, 4, 4)
    )
    with pytest.raises(ValueError, match=r"as the ends of 3 walks, \[3, 2\], got shape \[2, 3\]; give two ends"):
        pv.traverse(ae, x[0], span=ends.T)
    assert pv.check(ae, x) == []
    told = str(pv.describe(ae, x))
    assert "p(x, z) = p(z) p(x | z)" in told
    assert f"{sum(p.numel() for p in ae.encoder.parameters()):,} parameters" in told  # the point is f's
    for figure in (pv.plots.latent_map, pv.plots.reconstructions, pv.plots.traversal):
        assert figure(ae, x).axes
    assert pv.plots.graph(ae, x).axes


POINT = "expects a guide with a density .*, and its site 'z' is a point .* no ELBO, rate, importance weight or log evid"
DRAWN = "the prior of site 'z' is improper .*, which nothing can be drawn from; decode values of your own"


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda ae, x: pv.evaluate(ae, x, 10), "evaluate " + POINT + ".*pv.evaluation.fidelity"),
        (lambda ae, x: pv.anneal(ae, x, 2, 2), "anneal " + POINT + ".*pv.evaluation.fidelity"),
        (lambda ae, x: pv.pareto_k(ae, x, 100), "pareto_k " + POINT),
        (lambda ae, x: pv.lab.compare(ae, x, [ELBO()], draws=2), "compare " + POINT),
        (lambda ae, x: pv.to_datatree(ae, x, draws=2), "to_datatree " + POINT),
        (lambda ae, x: pv.generate(ae, 3), DRAWN),
        (lambda ae, x: pv.plots.samples(ae, 3), DRAWN),
    ],
)
def test_what_needs_a_density_or_draws_says_so(ae, ask, answer):
    with pytest.raises(ValueError, match=answer):
        ask(ae, torch.rand(6, 1, 4, 4))


def test_it_is_the_program_that_is_asked_not_its_class():
    """A proper prior can be drawn from, and a point under it has no evidence; a point on both sides is no latent."""

    class Point(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(x / 2))

    x = torch.randn(5)
    assert pv.generate(Point(), 4).shape == (4,)
    torch.testing.assert_close(fidelity(Point(), x).squared_error, (x / 2).square())
    with pytest.raises(ValueError, match="evaluate " + POINT):
        pv.evaluate(Point(), x, 10)

    class Both(Point):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Delta(torch.zeros(())))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(torch.zeros(())))

    torch.testing.assert_close(pv.evaluate(Both(), x, 10).log_evidence, dist.Normal(0.0, 1.0).log_prob(x))


def test_a_factor_of_the_model_is_no_datum():
    class Weighed(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.factor("preference", -z.square())
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.randn(5)
    assert pv.generate(Weighed(), 3).shape == (3,)
    torch.testing.assert_close(pv.reconstruct(Weighed(), x), x / 2)
    torch.testing.assert_close(fidelity(Weighed(), x).squared_error, (x / 2).square())


def test_an_improper_positive_latent_is_described():
    class Scales(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x)):
                scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
                pyro.sample("x", dist.Normal(0.0, scale), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("scale", dist.LogNormal(x.abs().log(), 1.0))

    told = str(pv.describe(Scales(), torch.randn(6)))
    assert "p(x, scale) = p(scale) p(x | scale)" in told
    assert pv.evaluate(Scales(), torch.randn(6), 20).log_evidence.isfinite().all()  # improper, and still a weight


# The command line


def test_a_run_ends_with_what_can_be_told(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "Autoencoder", "--data", "digits", "--latent", "3", "--epochs", "1", "--run_dir", str(run)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "no log evidence, ELBO or rate: the guide of Autoencoder has a point for 'z', no density q(z | x)" in out
    assert "squared error" in out
    assert "distortion" in out
    assert "log evidence   " not in out
    assert "figure samples left out: data are drawn from z ~ p(z), and the prior of site 'z' is improper" in err
    assert err.count("left out") == 1
    pictures = {p.stem for p in (run / "figures").iterdir()}
    assert pictures == {"history", "reconstructions", "latent_map", "traversal", "interpolation"}
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    ae, data = pv.load(run), pv.data.load("digits")
    near = fidelity(ae, data.test)
    assert metrics["squared_error"] == pytest.approx(float(near.squared_error.mean()))
    assert "log_evidence" not in metrics
    assert "a point for 'z'" in metrics["remark"]

    assert main(["evaluate", str(run), "--split", "validation"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"test", "training", "validation"}
    assert "squared error" in capsys.readouterr().out
    for command in (["generate", str(run)], ["compare", str(run), "--draws", "2"]):
        assert main(command) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_vae_tells_its_squared_error_too(tmp_path):
    run = str(tmp_path / "run")
    assert main(["train", "--data", "digits", "--epochs", "1", "--test_particles", "2", "--run_dir", run]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    vae, data = pv.load(run), pv.data.load("digits")
    expected = (data.test - pv.reconstruct(vae, data.test)).square().flatten(1).sum(1)
    assert metrics["squared_error"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert np.isfinite(metrics["log_evidence"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Autoencoder(nn.Linear(3, 2), nn.Linear(2, 3)), "one number of latent .* got none; build both of"),
        (
            lambda: Autoencoder(MLP([3], [2]), pv.likelihoods.Normal(MLP([4], [3]))),
            r"Autoencoder expects one number of latent dimensions from encoder and likelihood, got \[2, 4\]",
        ),
        (lambda: GaussianNoise(0.0), "GaussianNoise expects scale as a finite number above 0, got 0.0"),
        (lambda: Masking(1.0), r"Masking expects rate in \(0, 1\), got 1.0; give the share"),
        (lambda: DenoisingAutoencoder.build(torch.randn(5, 3), corruption="salt"), "unknown corruption 'salt'; "),
        (lambda: ContractiveAutoencoder.build(torch.randn(5, 3), penalty=-1.0), "penalty as a finite number above 0"),
        (lambda: ContractiveAutoencoder.build(torch.randn(5, 3), probes=0), "probes as a whole number of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
