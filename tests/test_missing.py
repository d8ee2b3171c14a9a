"""Missing data: a NaN is "not observed" where that is said, and an error elsewhere."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import check_device, check_trace
from pieces import EVENT, F64, LIKELIHOODS, L, Toy, small_data, small_likelihood, small_network
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae import likelihoods, networks, posteriors, priors
from pyrovae.cli import main
from pyrovae.config import construct
from pyrovae.distributions.missing import WhereObserved
from pyrovae.networks import Chain, Standardise
from pyrovae.program import family

D, SIGMA = 5, 0.5


class ExactPosterior(nn.Module):
    """p(z | x_obs) of x | z ~ 𝒩(W z + b, σ²): the terms of what is missing leave the sums over d."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x):
        w, seen = self.linear.weight, (~x.isnan()).to(x.dtype)
        precision = torch.eye(L, dtype=x.dtype) + torch.einsum("dl,nd,dm->nlm", w, seen, w) / SIGMA**2
        residual = (x - self.linear.bias).nan_to_num() / SIGMA**2
        loc = torch.linalg.solve(precision, residual @ w)
        return dist.MultivariateNormal(loc, precision_matrix=precision)


def linear_vae():
    linear = nn.Linear(L, D)
    r = likelihoods.Missing(likelihoods.Normal(linear, scale=SIGMA))
    return pv.models.VAE(priors.StandardNormal(L), r, ExactPosterior(linear)).double()


def log_evidence(linear: nn.Linear, x):
    """log 𝒩(x_obs; b_obs, W_obs W_obsᵀ + σ² I) of one datum."""
    seen = ~x.isnan()
    w, b = linear.weight[seen], linear.bias[seen]
    if not len(b):
        return x.new_zeros(())
    return MultivariateNormal(b, w @ w.mT + SIGMA**2 * torch.eye(len(b), dtype=x.dtype)).log_prob(x[seen])


def small_missing_vae(name: str = "Normal learned", event=EVENT):
    encoder = Chain(Standardise(event, missing=True), small_network(event, [2 * L]))
    r = likelihoods.Missing(small_likelihood(name, event))
    return pv.models.VAE(priors.StandardNormal(L), r, posteriors.DiagonalNormal(encoder))


def with_gaps(x, share=0.3):
    return x.masked_fill(torch.rand_like(x) < share, torch.nan)


def test_evidence_of_what_is_observed():
    """With the exact p(z | x_obs) for a guide every weight is p(x_obs)."""
    vae, x = linear_vae(), torch.randn(4, D, dtype=F64)
    x[1, 2], x[2, :4], x[3] = torch.nan, torch.nan, torch.nan
    log_weight = pv.densities(vae, x, particles=6).log_weight
    exact = torch.stack([log_evidence(vae.likelihood.likelihood.network, row) for row in x])
    torch.testing.assert_close(log_weight, exact.expand(6, 4), rtol=0, atol=1e-10)
    assert exact[3] == 0
    ev = pv.evaluate(vae, x, particles=7)
    torch.testing.assert_close(torch.as_tensor(ev.log_evidence, dtype=F64), exact.detach(), rtol=0, atol=1e-10)


