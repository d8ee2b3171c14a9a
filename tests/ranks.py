"""What test_distributed.py does in one process and in two: `torchrun ranks.py FOLDER` leaves what each rank found."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pyro
import torch

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE, BetaELBO, Estimate, Objective
from pyrovae.objectives.baselines import RunningMean
from pyrovae.training.launch import find_crew

OPTIONS = {"epochs": 3, "batch_size": 100, "progress": False, "device": "cpu", "learning_rate": 1e-2}


def make_data():
    """301 images in batches of 100: the last has one row, and one of two ranks has none of it."""
    x = pv.data.load("digits").train
    return pv.data.from_arrays(x[:301], validation=x[400:451], values="counts", levels=16)


def build(seed=0):
    torch.manual_seed(seed)
    return pv.models.VAE.build(make_data(), latent=3, hidden=[16]).double()


class Fixed(Objective):
    """An ELBO whose noise is a function of the datum, with a running mean and a schedule that its gradient follows."""

    def __init__(self, on_call=None):
        super().__init__()
        self.baseline, self.on_call, self.calls = RunningMean(), on_call, 0
        self.register_buffer("epoch", torch.zeros(()))
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
        self.double()

    def advance(self, epochs):
        self.epoch += epochs

    def forward(self, vae, x):
        if torch.is_grad_enabled() and vae.training:
            self.calls += 1
            if self.on_call is not None:
                self.on_call(vae, self.calls)
        q, p = vae.posterior(x), vae.prior()
        z = q.mean + q.stddev * torch.sin(1e3 * x.flatten(1)[:, 10:13] + torch.arange(3.0))
        log_w = vae.likelihood(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)
        before, _ = self.baseline(x, log_w.detach()[None])
        score = (log_w.detach() - before[0]) * q.log_prob(z.detach())
        return Estimate(log_w.detach(), log_w + 1e-2 * (1 + self.epoch) * score)


class Noise(ELBO):
    """An ELBO that keeps the first noise of each of its calls in training."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, vae, x):
        if vae.training and torch.is_grad_enabled():
            self.seen.append(float(torch.rand(())))
        return super().forward(vae, x)


def interrupt(rank):
    def act(vae, calls):
        if rank == 1 and calls == 6:
            os.kill(os.getpid(), signal.SIGINT)

    return act


class Fragile(pv.models.VAE):
    """One whose likelihood is NaN on one rank from the sixth step on."""

    rank, calls = 0, 0

    def model(self, x):
        self.calls += self.training
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            broken = self.rank == 1 and self.training and self.calls > 6
            pyro.sample("x", self.likelihood(z * torch.nan if broken else z), obs=x)


class Refused(ELBO):
    """Refuses batches on one rank."""

    rank = 0

    def forward(self, vae, x):
        if self.rank == 1:
            raise ValueError("rank 1 does not like it")
        return super().forward(vae, x)


def drift(rank):
    def act(vae, calls):
        if rank == 1 and calls == 2:
            with torch.no_grad():
                next(vae.parameters()).add_(0.1)

    return act


@contextmanager
def captured():
    """Steps are captured as graphs inside; the levels that were reached come out."""
    levels, module = [], sys.modules["pyrovae.training.fit"]
    before = module.choose_level, module.Step.prepare

    def prepare(step, *words, **options):
        before[1](step, *words, **options)
        levels.append(step.level)

    module.choose_level, module.Step.prepare = lambda *_: "captured", prepare
    try:
        yield levels
    finally:
        module.choose_level, module.Step.prepare = before


def tell(run, **more):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows]
    weights = {k: v.clone() for k, v in run.model.state_dict().items()}
    return {"rows": rows, "seconds": [r["seconds"] for r in run.rows], "weights": weights} | more


def train(vae=None, objective=None, **options):
    return pv.fit(build() if vae is None else vae, make_data(), objective or Fixed(), **(OPTIONS | options))


