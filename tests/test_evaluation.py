"""Evidence, rate and distortion against exact answers; what a model makes; saving and loading."""

import json
import math
import resource

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
import yaml
from conftest import F64, Global

import pyrovae as pv
from pyrovae.evaluation import evidence
from pyrovae.training import RunFolder


class Exact(nn.Module):
    """z ~ 𝒩(0, 1), x_d ~ 𝒩(z, 1): everything known. `widen` spoils the guide's scale, `shift` its mean."""

    def __init__(self, widen=1.0, shift=0.0, features=3):
        super().__init__()
        self.widen, self.shift, self.features = widen, shift, features
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.rows = []

    def posterior(self, x):
        return x.sum(-1) / (self.features + 1), (self.features + 1) ** -0.5

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.anchor.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], self.features), 1.0).to_event(1), obs=x)

    def guide(self, x):
        self.rows.append(len(x))
        loc, scale = self.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[:, None] + self.shift, scale * self.widen).to_event(1))

    def log_evidence(self, x):
        eye = torch.eye(self.features, dtype=x.dtype)
        return dist.MultivariateNormal(torch.zeros(self.features, dtype=x.dtype), eye + 1).log_prob(x)


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(11, 3, dtype=torch.float64)


def test_an_exact_posterior_gives_the_evidence_with_one_particle_and_no_error(x):
    vae = Exact()
    ev = pv.evaluate(vae, x, particles=2)
    torch.testing.assert_close(ev.log_evidence, vae.log_evidence(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ev.elbo, vae.log_evidence(x), rtol=0, atol=1e-12)
    assert ev.standard_error.max() < 1e-6
    torch.testing.assert_close(ev.elbo, -(ev.rate + ev.distortion), rtol=0, atol=1e-12)


def test_the_standard_error_covers_the_truth(x):
    """A two-sided z-test at 5 σ on the mean of 11 estimates, and on each: fails one time in 10^5."""
    vae = Exact(widen=1.3, shift=0.3)
    ev = pv.evaluate(vae, x, particles=20_000)
    error = ev.log_evidence - vae.log_evidence(x)
    assert (error.abs() < 5 * ev.standard_error).all()
    assert abs(float(error.mean())) < 5 * ev.log_evidence_monte_carlo_error
    assert (error / ev.standard_error).std() == pytest.approx(1, abs=0.8)


def test_the_elbo_is_exact_minus_the_gap(x):
    """KL(q ‖ posterior) in closed form; 5 standard errors of 20,000 draws."""
    vae = Exact(widen=0.5, shift=0.2)
    ev = pv.evaluate(vae, x, particles=20_000)
    loc, scale = vae.posterior(x)
    q = torch.distributions.Normal(loc + 0.2, scale * 0.5)
    gap = torch.distributions.kl_divergence(q, torch.distributions.Normal(loc, scale))
    torch.testing.assert_close(ev.elbo, vae.log_evidence(x) - gap, rtol=0, atol=0.05)
    rate = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(loc), 1.0))
    torch.testing.assert_close(ev.rate, rate, rtol=0, atol=0.05)


@pytest.mark.parametrize("elements", [1, 7, 100, 10**6])
def test_chunks_change_neither_the_number_of_particles_nor_the_answer(x, monkeypatch, elements):
    monkeypatch.setattr(evidence, "_ELEMENTS", elements)
    vae, drawn = Exact(widen=1.2), []
    hook = evidence._sums
    monkeypatch.setattr(evidence, "_sums", lambda d: drawn.append(d.shape) or hook(d))
    ev = pv.evaluate(vae, x, particles=53)
    assert sum(k * b for k, b in drawn) == 53 * len(x)
    assert (ev.log_evidence - vae.log_evidence(x)).abs().max() < 0.5
    direct = torch.stack([torch.tensor(k * b) for k, b in drawn]).max()
    assert direct <= max(elements / 3, 1)


