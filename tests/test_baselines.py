"""Control variates of the score function: what they are, that they help, and that they are saved."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64
from exact import Coins

import pyrovae as pv
from pyrovae.objectives import ELBO
from pyrovae.objectives.baselines import LeaveOneOut, RunningMean

TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def test_leave_one_out_is_the_mean_of_the_others():
    value = torch.randn(4, 3, dtype=F64)
    b, own = LeaveOneOut()(torch.zeros(3, 2), value)
    for k in range(4):
        torch.testing.assert_close(b[k], torch.cat([value[:k], value[k + 1 :]]).mean(0), **TIGHT)
    assert not own.any()


def test_running_mean_is_of_the_batches_before():
    """Weights 0.9^age over the batches seen, none of them this one; validation leaves it alone."""
    baseline, seen = RunningMean(decay=0.9).double(), []
    for i in range(5):
        value = torch.randn(2, 3, dtype=F64) - 100
        with torch.no_grad():
            before, _ = baseline(torch.zeros(3, 2), value - 7)
        b, _ = baseline(torch.zeros(3, 2), value)
        assert torch.equal(b, before)
        ages = 0.9 ** torch.arange(i, dtype=F64).flip(0)
        expected = (ages * torch.stack(seen)).sum() / ages.sum() if seen else torch.zeros((), dtype=F64)
        torch.testing.assert_close(b, expected.expand(2, 3))
        seen.append(value.mean())


class Far(Coins):
    """Coins, and 50 nats less for every datum."""

    def model(self, x):
        m, w, b = self.theta.split([2, 6, 3])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=m).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=2 * z @ w.view(2, 3) + b).to_event(1), obs=x)
            pyro.factor("less", x.new_full((), -50.0))


def variance(objective, vae, x):
    """Of the guide's gradient, summed over its parameters."""
    draws = [torch.autograd.grad(objective(vae, x).surrogate.mean(), vae.phi)[0] for _ in range(300)]
    return torch.stack(draws).var(0).sum().item()


@pytest.mark.parametrize("baseline", ["mean", "network", "leave_one_out"])
def test_baselines_take_off_variance(baseline):
    """Where log w is far from zero, as it is for images: by a factor of ten at least, once trained."""
    vae = Far()
    x = vae.data(20)
    objective = ELBO(2, gradient="score", baseline=baseline)
    objective(vae, x)
    learned = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, 0.01) if learned else None
    for _ in range(200):
        loss = -objective(vae, x).surrogate.mean()
        if optimiser:
            optimiser.zero_grad()
            loss.backward(inputs=learned)
            optimiser.step()
    assert variance(objective, vae, x) < variance(ELBO(2, gradient="score"), vae, x) / 10


def test_the_network_is_trained_and_saved_with_a_run(tmp_path):
    """Interrupted and resumed, a run with it ends in the weights of one that was not."""
    data = pv.data.load("digits")

    def train(folder, epochs, resume=False):
        torch.manual_seed(0)
        vae = pv.models.VAE.build(data, latent=3, hidden=[8], prior="Bernoulli", posterior="Bernoulli")
        objective = ELBO(2, gradient="score", baseline="network")
        options = {"schedule": "constant", "progress": False, "run_dir": tmp_path / folder}
        return pv.fit(vae, data, objective, epochs=epochs, resume=resume, **options).model

    whole = train("whole", 3)
    train("parts", 2)
    parts = train("parts", 3, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_clipping_leaves_the_baseline_s_gradient_out_of_the_model_s_norm():
    """The network's error is large at the start; the model's steps are those of a baseline without parameters."""
    data = pv.data.load("digits")
    moved = {}
    for clip in (1e9, 1e-3):
        torch.manual_seed(0)
        vae = pv.models.VAE.build(data, latent=3, hidden=[8], prior="Bernoulli", posterior="Bernoulli")
        before = torch.cat([p.detach().flatten().clone() for p in vae.parameters()])
        objective = ELBO(2, gradient="score", baseline="network")
        options = {"optimizer": lambda p: torch.optim.SGD(p, lr=1.0), "schedule": "constant", "progress": False}
        pv.fit(vae, data, objective, epochs=1, batch_size=1295, clip=clip, **options)
        moved[clip] = (torch.cat([p.detach().flatten() for p in vae.parameters()]) - before).norm().item()
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved[1e9] > 1
