"""Log densities of a program: identities, layouts, plates, masks, global latents, and what is refused."""

from __future__ import annotations

import types

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import EXACT, F64, FREE, TIGHT, Global, LinearGaussian
from pieces import EVENT, LIKELIHOODS, PAIRS, small_data, small_vae
from pyro import poutine

import pyrovae as pv
from pyrovae.program import Values

NORMAL = dist.Normal


def program(model, guide):
    """A program from two functions, without anything around them."""
    return types.SimpleNamespace(model=model, guide=guide)


def given(vae, values):
    """The same program with these latents."""
    return program(vae.model, Values(values)(vae.guide))


def alone(site, k, particles, batch):
    """The value of particle k, whichever way the program was run."""
    v = site.value
    data = v.dim() - len(site.distribution.event_shape) + site.data_dim
    folded = particles > 1 and v.shape[data] == particles * batch
    return v.unflatten(data, (particles, batch)).select(data, k) if folded else v[k]


def looped(vae, x, d, particles):
    """log weights [K, B] of the latents of d, one particle at a time."""
    rows = []
    for k in range(particles):
        values = {n: alone(s, k, particles, len(x)) for n, s in d.posterior.items()}
        rows.append(pv.densities(given(vae, values), x).log_weight)
    return torch.cat(rows)


def normal(x, scale):
    """log 𝒩(x; 0, scale²)."""
    return NORMAL(x.new_zeros(()), scale).log_prob(x)


# Identities


@pytest.mark.parametrize("particles", [1, 2, 7])
@pytest.mark.parametrize("name", EXACT)
def test_exact_posterior_gives_the_evidence(name, particles):
    """log w = log p(x) for every particle."""
    vae = EXACT[name]()
    x = vae.data(5)
    d = pv.densities(vae, x, particles)
    torch.testing.assert_close(d.log_weight, vae.log_evidence(x).expand(particles, 5), **TIGHT)
    assert d.log_weight.shape == (particles, 5)
    assert d.log_posterior.unique().numel() == 5 * particles  # every particle is another draw


@pytest.mark.parametrize("name", FREE)
def test_weight_is_the_sum_of_its_parts(name):
    vae = FREE[name]()
    x = vae.data(5)
    d = pv.densities(vae, x, 3)
    by_hand = sum(s.distribution.log_prob(s.value) for s in d.prior.values())
    by_hand = by_hand + sum(s.distribution.log_prob(s.value) for s in d.likelihood.values())
    by_hand = by_hand - sum(s.distribution.log_prob(s.value) for s in d.posterior.values())
    torch.testing.assert_close(d.log_weight, by_hand, **TIGHT)
    torch.testing.assert_close(d.log_weight, d.log_prior + d.log_likelihood - d.log_posterior, **TIGHT)
    assert set(d.prior) == set(d.posterior)
    assert set(d.likelihood) == {"x"}


@pytest.mark.parametrize("name", FREE)
def test_particles_are_separate_evaluations(name):
    vae = FREE[name]()
    x = vae.data(5)
    d = pv.densities(vae, x, 4)
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 4), **TIGHT)


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_particles_of_a_vae(name, network):
    vae, x = small_vae(name, network).double(), small_data(name, 5, network=network)
    d = pv.densities(vae, x, 3)
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 3), **TIGHT)
    z = d.posterior["z"].value
    torch.testing.assert_close(d.log_likelihood, vae.likelihood(z).log_prob(x), **TIGHT)
    torch.testing.assert_close(d.log_prior, vae.prior().log_prob(z), **TIGHT)
    torch.testing.assert_close(d.log_posterior, vae.posterior(x).log_prob(z), **TIGHT)


def test_two_observations():
    """log p(x, y) of two observed sites is the log evidence of both together."""
    vae = LinearGaussian()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL(x.new_zeros(2), 1.0).to_event(1))
            loc, scale = z @ vae.w.T + vae.b, vae.log_sigma.exp()
            pyro.sample("x", NORMAL(loc[..., :1], scale).to_event(1), obs=x[:, :1])
            pyro.sample("y", NORMAL(loc[..., 1:], scale).to_event(1), obs=x[:, 1:])

    x = vae.data(5)
    d = pv.densities(program(model, vae.guide), x, 3)
    torch.testing.assert_close(d.log_weight, vae.log_evidence(x).expand(3, 5), **TIGHT)


def test_unscaled_under_a_minibatch():
    """The scale N / B of a subsampled data plate does not reach the densities."""
    x = LinearGaussian().data(5)
    for particles in (1, 3):
        d = pv.densities(LinearGaussian(size=50), x, particles)
        torch.testing.assert_close(d.log_weight, LinearGaussian().log_evidence(x).expand(particles, 5), **TIGHT)
        assert d.data_size == 50


