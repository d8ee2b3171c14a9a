"""The folder that a run leaves behind: every file in it is written whole or not at all.

config.yaml, weights.safetensors, state.pt (to resume), history.csv, metrics.json, figures/*.png
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safe_bytes
from torch import Tensor

from ..config import construct, describe

CONFIG, WEIGHTS, STATE, HISTORY, METRICS = (
    "config.yaml",
    "weights.safetensors",
    "state.pt",
    "history.csv",
    "metrics.json",
)
ARCHITECTURE = "architecture"  # the key of config.yaml that rebuilds the model; the others are the run's settings


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside, then rename: a run killed at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class RunFolder:
    """Reads and writes the files of one run.

    Args:
        path: the folder; made when something is first written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def figures(self) -> Path:
        """The folder for pictures, made if need be."""
        folder = self.path / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def in_use(self) -> bool:
        """Whether a run was begun here, or something else keeps its settings here."""
        return any((self.path / name).exists() for name in (CONFIG, WEIGHTS, STATE))

    def write_config(self, settings: dict[str, Any]) -> None:
        """The settings of the run, as YAML."""
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_whole(self.path / CONFIG, lambda p: p.write_text(text, encoding="utf-8"))

    def read_config(self) -> dict[str, Any]:
        """The settings of the run. Raises ValueError where there are none to read."""
        path = self.path / CONFIG
        if not self.path.is_dir() or not path.exists():
            raise ValueError(f"{str(self.path)!r} is not a run folder: there is no {CONFIG} in it")
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(path)!r} is not readable YAML: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"{str(path)!r} holds no settings; it was not written by pyrovae")
        return settings

    def write_weights(self, weights: dict[str, Tensor]) -> None:
        """A state_dict as safetensors."""
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
        write_whole(self.path / WEIGHTS, lambda p: p.write_bytes(safe_bytes(plain)))

    def read_weights(self) -> dict[str, Tensor]:
        """The state_dict. Raises ValueError for a missing or corrupt file."""
        path = self.path / WEIGHTS
        if not path.exists():
            raise ValueError(f"{str(self.path)!r} is not a run folder: there is no {WEIGHTS} in it")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{str(path)!r} is corrupt ({error}); restore it from a copy or train again") from error

    def write_state(self, state: dict[str, Any]) -> None:
        """All that is needed to go on as if nothing had happened."""
        write_whole(self.path / STATE, lambda p: torch.save(state, p))

    def read_state(self) -> dict[str, Any]:
        """The last finished epoch's state. Raises ValueError for a missing or corrupt file."""
        path = self.path / STATE
        if not path.exists():
            raise ValueError(f"there is no run to resume in {str(self.path)!r}: no {STATE} in it")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged zip fails in many ways
            raise ValueError(f"{str(path)!r} is corrupt ({type(error).__name__}); the run cannot be resumed") from error

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """One row an epoch."""

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["epoch"])
                table.writeheader()
                table.writerows(rows)

        write_whole(self.path / HISTORY, write)

    def read_metrics(self) -> dict[str, Any]:
        """The figures that were reported before; none where there are none."""
        path = self.path / METRICS
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{str(path)!r} is damaged; delete it and evaluate again")
        return found

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """The figures that are reported, with their protocol."""
        text = json.dumps(metrics, indent=2) + "\n"
        write_whole(self.path / METRICS, lambda p: p.write_text(text, encoding="utf-8"))


def save(vae: nn.Module, folder: str | Path, settings: dict[str, Any] | None = None) -> None:
    """Write a model to a folder: weights.safetensors, and a config.yaml that rebuilds it where it can be rebuilt.

    Args:
        vae: a torch module.
        folder: made if need be.
        settings: plain data to keep in the config; without them those that are there already are kept.

    >>> import tempfile, pyrovae as pv
    >>> vae = pv.models.VAE.build(pv.data.load("digits"), latent=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pv.save(vae, folder)
    ...     type(pv.load(folder)).__name__
    'VAE'
    """
    write_model(RunFolder(folder), vae, vae.state_dict(), settings)


def write_model(
    run: RunFolder, vae: nn.Module, weights: dict[str, Tensor], settings: dict[str, Any] | None = None
) -> None:
    """A model with these weights, which may lie in pieces on several ranks; else as `save`."""
    if settings is None:
        settings = run.read_config() if (run.path / CONFIG).exists() else {}
    try:
        architecture = describe(vae)
    except ValueError:
        architecture = None
    run.write_weights(weights)
    run.write_config(settings | {ARCHITECTURE: architecture})


def load(folder: str | Path, into: nn.Module | None = None) -> Any:
    """The model of a run folder, on the CPU, in evaluation mode. Nothing is unpickled.

    Args:
        folder: a run folder, or one written by `save`.
        into: a model of the same architecture to put the weights into, for one that a config cannot rebuild.

    Raises:
        ValueError: for a folder that is none, a corrupt file, or weights of another architecture.
    """
    run = RunFolder(folder)
    settings, weights = run.read_config(), run.read_weights()
    if into is None:
        if not settings.get(ARCHITECTURE):
            raise ValueError(
                f"{str(run.path)!r} does not say how to rebuild its model, which was made of parts that pyrovae "
                "does not know; build it yourself and give it: pv.load(folder, into=model)"
            )
        into = construct(settings[ARCHITECTURE])
        kinds = {w.dtype for w in weights.values() if w.is_floating_point()}
        into = into.to(kinds.pop()) if len(kinds) == 1 else into
    put_weights(into, weights, str(run.path))
    return into.eval()


def put_weights(vae: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Load a state_dict. Raises ValueError for one of another architecture, naming the first difference."""
    own = vae.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own or own[name].shape != weights[name].shape:
            here = list(own[name].shape) if name in own else "nothing"
            there = list(weights[name].shape) if name in weights else "nothing"
            raise ValueError(
                f"the weights in {where!r} are of another architecture: {name} is {here} in the model and {there} in "
                "the file; use the config that they were trained with"
            )
    vae.load_state_dict(weights)
