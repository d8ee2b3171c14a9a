"""The unit sphere: von Mises and Fisher's distribution against Bessel functions, quadrature and its moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn as nn
from conftest import z_test
from pieces import EVENT, F64, SPACES, Toy, legendre, small_data, small_vae, some_functions
from scipy import special
from torch import Tensor
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import posteriors, priors
from pyrovae.distributions.sphere import UniformSphere, VonMisesFisher, log_area, unit

KAPPAS = [1e-8, 1e-3, 0.1, 1.0, 5.0, 30.0, 100.0, 1e3, 1e4, 1e6]
SIZES = [2, 3, 4, 10, 100, 1000]


def about_first_axis(latent: int, kappa: Tensor) -> VonMisesFisher:
    return VonMisesFisher(torch.eye(latent, dtype=kappa.dtype)[0], kappa)


def log_integral(latent: int, kappa: float) -> float:
    """log ∫ exp(κ (μᵀz − 1)) over the sphere: of area · ₀F₁(; L/2; κ²/4), a series, or of the Bessel function."""
    if kappa > 300:
        nu = latent / 2 - 1
        return math.log(special.ive(nu, kappa)) + latent / 2 * math.log(2 * math.pi) - nu * math.log(kappa)
    j = np.arange(1000)
    terms = 2 * j * math.log(kappa / 2) - special.gammaln(j + 1) - special.gammaln(j + latent / 2)
    return float(special.logsumexp(terms) + special.gammaln(latent / 2)) - kappa + log_area(latent)


def s2(n: int = 80) -> tuple[Tensor, Tensor]:
    """Values and weights for integrals over S²."""
    h, w = legendre(-1, 1, n)
    angle = torch.arange(2 * n, dtype=F64) * (torch.pi / n)
    r = (1 - h.square()).sqrt()[:, None]
    z = torch.stack([r * angle.cos(), r * angle.sin(), h[:, None].expand(-1, 2 * n)], -1)
    return z.flatten(0, 1), (w[:, None] * torch.full_like(angle, torch.pi / n)).flatten()


INTEGRALS = {2: SPACES["sphere"], 3: s2}


@pytest.mark.parametrize("latent", SIZES)
class TestNormaliser:
    def test_is_a_bessel_function(self, latent):
        q = about_first_axis(latent, torch.tensor(KAPPAS, dtype=F64))
        expected = torch.tensor([log_integral(latent, k) for k in KAPPAS], dtype=F64)
        assert (q._log_norm() - expected).abs().max() < 1e-10 * max(1, latent / 100)
        at_mode = q.log_prob(q.loc)
        torch.testing.assert_close(at_mode, -expected, rtol=1e-12, atol=1e-10)

    def test_gradient_is_the_ratio_of_bessel_functions(self, latent):
        k = torch.tensor(KAPPAS, dtype=F64, requires_grad=True)
        q = about_first_axis(latent, k)
        (slope,) = torch.autograd.grad((q._log_norm() + k).sum(), k)
        kappa, nu = np.array(KAPPAS), latent / 2 - 1
        above, below = special.ive(nu + 1, kappa), special.ive(nu, kappa)
        known = below > 1e-290
        ratio = torch.as_tensor(above[known] / below[known])
        torch.testing.assert_close(slope[known], ratio, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(q.mean[known, 0], ratio, rtol=1e-9, atol=1e-14)

    def test_variance_is_the_gradient_of_the_mean(self, latent):
        """A' = 1 − A² − (L − 1) A / κ, where these do not cancel; near 0 it is 1 / L, and far out (L − 1) / 2κ²."""
        k = torch.tensor(KAPPAS, dtype=F64, requires_grad=True)
        a = about_first_axis(latent, k).mean[:, 0]
        (slope,) = torch.autograd.grad(a.sum(), k)
        expected = (1 - a.square() - (latent - 1) * a / k).detach()
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-11)
        assert slope[0].item() == pytest.approx(1 / latent, rel=1e-9)
        assert (slope[-1] * k[-1] ** 2).item() == pytest.approx((latent - 1) / 2, rel=max(1e-5, latent / 5e5))

    def test_float32(self, latent):
        k = torch.tensor(KAPPAS)
        low, high = about_first_axis(latent, k), about_first_axis(latent, k.double())
        for a, b in zip(low._moments, high._moments, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=max(1e-5, 1e-7 * latent), atol=max(1e-6, 1e-6 * latent / 3))