def test_validation_off_changes_nothing():
    vae = LinearGaussian()
    x = vae.data(5)
    with pyro.validation_enabled(False):
        d = pv.densities(vae, x, 3)
    torch.testing.assert_close(d.log_weight, vae.log_evidence(x).expand(3, 5), **TIGHT)


def test_one_row_and_one_particle():
    vae = LinearGaussian()
    x = vae.data(1)
    for particles in (1, 3):
        d = pv.densities(vae, x, particles)
        torch.testing.assert_close(d.log_weight, vae.log_evidence(x).expand(particles, 1), **TIGHT)


def test_densities_are_lazy():
    d = pv.densities(LinearGaussian(), LinearGaussian().data(2))
    assert "log_prior" not in vars(d)
    assert "log_prob" not in vars(d.prior["z"])


# How often things run


def counted(vae):
    """Counts the runs of a module's model, guide, encoder (and its rows) and decoder."""
    counts = types.SimpleNamespace(model=0, guide=0, rows=[], decoder=0)
    model, guide = vae.model, vae.guide

    def count(name, function):
        def run(x):
            setattr(counts, name, getattr(counts, name) + 1)
            return function(x)

        return run

    vae.model, vae.guide = count("model", model), count("guide", guide)
    vae.posterior.network.register_forward_hook(lambda m, i, o: counts.rows.append(tuple(i[0].shape[:-3])))
    vae.likelihood.register_forward_hook(lambda m, i, o: setattr(counts, "decoder", counts.decoder + 1))
    return counts


@pytest.mark.parametrize("particles", [1, 5])
def test_everything_runs_once(particles):
    vae, x = small_vae("Bernoulli", "conv").double(), small_data(n=7)
    counts = counted(vae)
    pv.densities(vae, x, particles)
    assert counts.model == 1 or particles > 1  # one particle is not looked at beforehand
    for n in (1, 2):
        counts.model = counts.guide = counts.decoder = 0
        counts.rows.clear()
        pv.densities(vae, x[:-n], particles)
        assert (counts.model, counts.guide, counts.decoder) == (1, 1, 1)
        assert counts.rows == [(7 - n,)]  # the encoder sees B rows, not K·B


def test_first_look_leaves_no_trace():
    """Random numbers, batch-norm statistics and training flags stand as if it had not happened."""
    vae, x = small_vae(network="conv").double(), small_data()
    vae.likelihood.network.body.append(nn.BatchNorm2d(1).double().eval())
    vae.posterior.network.body.append(nn.BatchNorm1d(4).double())
    flags = [m.training for m in vae.modules()]
    state = {k: v.clone() for k, v in vae.state_dict().items()}
    rng = torch.get_rng_state()
    pv.program.run._layout(vae, x)
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in vae.modules()] == flags
    assert all(torch.equal(v, state[k]) for k, v in vae.state_dict().items())
    torch.manual_seed(5)
    first = pv.densities(vae, x, 3).log_posterior
    torch.manual_seed(5)
    torch.testing.assert_close(pv.densities(vae, x, 3).log_posterior, first)


def test_running_statistics_move_once():
    vae, x = small_vae().double(), small_data()
    vae.posterior.network.body.append(norm := nn.BatchNorm1d(4).double())
    for calls in (1, 2):
        pv.densities(vae, x, 5)
        assert norm.num_batches_tracked == calls


# Networks that were written for [N, ...] alone


class Rows(nn.Module):
    """A VAE, or one of two latents, whose networks are called as they are, with particles or without."""

    def __init__(self, decoder, encoder, second=None, size=None):
        super().__init__()
        self.decoder, self.encoder, self.second, self.size = decoder, encoder, second, size

    def plate(self, x):
        return pyro.plate("data", self.size or len(x), subsample_size=len(x) if self.size else None)

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", NORMAL(x.new_zeros(L), 1.0).to_event(1))
            if self.second is not None:
                pyro.sample("u", NORMAL(z, 1.0).to_event(1))
            logits = self.decoder(z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)

    def guide(self, x):
        with self.plate(x):
            z = pyro.sample("z", NORMAL(self.encoder(x), 0.7).to_event(1))
            if self.second is not None:
                pyro.sample("u", NORMAL(self.second(z), 0.6).to_event(1))


L = 3


class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def encoder():
    return nn.Sequential(nn.Flatten(1), nn.Linear(20, L))


