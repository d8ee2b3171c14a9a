import math

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
import xarray as xr

import pyrovae as pv
from pyrovae.arviz import pareto_k, to_datatree


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


class Linear(nn.Module):
    """z ~ N(0, I), x | z ~ N(W z, s²I): the posterior is known. `spread` widens q, `shift` moves it, per unit of sd."""

    def __init__(self, spread=1.0, shift=0.0, latent=2, observed=3, dtype=torch.float64):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(observed, latent, generator=g, dtype=dtype))
        self.scale, self.spread, self.shift, self.latent = 0.5, spread, shift, latent

    def posterior(self, x):
        precision = torch.eye(self.latent, dtype=x.dtype) + self.w.T @ self.w / self.scale**2
        covariance = precision.inverse()
        return x @ self.w @ covariance / self.scale**2, covariance

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            zero = x.new_zeros(self.latent)
            z = pyro.sample("z", normal(zero, torch.ones_like(zero)))
            pyro.sample("x", normal(z @ self.w.T, self.scale), obs=x)

    def guide(self, x):
        loc, covariance = self.posterior(x)
        tril = torch.linalg.cholesky(covariance)
        loc = loc + self.shift * tril.diagonal()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.spread * tril))


class Rich(nn.Module):
    """Two latents of different ranks and kinds, two observations, a plate within a datum, a deterministic site."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-2):
            c = pyro.sample("c", dist.Categorical(torch.tensor([[0.2, 0.3, 0.5]], dtype=x.dtype)))
            with pyro.plate("part", 4, dim=-1):
                z = pyro.sample("scope/z", normal(x.new_zeros(2), 1.0))
                m = pyro.deterministic("m", z.sum(-1) + c)
                y = pyro.sample("y", dist.Normal(m, 1.0), obs=x)
            pyro.sample("total", dist.Normal(y.sum(-1, keepdim=True), 0.1), obs=x.sum(-1, keepdim=True))

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("c", dist.Categorical(torch.ones(1, 3, dtype=x.dtype)))
            with pyro.plate("part", 4, dim=-1):
                pyro.sample("scope/z", normal(x[..., None].expand(*x.shape, 2) / 3, 0.5))


class Shared(nn.Module):
    """A latent outside the data plate."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def model(self, x):
        mean = pyro.sample("mean", normal(x.new_zeros(2), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", normal(mean + z[..., None], 1.0), obs=x)

    def guide(self, x):
        pyro.sample("mean", normal(x.mean(0), 0.1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(-1) / 2, 0.7))


class Flat(Linear):
    """Written for [N, L] alone, so that `densities` folds its particles."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", normal(x.new_zeros(len(x), self.latent), 1.0))
            assert z.dim() == 2
            pyro.sample("x", normal(z @ self.w.T, self.scale), obs=x)


def fixed_plate(n):
    """A program whose plate takes n data and no other number."""

    def model(x):
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", n):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    return pv.Program(model, guide)


def some(n=6, event=3, dtype=torch.float64):
    return torch.randn(n, event, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture(scope="module")
def tree():
    return to_datatree(Linear(spread=1.3), some(), draws=50, chains=2)


PREDICTIVE = {"posterior_predictive", "prior_predictive"}
GROUPS = PREDICTIVE | {"posterior", "prior", "log_likelihood", "sample_stats", "observed_data"}


def shapes(tree, group):
    return {str(n): dict(v.sizes) for n, v in tree[group].data_vars.items()}


def test_groups_dims_and_coords(tree):
    assert set(tree.children) == GROUPS
    draws = {"chain": 2, "draw": 50, "data": 6}
    for group in ("posterior", "prior"):
        assert shapes(tree, group) == {"z": draws | {"z_dim_0": 2}}
    for group in PREDICTIVE:
        assert shapes(tree, group) == {"x": draws | {"x_dim_0": 3}}
    assert shapes(tree, "log_likelihood") == {"x": draws}
    assert shapes(tree, "sample_stats") == dict.fromkeys(("log_weight", "log_prior", "log_posterior"), draws)
    assert shapes(tree, "observed_data") == {"x": {"data": 6, "x_dim_0": 3}}
    for group in tree.children.values():
        for dim, coord in group.coords.items():
            assert np.issubdtype(coord.dtype, np.integer)
            np.testing.assert_array_equal(coord, np.arange(group.sizes[dim]))


def test_attributes(tree):
    attrs = tree.attrs
    assert attrs["inference_library"] == "pyrovae"
    assert attrs["inference_library_version"] == pv.__version__
    assert [attrs[n] for n in ("chains", "draws", "particles", "seed")] == [2, 50, 100, 0]
    assert "guide" in attrs["posterior"]
    assert attrs["data"] == "first 6 of 6 rows"
    assert tree["posterior"].attrs["inference_library"] == "pyrovae"


def identity(tree):
    """log w = log p(x | z) + log p(z) − log q(z | x), the first summed over the observed sites."""
    stats = tree["sample_stats"]
    likelihood = sum(v for v in tree["log_likelihood"].data_vars.values())
    np.testing.assert_allclose(likelihood + stats.log_prior - stats.log_posterior, stats.log_weight, rtol=1e-10)


def test_log_weights_are_those_of_the_draws(tree):
    identity(tree)
    z, x = torch.as_tensor(tree.posterior.z.values), torch.as_tensor(tree.observed_data.x.values)
    vae = Linear(spread=1.3)
    with torch.no_grad():
        loc, covariance = vae.posterior(x)
        q = dist.MultivariateNormal(loc, covariance_matrix=1.3**2 * covariance).log_prob(z)
        likelihood = normal(z @ vae.w.T, vae.scale).log_prob(x)
    np.testing.assert_allclose(tree.log_likelihood.x, likelihood, rtol=1e-10)
    np.testing.assert_allclose(tree.sample_stats.log_prior, normal(torch.zeros(2), 1.0).log_prob(z), rtol=1e-10)
    np.testing.assert_allclose(tree.sample_stats.log_posterior, q, rtol=1e-10)


def test_an_exact_posterior_gives_the_evidence():
    vae, x = Linear(), some()
    covariance = vae.w @ vae.w.T + vae.scale**2 * torch.eye(3, dtype=x.dtype)
    evidence = dist.MultivariateNormal(x.new_zeros(3), covariance).log_prob(x).detach()
    tree = to_datatree(vae, x, draws=20)
    np.testing.assert_allclose(tree.sample_stats.log_weight, np.broadcast_to(evidence, (4, 20, 6)), rtol=1e-8)


def test_observed_data_are_the_data(tree):
    np.testing.assert_array_equal(tree.observed_data.x, some())


def z_score(draws, mean, variance):
    """One standard normal for the mean of independent draws [S]."""
    return float((draws.mean() - mean) / math.sqrt(variance / draws.numel()))


def test_draws_follow_the_program():
    """Eight z-tests at 4.5 standard errors: together they fail once in 18,000 seeds."""
    vae, x = Linear(), some()
    tree = to_datatree(vae, x, draws=1000)
    with torch.no_grad():
        loc, covariance = vae.posterior(x)
        spread = vae.w @ covariance @ vae.w.T + vae.scale**2 * torch.eye(3)
        wide = vae.w @ vae.w.T + vae.scale**2 * torch.eye(3)
    ones = torch.ones(2, dtype=x.dtype)
    exact = {
        "posterior": ("z", loc, covariance),
        "posterior_predictive": ("x", loc @ vae.w.detach().T, spread),
        "prior": ("z", torch.zeros_like(loc), torch.diag(ones)),
        "prior_predictive": ("x", torch.zeros_like(x), wide),
    }
    for group, (name, mean, cov) in exact.items():
        draws = torch.as_tensor(tree[group][name].values).flatten(0, 1)  # [S, B, event]
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (draws - mean).mT, upper=False)
        assert abs(z_score(white, 0.0, 1.0)) < 4.5, group
        assert abs(z_score(white.square(), 1.0, 2.0)) < 4.5, group


def test_seeds():
    x, state = some(), torch.get_rng_state()
    a, b, c = (to_datatree(Linear(), x, draws=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    xr.testing.assert_equal(a.posterior.dataset, b.posterior.dataset)
    assert not a.posterior.z.equals(c.posterior.z)


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (None, range(100)),
        (7, range(7)),
        (500, range(120)),
        (slice(110, None, 3), range(110, 120, 3)),
        ([5, -1], [5, 119]),
    ],
)
def test_a_subset_by_default_and_by_choice(data, rows):
    x = some(120)
    tree = to_datatree(Linear(), x, draws=4, **({} if data is None else {"data": data}))
    np.testing.assert_array_equal(tree.posterior.coords["data"], list(rows))
    np.testing.assert_array_equal(tree.observed_data.x, x[list(rows)])
    taken = f"first {len(rows)}" if rows[0] == 0 else len(rows)
    assert tree.attrs["data"] == f"{taken} of 120 rows"


def test_without_predictive_groups():
    assert set(to_datatree(Linear(), some(), draws=4, predictive=False).children) == GROUPS - PREDICTIVE


def test_several_sites_of_different_ranks():
    x = some(5, 4)
    tree = to_datatree(Rich(), x, draws=7, chains=2)
    draws = {"chain": 2, "draw": 7, "data": 5}
    for group in ("posterior", "prior"):
        assert shapes(tree, group) == {"c": draws, "scope.z": draws | {"scope.z_dim_0": 4, "scope.z_dim_1": 2}}
        assert np.issubdtype(tree[group].c.dtype, np.integer)
    for group in PREDICTIVE:
        assert shapes(tree, group) == {"y": draws | {"y_dim_0": 4}, "total": draws}
        gap = tree[group].total - tree[group].y.sum("y_dim_0")  # the drawn y, not the observed one
        assert 0 < abs(gap).max() < 1
    assert shapes(tree, "log_likelihood") == {"y": draws, "total": draws}
    np.testing.assert_array_equal(tree.observed_data.y, x)
    np.testing.assert_array_equal(tree.observed_data.total, x.sum(-1))
    identity(tree)


def test_global_latents():
    x = some(5, 2)
    tree = to_datatree(Shared(), x, draws=40, chains=2)
    draws = {"chain": 2, "draw": 40}
    for group in ("posterior", "prior"):
        assert shapes(tree, group) == {"mean": draws | {"mean_dim_0": 2}, "z": draws | {"data": 5}}
        assert len(np.unique(tree[group]["mean"].values)) == 160
    assert shapes(tree, "sample_stats") == {
        **dict.fromkeys(("log_weight", "log_prior", "log_posterior"), draws | {"data": 5}),
        "log_weight_global": draws,
    }
    identity(tree)
    mean = torch.as_tensor(tree.posterior["mean"].values)
    log_ratio = normal(torch.zeros(2), 1.0).log_prob(mean) - normal(x.mean(0), 0.1).log_prob(mean)
    np.testing.assert_allclose(tree.sample_stats.log_weight_global, log_ratio, rtol=1e-10)
    residual = tree.prior_predictive.x - tree.prior["mean"].rename(mean_dim_0="x_dim_0") - tree.prior.z
    assert abs(z_score(torch.as_tensor(residual.values), 0.0, 1.0)) < 4.5  # draws of one run belong together


def test_programs_that_are_run_folded_or_draw_by_draw():
    x = some()
    a, b = to_datatree(Flat(), x, draws=5), to_datatree(Linear(), x, draws=5)
    xr.testing.assert_allclose(a.sample_stats.dataset, b.sample_stats.dataset)
    assert len(np.unique(a.posterior.z.values)) == 4 * 5 * 6 * 2
    fixed = to_datatree(fixed_plate(6), x[:, 0], draws=5)
    assert shapes(fixed, "posterior") == {"z": {"chain": 4, "draw": 5, "data": 6}}
    assert len(np.unique(fixed.prior.z.values)) == 120


def test_chunks_give_exactly_the_draws_asked_for(monkeypatch):
    monkeypatch.setattr("pyrovae.arviz._ELEMENTS", 6 * 3 * 7)
    tree = to_datatree(Linear(), some(), draws=10, chains=2)
    assert tree.posterior.sizes == {"chain": 2, "draw": 10, "data": 6, "z_dim_0": 2}
    assert len(np.unique(tree.posterior.z.values)) == 240
    identity(tree)
    assert pareto_k(Linear(spread=2.0), some(), particles=100).shape == (6,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    tree = to_datatree(Linear(dtype=dtype), some(), draws=5)
    for group in tree.children.values():
        assert all(v.dtype == str(dtype).removeprefix("torch.") for v in group.data_vars.values())


def test_the_library_s_own_vae():
    data = pv.data.load("digits")
    vae = pv.models.VAE.build(data, latent=3, hidden=[8])
    modes = [m.training for m in vae.modules()]
    tree = to_datatree(vae, data.test, draws=5, data=8)
    assert modes == [m.training for m in vae.modules()]
    assert dict(tree.posterior_predictive.x.sizes) == {
        "chain": 4, "draw": 5, "data": 8, "x_dim_0": 1, "x_dim_1": 8, "x_dim_2": 8,
    }  # fmt: skip
    assert 0 <= tree.prior_predictive.x.min() <= tree.prior_predictive.x.max() <= 16


def test_refusals():
    x = some()
    with pytest.raises(ValueError, match="at least one chain of one draw, got chains=0"):
        to_datatree(Linear(), x, chains=0)
    with pytest.raises(ValueError, match="at least one row of the data, got data=0 of 6 rows"):
        to_datatree(Linear(), x, data=0)
    with pytest.raises(ValueError, match="expects data as a tensor"):
        to_datatree(Linear(), x.numpy())
    with pytest.raises(ValueError, match="at least 25 particles, got 10"):
        pareto_k(Linear(), x, particles=10)
    with pytest.raises(ValueError, match="pareto_k weighs particles datum by datum"):
        pareto_k(Shared(), some(5, 2))


def test_netcdf_round_trip(tmp_path):
    tree = to_datatree(Rich(), some(5, 4), draws=7, chains=2)
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), tree)


def test_accepted_by_arviz_stats(tree):
    table = arviz_stats.summary(tree, var_names=["z"])
    assert len(table) == 12
    assert np.isfinite(table["r_hat"].astype(float)).all()
    assert (abs(arviz_stats.rhat(tree).z - 1) < 0.2).all()  # independent draws, 50 a chain
    assert (arviz_stats.ess(tree).z > 20).all()


def test_accepted_by_arviz_plots(tree):
    import matplotlib

    matplotlib.use("Agg")
    import arviz_plots
    import matplotlib.pyplot as plt

    plots = arviz_plots.plot_forest(tree.isel(data=[0, 1]), var_names=["z"], backend="matplotlib")
    plots.viz["figure"].item().canvas.draw()
    plt.close("all")


@pytest.mark.parametrize(("spread", "limit"), [(0.2, 0.96), (0.6, 0.64), (1.5, -1.0)])
def test_pareto_k_of_a_guide_too_narrow_or_too_wide(spread, limit):
    """q of sd s against a normal posterior of sd 1, u² a draw's squared distance: log w = (1 − s²) u² / 2.

    s < 1: P(w > t) falls as t^(−1 / (1 − s²)), so k = 1 − s². s > 1: weights are bounded, and k = −2 / L.
    """
    k = pareto_k(Linear(spread=spread), some(30), particles=4000)
    assert k.shape == (30,)
    assert k.dtype == torch.float64
    assert abs(k.mean() - limit) < 0.15
    assert (k.median() > 0.7) == (spread == 0.2)
    assert (k < 0.5).all() or spread < 1


@pytest.mark.parametrize("spread", [1.0, 1.2])
def test_pareto_k_without_a_tail_is_zero(spread):
    """An exact guide, and one so little wider that the largest weights are all but equal to their bound."""
    assert (pareto_k(Linear(spread, latent=1), some(), particles=4000) == 0).all()


def test_pareto_k_takes_psislw_s_opposite_sign():
    vae, x = Linear(spread=0.5), some()
    tree = to_datatree(vae, x, draws=250)
    _, right = (-tree.sample_stats.log_weight).azstats.psislw(dim=["chain", "draw"])
    _, wrong = tree.sample_stats.log_weight.azstats.psislw(dim=["chain", "draw"])
    k = pareto_k(vae, x)
    assert abs(k.mean() - float(right.mean())) < 0.2
    assert abs(k.mean() - float(wrong.mean())) > 0.4


def test_pareto_k_is_that_of_psislw():
    from pyrovae.arviz import _khat

    tree = to_datatree(Linear(spread=0.5), some(), draws=250)
    log_weight = tree.sample_stats.log_weight
    _, reference = (-log_weight).azstats.psislw(dim=["chain", "draw"])
    np.testing.assert_allclose(_khat(torch.as_tensor(log_weight.values).flatten(0, 1)), reference, rtol=1e-6)


def test_pareto_k_where_there_is_no_tail_to_fit():
    from pyrovae.arviz import _khat

    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cases = {
        "constant": (torch.zeros(1000, dtype=torch.float64), 0.0),
        "rounding": (-700 + 1e-5 * noise, 0.0),
        "one draw outweighs all": (1e4 * noise, math.inf),
        "two values, mostly the largest": ((noise > -1).double(), 0.0),
        "two values, few of the largest": ((noise > 2).double(), math.nan),
        "no weight": (torch.full((1000,), -math.inf, dtype=torch.float64), math.nan),
        "NaN": (torch.where(noise > 2, math.nan, noise), math.nan),
    }
    found = _khat(torch.stack([lw for lw, _ in cases.values()], 1))
    np.testing.assert_array_equal(found, [k for _, k in cases.values()])
    some_zero = torch.where(noise < 0, -math.inf, noise)
    assert math.isfinite(_khat(some_zero[:, None]))


def test_pareto_k_in_float32_sees_an_exact_posterior():
    vae = Linear(observed=784, dtype=torch.float32)
    assert (pareto_k(vae, some(4, 784), particles=200) == 0).all()


@pytest.mark.parametrize("vae", [Linear(), Flat(), Rich()])
@pytest.mark.parametrize("particles", [1, 5])
def test_a_site_arranges_its_value_by_particle_and_datum(vae, particles):
    x = some(6, 4 if isinstance(vae, Rich) else 3)
    d = pv.densities(vae, x, particles)
    for site in (*d.prior.values(), *d.posterior.values()):
        if site.name == "z":
            value = site.arrange(site.value)
            assert value.shape == (particles, 6, 2)
            torch.testing.assert_close(normal(torch.zeros(2), 1.0).log_prob(value), d.prior["z"].log_prob)
    if isinstance(vae, Rich):
        z = d.prior["scope/z"]
        assert z.arrange(z.value).shape == (particles, 6, 4, 2)
        torch.testing.assert_close(normal(torch.zeros(2), 1.0).log_prob(z.arrange(z.value)).sum(-1), z.log_prob)
    site = next(iter(d.likelihood.values()))
    torch.testing.assert_close(site.arrange(site.value), x.expand(particles, *x.shape))
