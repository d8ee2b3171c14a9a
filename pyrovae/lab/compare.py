"""Bias, variance, signal-to-noise, tightness and cost of objectives, on one program and one batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..evaluation.arguments import check_count, check_data
from ..program import home
from ..progress import bar as progress_bar
from .bench import COLUMNS, Bench, Row
from .contenders import USUAL, contenders
from .evidence import Reference
from .report import report, write_table

if TYPE_CHECKING:
    from pandas import DataFrame


def compare(
    vae: Any,
    x: Tensor,
    objectives: Any = USUAL,
    draws: int = 1000,
    reference: Reference = "auto",
    particles: int | Iterable[int] | None = None,
    bias: bool = True,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    protocol: dict[str, Any] | None = None,
) -> DataFrame:
    """Hold objectives against the truth, on one program and one batch: a row for each, its particles and its group.

    With g a gradient of the mean surrogate over the data, as a step of training follows it, μ = E[g] and Σ = Cov[g]:

        gap = log p(x) − E[𝓛]         tightness of the bound that is reported; below 0 above an estimated log p(x)
        bias = ‖μ − ∂E[𝓛]‖            of the gradient, against that of the bound that is reported
        evidence_bias = ‖μ − ∂ log p(x)‖    of the model's gradient, against that of the log evidence
        variance = tr Σ,    snr = ‖μ‖ / √tr Σ

    Draws are those of the estimator; the data are held fixed, and so are the parameters. Lengths are estimated with
    the noise of the mean taken off, so that what is no more than noise is 0. Every objective has the same random
    numbers, and one that says its bound by the log weights (`Objective.bound_of`) is held against the plain derivative
    of the same draws. All figures but seconds are equal under one seed.

    Args:
        vae: a torch module with a Pyro `model(x)` and `guide(x)`, in the state of interest: near the start of training
            and near its end estimators differ.
        x: data [B, *event]; a step is taken to have this batch.
        objectives: a list, or a dict by name: objectives, `pyro.infer` ELBOs, classes of either, text such as
            "IWAE(gradient=dreg)"; in a dict also functions from K to an objective.
        draws: gradients of each objective, at least 2.
        reference: of log p(x): "exact" by the model's `log_evidence(x)`; "ais" for annealed importance sampling; a
            number of particles of importance sampling; the values, [B]; or "auto", the first of "exact", "ais" and
            5,000 particles that the program allows. All but the exact one are lower bounds on average.
        particles: numbers K, with each of which every objective is built that takes one; None leaves them as they
            stand.
        bias: hold each gradient against that of the bound that is reported, which takes as long again.
        seed: of everything drawn; the caller's random numbers are untouched.
        folder: where compare.csv is kept as rows are done, and report.html with its figures at the end.
        progress: show a progress bar.
        protocol: plain facts to keep with the figures, of the data, say.

    Returns:
        A pandas DataFrame. One row for each objective, number of particles and group of parameters: "model" (those of
        log p(x, z)), "guide" (those of log q(z | x)), "both" where any are shared. Bounds, evidence and gap are means
        over the data in nats per datum, with Monte Carlo standard errors; `lower` tells whether a lower bound is
        claimed, without which the gap is no tightness. Gradients are in nats per datum per unit of the parameters;
        relative_bias is bias over the length of μ; *_low and *_high are 95 % bootstrap intervals, that of evidence_bias
        widened by the error of the reference. decoder_passes: rows of the model for each datum, forward; seconds of a
        call with its gradient, the median; peak_memory in bytes over what was there before. snr_per_pass and
        snr_per_second: snr / √cost, that of the mean of as many gradients as one pass, one second, pays for. failed:
        why there are no figures, else "". `.attrs` holds model, seed, draws, data, reference, protocol and whether
        Ctrl-C stopped it: the rows that were done are kept (before the first, KeyboardInterrupt is raised).

    Raises:
        ValueError: for a program or data that `densities` refuses, and for arguments that make no sense. What one
            objective raises, or a bound or gradient that is not finite, is a row of its own.

    References: Rainforth et al., "Tighter variational bounds are not necessarily better", 2018 (signal-to-noise);
    Glynn and Whitt, "The asymptotic efficiency of simulation estimators", 1992 (variance times cost).

    >>> import pyrovae as pv
    >>> x = pv.data.load("digits").test[:4]
    >>> vae = pv.models.VAE.build(x, likelihood="Normal", latent=2)
    >>> table = pv.lab.compare(vae, x, ["ELBO", "IWAE"], particles=[2], draws=5, reference=50, progress=False)
    >>> table[["objective", "particles", "group"]].values.tolist()
    [['ELBO', 2, 'model'], ['ELBO', 2, 'guide'], ['IWAE', 2, 'model'], ['IWAE', 2, 'guide']]
    """
    if not isinstance(vae, nn.Module):
        raise ValueError(
            f"compare expects a torch module with .model(x) and .guide(x), got {type(vae).__name__}; wrap plain "
            "functions in pv.Program(model, guide)"
        )
    check_data("compare", x)
    check_count("compare", "at least 2 draws", "draws", draws, 2)
    check_count("compare", "a seed of at least 0", "seed", seed, 0)
    entrants = contenders(objectives, particles)
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"compare expects a folder for its report, and {str(folder)!r} is a file; choose another")
    device, dtype = home(vae)
    rows: list[Row] = []
    known: dict[str, Any] = {"model": type(vae).__name__, "protocol": protocol or {}}
    known |= {"seed": seed, "draws": draws, "data": len(x), "interrupted": False}
    try:
        bench = Bench(vae, x.to(device, dtype), draws, reference, bias, seed, progress)
        known["reference"] = bench.evidence.by
        with progress_bar(len(entrants) * draws, progress, "draw") as bar:
            for done, entrant in enumerate(entrants, 1):
                bar.set_description(entrant.name[:30], refresh=False)
                rows += bench.rows(entrant, bar.update)
                bar.update(done * draws - bar.n)  # one that fails is done as well
                if folder is not None:
                    write_table(_table(rows, known), folder)
    except KeyboardInterrupt:
        if not rows:
            raise
        known["interrupted"] = True
    table = _table(rows, known)
    if folder is not None:
        report(table, folder)
    return table


def _table(rows: list[Row], known: dict[str, Any]) -> DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = ["particles", "draws", "peak_memory", "parameters"]
    table[whole] = table[whole].astype("Int64")
    table["lower"] = table["lower"].astype("boolean")
    table.attrs.update(known)
    return table
