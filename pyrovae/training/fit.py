"""Training: one visible loop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..data import Dataset, from_arrays
from ..objectives import Objective, PyroELBO
from ..objectives.checks import as_objective
from ..program import densities, evaluating, home, seeded
from ..program.compile import Compile, choose_level
from ..progress import bar as progress_bar
from .adam import FusedAdam
from .distributed import Crew
from .launch import find_crew
from .run_folder import RunFolder, put_weights, save, write_model
from .schedules import Schedule, find_schedule
from .settings import check_data, check_program, check_settings, fitting_threads, machine
from .step import Step

log = logging.getLogger("pyrovae")


@dataclass
class Fit:
    """What training leaves: the model, and one row of history an epoch.

    Attributes:
        model: the trained model, in evaluation mode.
        rows: epoch, bound and validation in nats per datum, learning_rate, seconds.
        run_dir: the run folder, if one was asked for.
        interrupted: whether Ctrl-C ended the training; the weights are then those of the last finished epoch.
        best_epoch: the epoch whose weights were restored by early stopping; None where the last ones are kept.
    """

    model: Any
    rows: list[dict[str, Any]]
    run_dir: Path | None
    interrupted: bool = False
    best_epoch: int | None = None

    @property
    def history(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


@dataclass
class _Progress:
    """How far a run has come, and its best epoch on the validation set."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0
    best_bound: float = -math.inf

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.rows)

    def add(self, row: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """One more finished epoch."""
        self.rows.append(row)
        if row.get("validation", -math.inf) > self.best_bound:
            self.best, self.best_epoch, self.best_bound = weights, self.epoch, row["validation"]

    def exhausted(self, patience: int | None) -> bool:
        """Whether the validation bound has not risen for so many epochs."""
        return patience is not None and self.epoch - self.best_epoch >= patience


class NonFiniteBound(ValueError):
    """A bound became NaN or infinite in training."""


def fit(
    vae: Any,
    data: Dataset | Tensor,
    objective: Any = None,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    schedule: str | Schedule = "cosine",
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    clip: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str = "auto",
    compile: Compile = "auto",
    precision: str = "auto",
    devices: int | None = None,
    strategy: str = "ddp",
    nodes: int | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    settings: dict[str, Any] | None = None,
    measure: Callable[[Any, int], dict[str, float]] | None = None,
    check: bool = True,
) -> Fit:
    """Train a model and its guide by stochastic gradient ascent on an objective's surrogate.

    Args:
        vae: anything with a Pyro `model(x)` and `guide(x)`, and parameters: a torch module or a `pv.Program`.
        data: a `pyrovae.data.Dataset`, or a tensor [N, *event] of training data.
        objective: from `pyrovae.objectives` (default ELBO with analytic KL), or a `pyro.infer` ELBO object.
        epochs: passes over the training data.
        batch_size: data in a batch, B.
        learning_rate: of Adam, at the start of the schedule.
        schedule: "constant", "cosine", "linear", or a function from the fraction of training done to a factor.
        optimizer: from parameters to a torch optimiser, in place of fused Adam.
        clip: largest norm of the gradient; None leaves it as it is.
        patience: stop after so many epochs without a better validation bound, and restore the best weights.
        seed: of everything drawn; on a CPU two runs with one seed are bit-equal. The caller's stream is untouched.
        device: "auto" (cuda, then mps, then cpu) or a torch device.
        compile: "never" runs each step as the Python that it is; "always" captures it as a graph of operations, checks
            that against the Python, and compiles it, which takes up to 20 seconds and on a C++ compiler on a CPU;
            "auto" goes as far as the number of steps repays. What cannot be captured stays in Python, with one line
            (of the logger "pyrovae") that says why.
        precision: "float32"; "bfloat16" for the networks under autocast (densities stay in full precision); "auto" is
            float32, with the matrix products in TF32 on CUDA.
        devices: processes on each node, one a device, that share every batch (extra "fabric"; `docs/scaling.md`). None
            is one, or what torchrun has started. A script is run again by each of them, and `fit` is where they meet.
        strategy: of several: "ddp" (replicas) or "fsdp" (parameters, gradients and optimiser states in pieces).
        nodes: machines; None is one, or what torchrun says.
        run_dir: a folder to keep the run in; each finished epoch can be resumed from.
        resume: go on from the last finished epoch in run_dir; on a CPU bit-equal to a run that was never stopped.
        progress: show a progress bar.
        settings: plain data to keep in the config.yaml of the run folder.
        measure: called with the model, in evaluation mode, and the number of finished epochs after each of them; its
            figures, always of the same names, join the epoch's row of the history. Its time and random numbers are no
            part of the training's.
        check: look at program, data and objective as `pv.check` does: what cannot be right is refused, and for the
            rest there is one line each (of the logger "pyrovae"). What would fail at the first step is refused anyway.

    Returns:
        `Fit`, with .model, .history and .run_dir.

    Raises:
        ValueError: for data that the model gives no density to, for programs that cannot be right, for settings that
            contradict each other, and for processes that cannot be started.
        NonFiniteBound: naming epoch and site; the model then holds its last good weights.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> run = pv.fit(pv.models.VAE.build(data, latent=2), data, epochs=2, progress=False)
    >>> len(run.history)
    2
    """
    data = data if isinstance(data, Dataset) else from_arrays(data, validation_size=0)
    objective = copy.deepcopy(as_objective(objective))  # a schedule or a baseline belongs to one run
    rate_at = find_schedule(schedule)
    check_settings(
        vae, data, objective, epochs, batch_size, learning_rate, clip, patience, compile, precision, run_dir, resume
    )
    crew = find_crew(device, devices, strategy, nodes, seed)
    where = crew.device
    folder = RunFolder(run_dir) if run_dir is not None and crew.main else None
    if crew.first(lambda: folder is not None and folder.in_use()) and not resume:
        raise ValueError(f"{str(run_dir)!r} already holds a run; resume it, or choose another run_dir")
    vae.to(where)
    objective.to(where)
    with seeded(seed, where):
        before = _copied(objective.state_dict())
        flops = crew.agree(lambda: check_data(vae, objective, data, batch_size, where))
        crew.agree(lambda: crew.check_shares(vae, objective, data, batch_size))
        with fitting_threads(flops, where):
            found = crew.agree(lambda: check_program(vae, objective, data, batch_size, where)) if check else []
        objective.load_state_dict(before, strict=False)  # a running mean starts with the first step
    for line in found if crew.main else ():
        log.warning(line)
    crew.set_up(vae, objective, autocast=precision == "bfloat16")
    gradient = Step(vae, objective, autocast=precision == "bfloat16")
    if not gradient.parameters:
        raise ValueError(f"{type(vae).__name__} has no parameters to train")
    make = optimizer or (lambda p: FusedAdam(p, learning_rate))
    loop = _Loop(vae, objective, gradient, make(gradient.parameters), data, batch_size, epochs, rate_at, clip, crew)
    so_far, interrupted = _Progress(), False
    computing = machine(flops // crew.size, where, precision)
    with seeded(crew.seed, where), pyro.validation_enabled(False), computing, crew.listening():
        if resume:
            so_far = loop.restore(crew.first(lambda: RunFolder(run_dir or "").read_state()))
            if so_far.epoch > epochs:
                raise ValueError(f"the run to resume has {so_far.epoch} epochs behind it, more than epochs={epochs}")
        loop.prepare(compile, flops // crew.size, seed)
        last_good = loop.capture()
        kept = crew.gathered(last_good | {"progress": vars(so_far)}) if run_dir is not None else {}
        if folder:  # from here on the folder can be loaded and resumed, whatever happens
            write_model(folder, vae, kept["model"], settings)
            folder.write_state(kept)
        bar = progress_bar(epochs * loop.steps, progress and crew.main, "step", initial=so_far.epoch * loop.steps)
        try:
            while so_far.epoch < epochs and not so_far.exhausted(patience):
                bar.set_description(f"epoch {so_far.epoch + 1}/{epochs}", refresh=False)
                row = loop.train_and_validate(so_far.epoch, crew.seed, bar)
                if not loop.finite(row):
                    loop.diagnose(last_good, so_far.epoch)
                last_good = loop.capture()
                if measure is not None:
                    with evaluating(vae), seeded(seed, where), crew.whole():
                        row |= crew.first(lambda: measure(vae, so_far.epoch + 1))
                so_far.add(row, last_good["model"])
                bar.set_postfix({k: f"{row[k]:.2f}" for k in ("bound", "validation") if k in row}, refresh=False)
                kept = crew.gathered(last_good | {"progress": vars(so_far)}) if run_dir is not None else {}
                if folder:
                    folder.write_state(kept)
                    folder.write_weights(kept["model"])
                    folder.write_history(so_far.rows)
                crew.listen()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            bar.close()
    best = so_far.best if patience is not None else None
    weights = crew.gathered(best or last_good["model"])
    crew.disband(vae, objective)
    vae.load_state_dict(weights)
    vae.eval()
    if folder:
        save(vae, folder.path)
        folder.write_history(so_far.rows)
    crew.barrier()
    kept_in = Path(run_dir) if run_dir is not None else None
    return Fit(vae, so_far.rows, kept_in, interrupted, so_far.best_epoch if best else None)


class _Loop:
    """The training loop of one run, and what it must remember to be continued."""

    def __init__(
        self,
        vae: Any,
        objective: Objective,
        gradient: Step,
        optimizer: torch.optim.Optimizer,
        data: Dataset,
        batch_size: int,
        epochs: int,
        rate_at: Schedule,
        clip: float | None,
        crew: Crew,
    ) -> None:
        self.vae, self.objective, self.gradient, self.optimizer = vae, objective, gradient, optimizer
        self.data, self.batch_size, self.epochs = data, batch_size, epochs
        self.rate_at, self.clip, self.crew, self.device = rate_at, clip, crew, crew.device
        self.rates = [g["lr"] for g in optimizer.param_groups]
        self.steps = -(-data.size("train") // batch_size)
        self.dtype = home(vae)[1]

    def prepare(self, compile: Compile, flops: int, seed: int) -> None:
        """Choose how the steps of the whole run are to be run, and make them ready; random numbers are untouched."""
        allowed = compile if self.crew.capturable else "never"
        level = choose_level(allowed, self.epochs * self.steps, 3 * flops)  # forward, and twice backward
        self.vae.train()
        with seeded(seed, self.device):
            self.gradient.prepare(level, next(self.batches("train", shuffle=False)))

    def train_and_validate(self, epoch: int, seed: int, bar: Any) -> dict[str, Any]:
        """One epoch, as a row of the history."""
        started = time.perf_counter()
        row = {"epoch": epoch + 1, "bound": self.epoch(epoch, bar)}
        if self.data.size("validation"):
            row["validation"] = self.validate(seed)
        rate = self.optimizer.param_groups[0]["lr"]
        return row | {"learning_rate": rate, "seconds": self.crew.first(lambda: time.perf_counter() - started)}

    def batches(self, split: str, shuffle: bool) -> Iterator[Tensor]:
        """This rank's shares of batches on the device, in the dtype of the weights."""
        share, order = (self.crew.rank, self.crew.size), self.crew.order
        for x in self.data.batches(
            split, self.batch_size, shuffle=shuffle, device=self.device, share=share, generator=order
        ):
            yield x.to(self.dtype)

    def epoch(self, epoch: int, bar: Any = None, watch: bool = False) -> float:
        """One pass over the training data; the mean bound. Nothing is read back from the device before its end."""
        self.vae.train()
        total = torch.zeros((), device=self.device)
        n = self.data.size("train")
        for step, x in enumerate(self.batches("train", shuffle=True)):
            weight = self.crew.weight(n, self.batch_size, step)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.rate_at((epoch + step / self.steps) / self.epochs)
            bound = self.crew.step(partial(self.gradient, x, begin=step < 2), x, weight)
            if self.clip is not None:
                for module in (self.vae, self.objective):  # a baseline's gradient is no part of the model's norm
                    nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], self.clip)
            if watch:
                self.look(x, bound, epoch, step)
            self.optimizer.step()
            self.objective.advance(1 / self.steps)
            total += bound
            self.crew.listen(step)
            if bar is not None:
                bar.update()
        return float(self.crew.total(total)) / n

    def look(self, x: Tensor, bound: Tensor, epoch: int, step: int) -> None:
        """Names what is broken, on every rank what one of them has found. Raises NonFiniteBound."""
        with self.crew.whole():
            self.crew.agree(
                lambda: _name_the_site(self.vae, self.objective, x, bound, epoch, step),
                key=lambda error: "the log density of" not in str(error),  # others see the averaged gradient alone
            )

    def validate(self, seed: int) -> float:
        """The mean bound on the validation set, its random numbers the same in every epoch."""
        total = torch.zeros((), device=self.device)
        n = self.data.size("validation")
        with evaluating(self.vae), seeded(seed, self.device):
            for step, x in enumerate(self.batches("validation", shuffle=False)):
                bound = self.crew.estimate(x).bound
                if self.crew.weight(n, self.batch_size, step):
                    total += bound.sum()
        return float(self.crew.total(total)) / n

    def finite(self, row: dict[str, Any]) -> bool:
        """Whether the bounds of an epoch, and the weights after it, are numbers."""
        tensors = [self.crew.local(p) for p in self.vae.state_dict().values() if p.is_floating_point()]
        weights = bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())
        bounds = all(math.isfinite(row[k]) for k in ("bound", "validation") if k in row)
        return self.crew.sound(weights and bounds, tensors)

    def capture(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return {
            "model": _copy(self.vae),
            "optimizer": _copied(self.optimizer.state_dict()),
            "objective": _copied(self.objective.state_dict()),
            "rng": [torch.get_rng_state(), *cuda],
        } | self.crew.capture()

    def put_back(self, captured: dict[str, Any]) -> None:
        """Everything as it was when it was captured."""
        self.vae.load_state_dict(captured["model"])
        self.optimizer.load_state_dict(captured["optimizer"])
        self.objective.load_state_dict(captured["objective"])
        self.crew.put_back(captured)
        torch.set_rng_state(captured["rng"][0])
        if len(captured["rng"]) > 1 and self.device.type == "cuda":
            torch.cuda.set_rng_state(captured["rng"][1], self.device)

    def restore(self, saved: dict[str, Any]) -> _Progress:
        """Goes on from what a run folder holds. Raises ValueError for another architecture."""
        saved = self.crew.distributed(saved, self.vae, self.objective, self.optimizer)
        put_weights(self.vae, saved["model"], "the run to resume")
        try:
            self.put_back(saved)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                "the run to resume was trained with another objective or optimizer; give it the same ones "
                f"({' '.join(str(error).split())})"
            ) from error
        return _Progress(**saved["progress"])

    def diagnose(self, last_good: dict[str, Any], epoch: int) -> None:
        """Runs the failed epoch again from its start, looking at every step, to name the site."""
        self.put_back(last_good)
        try:
            self.epoch(epoch, watch=True)
            raise NonFiniteBound(f"the bound became NaN or infinite in epoch {epoch + 1}{_ADVICE}")
        finally:
            self.put_back(last_good)
            self.crew.disband(self.vae, self.objective)
            self.vae.eval()


_ADVICE = "; the model holds the weights of the last good epoch. Lower the learning rate, or clip the gradient."


def _name_the_site(vae: Any, objective: Objective, x: Tensor, bound: Tensor, epoch: int, step: int) -> None:
    when = f"in epoch {epoch + 1}, step {step + 1}"
    broken = [n for n, p in vae.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if torch.isfinite(bound).all() and not broken:
        return
    if isinstance(objective, PyroELBO):
        raise NonFiniteBound(f"{type(objective.elbo).__name__} or its gradient became NaN or infinite {when}{_ADVICE}")
    with torch.no_grad():
        d = densities(vae, x, getattr(objective, "particles", 1))
        for sites, of in ((d.posterior, "guide"), (d.prior, "model"), (d.likelihood, "model")):
            for site in sites.values():
                if not torch.isfinite(site.log_prob).all():
                    raise NonFiniteBound(
                        f"the log density of {of} site {site.name!r} became NaN or infinite {when}{_ADVICE}"
                    )
        lowest = min((s for g in (d.prior, d.likelihood) for s in g.values()), key=lambda s: float(s.log_prob.min()))
    raise NonFiniteBound(
        f"the gradient of {broken[0] if broken else 'the bound'} became NaN or infinite {when}, with the lowest log "
        f"density at site {lowest.name!r}{_ADVICE}"
    )


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list | tuple) else value