def test_von_mises_on_the_circle():
    angle = torch.linspace(-3, 3, 50, dtype=F64)
    z = torch.stack([angle.cos(), angle.sin()], -1)
    expected = torch.distributions.VonMises(torch.zeros((), dtype=F64), torch.tensor(3.0, dtype=F64)).log_prob(angle)
    torch.testing.assert_close(
        about_first_axis(2, torch.tensor(3.0, dtype=F64)).log_prob(z), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("latent", [2, 3, 10, 100])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0, 1e4])
class TestDraws:
    def test_moments_in_float32(self, latent, kappa):
        """Of the height 1 − w over its mean, and of the directions around the axis."""
        loc = unit(torch.randn(latent))
        q = VonMisesFisher(loc, torch.tensor(kappa), validate_args=True)
        z = q.sample((40_000,))
        assert q.support.check(z).all()
        assert torch.isfinite(q.log_prob(z)).all()
        exact = VonMisesFisher(unit(loc.double()), torch.tensor(kappa, dtype=F64))._moments
        gap = 0.5 * (z.double() - loc.double()).square().sum(-1, keepdim=True)
        second = exact.variance + exact.rest.square()
        moments = torch.cat([gap / exact.rest, gap.square() / second], -1)
        z_test(moments, torch.ones(2, dtype=F64))
        z_test(z.double(), exact.mean * loc.double())

    def test_gradient_of_moments(self, latent, kappa):
        """∇ of E aᵀz = A aᵀμ and E (aᵀz)² = E[w²] (aᵀμ)² + E[1 − w²] (1 − (aᵀμ)²) / n, in κ and the direction."""
        n, a = 20_000, unit(torch.randn(latent, dtype=F64))
        y = torch.randn(latent, dtype=F64, requires_grad=True)
        k = torch.tensor(kappa, dtype=F64, requires_grad=True)
        q = VonMisesFisher(unit(y), k)
        mean, along = q._with_slope(q._moments.mean, q._moments.variance), (q.loc * a).sum()
        across = mean / k  # E[1 − w²] / n
        exact = torch.stack([mean * along, (1 - (latent - 1) * across) * along**2 + across * (1 - along**2)])
        exact = [torch.autograd.grad(e, (y, k), retain_graph=True) for e in exact]
        y, k = y.detach().expand(n, -1).requires_grad_(), k.detach().expand(n).requires_grad_()
        along = VonMisesFisher(unit(y), k).rsample() @ a
        for f, (by_y, by_k) in zip((along, along.square()), exact, strict=True):
            found = torch.autograd.grad(f.sum(), (y, k), retain_graph=True)
            scale = torch.cat([by_y, by_k[None]]).abs().clamp(min=1e-300)
            draws = torch.cat([found[0], found[1][:, None]], -1) / scale
            z_test(draws, torch.cat([by_y, by_k[None]]) / scale)


