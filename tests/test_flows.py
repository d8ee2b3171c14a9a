"""Flows: the distribution and what it keeps of its draws, the layers, and zuko's import."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref

import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from conftest import gradients, run, z_test
from pieces import EVENT, F64, POSTERIORS, PRIORS, Toy, small_data, small_posterior, small_prior, small_vae

import pyrovae as pv
from pyrovae import networks, posteriors, priors
from pyrovae.distributions import flow
from pyrovae.networks.masked import MADE

FLOWS = [n for n in POSTERIORS if n.startswith("Flow")]
FLOW_PRIORS = [n for n in PRIORS if n.startswith("Flow")]


def stirred(module: nn.Module, by: float = 0.5) -> nn.Module:
    """A flow far from the identity, where it begins."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn_like(p))
    return module


def in_a_fresh_process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_zuko_is_imported_late():
    in_a_fresh_process("import sys, pyrovae; assert 'zuko' not in sys.modules")


@pytest.mark.parametrize("on", [True, False])
def test_import_leaves_validation_as_it_was(on):
    in_a_fresh_process(f"""
import sys, pyro, pyrovae, torch
from pyro import distributions, infer, poutine
def flags():
    return (torch.distributions.Distribution._validate_args, distributions.is_validation_enabled(),
            infer.util.is_validation_enabled(), poutine.util.is_validation_enabled())
pyro.enable_validation({on})
before = flags()
pyrovae.priors.Flow(2)().sample()
assert 'zuko' in sys.modules and before == flags() == ({on},) * 4, flags()
""")


# The network


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("hidden", [[], [7], [2, 9]])
@pytest.mark.parametrize("order", [[0], [0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 1, 1], [1, 1, 0]])
def test_outputs_of_a_feature_depend_on_those_before_it(order, hidden, context):
    network = stirred(MADE(order, 2, hidden, context)).double()
    h, z = torch.randn(context, dtype=F64), torch.randn(len(order), dtype=F64)
    jacobian = torch.autograd.functional.jacobian(network(h), z)  # [L, P, L]
    after = torch.tensor([[a > b for b in order] for a in order])
    assert (jacobian.abs().sum(1) > 0).logical_and(~after).sum() == 0
    if len(hidden) < 2:  # two units cannot tell three orders apart
        assert (jacobian.abs().sum(1) > 0)[after].all()
    if context:
        told = torch.autograd.functional.jacobian(lambda c: network(c)(z), h)
        assert (told.abs().sum((1, 2)) > 0).all()


def test_context_is_read_once_however_many_particles(monkeypatch):
    read, original = [], nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: read.append(tuple(x.shape)) or original(x, *rest))
    q = small_posterior("Flow")(torch.rand(4, *EVENT, dtype=F64)).expand((50, 4))
    q.log_prob(q.rsample())
    contexts, others = [s for s in read if s[0] == 4], [s for s in read if s[0] != 4]
    assert contexts.count((4, 3)) == 2  # of three features, for two layers
    assert others == [(50, 4, 2), (50, 4, 6)] * 2


# The distribution