# name: a network from [N, L] to [N, n], which may take [K, N, L] for something else
RAW = {
    "flatten": lambda n: nn.Sequential(nn.Flatten(1), nn.Linear(L, n)),
    "conv": lambda n: nn.Sequential(
        nn.Unflatten(1, (1, L)), nn.ConvTranspose1d(1, 2, 3), nn.Flatten(1), nn.Linear(2 * L + 4, n)
    ),
    "batch norm": lambda n: nn.Sequential(nn.Linear(L, 5), nn.BatchNorm1d(5), nn.Linear(5, n)),
    "batch norm of B": lambda n: nn.Sequential(nn.Linear(L, 4), nn.BatchNorm1d(4), nn.Linear(4, n)),
    "batch norm of 3": lambda n: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(L, n)),
    "batch norm of 2": lambda n: nn.Sequential(nn.Linear(L, 2), nn.BatchNorm1d(2), nn.Linear(2, n)),
    "softmax": lambda n: nn.Sequential(nn.Linear(L, 4), nn.Softmax(dim=1), nn.Linear(4, n)),
    "index": lambda n: nn.Sequential(Lambda(lambda z: z[:, :1] * z), nn.Linear(L, n)),
    "view": lambda n: nn.Sequential(Lambda(lambda z: z.view(len(z), -1)), nn.Linear(L, n)),
    "linear": lambda n: nn.Linear(L, n),  # takes particles as it is
}


def settle(vae):
    """Batch-norm statistics that differ by channel, in evaluation mode: rows are then independent."""
    for m in vae.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
    return vae.eval()


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", RAW)
class TestRowNetworks:
    """K particles equal a loop over single ones, whatever the network makes of five dimensions."""

    def check(self, vae, batch, look_first):
        x = small_data(n=batch, event=[20])
        if look_first:  # before the statistics say anything
            pv.densities(vae.eval(), x, 2)
        settle(vae)
        d = pv.densities(vae, x, 4)
        torch.testing.assert_close(d.log_weight, looped(vae, x, d, 4), **TIGHT)

    def test_decoder(self, name, batch, look_first):
        self.check(Rows(RAW[name](20), encoder()).double(), batch, look_first)

    def test_guide(self, name, batch, look_first):
        self.check(Rows(nn.Linear(L, 20), encoder(), RAW[name](L)).double(), batch, look_first)

    def test_both(self, name, batch, look_first):
        self.check(Rows(RAW[name](20), encoder(), RAW[name](L)).double(), batch, look_first)


def layout(vae, x):
    pv.densities(vae, x, 2)
    return pv.program.run._memory[vae][1]["layout"]


def test_only_what_must_be_is_folded():
    x = small_data(n=4, event=[20])
    found = layout(Rows(RAW["softmax"](20), encoder()).double(), x)
    assert (found.fold_guide, found.fold_model) == (False, True)
    found = layout(Rows(nn.Linear(L, 20), encoder()).double(), x)
    assert (found.fold_guide, found.fold_model) == (False, False)
    found = layout(small_vae("Bernoulli", "conv").double(), small_data())
    assert (found.fold_guide, found.fold_model) == (False, False)


def test_encoder_runs_once_beside_a_folded_model():
    vae, x, rows = Rows(RAW["softmax"](20), encoder()).double(), small_data(n=4, event=[20]), []
    vae.encoder.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    pv.densities(vae, x, 5)
    rows.clear()
    pv.densities(vae, x, 5)
    assert rows == [4]


def test_a_swapped_network_is_looked_at_again():
    vae, x = Rows(nn.Linear(L, 20), encoder()).double(), small_data(n=4, event=[20])
    pv.densities(vae, x, 3)
    vae.decoder = RAW["softmax"](20).double()
    d = pv.densities(vae, x, 3)
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 3), **TIGHT)


def test_folding_in_a_minibatch():
    vae, x = Rows(RAW["softmax"](20), encoder(), size=100).double(), small_data(n=4, event=[20])
    d = pv.densities(vae, x, 3)
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 3), **TIGHT)
    assert d.data_size == 100


def test_aligned_distributions_can_be_compared():
    vae, x = Rows(RAW["softmax"](20), encoder()).double(), small_data(n=4, event=[20])
    d = pv.densities(vae, x, 3, aligned=True)
    assert d.prior["z"].distribution.batch_shape == d.posterior["z"].distribution.batch_shape
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 3), **TIGHT)


def test_gradients_pass_through_folding():
    vae, x = Rows(RAW["softmax"](20), encoder()).double(), small_data(n=4, event=[20])
    torch.manual_seed(5)
    d = pv.densities(vae, x, 3)
    a = torch.autograd.grad(d.log_weight.sum(), vae.encoder[1].weight, retain_graph=True)[0]
    b = torch.autograd.grad(looped(vae, x, d, 3).sum(), vae.encoder[1].weight)[0]
    torch.testing.assert_close(a, b, **TIGHT)