def test_memory_does_not_grow_with_the_particles():
    vae = pv.models.VAE(
        pv.priors.StandardNormal(4),
        pv.likelihoods.Bernoulli(pv.networks.MLP([4], [1, 28, 28], [20])),
        pv.posteriors.DiagonalNormal(pv.networks.MLP([1, 28, 28], [8], [20])),
    )
    x = torch.bernoulli(torch.full((20, 1, 28, 28), 0.5))
    pv.evaluate(vae, x, particles=500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pv.evaluate(vae, x, particles=10_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB; all at once is 600 MiB


def test_small_events_come_in_chunks_too(monkeypatch):
    """Of two numbers a datum it is the 400 hidden units of each particle that fill the memory."""
    monkeypatch.setattr(evidence, "_sums", lambda d, of=evidence._sums: rows.append(math.prod(d.shape)) or of(d))
    vae, rows = Exact(features=2), []
    pv.evaluate(vae, torch.randn(209, 2, dtype=torch.float64), particles=250)
    assert sum(rows) == 209 * 250
    assert max(rows) <= 2**14


def test_evaluation_leaves_mode_gradients_statistics_and_random_numbers_alone():
    vae = pv.models.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(pv.networks.TransposedConv([2], [1, 4, 4], [3], batch_norm=True)),
        pv.posteriors.DiagonalNormal(pv.networks.Conv([1, 4, 4], [4], [3], batch_norm=True)),
    ).train()
    vae.posterior.eval()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.bernoulli(torch.full((5, 1, 4, 4), 0.5))
    torch.set_rng_state(state)
    a, b = pv.evaluate(vae, x, particles=9), pv.evaluate(vae, x, particles=9)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.log_evidence, b.log_evidence)
    assert not torch.equal(a.log_evidence, pv.evaluate(vae, x, particles=9, seed=1).log_evidence)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert vae.training
    assert vae.likelihood.network.training
    assert not vae.posterior.training


def test_active_units_count_the_dimensions_that_vary_with_the_data(x):
    class Half(Exact):
        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., :1].expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)

        def guide(self, x):
            loc = torch.stack([self.posterior(x)[0], torch.zeros(len(x), dtype=x.dtype)], -1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    for particles in (1, 2, 50):  # not a matter of the draws' noise, which is 0.25 here
        ev = pv.evaluate(Half(), x, particles=particles)
        assert (ev.active_units, ev.latent_units) == (1, 2)


def test_figures_come_with_their_protocol(x):
    figures = pv.evaluate(Exact(), x, particles=7, seed=4).to_dict()
    assert figures["particles"] == 7
    assert figures["seed"] == 4
    assert figures["data"] == 11
    assert figures["log_evidence_standard_error"] > 0
    assert all(isinstance(v, int | float) for v in figures.values())


def test_an_undefined_error_is_nan_and_none_where_json_has_no_nan(x):
    one_datum, one_particle = pv.evaluate(Exact(), x[:1], particles=7), pv.evaluate(Exact(), x, particles=1)
    assert math.isnan(one_datum.log_evidence_mean_error)
    assert math.isnan(one_particle.log_evidence_monte_carlo_error)
    assert one_datum.to_dict()["log_evidence_standard_error"] is None
    assert one_particle.to_dict()["log_evidence_monte_carlo_error"] is None
    json.dumps([one_datum.to_dict(), one_particle.to_dict()], allow_nan=False)


def test_evaluate_refuses_nonsense(x):
    for particles in (0, 2.5):
        with pytest.raises(ValueError, match=f"whole number of at least 1, got particles={particles}"):
            pv.evaluate(Exact(), x, particles=particles)
    with pytest.raises(ValueError, match="NaN or infinite"):
        pv.evaluate(Exact(), x * math.nan, particles=3)


class Hierarchy(nn.Module):
    """Two latents, one of them discrete, and two observations."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1.0, -1.0, 2.0]]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)))
            z = pyro.sample("z", dist.Normal(2 * c[..., None], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * self.w, 0.1).to_event(1), obs=x)
            pyro.sample("sign", dist.Normal(c, 0.1), obs=x[..., 0] if x.dim() > 1 else x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.full((len(x),), 0.5)))
            pyro.sample("z", dist.Normal(x[:, :1] + c[..., None] * 0, 0.2).to_event(1))


def digits_vae():
    torch.manual_seed(0)
    return pv.models.VAE.build(pv.data.load("digits"), latent=2, hidden=[8])


def test_generation_unconditions_the_model_and_follows_its_distribution():
    """The mean of 4,000 draws against the model's own, 5 standard errors."""
    vae = Exact()
    made = pv.generate(vae, 4000)
    assert made.shape == (4000, 3)
    assert made.dtype == torch.float64
    covariance = made.T.cov()
    torch.testing.assert_close(covariance, torch.eye(3, dtype=made.dtype) + 1, rtol=0, atol=0.25)
    assert not torch.equal(made, torch.zeros_like(made))
    assert torch.equal(made, pv.generate(vae, 4000))
    assert not torch.equal(made, pv.generate(vae, 4000, seed=1))


def test_generated_values_are_in_the_likelihoods_support():
    vae = digits_vae()
    made = pv.generate(vae, 20)
    assert made.shape == (20, 1, 8, 8)
    assert torch.equal(made, made.round())
    mean = pv.generate(vae, 20, mean=True)
    assert not torch.equal(mean, mean.round())


def test_encode_gives_the_posterior_mean_and_reconstruct_the_likelihoods(x):
    vae = Exact()
    torch.testing.assert_close(pv.encode(vae, x)[:, 0], vae.posterior(x)[0])
    torch.testing.assert_close(pv.reconstruct(vae, x), vae.posterior(x)[0][:, None].expand(-1, 3))
    assert not torch.equal(pv.reconstruct(vae, x, mean=False), pv.reconstruct(vae, x))


def test_interpolation_starts_and_ends_at_the_reconstructions():
    vae, test = digits_vae(), pv.data.load("digits").test
    line = pv.interpolate(vae, test[0], test[1], steps=7)
    assert line.shape == (7, 1, 8, 8)
    torch.testing.assert_close(line[[0, -1]], pv.reconstruct(vae, test[:2]))
    z = pv.encode(vae, test[:2])
    torch.testing.assert_close(line[3], pv.decode(vae, z.mean(0, keepdim=True))[0])


def test_traversal_changes_one_dimension_at_a_time():
    vae, test = digits_vae(), pv.data.load("digits").test
    walk = pv.traverse(vae, test[0], steps=5, span=2.0)
    assert walk.shape == (2, 5, 1, 8, 8)
    z = pv.encode(vae, test[:1])
    z[0, 1] = -2.0
    torch.testing.assert_close(walk[1, 0], pv.decode(vae, z)[0])
    assert pv.traverse(vae, test[0], dims=[1]).shape[:2] == (1, 9)


def test_several_sites_come_by_name(x):
    vae = Hierarchy()
    made = pv.generate(vae, 6, like=x)
    assert {k: tuple(v.shape) for k, v in made.items()} == {"x": (6, 3), "sign": (6,)}
    codes = pv.encode(vae, x.float())
    assert set(codes) == {"c", "z"}
    assert set(codes["c"].unique().tolist()) <= {0.0, 1.0}  # a discrete site has no mean of its own kind
    torch.testing.assert_close(codes["z"], x[:, :1].float())
    with pytest.raises(ValueError, match=r"latents \['c', 'z'\]; give decode a dict"):
        pv.decode(vae, codes["z"], like=x)
    assert set(pv.reconstruct(vae, x.float())) == {"x", "sign"}
    with pytest.raises(ValueError, match="interpolate expects continuous latents, got the discrete 'c', which has no"):
        pv.interpolate(vae, x[0].float(), x[1].float())
    with pytest.raises(ValueError, match="traverse expects continuous latents, got the discrete 'c', which has no"):
        pv.traverse(vae, x[0].float(), site="c")


class Scalar(nn.Module):
    """θ of all data; z of one number a datum, with a discrete c beside it if that is asked for; x ~ 𝒩(z + θ, 1)."""

    def __init__(self, discrete=False):
        super().__init__()
        self.discrete = discrete

    def model(self, x):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            self.aside()
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + theta, 1.0), obs=x)

    def guide(self, x):
        pyro.sample("theta", dist.Delta(torch.tensor(0.5)))
        with pyro.plate("data", len(x)):
            self.aside()
            pyro.sample("z", dist.Normal(x, 1.0))

    def aside(self):
        if self.discrete:
            pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)))