@pytest.mark.parametrize("name", [f"q {n}" for n in FLOWS] + [f"p {n}" for n in FLOW_PRIORS])
class TestDistribution:
    def make(self, name):
        """A flow far from the identity, with batch shape [4]: q(z | x) or p(z)."""
        torch.manual_seed(3)
        role, _, name = name.partition(" ")
        self.module = stirred(small_posterior(name) if role == "q" else small_prior(name, 3))
        return self.module(torch.rand(4, *EVENT, dtype=F64)) if role == "q" else self.module().expand([4])

    def test_density_is_that_of_a_change_of_variables(self, name):
        """By the Jacobian of the sampler, and at a copy as at the draw itself."""
        q = self.make(name)
        z = q.rsample()
        kept, inverted = q.log_prob(z), q.log_prob(z.clone())
        start = q.transform.inv(z)
        whole = torch.autograd.functional.jacobian(q.transform, start)  # [4, L, 4, L]
        each = torch.stack([whole[i, :, i] for i in range(4)])
        expected = q.base.log_prob(start) - torch.linalg.slogdet(each)[1]
        torch.testing.assert_close(kept, expected)
        torch.testing.assert_close(inverted, expected)

    def test_gradient_is_the_same_kept_or_not(self, name):
        q = self.make(name)
        z = q.rsample()
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        kept, inverted = (
            torch.autograd.grad(q.log_prob(v).square().sum(), parameters, retain_graph=True, allow_unused=True)
            for v in (z, z.view_as(z))
        )
        for a, b in zip(kept, inverted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)

    def test_gradient_at_a_detached_draw_is_the_score(self, name):
        """E ∂ log q = 0, and no gradient is lost where the draw was taken without one."""
        q = self.make(name)
        q = q.expand((2000, 4))
        z = q.sample()
        first = next(p for n, p in self.module.named_parameters() if n.endswith("bias") and "layers.networks" in n)
        log_q = q.log_prob(z)
        assert log_q.requires_grad  # the draw had no graph, and what was kept with it was of no use
        (whole,) = torch.autograd.grad(log_q.sum(), first, retain_graph=True)
        basis = torch.eye(40, dtype=F64).repeat_interleave(50, 0).T  # means of 50 draws
        scores = torch.stack(
            [torch.autograd.grad(log_q, first, b[:, None].expand(2000, 4) / 200, True)[0] for b in basis]
        )
        z_test(scores.flatten(1), torch.zeros(first.numel(), dtype=F64))
        (copied,) = torch.autograd.grad(q.log_prob(z.clone()).sum(), first)
        torch.testing.assert_close(copied, whole)

    def test_kept_density_is_not_used_where_it_is_not_right(self, name):
        q = self.make(name)
        z = q.rsample()
        with torch.no_grad():
            quiet = q.log_prob(z)
        assert not quiet.requires_grad
        torch.testing.assert_close(quiet, q.log_prob(z))
        wider = q.expand((3, 4))
        torch.testing.assert_close(wider.log_prob(z.expand(3, *z.shape)), quiet.expand(3, 4))
        other = q.rsample()
        torch.testing.assert_close(q.log_prob(z.detach()), quiet)  # of a draw before the last
        with torch.no_grad():
            fresh = q.sample()
            assert q.log_prob(fresh) is not None
            fresh.add_(1.0)
            torch.testing.assert_close(q.log_prob(fresh), q.log_prob(fresh.clone()))
        fresh = q.sample().requires_grad_()
        (slope,) = torch.autograd.grad(q.log_prob(fresh).sum(), fresh)
        assert torch.isfinite(slope).all()
        assert slope.abs().max() > 0
        assert other.shape == z.shape

    def test_keeps_nothing_alive(self, name):
        q = self.make(name)
        z = q.rsample()
        held = [weakref.ref(t) for t in (q, z, q.log_prob(z))]
        gc.disable()
        try:
            del q, z
            assert all(r() is None for r in held)
        finally:
            gc.enable()

    def test_passes_through_the_networks(self, name, monkeypatch):
        """One for the draw of a posterior with its density, and for the density of a prior."""
        q = self.make(name)
        transforms, layers = len(self.module.layers.networks), len(self.module.layers.networks[0].layers)
        passes, original = [], nn.functional.linear
        monkeypatch.setattr(nn.functional, "linear", lambda *a: passes.append(1) or original(*a))
        if name.startswith("q"):
            q.log_prob(q.rsample())
        else:
            q.log_prob(torch.zeros(4, 3, dtype=F64))
        assert len(passes) == transforms * layers


@pytest.mark.parametrize("name", FLOWS)
class TestObjectives:
    def test_estimators_agree_in_the_mean(self, name):
        """STL, the score and the pathwise gradient of the ELBO: one mean, different draws."""
        torch.manual_seed(1)
        vae, x = stirred(small_vae(posterior=name, event=[3]).double(), 0.2), small_data(event=[3], n=2)

        def estimate(gradient: str, seed: int) -> torch.Tensor:
            loss = run(pv.objectives.ELBO(40, gradient=gradient), vae, x, seed).surrogate.mean()
            return torch.cat([g.flatten() for n, g in gradients(vae, loss).items() if n.startswith("posterior.layers")])

        found = {g: torch.stack([estimate(g, s) for s in range(60)]) for g in ("pathwise", "stl", "score")}
        zero = torch.zeros(found["stl"].shape[1], dtype=F64)
        z_test(found["stl"] - found["pathwise"], zero)  # of the same draws
        z_test(found["score"] - found["pathwise"], zero)

    def test_dreg_agrees_in_the_mean(self, name):
        torch.manual_seed(1)
        vae, x = stirred(small_vae(posterior=name, event=[3]).double(), 0.2), small_data(event=[3], n=2)

        def estimate(gradient: str, seed: int) -> torch.Tensor:
            loss = run(pv.objectives.IWAE(5, gradient=gradient), vae, x, seed).surrogate.mean()
            return torch.cat([g.flatten() for n, g in gradients(vae, loss).items() if n.startswith("posterior.layers")])

        d = torch.stack([estimate("dreg", s) - estimate("pathwise", s) for s in range(150)])
        z_test(d, torch.zeros(d.shape[1], dtype=F64))

    def test_a_pathwise_step_inverts_nothing(self, name, monkeypatch):
        vae, x = small_vae(posterior=name), small_data(dtype=torch.float32)
        pv.densities(vae, x, 3)  # the layout is found by comparing
        monkeypatch.setattr(flow.zuko_transforms().AutoregressiveTransform, "_inverse", None)
        assert torch.isfinite(pv.objectives.IWAE(3)(vae, x).bound).all()


# Kinds and options