@pytest.mark.parametrize("latent", INTEGRALS)
@pytest.mark.parametrize("kappa", [0.2, 3.0, 40.0])
class TestOnCircleAndSphere:
    def test_integrates_to_one(self, latent, kappa):
        z, w = INTEGRALS[latent]()
        q = VonMisesFisher(unit(torch.randn(latent, dtype=F64)), torch.tensor(kappa, dtype=F64))
        assert (w @ q.log_prob(z).exp()).item() == pytest.approx(1, abs=1e-10)
        assert (w @ UniformSphere(z[0]).log_prob(z).exp()).item() == pytest.approx(1, abs=1e-10)
        torch.testing.assert_close(w @ (q.log_prob(z).exp()[:, None] * z), q.mean, rtol=1e-9, atol=1e-9)
        assert -(w @ (q.log_prob(z).exp() * q.log_prob(z))).item() == pytest.approx(q.entropy().item(), abs=1e-9)

    def test_pathwise_gradient(self, latent, kappa):
        """∇ E f(z) over draws is that of the integral, in κ and the direction."""
        z, w = INTEGRALS[latent]()
        y = torch.randn(latent, dtype=F64)

        def integrals(y, k):
            return w @ (VonMisesFisher(unit(y), k).log_prob(z).exp()[:, None] * some_functions(z)[:, : latent + 1])

        k = torch.tensor(kappa, dtype=F64)
        exact = torch.cat([j.reshape(latent + 1, -1) for j in torch.autograd.functional.jacobian(integrals, (y, k))], 1)
        n = 20_000
        y, k = y.expand(n, -1).clone().requires_grad_(), k.expand(n).clone().requires_grad_()
        f = some_functions(VonMisesFisher(unit(y), k).rsample())[:, : latent + 1]
        for i in range(latent + 1):
            by_y, by_k = torch.autograd.grad(f[:, i].sum(), (y, k), retain_graph=True)
            z_test(torch.cat([by_y, by_k[:, None]], -1), exact[i])

    def test_closed_form_rates(self, latent, kappa):
        """Against the integral, with their gradients."""
        z, w = INTEGRALS[latent]()
        y, v = (torch.randn(latent, dtype=F64, requires_grad=True) for _ in range(2))
        k = torch.tensor([kappa, 2.0], dtype=F64, requires_grad=True)
        q = VonMisesFisher(unit(y), k[0])
        for p, on in ((UniformSphere(z[0]), (y, k)), (VonMisesFisher(unit(v), k[1]), (y, v, k))):
            rates = kl_divergence(q, p), w @ (q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z)))
            torch.testing.assert_close(*rates, rtol=1e-9, atol=1e-9)
            found = [torch.autograd.grad(r, on, retain_graph=True, allow_unused=True) for r in rates]
            for a, b in zip(*found, strict=True):
                torch.testing.assert_close(torch.zeros_like(b) if a is None else a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 2e-5), (F64, 1e-9)])
@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e3])
def test_implicit_gradient_on_the_sphere_in_closed_form(kappa, dtype, accuracy):
    """For L = 3 F(w) = (e^{κw} − e^{−κ}) / (e^κ − e^{−κ}), and dw/dκ = −(∂F/∂κ) / f, f = ∂F/∂w."""
    q = about_first_axis(3, torch.tensor(kappa, dtype=dtype))
    t = q._radial(torch.Size((2000,)))
    t = t[t.abs() < 15]
    k = torch.tensor(kappa, dtype=F64)
    gap = 2 * torch.sigmoid(-2 * t.double())  # 1 − w
    # with E = e^{−2κ}, F = (e^{−κ (1 − w)} − E) / (1 − E)
    e, end = (-k * gap).exp(), (-2 * k).exp()
    by_k = (-gap * e + 2 * end) / -torch.expm1(-2 * k) - 2 * end * (e - end) / torch.expm1(-2 * k) ** 2
    density = k * e / -torch.expm1(-2 * k)
    found = q._velocity(t).double() * gap * (2 - gap)  # dw = (1 − w²) dt
    scale = -by_k / density
    error = (found - scale).abs() / found.abs()
    # the closed form itself cancels where its terms are large against their difference
    certain = (gap * e / -torch.expm1(-2 * k)).abs() * 1e-15 < 0.1 * accuracy * by_k.abs()
    assert certain.double().mean() > 0.5
    assert error[certain].max() < accuracy


