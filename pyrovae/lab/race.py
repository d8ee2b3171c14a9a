"""One model trained under several objectives, at equal seeds and equal cost."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor, nn

from ..config import nearest
from ..data import Dataset, from_arrays
from ..evaluation import evaluate
from ..evaluation.arguments import check_count, check_data
from ..program import evaluating, home, seeded
from ..training import fit
from ..training.run_folder import write_whole
from ..training.settings import check_data as check_training
from ..training.settings import find_device, fitting_threads
from .contenders import Contender, contenders, reason
from .cost import ModelRows, Stopwatch

if TYPE_CHECKING:
    from pandas import DataFrame

OWN = {"objective", "seed", "measure", "run_dir", "resume", "settings"}  # of `fit`
FITTING = set(inspect.signature(fit).parameters) - OWN
COSTS = ("passes", "seconds", "epochs")
BATCH = inspect.signature(fit).parameters["batch_size"].default
HELD_OUT = 500
CALLS = 10  # that a step's seconds are the median of
ENTRANTS = ("ELBO(kl=analytic)", "IWAE", "IWAE(gradient=dreg)")
COLUMNS = (
    *("objective", "particles", "seed", "epoch", "seconds", "decoder_passes"),
    *("log_evidence", "log_evidence_error", "failed"),
)


def race(
    vae: nn.Module | Callable[[], nn.Module],
    data: Dataset | Tensor,
    objectives: Any = ENTRANTS,
    particles: int | Iterable[int] | None = None,
    cost: str = "passes",
    epochs: int = 20,
    points: int = 10,
    x: Tensor | None = None,
    test_particles: int = 500,
    seeds: Sequence[int] = (0,),
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> DataFrame:
    """Train one model under each objective from the same start, and follow its held-out log evidence.

    The budget is what `epochs` epochs of the cheapest objective cost. One that costs c times as much a step has
    epochs / c of them, rounded to whole ones and at least one (the columns decoder_passes and seconds tell how equal it
    came out), on a whole schedule of the learning rate. Passes are rows through the decoder for each datum, forward;
    the count is exact, so that one seed gives one table but for the seconds. With cost="seconds" the number of epochs
    hangs on a clock.

    Args:
        vae: a torch module, which is copied for every objective and seed, or a function that builds one, which is
            called under each seed.
        data: a `pyrovae.data.Dataset`, or a tensor [N, *event] of which a part is held out.
        objectives: as in `compare`.
        particles: as in `compare`.
        cost: what is to be equal: "passes", "seconds" or "epochs".
        epochs: of the cheapest objective.
        points: evaluations on the way, the start not counted.
        x: held-out data [N, *event]; None for the first 500 of the test set, or of the validation set.
        test_particles: of each evaluation.
        seeds: of initial weights (where `vae` is a function), the order of the data and the draws.
        folder: where race.csv is kept as runs end, and race.png at the end.
        progress: show a progress bar for each training.
        settings: for `pv.fit`: batch_size, learning_rate, device, ...; not what the race sets itself.

    Returns:
        A pandas DataFrame, a row for each objective, seed and evaluation: epoch (0 is the start), seconds and
        decoder_passes of training so far, the latter for each training datum; log_evidence, mean over x in nats per
        datum, with its standard error over x: importance sampling through each run's own guide, on average a lower
        bound, and a looser one under a worse guide; failed: why a run ended, else "". `.attrs` has cost, particles and
        whether Ctrl-C stopped it.

    Raises:
        ValueError: for an unknown cost, no held-out data, and settings that the race sets itself. What `fit` or an
            objective raises is a row of its own.

    >>> import pyrovae as pv
    >>> data = pv.data.load("digits")
    >>> vae = pv.models.VAE.build(data, latent=2, hidden=[8])
    >>> settings = {"points": 1, "test_particles": 5, "progress": False}
    >>> table = pv.lab.race(vae, data, ["ELBO", "IWAE(particles=4)"], epochs=4, **settings)
    >>> table[["objective", "particles", "epoch", "decoder_passes"]].values.tolist()
    [['ELBO', 1, 0, 0.0], ['ELBO', 1, 4, 4.0], ['IWAE', 4, 0, 0.0], ['IWAE', 4, 1, 4.0]]
    """
    if cost not in COSTS:
        raise ValueError(f"unknown cost {cost!r} of race; {nearest(str(cost), COSTS)}")
    for name, value in {"epochs": epochs, "points": points, "test_particles": test_particles}.items():
        check_count("race", f"{name} of at least 1", name, value)
    if own := sorted(OWN & settings.keys()):
        raise ValueError(f"race sets {own[0]} of each training itself; leave it out, or use fit")
    for name in settings:
        if name not in inspect.signature(fit).parameters:
            raise ValueError(f"race has no option {name!r}, and neither has fit; {nearest(name, FITTING)}")
    if isinstance(seeds, int):
        raise ValueError(f"race expects seeds as a list, got {seeds}; give [{seeds}], or range({seeds})")
    entrants = contenders(objectives, particles)
    data = data if isinstance(data, Dataset) else from_arrays(data)
    track = _Track(vae, data, _held_out(data, x), cost, epochs, points, test_particles, progress, settings)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        costs = {c: track.cost_of(c) for c in entrants}
        cheapest = min((c.per_step for c in costs.values() if not c.failed), default=1.0)
        for seed in seeds:
            for entrant in entrants:
                new, interrupted = track.run(entrant, costs[entrant], cheapest, seed)
                rows += new
                if folder is not None:
                    table = _table(rows)
                    write_whole(Path(folder) / "race.csv", lambda p, t=table: t.to_csv(p, index=False))
                if interrupted:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    table = _table(rows)
    table.attrs.update({"cost": cost, "particles": test_particles, "data": len(track.x), "interrupted": interrupted})
    if folder is not None and not table["log_evidence"].isna().all():
        from .. import plots

        write_whole(Path(folder) / "race.png", lambda p: plots.race(table).savefig(p, format="png"))
    return table


@dataclass(frozen=True)
class _Cost:
    """What a step of an objective costs: decoder passes for each datum, and the cost that is to be equal."""

    passes: float = math.nan
    per_step: float = math.nan
    failed: str = ""


class _Track:
    """What is the same for all who run."""

    def __init__(
        self,
        vae: Any,
        data: Dataset,
        x: Tensor,
        cost: str,
        epochs: int,
        points: int,
        test_particles: int,
        progress: bool,
        settings: dict[str, Any],
    ) -> None:
        self.vae, self.data, self.x, self.cost = vae, data, x, cost
        self.epochs, self.points, self.test_particles = epochs, points, test_particles
        self.progress, self.settings = progress, settings

    def start(self, seed: int) -> Any:
        """The model before training."""
        if isinstance(self.vae, nn.Module):
            return copy.deepcopy(self.vae)
        with seeded(seed):
            return self.vae()

    def cost_of(self, contender: Contender) -> _Cost:
        """The cost of a step on a batch, or why it cannot be taken."""
        vae = self.start(0)
        device = find_device(self.settings.get("device", "auto"))
        vae.to(device)
        rows = self.settings.get("batch_size", BATCH)
        try:
            objective = contender.make().to(device)
            with seeded(0, device):
                operations = check_training(vae, objective, self.data, rows, device)
                x = next(self.data.batches("train", rows, shuffle=False, device=device)).to(home(vae)[1])
                with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False), ModelRows() as model:
                    objective(vae, x)
                seconds = self._seconds(vae, objective, x, operations) if self.cost == "seconds" else math.nan
        except Exception as error:  # a user's class may fail in any way it likes
            return _Cost(failed=reason(error))
        passes = model.passes(len(x))
        return _Cost(passes, {"passes": passes, "seconds": seconds, "epochs": 1.0}[self.cost])

    def _seconds(self, vae: Any, objective: Any, x: Tensor, operations: int) -> float:
        """The median of a few steps, as `fit` takes them."""
        optimizer = torch.optim.Adam([*vae.parameters(), *objective.parameters()], fused=True)
        watch = Stopwatch(x.device)
        with fitting_threads(operations, x.device), pyro.validation_enabled(False):
            for _ in range(CALLS):
                with watch:
                    optimizer.zero_grad()
                    (-objective(vae, x).surrogate.mean()).backward()
                    optimizer.step()
        return watch.seconds

    def run(self, contender: Contender, cost: _Cost, cheapest: float, seed: int) -> tuple[list[dict[str, Any]], bool]:
        """One training: its rows, and whether Ctrl-C stopped it."""
        named = {"objective": contender.name, "particles": contender.particles, "seed": seed}
        if cost.failed:
            return [_row(**named, failed=cost.failed)], False
        epochs = max(1, round(self.epochs * cheapest / cost.per_step))
        due = {round(epochs * (i + 1) / self.points) for i in range(self.points)}
        rows: list[dict[str, Any]] = []

        def measure(vae: Any, epoch: int) -> dict[str, float]:
            if epoch in due or epoch == 0:
                ev = evaluate(vae, self.x, self.test_particles)
                figures = {"log_evidence": ev.log_evidence_mean, "log_evidence_error": ev.log_evidence_mean_error}
                rows.append(_row(**named, epoch=epoch, decoder_passes=cost.passes * epoch, **figures))
            return {}

        vae = self.start(seed)
        try:
            measure(vae, 0)
            options: dict[str, Any] = {"seed": seed, "progress": self.progress, "measure": measure} | self.settings
            run = fit(vae, self.data, contender.make(), epochs, **options)
        except Exception as error:
            return [*rows, _row(**named, failed=reason(error))], False
        seconds = [0.0, *itertools.accumulate(r["seconds"] for r in run.rows)]
        return [r | {"seconds": seconds[r["epoch"]]} for r in rows if r["epoch"] < len(seconds)], run.interrupted


def _held_out(data: Dataset, x: Tensor | None) -> Tensor:
    """The data that log evidence is taken of. Raises ValueError where there are none."""
    if x is None:
        x = data.test if data.test is not None else data.validation
        if x is None:
            raise ValueError(
                f"race expects held-out data, and {data.name} has no test or validation set; give some: x=..."
            )
        x = x[:HELD_OUT]
    check_data("race", x)
    return x


def _row(**known: Any) -> dict[str, Any]:
    return {name: "" if name in ("objective", "failed") else math.nan for name in COLUMNS} | known


def _table(rows: list[dict[str, Any]]) -> DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = ["particles", "seed", "epoch"]
    table[whole] = table[whole].astype("Int64")
    return table