def error_of(act):
    try:
        act()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def scenarios(folder, **scale):
    """Everything that two processes do, and the first part of it in one; `scale` are the processes."""
    rank = find_crew("cpu", **scale).rank
    found = {"rank": rank}
    found["equal"] = tell(train(**scale))
    found["uneven"] = tell(train(batch_size=45, **scale))  # shares of 22 and 23 rows
    found["clipped"] = tell(train(clip=5.0, **scale))
    until_worse = {"epochs": 40, "learning_rate": 0.05, "schedule": "constant", "patience": 1}
    stopped = train(**until_worse, **scale)
    found["stopped"] = tell(stopped, best=stopped.best_epoch)
    noise = Noise()
    found["noise"] = tell(train(objective=noise, **scale), seen=noise.seen)
    found["unseeded"] = tell(train(build(seed=rank), **scale))  # every rank starts from other weights
    for name, objective in (("fixed", Fixed), ("drawn", lambda: BetaELBO(2.0, warmup=3))):
        for until, resume in ((2, False), (4, True)):
            kept = {"run_dir": folder / name, "resume": resume, "schedule": "constant"}
            run = train(objective=objective(), epochs=until, **kept, **scale)
        found[f"{name} resumed"] = tell(run)
        found[f"{name} whole"] = tell(train(objective=objective(), epochs=4, schedule="constant", **scale))
    if scale:
        train(objective=Fixed(), epochs=2, run_dir=folder / "short", schedule="constant", **scale)
        run = train(objective=Fixed(), epochs=4, run_dir=folder / "alone", resume=True, schedule="constant", **scale)
        found["after one process"] = tell(run)
        cut = train(objective=Fixed(interrupt(rank)), run_dir=folder / "cut", epochs=30, **scale)
        found["interrupted"] = tell(cut, interrupted=cut.interrupted)
        fragile = Fragile(*(getattr(build(), n) for n in ("prior", "likelihood", "posterior")))
        fragile.rank = rank
        found["nan"] = error_of(lambda: train(fragile, ELBO(), epochs=9, **scale))
        found["nan weights"] = [bool(p.isfinite().all()) for p in fragile.parameters()]
        other = build() if rank == 0 else pv.models.VAE.build(make_data(), latent=4, hidden=[16]).double()
        found["other model"] = error_of(lambda: train(other, ELBO(), **scale))
        refused = Refused()
        refused.rank = rank
        found["refused"] = error_of(lambda: train(objective=refused, **scale))
        found["drift"] = error_of(lambda: train(objective=Fixed(drift(rank)), **scale))
        found["dreg"] = tell(train(objective=IWAE(3, "dreg"), clip=5.0, **scale))
        score = ELBO(2, gradient="score", baseline="mean")
        found["score"] = tell(train(objective=score, **scale))
        with captured() as levels:
            found["score captured"] = tell(train(objective=score, **scale), levels=levels)
        scale |= {"strategy": "fsdp"}
        found["fsdp"] = tell(train(**scale))
        found["fsdp uneven"] = tell(train(batch_size=45, **scale))
        found["fsdp stopped"] = tell(train(run_dir=folder / "fsdp stopped", **until_worse, **scale))
        found["fsdp dreg"] = tell(train(objective=IWAE(3, "dreg"), clip=5.0, **scale))
        for until, resume in ((2, False), (4, True)):
            run = train(epochs=until, run_dir=folder / "fsdp", resume=resume, schedule="constant", **scale)
        found["fsdp resumed"] = tell(run)
        found["fsdp kinds"] = sorted({type(p).__name__ for p in run.model.parameters()})
        fragile.calls = 0
        found["fsdp nan"] = error_of(lambda: train(fragile, ELBO(), epochs=9, **scale))
        found["fsdp nan weights"] = [bool(p.isfinite().all()) for p in fragile.parameters()]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = scenarios(Path(sys.argv[1]), devices=2)
    torch.save(found, Path(sys.argv[1]) / f"{found['rank']}.pt")