def test_any_object_will_do():
    """Neither hashable nor weakly referenced programs are refused."""
    vae = LinearGaussian()
    x = vae.data(4)
    d = pv.densities(types.SimpleNamespace(model=vae.model, guide=vae.guide), x, 3)
    torch.testing.assert_close(d.log_weight, vae.log_evidence(x).expand(3, 4), **TIGHT)


# Plates inside and around the data plate


def plates(data_dim, other_dim, other=2):
    """z and x under a data plate and a plate of `other` elements, in any order of dimensions."""

    def both(x):
        return pyro.plate("data", len(x), dim=data_dim), pyro.plate("other", other, dim=other_dim)

    def arrange(x):  # [B, other] -> the batch shape
        return {-1: x, -2: x.T, -3: x.T[:, None]}[other_dim]

    def model(x):
        a, b = both(x)
        with a, b:
            z = pyro.sample("z", NORMAL(x.new_zeros(()), 1.0))
            pyro.sample("x", NORMAL(z, 0.5), obs=arrange(x))

    def guide(x):
        a, b = both(x)
        with a, b:
            pyro.sample("z", NORMAL(0.8 * arrange(x), 0.2**0.5))  # exact

    return program(model, guide)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("dims", [(-1, -2), (-2, -1), (-1, -3)])
def test_inner_plates_are_summed(dims, particles):
    x = torch.randn(5, 2, dtype=F64)
    d = pv.densities(plates(*dims), x, particles)
    evidence = normal(x, 1.25**0.5).sum(-1)
    torch.testing.assert_close(d.log_weight, evidence.expand(particles, 5), **TIGHT)
    assert d.log_prior.shape == (particles, 5)


@pytest.mark.parametrize("dims", [(-1, -2), (-2, -1)])
def test_inner_plates_under_folding(dims):
    """A network that cannot take particles, with a plate beside the data plate."""
    net = RAW["softmax"](L).double()

    class Folded(nn.Module):
        def model(self, x):
            data, other = pyro.plate("data", len(x), dim=dims[0]), pyro.plate("other", 2, dim=dims[1])
            with data:
                shape = (len(x), 1) if dims[0] == -2 else (len(x),)
                z = pyro.sample("z", NORMAL(x.new_zeros(*shape, L), 1.0).to_event(1))
                y = net(z.reshape(len(x), L) if z.dim() == 1 + len(shape) else z)[..., :2]
                with other:
                    u = pyro.sample("u", NORMAL(x.new_zeros(()), 1.0))
                    loc = y if dims[0] == -2 else y.T
                    pyro.sample("x", NORMAL(loc.reshape(u.shape) + u, 0.5), obs=x if dims[0] == -2 else x.T)

        def guide(self, x):
            data, other = pyro.plate("data", len(x), dim=dims[0]), pyro.plate("other", 2, dim=dims[1])
            with data:
                shape = (len(x), 1) if dims[0] == -2 else (len(x),)
                pyro.sample("z", NORMAL(x.new_zeros(*shape, L), 0.9).to_event(1))
                with other:
                    pyro.sample("u", NORMAL((x if dims[0] == -2 else x.T) / 2, 0.4))

    vae, x = Folded(), torch.randn(5, 2, dtype=F64)
    d = pv.densities(vae, x, 3)
    assert pv.program.run._memory[vae][1]["layout"].fold_model
    torch.testing.assert_close(d.log_weight, looped(vae, x, d, 3), **TIGHT)


def test_inner_plate_of_one_element():
    x = torch.randn(5, 1, dtype=F64)
    d = pv.densities(plates(-1, -2, 1), x, 3)
    torch.testing.assert_close(d.log_weight, normal(x, 1.25**0.5).T.expand(3, 5), **TIGHT)


def test_sequential_inner_plate():
    """A plate that is a Python loop inside the data plate: its sites are summed like any others."""

    def model(x):
        with pyro.plate("data", len(x)):
            for t in pyro.plate("time", 2):
                z = pyro.sample(f"z{t}", NORMAL(x.new_zeros(()), 1.0))
                pyro.sample(f"x{t}", NORMAL(z, 0.5), obs=x[:, t])

    def guide(x):
        with pyro.plate("data", len(x)):
            for t in pyro.plate("time", 2):
                pyro.sample(f"z{t}", NORMAL(0.8 * x[:, t], 0.2**0.5))

    x = torch.randn(5, 2, dtype=F64)
    for particles in (1, 3):
        d = pv.densities(program(model, guide), x, particles)
        evidence = normal(x, 1.25**0.5).sum(-1)
        torch.testing.assert_close(d.log_weight, evidence.expand(particles, 5), **TIGHT)