JOINT = ("Multinomial", "DiscretisedLogisticMixture")  # no products over elements


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_likelihood_is_refused(name):
    with pytest.raises(ValueError, match="expects a likelihood that is a product over elements"):
        likelihoods.Missing(small_likelihood(name))(torch.randn(4, L))


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name not in JOINT])
class TestLikelihoods:
    def test_none_missing_is_the_likelihood(self, name):
        r, z, x = small_likelihood(name).double(), torch.randn(3, 4, L, dtype=F64), small_data(name)
        p, q = r(z), likelihoods.Missing(r)(z)
        assert torch.equal(p.log_prob(x), q.log_prob(x))
        assert torch.equal(p.mean, q.mean)
        assert (q.batch_shape, q.event_shape, q.has_rsample) == (p.batch_shape, p.event_shape, p.has_rsample)
        assert family(q) == family(p)
        assert q.support.check(x).all()
        torch.manual_seed(0)
        a = p.sample((2,))
        torch.manual_seed(0)
        assert torch.equal(a, q.sample((2,)))
        assert torch.equal(q.expand([2, 3, 4]).log_prob(x)[1], p.log_prob(x))

    def test_a_missing_element_takes_its_term_away(self, name):
        r, z, x = small_likelihood(name).double(), torch.randn(3, 4, L, dtype=F64), small_data(name)
        terms = r(z).base_dist.log_prob(x)  # [3, 4, *event]
        gap = x.clone()
        gap[:, 0, 2, 1] = torch.nan
        q = likelihoods.Missing(r)(z)
        assert q.support.check(gap).all()
        expected = terms.sum((-3, -2, -1)) - terms[..., 0, 2, 1]
        torch.testing.assert_close(q.log_prob(gap), expected, rtol=1e-12, atol=1e-12)
        assert (q.log_prob(torch.full_like(x, torch.nan)) == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, F64])
    def test_gradients_are_those_of_the_other_terms(self, name, dtype):
        r, z = small_likelihood(name).to(dtype), torch.randn(3, 4, L, dtype=dtype, requires_grad=True)
        x, seen = small_data(name, dtype=dtype), (torch.rand(4, *EVENT) < 0.6)
        over = [z, *r.parameters()]
        found = torch.autograd.grad(likelihoods.Missing(r)(z).log_prob(x.masked_fill(~seen, torch.nan)).sum(), over)
        expected = torch.autograd.grad((r(z).base_dist.log_prob(x) * seen).sum(), over)
        for a, b in zip(found, expected, strict=True):
            assert torch.isfinite(a).all()
            torch.testing.assert_close(a, b)

    def test_step(self, name):
        vae = small_missing_vae(name).double()
        check_trace(vae, pv.objectives.ELBO(), with_gaps(small_data(name)))
        check_trace(vae, pv.objectives.IWAE(particles=3), with_gaps(small_data(name)))

    def test_device(self, name):
        check_device(
            lambda: small_missing_vae(name),
            lambda: pv.objectives.IWAE(particles=3),
            lambda dtype: small_data(name, dtype=dtype),
        )


def test_draws_carry_the_gradient_of_the_base():
    loc = torch.zeros(3, requires_grad=True)
    WhereObserved(dist.Normal(loc, 1.0)).rsample((2,)).sum().backward()
    assert torch.equal(loc.grad, torch.full((3,), 2.0))


class Full(nn.Module):
    def forward(self, z):
        return dist.MultivariateNormal(z, torch.eye(L, dtype=z.dtype))


class Row(nn.Module):
    def forward(self, z):
        return dist.OneHotCategorical(logits=z[..., None].expand(*z.shape, 3)).to_event(1)


@pytest.mark.parametrize("part", [Full, Row])
def test_what_is_no_product_is_refused(part):
    with pytest.raises(
        ValueError, match=r"Missing expects a likelihood that is a product over elements, got (Full|Row)"
    ):
        likelihoods.Missing(part())(torch.zeros(2, L))


def test_missing_is_no_likelihood_by_name():
    with pytest.raises(ValueError, match="Missing"):
        pv.models.VAE.build(Toy(), likelihood="Missing")


def test_nan_without_a_word_is_refused():
    vae, x = pv.models.VAE.build(Toy("real"), latent=L), torch.randn(4, *EVENT)
    x[0, 0, 0, 0] = torch.nan
    for call in (pv.densities, pv.encode, pv.reconstruct):
        with pytest.raises(ValueError, match=r"got 1 that .* say that NaN is missing: data.load\(..., missing=True\)"):
            call(vae, x)


def test_infinities_are_refused_always():
    vae, x = small_missing_vae(), torch.randn(4, *EVENT)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = torch.nan, torch.inf
    for call in (pv.densities, pv.encode):
        with pytest.raises(ValueError, match="expects finite numbers and NaN, got 1 that are infinite"):
            call(vae, x)


def test_a_site_that_does_not_take_nan_refuses_it():
    """One module that takes NaN does not speak for another site."""
    vae = small_missing_vae()
    vae.other, vae.likelihood = vae.likelihood, vae.likelihood.likelihood
    with pytest.raises(ValueError, match="site 'x' expects finite numbers"):
        pv.densities(vae, with_gaps(torch.randn(4, *EVENT)))


def test_an_encoder_that_does_not_take_nan_is_told():
    vae, x = small_missing_vae(), with_gaps(torch.randn(4, *EVENT))
    vae.posterior.network = vae.posterior.network.then
    for call in (pv.densities, pv.encode, pv.reconstruct):
        with pytest.raises(
            ValueError, match=r"the guide expects data without NaN, .*Standardise\(event, missing=True\)"
        ):
            call(vae, x)