def test_a_latent_of_one_number_is_walked_beside_others_that_stay():
    x = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(pv.traverse(Scalar(), x[0], steps=3, span=2.0), torch.tensor([[-1.5, 0.5, 2.5]]))
    assert pv.traverse(Scalar(discrete=True), x[0], site="z").shape == (1, 9)
    torch.testing.assert_close(pv.interpolate(Scalar(), x[0], x[1], steps=3), torch.tensor([1.5, 2.5, 3.5]))
    torch.testing.assert_close(pv.decode(Scalar(), {"z": x, "theta": torch.tensor(0.5)}), x + 0.5)


PLATED = 4


class Plated(nn.Module):
    """A latent in a plate of its own, left of the data: its rows are not its first dimension."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("parts", PLATED, dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.movedim(-2, -1), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("parts", PLATED, dim=-2):
            pyro.sample("z", dist.Normal(x.mT, 1.0))


def test_rows_need_not_be_the_first_dimension_of_a_latent():
    vae, x = Plated(), torch.randn(5, PLATED)
    torch.testing.assert_close(pv.reconstruct(vae, x), x)
    torch.testing.assert_close(pv.decode(vae, x.mT), x)
    torch.testing.assert_close(pv.interpolate(vae, x[0], x[1], steps=3)[1], x[:2].mean(0))
    walk = pv.traverse(vae, x[0], dims=[2], steps=2, span=1.0)
    torch.testing.assert_close(walk[0, 1], torch.where(torch.arange(PLATED) == 2, torch.ones(()), x[0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, x: pv.generate(vae, 0), "n of at least 1, got n=0"),
        (lambda vae, x: pv.interpolate(vae, x[0], x[1], steps=1), "at least 2 steps, got steps=1"),
        (lambda vae, x: pv.interpolate(vae, x[0], x[1][:2]), "two data of one shape"),
        (lambda vae, x: pv.traverse(vae, x[0], site="y"), "site as one of .*, got 'y'"),
        (lambda vae, x: pv.traverse(vae, x[0], dims=[7]), r"traverse expects dims from 0 to 0, got \[7\]; choose"),
        (lambda vae, x: pv.traverse(vae, x[0], dims=[]), r"traverse expects dims from 0 to 0, got \[\]"),
        (lambda vae, x: pv.traverse(vae, x[0], steps=0), "traverse expects at least 1 step, got steps=0"),
        (lambda vae, x: pv.generate(vae, 2.5), "n of at least 1, got n=2.5; give a whole number"),
        (lambda vae, x: pv.decode(vae, {"zz": x}), "decode expects latents of the model, got 'zz'; did you mean 'z'"),
        (lambda vae, x: pv.decode(vae, {}), r"at least one latent out of \['z'\], got \[\]; .* pv.generate"),
        (lambda vae, x: pv.decode(vae, x[0, :1]), r"latent 'z' of shape \[n, 1\], got \[1\]; give a row for each"),
        (lambda vae, x: pv.decode(vae, x[:, :2]), r"latent 'z' of shape \[n, 1\], got \[11, 2\]"),
        (lambda vae, x: pv.decode(vae, x[:0, :1]), r"latent 'z' of shape \[n, 1\], got \[0, 1\]"),
        (lambda vae, x: pv.decode(vae, x[:, :1].numpy()), "a tensor, or a dict of tensors .* got ndarray"),
        (
            lambda vae, x: pv.decode(Hierarchy(), {"z": x[:5, :1], "c": x[:3, 0]}, like=x),
            "as many rows of each latent, got {'z': 5, 'c': 3}",
        ),
    ],
)
def test_samples_refuse_nonsense(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(Exact(), x)


@pytest.mark.parametrize("call", [pv.evaluate, pv.encode, pv.reconstruct])
def test_what_is_no_tensor_of_data_is_refused_with_a_way_out(call):
    vae, data = digits_vae(), pv.data.load("digits")
    who = call.__name__
    with pytest.raises(ValueError, match=rf"{who} expects data as a tensor \[N, .* got ndarray; .* torch.as_tensor"):
        call(vae, data.test.numpy())
    with pytest.raises(ValueError, match=rf"{who} expects data as a tensor .* got Dataset; .*data.test"):
        call(vae, data)
    with pytest.raises(ValueError, match=rf"{who} expects data .* at least one value, got shape \[0, 1, 8, 8\]"):
        call(vae, data.test[:0])
    with pytest.raises(ValueError, match=r"expects data as a tensor \[\*event\], got ndarray"):
        pv.traverse(vae, data.test[0].numpy())
    with pytest.raises(ValueError, match=r"expects data as a tensor \[\*event\], got ndarray"):
        pv.interpolate(vae, data.test[0], data.test[1].numpy())


def test_a_saved_model_loads_into_an_equal_one(tmp_path):
    vae, test = digits_vae(), pv.data.load("digits").test
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert torch.equal(pv.encode(vae, test), pv.encode(loaded, test))
    assert not loaded.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "weights.safetensors"]


def test_a_part_swapped_after_construction_is_the_one_that_is_saved(tmp_path):
    vae = digits_vae()
    vae.prior = pv.priors.StandardNormal(2)
    vae.likelihood = pv.likelihoods.Normal(pv.networks.MLP([2], [1, 8, 8], [5]), scale=0.5)
    pv.save(vae, tmp_path)
    assert pv.load(tmp_path).likelihood.scale == 0.5


def test_a_model_made_of_unknown_parts_loads_into_one_that_is_given(tmp_path):
    def make():
        decoder, encoder = nn.Sequential(nn.Linear(2, 6)), nn.Linear(6, 4)
        return pv.models.VAE(
            pv.priors.StandardNormal(2), pv.likelihoods.Bernoulli(decoder), pv.posteriors.DiagonalNormal(encoder)
        )

    vae = make()
    pv.save(vae, tmp_path)
    with pytest.raises(ValueError, match=r"does not say how to rebuild .* pv.load\(folder, into=model\)"):
        pv.load(tmp_path)
    other = pv.load(tmp_path, into=make())
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), other.parameters(), strict=True))


def _another(folder):
    weights = RunFolder(folder).read_weights()
    RunFolder(folder).write_weights(weights | {"likelihood.network.body.1.weight": torch.zeros(3, 3)})


def _architecture(folder, value):
    RunFolder(folder).write_config(RunFolder(folder).read_config() | {"architecture": value})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "config.yaml").unlink(), "is not a run folder: there is no config.yaml"),
        (lambda f: (f / "weights.safetensors").unlink(), "is not a run folder: there is no weights.safetensors"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x" * 50), "weights.safetensors' is corrupt"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml' is not readable YAML"),
        (lambda f: (f / "config.yaml").write_text("hello"), "holds no settings"),
        (_another, r"of another architecture: likelihood.network.body.1.weight is \[8, 2\] in the model and \[3, 3\]"),
        (lambda f: _architecture(f, {"class_path": "os.system", "init_args": {}}), "'os.system' is not a class"),
        (lambda f: _architecture(f, {"class_path": "pathlib.Path"}), "which is not a torch module"),
        (lambda f: _architecture(f, {"class_path": "pyrovae.models.VEA"}), "did you mean 'VAE'"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, harm, message):
    pv.save(digits_vae(), tmp_path)
    harm(tmp_path)
    with pytest.raises(ValueError, match=message):
        pv.load(tmp_path)


def test_a_pickle_in_the_place_of_the_state_is_not_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (yaml.safe_load, ("[boom]",))

    (tmp_path / "state.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"state.pt' is corrupt .*; the run cannot be resumed"):
        RunFolder(tmp_path).read_state()


class Shifted(torch.nn.Module):
    """y is a label, x ~ 𝒩(m_y + 0.1 z, 0.1²): what is observed of a datum depends on another thing observed of it."""

    places = (0.0, 5.0, 9.0)

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3)), obs=x[:, 0].long())
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(torch.tensor(self.places)[y] + 0.1 * z, 0.1), obs=x[:, 1])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * x[:, 0], 1.0))


def test_what_is_made_of_a_labelled_datum_has_its_label():
    x = torch.tensor([[0.0, 0.0], [1.0, 5.0], [2.0, 9.0]])
    places = torch.tensor(Shifted.places)
    made = pv.reconstruct(Shifted(), x)
    torch.testing.assert_close(made["x"], places)
    assert len({tuple(pv.reconstruct(Shifted(), x, seed=seed)["y"].tolist()) for seed in range(9)}) > 1  # drawn
    torch.testing.assert_close(pv.interpolate(Shifted(), x[1], x[2], steps=4)["x"], torch.full((4,), 5.0))
    drawn = pv.generate(Shifted(), 500, like=x)
    assert ((drawn["x"] - places[drawn["y"]]).abs() < 1.0).all()  # its own label: drawn, not that of x
    mean = pv.generate(Shifted(), 6, mean=True, like=x)
    assert ((mean["x"] - places[mean["y"]]).abs() < 1.0).all()


def test_rows_that_a_model_reads_are_taken_in_turn():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + 100 * x[:, 0], 0.1), obs=x[:, 1])

    made = pv.generate(pv.Program(model, lambda x: None), 5, like=torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close((made / 100).round(), torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]))


def test_the_predictive_density_of_a_model_with_a_global_latent_is_exact():
    """q(θ) = 𝒩(0.3, 0.4²) and x | θ ~ 𝒩(θ, 2): E_q p(x | θ) = 𝒩(x; 0.3, 2 + 0.4²). Wrong once in a million."""
    vae = Global(100)
    x = torch.randn(6, dtype=F64)
    ev = pv.evaluate(vae, x, particles=40_000, seed=1)
    exact = dist.Normal(vae.loc, (2 + 0.4**2) ** 0.5).log_prob(x).detach()
    assert ev.global_latents == ("theta",)
    assert ((ev.log_evidence - exact).abs() < 5.2 * ev.standard_error + 1e-3).all()
    assert ev.latent_units == 1
    # data share every θ_k: over seeds their mean spreads more than that of independent errors, and no more than it says
    few = [pv.evaluate(vae, x + 3, particles=50, seed=seed) for seed in range(60)]
    spread = torch.tensor([e.log_evidence_mean for e in few]).std()
    assert spread > 1.3 * torch.tensor([e.standard_error.square().sum().sqrt() / 6 for e in few]).median()
    assert spread < 2 * torch.tensor([e.log_evidence_monte_carlo_error for e in few]).median()