@pytest.mark.parametrize("kind", ["NSF", "MAF", "RealNVP"])
@pytest.mark.parametrize("latent", [1, 2, 5])
def test_prior_begins_near_the_standard_normal(kind, latent):
    z = torch.randn(100, latent)
    p = priors.Flow(latent, kind)()
    standard = dist.Normal(torch.zeros(latent), 1.0).to_event(1)
    torch.testing.assert_close(p.log_prob(z), standard.log_prob(z), rtol=0, atol=0.5)
    assert p.sample((3,)).shape == (3, latent)


@pytest.mark.parametrize("kind", ["IAF", "NSF", "RealNVP"])
@pytest.mark.parametrize(("latent", "context"), [(1, 2), (1, 0), (3, 0)])
def test_posterior_of_other_sizes(kind, latent, context):
    q = posteriors.Flow(networks.MLP([4], posteriors.Flow.code(latent, context=context)), kind, context=context)
    z = q(torch.randn(5, 4)).rsample((2,))
    torch.testing.assert_close(q(torch.ones(5, 4)).log_prob(z[0]), q(torch.ones(1, 4)).log_prob(z[0]))


def test_spline_is_the_identity_beyond_its_ends():
    p = stirred(priors.Flow(3, "NSF", hidden=[8])).double()
    z = torch.tensor([[7.0, -6.0, 5.5], [-50.0, 5.01, 1e6]], dtype=F64)
    standard = dist.Normal(torch.zeros(3, dtype=F64), 1.0).to_event(1)
    torch.testing.assert_close(p().log_prob(z), standard.log_prob(z))


def test_coupling_is_inverted_in_two_passes():
    assert priors.Flow(9, "RealNVP").layers.passes == 2
    assert priors.Flow(9, "MAF").layers.passes == 9


@pytest.mark.parametrize("kind", ["NSF", "MAF", "RealNVP"])
def test_extreme_values_in_float32(kind):
    for by in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        module = stirred(priors.Flow(4, kind), by)
        for v in (0.0, 5.0, -5.0, 4.99999, 1e-30, 1e4, -1e6):
            z = torch.full((3, 4), v, requires_grad=True)
            log_p = module().log_prob(z)
            found = torch.autograd.grad(log_p.sum(), [z, *module.parameters()])
            assert all(torch.isfinite(t).all() for t in (log_p, *found))
        p = module()
        z = p.rsample((1000,))
        found = torch.autograd.grad(z.sum() + p.log_prob(z).sum(), list(module.parameters()))
        assert all(torch.isfinite(t).all() for t in (z, p.log_prob(z), *found))


@pytest.mark.parametrize("kind", ["IAF", "NSF", "RealNVP"])
def test_extreme_codes_in_float32(kind):
    """Scales from e^−20 to e^20, and a context in the thousands."""
    module = posteriors.Flow(networks.MLP([10], [10], []), kind, context=4, hidden=[8])
    module.network = nn.Identity()
    for size in (20.0, -20.0):
        y = torch.full((2, 10), size)
        y[..., :3], y[..., 6:] = 1e3, 100 * size
        y.requires_grad_()
        q = module(y)
        z = q.rsample((100,))
        log_q = q.log_prob(z)
        found = torch.autograd.grad(z.sum() + log_q.sum(), [y, *module.parameters()])
        assert all(torch.isfinite(t).all() for t in (z, log_q, *found))


def test_options_by_name():
    spec = {"class_path": "Flow", "init_args": {"kind": "NSF", "transforms": 1, "hidden": [4], "context": 2}}
    prior = {"class_path": "Flow", "init_args": {"kind": "MAF", "transforms": 1, "hidden": [4]}}
    vae = pv.models.VAE.build(Toy(), latent=3, hidden=[4], prior=prior, posterior=spec)
    assert (vae.prior.layers.kind, vae.posterior.layers.kind, vae.posterior.latent) == ("MAF", "NSF", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "maf"}, "Flow has no kind 'maf'; did you mean 'MAF'? Known: MAF, NSF, RealNVP."),
        ({"kind": "IAF"}, "Flow has no kind 'IAF'"),
        ({"transforms": 0}, "Flow expects transforms as a whole number of at least 1, got 0"),
        ({"transforms": True}, "Flow expects transforms as a whole number of at least 1, got True"),
        ({"hidden": [0]}, "Flow expects hidden as positive sizes, got [0]"),
        ({"hidden": "64"}, "Flow expects hidden as positive sizes, got '64'"),
    ],
)
def test_prior_refuses(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        priors.Flow(3, **options)


@pytest.mark.parametrize("context", [-1, 1.5, "3", None, True])
def test_posterior_refuses_a_context(context):
    with pytest.raises(ValueError, match="Flow expects context as a whole number of at least 0"):
        posteriors.Flow.code(3, context=context)


def test_posterior_refuses_an_encoder_that_does_not_tell():
    with pytest.raises(ValueError, match="Flow expects an encoder that tells its output shape"):
        posteriors.Flow(nn.Linear(4, 38))