def test_plain_functions():
    """What they have inside is met on the way: their sites say what they take."""
    vae, x = small_missing_vae(), with_gaps(torch.randn(4, *EVENT))

    def model(x):
        pyro.module("p", vae.likelihood)
        vae.model(x)

    def guide(x):
        pyro.module("q", vae.posterior)
        vae.guide(x)

    program = pv.Program(model, guide)
    for _ in range(2):
        assert torch.isfinite(pv.densities(program, x).log_weight).all()
    vae.likelihood = vae.likelihood.likelihood
    with pytest.raises(ValueError, match=r"site 'x' expects finite numbers, got .* or say that NaN is missing"):
        pv.densities(pv.Program(model, guide), x)


def test_values_outside_the_support_are_told_without_nan():
    x = torch.tensor([0.25, 0.75]).repeat(4, 10).view(4, *EVENT)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"likelihood Bernoulli expects values in \{0, 1\}, got values from 0.25 to 0.75"
    ):
        pv.densities(small_missing_vae("Bernoulli"), x)


class TestStandardise:
    def test_of_what_is_observed(self):
        x = 3 + 2 * torch.randn(2000, 3, dtype=F64)
        gaps = with_gaps(x)
        part = Standardise([3], missing=True).double().to_data(gaps, rescale=True)
        mean = torch.stack([c[~c.isnan()].mean() for c in gaps.T])
        torch.testing.assert_close(part.loc, mean)
        torch.testing.assert_close(part.scale, (gaps - mean)[~gaps.isnan()].square().mean().sqrt())
        y = part(gaps)
        assert (y[gaps.isnan()] == 0).all()
        assert torch.equal(y[~gaps.isnan()], ((gaps - mean) / part.scale)[~gaps.isnan()])

    def test_none_missing_is_as_without(self):
        x = torch.randn(20, 3)
        a, b = (Standardise([3], missing).to_data(x, rescale=True) for missing in (False, True))
        torch.testing.assert_close(a(x), b(x))
        assert list(a.state_dict()) == list(b.state_dict()) == ["loc", "scale"]

    def test_what_is_never_observed(self):
        x = torch.randn(20, 3)
        x[:, 1] = torch.nan
        y = Standardise([3], missing=True).to_data(x, rescale=True)(x)
        assert torch.isfinite(y).all()


class TestData:
    @pytest.mark.parametrize("values", ["binary", "unit", "real"])
    def test_values_are_told_by_what_is_observed(self, values):
        u = torch.rand(40, 6)
        x = with_gaps({"binary": (u < 0.5).float(), "unit": u, "real": 4 * u - 2}[values])
        data = pv.data.from_arrays(x, test=x[:10], validation_size=10, missing=True)
        assert (data.values, data.missing) == (values, True)
        for split in ("train", "validation", "test"):
            share = float(getattr(data, split).isnan().float().mean())
            assert data.protocol["missing"][split] == pytest.approx(share, abs=1e-6)
        json.dumps(data.protocol)
        assert data.test.isnan().sum() == x[:10].isnan().sum()

    def test_without_it_the_remedy_is_told(self):
        with pytest.raises(
            ValueError, match=r"1 NaN or infinite of 4.* or load with missing=True, where NaN means not"
        ):
            pv.data.from_arrays([[0.5, np.nan], [0.1, 0.2]])
        data = pv.data.from_arrays([[0.5, 0.3], [0.1, 0.2]])
        assert not data.missing
        assert "missing" not in data.protocol

    @pytest.mark.parametrize(
        ("x", "options", "words"),
        [
            ([[0.5, np.inf], [np.nan, 0.2]], {}, "expects finite numbers, got 1 infinite of 4"),
            ([[0.5, np.nan]], {"binarise": "static"}, "missing=True or binarise='static', got both"),
            ([[np.nan, np.nan]], {}, "expects numbers, got NaN alone"),
            ([[0.5, np.nan]], {"values": "binary"}, "non-integer numbers from 0.5 to 0.5"),
            ([[0.5, np.nan]], {"missing": "yes"}, "expects missing as True or False, got 'yes'"),
        ],
    )
    def test_refusals(self, x, options, words):
        with pytest.raises(ValueError, match=words):
            pv.data.from_arrays(x, **{"missing": True} | options)

    def test_from_a_file(self, tmp_path):
        x = with_gaps(torch.randn(50, 4)).numpy()
        np.save(tmp_path / "x.npy", x)
        data = pv.data.load(tmp_path / "x.npy", missing=True)
        assert set(data.protocol["missing"]) == set(data.protocol["sizes"])
        assert np.isnan(data.train.numpy()).sum() == np.isnan(x[: len(data.train)]).sum()

    @pytest.mark.parametrize("prior", ["StandardNormal", "VampPrior"])
    def test_build_wires_it(self, prior, tmp_path):
        data = pv.data.from_arrays(with_gaps(torch.rand(60, *EVENT)), missing=True)
        prior = prior if prior == "StandardNormal" else {"class_path": prior, "init_args": {"components": 3}}
        vae = pv.models.VAE.build(data, latent=L, hidden=[8], prior=prior)
        assert isinstance(vae.likelihood, likelihoods.Missing)
        assert isinstance(vae.likelihood.likelihood, likelihoods.ContinuousBernoulli)
        assert all(torch.isfinite(p).all() for p in vae.parameters())
        pv.fit(vae, data, epochs=2, batch_size=16, progress=False)
        x = data.validation
        assert torch.isfinite(pv.evaluate(vae, x, particles=5).log_evidence).all()
        assert torch.isfinite(pv.reconstruct(vae, x)).all()
        pv.save(vae, tmp_path / "m")
        again = pv.load(tmp_path / "m")
        assert isinstance(again.likelihood, likelihoods.Missing)
        torch.testing.assert_close(pv.encode(again, x), pv.encode(vae, x))

    def test_linear_gaussian_refuses_it(self):
        data = pv.data.from_arrays(with_gaps(torch.randn(30, 4)), missing=True)
        with pytest.raises(ValueError, match=r"LinearGaussian.build expects data that are observed throughout"):
            pv.models.LinearGaussian.build(data)


