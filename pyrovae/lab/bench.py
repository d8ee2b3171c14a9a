"""One program, one batch, and what is true of them; every objective is put on it in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ..objectives import Objective
from ..objectives.checks import check_estimate
from ..program import densities, evaluating, seeded
from ..program.modes import counting
from ..training.settings import fitting_threads
from .contenders import Contender, reason
from .cost import ModelRows, Stopwatch, peak_memory
from .evidence import Evidence, Reference, find_evidence
from .gradients import flat, has_paths, own_gradient, parameter_groups
from .statistics import Interval, Moments

Row = dict[str, Any]
LENGTHS = ("gradient", "bias", "relative_bias", "evidence_bias", "variance", "snr")  # those with intervals
ENDS = ("", "_low", "_high")
COLUMNS = (
    *("objective", "particles", "group", "draws", "lower", "bound", "bound_error"),
    *("evidence", "evidence_error", "gap", "gap_error"),
    *(f"{name}{end}" for name in LENGTHS for end in ENDS),
    *("decoder_passes", "seconds", "peak_memory", "snr_per_pass", "snr_per_second", "parameters", "failed"),
)
ROUNDING = 1e-5  # of the gradient's length: a bias below it is that of the numbers' precision
WORDS = ("objective", "group", "failed")  # the columns that hold text


class Bench:
    """Measures objectives on a program, in evaluation mode, with data x [B, *event] that are where it is.

    Raises ValueError for a program or data that `densities` refuses, and a reference that cannot be had.
    """

    def __init__(
        self, vae: Any, x: Tensor, draws: int, reference: Reference, bias: bool, seed: int, progress: bool
    ) -> None:
        self.vae, self.x, self.draws, self.bias, self.seed = vae, x, draws, bias, seed
        # Of single draws, so that an objective and the gradient it is held against have the same noise; of the rest
        self.seeds, other = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
        with evaluating(vae), seeded(other, x.device), pyro.validation_enabled(True):
            one = densities(vae, x)
            one.weighable("compare", "there is no bound on log p(x) to be compared")
            local = not one.global_sites
        with evaluating(vae), seeded(other, x.device), pyro.validation_enabled(False):
            self.groups = parameter_groups(vae, x)
            self.paths = has_paths(vae, x)
            # A datum has no log p(x) of its own beside latents of the whole data set
            unknown = Evidence(x.new_full((len(x),), math.nan), math.nan, "none")
            model = self.groups.get("model", [])
            self.evidence = find_evidence(vae, x, model, reference, other, progress) if local else unknown
        self.parameters = [p for group in self.groups.values() for p in group]
        self.sizes = [sum(p.numel() for p in group) for group in self.groups.values()]

    def rows(self, contender: Contender, advance: Callable[[], Any]) -> list[Row]:
        """One row for each group of parameters; a single one, with the reason, for an objective that fails."""
        try:
            with (
                evaluating(self.vae),
                seeded(self.seed, self.x.device),
                torch.enable_grad(),
                pyro.validation_enabled(False),
            ):
                return self._measure(contender, advance)
        except Exception as error:  # a user's class may fail in any way it likes
            return [_row(objective=contender.name, particles=contender.particles, failed=reason(error))]

    def _measure(self, contender: Contender, advance: Callable[[], Any]) -> list[Row]:
        objective = contender.make().to(self.x)
        check_estimate(objective, self.vae, self.x)
        with counting() as operations, ModelRows() as model:
            objective(self.vae, self.x)
        memory = peak_memory(lambda: self._gradient(objective), self.x.device)
        tally, watch = _Tally(self.groups, self.draws, self.seed), Stopwatch(self.x.device)
        with fitting_threads(operations.get_total_flops(), self.x.device):
            for draw in range(self.draws):
                torch.manual_seed(self.seeds + draw)
                with watch:
                    bound, gradient = self._gradient(objective)
                for name, t in (("bound", bound), ("gradient", gradient)):
                    if not torch.isfinite(t).all():
                        raise ValueError(f"the {name} of draw {draw + 1} is NaN or infinite")
                torch.manual_seed(self.seeds + draw)
                own = self._own_gradient(objective) if self.bias else None
                tally.add(bound, gradient, own, self.sizes)
                advance()
        known = {
            "objective": contender.name,
            "particles": contender.particles,
            "draws": self.draws,
            "lower": objective.lower,
            "decoder_passes": model.passes(len(self.x)),
            "seconds": watch.seconds,
            "peak_memory": memory,
        }
        return [_row(**known | self._figures(tally, group)) for group in self.groups]

    def _gradient(self, objective: Objective) -> tuple[Tensor, Tensor]:
        """The mean bound, [], and the gradient of one step, [P]."""
        e = objective(self.vae, self.x)
        gradient = torch.autograd.grad(e.surrogate.mean(), self.parameters, allow_unused=True)
        return e.bound.mean(), flat(gradient, self.parameters)

    def _own_gradient(self, objective: Objective) -> Tensor | None:
        """The gradient of the bound that is reported, at the draws of the present seed, [P]."""
        return own_gradient(self.vae, self.x, objective, self.parameters, self.evidence.log_evidence, self.paths)

    def _figures(self, tally: _Tally, group: str) -> Row:
        """What is known of the bound, and of the gradient of one group."""
        bound, error = float(tally.bound.mean()), tally.bound.error()
        gradient, off = tally.gradients[group], tally.errors[group]
        intervals = {"gradient": gradient.length(), "variance": gradient.variance(), "snr": gradient.signal_to_noise()}
        if off.seen:
            ends = off.length().ends()
            intervals["bias"] = Interval(*(0.0 if e < ROUNDING * intervals["gradient"].value else e for e in ends))
            ends = off.relative_to(gradient).ends()
            intervals["relative_bias"] = Interval(*(0.0 if e < ROUNDING else e for e in ends))
        if group == "model" and self.evidence.gradient is not None:
            intervals["evidence_bias"] = gradient.length(self.evidence.gradient, self.evidence.gradient_error)
        return {
            "group": group,
            "bound": bound,
            "bound_error": error,
            "evidence": float(self.evidence.log_evidence.mean()),
            "evidence_error": self.evidence.error,
            "gap": float(self.evidence.log_evidence.double().mean()) - bound,
            "gap_error": math.hypot(error, self.evidence.error),
            "parameters": sum(p.numel() for p in self.groups[group]),
            **{f"{n}{end}": v for n, i in intervals.items() for end, v in zip(ENDS, i.ends(), strict=True)},
        }


class _Tally:
    """Running moments of the bound, of the gradient by group, and of its distance from the bound's own gradient."""

    def __init__(self, groups: Iterable[str], draws: int, seed: int) -> None:
        self.bound = Moments(draws, seed)
        self.gradients = {name: Moments(draws, seed) for name in groups}
        self.errors = {name: Moments(draws, seed) for name in groups}

    def add(self, bound: Tensor, gradient: Tensor, own: Tensor | None, sizes: list[int]) -> None:
        """One more draw; gradients [P] of all groups, one after the other."""
        self.bound.add(bound.double()[None])
        for moments, part in zip(self.gradients.values(), gradient.split(sizes), strict=True):
            moments.add(part)
        if own is not None:
            for moments, part in zip(self.errors.values(), (gradient - own).split(sizes), strict=True):
                moments.add(part)


def _row(**known: Any) -> Row:
    """A row with NaN, or no words, for what is not known."""
    row: Row = {name: "" if name in WORDS else math.nan for name in COLUMNS} | known
    for unit in ("pass", "second"):
        cost = row["decoder_passes" if unit == "pass" else "seconds"]
        row[f"snr_per_{unit}"] = row["snr"] / math.sqrt(cost) if cost > 0 else math.nan
    return row