def test_one_latent_for_a_plate_is_broadcast():
    """A prior without the plate's shape still counts once a datum."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL(x.new_zeros(()), 1.0).expand([]))
            pyro.sample("x", NORMAL(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", NORMAL(x.new_zeros(()), 1.0))

    x = torch.randn(4, dtype=F64)
    d = pv.densities(program(model, guide), x, 3)
    torch.testing.assert_close(d.log_weight, d.log_likelihood, **TIGHT)
    assert d.log_prior.shape == (3, 4)


# Masks


@pytest.mark.parametrize("particles", [1, 3])
def test_masked_observation_contributes_zero(particles):
    vae = LinearGaussian(guide="free")
    x = vae.data(5)
    keep = torch.tensor([True, False, True, True, False])

    def masked(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL(x.new_zeros(2), 1.0).to_event(1))
            with poutine.mask(mask=keep):
                pyro.sample("x", NORMAL(z @ vae.w.T + vae.b, vae.log_sigma.exp()).to_event(1), obs=x)

    d = pv.densities(program(masked, vae.guide), x, particles)
    z = d.posterior["z"].value.reshape(particles, 5, 2)
    whole = NORMAL(z @ vae.w.T + vae.b, vae.log_sigma.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(d.log_likelihood, whole * keep, **TIGHT)
    torch.testing.assert_close(d.log_prior, normal(z, 1.0).sum(-1), **TIGHT)


def test_masked_distribution():
    """dist.mask, by pixel."""
    keep = torch.rand(4, 20) < 0.5

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z.expand(*z.shape[:-1], 20)).mask(keep).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", NORMAL(x.new_zeros(1), 1.0).to_event(1))

    x = small_data(event=[20])
    d = pv.densities(program(model, guide), x, 3)
    z = d.posterior["z"].value
    expected = (dist.Bernoulli(logits=z).log_prob(x) * keep).sum(-1)
    torch.testing.assert_close(d.log_likelihood, expected, **TIGHT)


def test_masked_latent():
    keep = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=keep):
                z = pyro.sample("z", NORMAL(x.new_zeros(()), 1.0))
            pyro.sample("x", NORMAL(torch.where(keep, z, 0.0), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("z", NORMAL(x / 2, 0.5**0.5))

    x = torch.randn(3, dtype=F64)
    d = pv.densities(program(model, guide), x, 4)
    expected = torch.where(keep, normal(x, 2**0.5), normal(x, 1.0))
    torch.testing.assert_close(d.log_weight, expected.expand(4, 3), **TIGHT)


# Global latents


@pytest.mark.parametrize("particles", [1, 3])
def test_global_latent(particles):
    vae, x = Global(50), torch.randn(5, dtype=F64)
    d = pv.densities(vae, x, particles)
    theta = d.posterior["theta"].value.reshape(particles)
    assert theta.unique().numel() == particles
    expected = normal(theta, 1.0) - NORMAL(vae.loc, 0.4).log_prob(theta)
    torch.testing.assert_close(d.log_global, expected, **TIGHT)
    assert d.log_global.shape == (particles,)
    assert d.global_sites == ["theta"]
    z = d.posterior["z"].value
    prior = NORMAL(theta[:, None], 1.0).log_prob(z).reshape(particles, 5)
    torch.testing.assert_close(d.log_prior, prior, **TIGHT)  # θ's own density is not among the local ones


def test_no_global_latent():
    vae = LinearGaussian()
    d = pv.densities(vae, vae.data(3), 2)
    assert d.global_sites == []
    assert d.log_global.tolist() == [0.0, 0.0]


def test_particles_of_a_global_latent():
    """One draw serves the whole batch, at K = 1 and at K = 3 alike."""
    vae, x = Global(5), torch.randn(5, dtype=F64)
    d = pv.densities(vae, x, 3)
    for k in range(3):
        values = {"theta": d.posterior["theta"].value[k, 0], "z": d.posterior["z"].value[k]}
        one = pv.densities(given(vae, values), x)
        torch.testing.assert_close(one.log_weight[0], d.log_weight[k], **TIGHT)
        torch.testing.assert_close(one.log_global[0], d.log_global[k], **TIGHT)


# What is refused


def sites(*latents, event=0, plate=True, size=None, observe=True, scale=None, name="data"):
    """A function that samples these latents and observes x, with one mistake or another."""

    def function(x):
        def run():
            z = 0.0
            for n in latents:
                d = NORMAL(x.new_zeros(x.shape[1:]), 1.0)
                z = pyro.sample(n, d.to_event(event))
            if observe:
                d = NORMAL(z + x.new_zeros(x.shape[1:]), 1.0)
                with poutine.scale(scale=scale or 1.0):
                    pyro.sample("x", d.to_event(event), obs=x)

        if plate:
            with pyro.plate(name, size or len(x)):
                run()
        else:
            run()

    return function


def scaled_guide(x):
    with pyro.plate("data", len(x)), poutine.scale(scale=0.5):
        pyro.sample("z", NORMAL(x.new_zeros(3), 1.0).to_event(1))


def looping(x):
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z{i}", NORMAL(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample(f"x{i}", NORMAL(z, 1.0).to_event(1), obs=x[i])


def looping_guide(x):
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z{i}", NORMAL(x.new_zeros(3), 1.0).to_event(1))


def bernoulli(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", NORMAL(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=x.new_zeros(3), validate_args=False).to_event(1), obs=x)


def guide_of(*latents, **options):
    return sites(*latents, event=1, observe=False, **options)


REFUSED = {
    "missing in the guide": (
        sites("z", "u", event=1),
        guide_of("z"),
        r"the model samples site 'u' and the guide does not \(it has \['z'\]\); add it to the guide",
    ),
    "extra in the guide": (
        sites("z", event=1),
        guide_of("z", "u"),
        r"the guide samples site 'u' and the model does not \(it has \['z'\]\); rename or remove it",
    ),
    "no data plate": (
        sites("z", event=1, plate=False),
        guide_of("z", plate=False),
        r"the model has no plate named 'data'; add `with pyro.plate\('data', len\(x\), dim=-1\):`|in no plate",
    ),
    "plate of another name": (
        sites("z", event=1, name="rows"),
        guide_of("z", name="rows"),
        r"the model has no plate named 'data'",
    ),
    "nothing observed": (
        sites("z", event=1, observe=False),
        guide_of("z"),
        r"the model has no observed site; add pyro.sample\('x', ..., obs=x\)",
    ),
    "forgotten to_event": (
        sites("z", event=0),
        sites("z", event=0, observe=False),
        r"guide site 'z' expects batch dimensions of plate 'data', size 4, got one of size 3. .*\.to_event\(n\)",
    ),
    "forgotten to_event in the model": (
        sites("z", event=0),
        guide_of("z"),
        r"model site '[zx]' .*\.to_event\(n\)",
    ),
    "plate of another size": (
        sites("z", event=1, size=9),
        guide_of("z", size=9),
        r"plate 'data' of the guide has 9 rows at site 'z', the batch has 4; give it the size len\(x\)|size len\(x\)",
    ),
    "model plate of another size": (
        sites("z", event=1, size=9),
        guide_of("z"),
        r"model.*size len\(x\)",
    ),
    "scale on the model": (
        sites("z", event=1, scale=0.5),
        guide_of("z"),
        r"model site 'x' is under a poutine.scale; .*BetaELBO\(beta=...\)",
    ),
    "scale on the guide": (sites("z", event=1), scaled_guide, r"guide site 'z' is under a poutine.scale"),
    "a loop over the data": (looping, looping_guide, r"plate 'data' of the guide is a Python loop at site 'z0'"),
}


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_programs(case, particles):
    model, guide, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        pv.densities(program(model, guide), torch.randn(4, 3), particles).log_weight  # noqa: B018


def one_likelihood(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", NORMAL(x.new_zeros(4), 1.0).to_event(1))
        pyro.sample("x", NORMAL(z, 1.0).to_event(1), obs=x)


def one_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", NORMAL(x, 1.0).to_event(1))


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
class TestForgottenBatch:
    """A datum that is no batch is not broadcast over the plate."""

    def refused(self, vae, x, particles, validate, message):
        with pytest.raises(ValueError, match=message), pyro.validation_enabled(validate):
            pv.densities(vae, x, particles)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_image(self, channels, particles, validate):
        vae, x = small_vae(event=[channels, 6, 6]), small_data(event=[channels, 6, 6], dtype=torch.float32)
        assert pv.densities(vae, x[:1], particles).log_weight.shape == (particles, 1)
        self.refused(vae, x[0], particles, validate, r"expects .*shape")
        vae.posterior.forward = lambda x: NORMAL(x.new_zeros(2), 1.0).to_event(1)  # an encoder that takes anything
        self.refused(
            vae,
            x[0],
            particles,
            validate,
            rf"model site 'x' has events of shape \[{channels}, 6, 6\] and expects an observed value of shape "
            rf"\[{channels}, {channels}, 6, 6\], .* got shape \[{channels}, 6, 6\]. .* x\[None\]",
        )

    def test_vector(self, particles, validate):
        x = torch.randn(4)
        assert pv.densities(program(one_likelihood, one_guide), x[None], particles).log_weight.shape == (particles, 1)
        message = r"expects an observed value of shape \[4, 4\], .* got shape \[4\]"
        self.refused(program(one_likelihood, one_guide), x, particles, validate, message)

    def test_one_row_for_all(self, particles, validate):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", NORMAL(x.new_zeros(4), 1.0).to_event(1))
                pyro.sample("x", NORMAL(z, 1.0).to_event(1), obs=x[:1])

        self.refused(
            program(model, one_guide),
            torch.randn(3, 4),
            particles,
            validate,
            r"of shape \[3, 4\], .* got shape \[1, 4\]",
        )


@pytest.mark.parametrize("particles", [1, 3])
def test_a_factor_is_no_observation(particles):
    """pyro.factor, by row or one number for all, is a density of each datum and needs no rows."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL(x.new_zeros(4), 1.0).to_event(1))
            pyro.sample("x", NORMAL(z, 1.0).to_event(1), obs=x)
            pyro.factor("rows", x.sum(-1))
            pyro.factor("all", x.new_tensor(2.0))

    x = torch.randn(3, 4, dtype=F64)
    d = pv.densities(program(model, one_guide), x, particles)
    likelihood = NORMAL(d.posterior["z"].value, 1.0).log_prob(x).sum(-1).reshape(particles, 3)
    torch.testing.assert_close(d.log_likelihood, likelihood + x.sum(-1) + 2, **TIGHT)