class Elsewhere(likelihoods.ContinuousBernoulli):
    """The same likelihood, with another value to stand where x is NaN."""

    inside = 0.5


def test_what_stands_in_the_place_of_nan_changes_nothing():
    x = with_gaps(torch.rand(32, *EVENT, dtype=F64))
    vae = small_missing_vae("ContinuousBernoulli").double()
    other = copy.deepcopy(vae)
    other.likelihood = likelihoods.Missing(Elsewhere(other.likelihood.likelihood.network))
    assert other.likelihood(torch.zeros(1, L, dtype=F64)).base_dist.inside == 0.5
    results = []
    for v in (vae, other):
        torch.manual_seed(0)
        e = pv.objectives.ELBO()(v, x)
        results.append((e.bound, *torch.autograd.grad(e.surrogate.mean(), list(v.parameters()))))
    for a, b in zip(*results, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Digits in [0, 1], a quarter of the pixels missing, in x.npz."""
    monkeypatch.chdir(tmp_path)
    x = with_gaps(pv.data.load("digits").train[:200] / 16, 0.25).numpy()
    np.savez("x.npz", train=x[:150], test=x[150:])
    return tmp_path


WORDS = ["train", "--data", "x.npz", "--latent", "2", "--hidden", "[16]", "--test_particles", "5", "--run_dir", "r"]


def test_the_command_line(folder, capsys):
    assert main([*WORDS, "--epochs", "1"]) == 2
    assert "or load with missing=True" in capsys.readouterr().err
    assert main([*WORDS, "--epochs", "2", "--missing", "true"]) == 0
    out, err = capsys.readouterr()
    assert "left out" not in out + err
    pictures = {"history", "samples", "reconstructions", "latent_map", "traversal", "interpolation"}
    assert {p.stem for p in (folder / "r" / "figures").iterdir()} == pictures
    assert json.loads((folder / "r" / "metrics.json").read_text())["test"]["protocol"]["missing"]["test"] > 0.2
    assert main(["evaluate", "r", "--particles", "7"]) == 0
    assert main(["generate", "r", "--n", "3"]) == 0
    assert np.isfinite(np.load("r/generated.npy")).all()
    assert main([*WORDS, "--epochs", "3", "--missing", "true", "--resume"]) == 0
    capsys.readouterr()
    assert main([*WORDS, "--epochs", "4", "--resume", "--missing", "false"]) == 2
    assert "the run to resume has missing True, got False" in capsys.readouterr().err


def test_pictures_refuse_what_diverged():
    vae, x = small_missing_vae("ContinuousBernoulli"), with_gaps(torch.rand(4, *EVENT))
    assert pv.plots.reconstructions(vae, x).axes
    nn.init.constant_(next(vae.likelihood.parameters()), torch.nan)
    with pytest.raises(ValueError, match="expects finite values"):
        pv.plots.reconstructions(vae, x)


def test_networks_of_before_are_unchanged():
    spec = {"class_path": "pyrovae.networks.Standardise", "init_args": {"event": [3]}}
    assert construct(spec).missing is False
    assert networks.Standardise([3]).to_data(torch.full((2, 3), torch.nan), rescale=False).loc.isnan().all()