@pytest.mark.parametrize("latent", [2, 3, 10, 100])
def test_implicit_gradient_in_float32(latent):
    k = torch.tensor(KAPPAS)
    low, high = about_first_axis(latent, k), about_first_axis(latent, k.double())
    t = low._radial(torch.Size((2000, len(KAPPAS))))
    torch.testing.assert_close(low._velocity(t).double(), high._velocity(t.double()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("latent", [2, 3, 10])
def test_draws_are_at_their_height(latent):
    """μᵀz = tanh t in float32, also where the noise is nearly along μ."""
    q = VonMisesFisher(unit(torch.randn(latent)), torch.tensor(1.0))
    t, z = q._draws(torch.Size((100_000, latent)))
    torch.testing.assert_close(z @ q.loc, t.tanh(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("latent", [2, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_extremes(latent, dtype):
    """An encoder's output of any size, a vector of zeros included, gives finite draws, densities and gradients."""
    rows = [[1.0] * latent, [0.0] * latent, [1e-30] * latent, [1e25] + [0.0] * (latent - 1), [-1e-8] * latent]
    y = torch.tensor([[*r, s] for r in rows for s in (-200.0, 0.0, 50.0, 1e4, 1e7)], dtype=dtype, requires_grad=True)
    q = posteriors.VonMisesFisher(nn.Identity())(y)
    p = priors.UniformSphere(latent).to(dtype)()
    z = q.rsample((500,))
    assert q.support.check(q.loc).all()
    assert q.support.check(z).all()
    rates = kl_divergence(q, p), kl_divergence(q, q)
    for value in (q.log_prob(z), p.log_prob(z), *rates, q.entropy(), z.pow(3), q.mean):
        assert torch.isfinite(value).all()
        if value.requires_grad:
            assert torch.isfinite(torch.autograd.grad(value.sum(), y, retain_graph=True)[0]).all()
    assert rates[1].abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0 - 2**-24])
def test_noise_at_its_border(value, monkeypatch):
    """torch.rand may return 0, though seldom."""
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.full(*size, value, **options))
    for latent in (2, 3, 10):
        k = torch.tensor([1e-3, 1.0, 1e4], requires_grad=True)
        z = about_first_axis(latent, k).rsample()
        assert torch.isfinite(z).all()
        assert torch.isfinite(torch.autograd.grad(z.pow(3).sum(), k)[0]).all()


# In a model


def sphere_vae(latent: int = 3) -> pv.models.VAE:
    return small_vae(posterior="VonMisesFisher", latent=latent).double()


def test_codes_are_on_the_sphere():
    vae, x = sphere_vae(), small_data()
    z = pv.encode(vae, x)
    torch.testing.assert_close(z, vae.posterior(x).loc)
    torch.testing.assert_close(pv.reconstruct(vae, x), pv.decode(vae, z))


def test_walks_are_on_the_sphere():
    vae, x = sphere_vae(), small_data()
    ends = pv.encode(vae, x[:2])
    found = pv.interpolate(vae, x[0], x[1], steps=3)
    line = torch.stack([ends[0], unit(ends.sum(0)), ends[1]])
    torch.testing.assert_close(found, pv.decode(vae, line))
    walk = pv.traverse(vae, x[0], dims=[1], steps=2)[0]
    there = torch.stack([ends[0].clone(), ends[0].clone()])
    there[:, 1] = torch.tensor([-3.0, 3.0])
    torch.testing.assert_close(walk, pv.decode(vae, unit(there)))


def test_trains_and_is_evaluated():
    vae, x = sphere_vae().float(), small_data(n=16, dtype=torch.float32)
    for objective in (pv.objectives.ELBO(kl="analytic"), pv.objectives.IWAE(3, "dreg"), pv.objectives.ELBO(2)):
        pv.fit(vae, x, objective=objective, epochs=2, batch_size=8, progress=False)
    assert math.isfinite(pv.evaluate(vae, x, particles=20).log_evidence_mean)


def test_refuses_a_prior_of_another_measure():
    """A normal's density has values on the sphere too, and is no density there."""
    vae = sphere_vae(2)
    vae.prior = priors.StandardNormal(2).double()
    with pytest.raises(ValueError, match="give prior and posterior the same values"):
        pv.densities(vae, small_data())


def test_refuses_one_dimension():
    for build in (lambda: UniformSphere(torch.zeros(1)), lambda: VonMisesFisher(torch.ones(1), torch.ones(()))):
        with pytest.raises(ValueError, match=r"expects vectors \[\*, L\] of at least 2 dimensions, got shape \[1\]"):
            build()
    for name in ("UniformSphere", "VonMisesFisher"):
        with pytest.raises(ValueError, match=f"{name} expects at least 2 dimensions for a sphere"):
            getattr(priors, name)(1)
    with pytest.raises(ValueError, match="VonMisesFisher expects at least 2 dimensions for a sphere"):
        pv.models.VAE.build(Toy(), latent=1, hidden=[4], posterior="VonMisesFisher")


@pytest.mark.parametrize("concentration", [0, -1.0, math.nan, math.inf, "1", True, None], ids=repr)
def test_refuses_a_concentration(concentration):
    with pytest.raises(ValueError, match="VonMisesFisher expects concentration as a finite number above 0, got"):
        priors.VonMisesFisher(3, concentration)


def test_concentration_from_options():
    spec = {"class_path": "VonMisesFisher", "init_args": {"concentration": 7.0}}
    vae = pv.models.VAE.build(Toy(), latent=3, hidden=[4], prior=spec, posterior="VonMisesFisher")
    assert vae.prior().concentration.item() == pytest.approx(7)
    assert vae.posterior(torch.zeros(2, *EVENT)).concentration.min() > 1