@pytest.mark.parametrize("particles", [1, 3])
def test_scalar_events(particles):
    """x [B] of numbers has rows and no more."""
    d = pv.densities(Global(5), torch.randn(5, dtype=F64), particles)
    assert d.log_likelihood.shape == (particles, 5)


def test_forgotten_to_event_where_sizes_agree():
    """B equal to the event's size: Pyro sees nothing wrong."""
    with pytest.raises(ValueError, match=r"in no plate. Declare the dimensions of one datum with .to_event\(n\)"):
        pv.densities(program(sites("z"), sites("z", observe=False)), torch.randn(3, 3)).log_weight  # noqa: B018


REFUSED_DATA = {
    "NaN": (torch.tensor([[0.0, 1, torch.nan]]), r"densities expects finite numbers, got 1 that are NaN or infinite"),
    "infinite": (torch.tensor([[0.0, 1, torch.inf]]), r"got 1 that are NaN or infinite; remove or impute them"),
    "grey": (
        torch.tensor([[0.0, 1, 0.93]]),
        r"likelihood Bernoulli expects values in \{0, 1\}, got values from 0 to 1 at site 'x'. "
        r"Binarise the data .* or use ContinuousBernoulli",
    ),
    "event": (
        torch.zeros(2, 4),
        r"site 'x' expects events of shape \[3\], got data of shape \[2, 4\]; reshape the data or build the model",
    ),
}


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("case", REFUSED_DATA)
def test_refused_data(case, particles):
    x, message = REFUSED_DATA[case]
    with pytest.raises(ValueError, match=message):
        pv.densities(program(bernoulli, guide_of_three), x, particles)


def guide_of_three(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", NORMAL(x.new_zeros(3), 1.0).to_event(1))


OUTSIDE = {
    "Bernoulli": (0.5, r"likelihood Bernoulli expects values in \{0, 1\}"),
    "ContinuousBernoulli": (1.5, r"likelihood ContinuousBernoulli expects values in \[0, 1\]"),
    "Binomial": (17.0, r"likelihood Binomial expects counts from 0 to total_count"),
    "Beta": (1.0, r"likelihood Beta expects values in \(0, 1\), without the ends, .* Use ContinuousBernoulli"),
    "Poisson": (-1.0, r"likelihood Poisson expects counts 0, 1, 2, \.\.\., got values from -1 .* Give whole numbers"),
    "NegativeBinomial": (0.5, r"likelihood NegativeBinomial expects counts 0, 1, 2, .*bytes are read as grey levels"),
    "ZeroInflatedPoisson": (0.5, r"likelihood ZeroInflatedPoisson expects counts 0, 1, 2, "),
    "ZeroInflatedNegativeBinomial": (-2.0, r"likelihood ZeroInflatedNegativeBinomial expects counts 0, 1, 2, "),
    "Multinomial": (0.5, r"likelihood Multinomial expects counts 0, 1, 2, "),
    "Categorical": (
        0.52,
        r"likelihood Categorical expects levels k · maximum / \(levels − 1\), .* Set levels and maximum",
    ),
    "DiscretisedLogisticMixture": (1.0625, r"likelihood DiscretisedLogisticMixture expects levels k · maximum "),
}


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", OUTSIDE)
def test_data_outside_the_support(name, particles):
    value, message = OUTSIDE[name]
    x = small_data(name)
    x[2, 0, 1, 1] = value
    with pytest.raises(ValueError, match=message):
        pv.densities(small_vae(name).double(), x, particles)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_nan_in_the_data_of_a_vae(name):
    x = small_data(name)
    x[2, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"expects finite numbers, got 1|NaN|nan"):
        pv.densities(small_vae(name).double(), x, 3)


def test_validation_off_reads_nothing_back():
    with pyro.validation_enabled(False):
        assert torch.isfinite(pv.densities(small_vae().double(), small_data("ContinuousBernoulli")).log_weight).all()


ARGUMENTS = {
    "no program": (
        object(),
        torch.zeros(2, 3),
        1,
        r"expected something with .model\(x\) and .guide\(x\), got object; ",
    ),
    "no data": (small_vae, None, 1, r"expected data as a tensor \[B, \*event\] with at least one row, got NoneType"),
    "empty": (small_vae, torch.zeros(0, *EVENT), 1, r"with at least one row, got shape \[0, 1, 5, 4\]"),
    "scalar": (small_vae, torch.tensor(1.0), 1, r"with at least one row, got shape \[\]"),
} | {
    f"particles {k}": (small_vae, torch.zeros(2, *EVENT), k, rf"particles as a whole number of at least 1, .*={k!r}$")
    for k in (0, 2.5, True, "3", None)
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case):
    vae, x, particles, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        pv.densities(vae() if callable(vae) else vae, x, particles)


class Fault(ValueError):
    """An error of a program's own class."""


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("where", ["model", "guide"])
def test_other_errors_are_the_program_s_own(where, particles):
    """As they were raised, without Pyro's table of shapes."""

    def broken(x):
        guide_of_three(x)
        raise Fault("a fault of its own\nin two lines")

    parts = {"model": bernoulli, "guide": guide_of_three} | {where: broken}
    with pytest.raises(Fault) as error:
        pv.densities(program(**parts), torch.zeros(2, 3), particles)
    assert str(error.value) == "a fault of its own\nin two lines"


def test_plain_errors():
    """Nested traces, errors without a table, and those that are none of its business."""

    def broken():
        raise Fault("a fault")

    with pytest.raises(Fault, match=r"\Aa fault\Z"), pv.program.plain_errors():
        poutine.trace(poutine.trace(broken)).get_trace()
    original = Fault("Trace Shapes: none")
    with pytest.raises(Fault) as error, pv.program.plain_errors():
        raise original
    assert error.value is original
    with pytest.raises(KeyError), pv.program.plain_errors():
        raise KeyError("a\nTrace Shapes:")


# States to run in


def test_evaluating_puts_modes_back():
    vae = small_vae()
    vae.likelihood.eval()
    flags = [m.training for m in vae.modules()]
    with pv.program.evaluating(vae):
        assert not any(m.training for m in vae.modules())
        assert not torch.is_grad_enabled()
    assert [m.training for m in vae.modules()] == flags
    assert torch.is_grad_enabled()


def test_seeded_leaves_the_stream():
    before = torch.get_rng_state()
    with pv.program.seeded(3):
        a = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with pv.program.seeded(3):
        assert torch.equal(torch.rand(3), a)
    with pv.program.seeded(None):
        torch.rand(3)
    assert not torch.equal(torch.get_rng_state(), before)


MISMATCHED = {
    "normal draws of a coin": (dist.Bernoulli(torch.tensor(0.5)), dist.Normal(0.0, 1.0)),
    "coins for a normal": (dist.Normal(0.0, 1.0), dist.Bernoulli(torch.tensor(0.5))),
    "draws outside": (dist.Gamma(1.0, 1.0), dist.Normal(-9.0, 0.1)),
    "more values": (dist.Categorical(torch.ones(2)), dist.Categorical(torch.tensor([0.0, 0.0, 1.0]))),
}


@pytest.mark.parametrize("case", MISMATCHED)
def test_prior_and_posterior_of_other_values(case):
    """Refused in one sentence, before any number comes of it; without Pyro's validation it is not looked at."""
    p, q = MISMATCHED[case]

    def program(x, guide):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", q if guide else p)
            if not guide:
                pyro.sample("x", dist.Normal(z * 1.0, 1.0), obs=x)

    vae = types.SimpleNamespace(model=lambda x: program(x, False), guide=lambda x: program(x, True))
    words = rf"site 'z' is {type(p).__name__} in the model, .*{type(q).__name__} in the guide.* the same values"
    with pytest.raises(ValueError, match=words):
        pv.densities(vae, torch.randn(3), 2)


def test_a_leading_dimension_of_one_is_none_of_the_data():
    """A distribution of batch shape [1, B] in a plate of B rows: one density a datum, not their sum."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1, len(x)), 1.0))

    x = torch.randn(5)
    d = pv.densities(pv.Program(model, guide), x)
    z = d.posterior["z"].value.reshape(5)
    torch.testing.assert_close(d.log_prior[0], dist.Normal(0.0, 1.0).log_prob(z))
    torch.testing.assert_close(d.log_likelihood[0], dist.Normal(z, 1.0).log_prob(x))
