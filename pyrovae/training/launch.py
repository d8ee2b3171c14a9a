"""Starting the processes of a training, or joining those that torchrun or SLURM have started.

Processes, devices and process groups are lightning-fabric's, which is imported when several processes are asked for.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from ..config import nearest
from .distributed import Crew, Ranks, Shards
from .settings import find_device

STRATEGIES = ("ddp", "fsdp")
_children: list[Any] = []


def find_crew(
    device: str | torch.device = "auto",
    devices: int | None = None,
    strategy: str = "ddp",
    nodes: int | None = None,
    seed: int = 0,
    words: list[str] | None = None,
) -> Crew:
    """The processes of this training, started if need be; those of torchrun or SLURM are taken as they are.

    Args:
        device: as in `fit`; its kind is that of all.
        devices: processes on each node, one a device; None is one, or what torchrun has started.
        strategy: "ddp" (replicas) or "fsdp" (sharded parameters, gradients and optimiser states).
        nodes: machines; None is one, or what torchrun says.
        seed: of the order of the data, and mixed with the rank of the noise.
        words: the command line, where it is one's own; other processes are started with the same.

    Raises:
        ValueError: for what is not there, or contradicts torchrun; for lightning-fabric that is not installed.
    """
    where = find_device(device)
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; {nearest(str(strategy), STRATEGIES)}")
    for name, value in {"devices": devices, "nodes": nodes}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"fit expects {name} as a whole number above 0, got {value}")
    devices, nodes = _of_torchrun(devices, nodes)
    if devices * nodes == 1:
        return Crew(where, seed)
    _check_devices(where, devices)
    fabric = _launched(where.type, devices, strategy, nodes, words)
    return (Shards if strategy == "fsdp" else Ranks)(fabric, seed)


def _of_torchrun(devices: int | None, nodes: int | None) -> tuple[int, int]:
    """Devices on each node, and nodes. Raises ValueError where torchrun has started another number."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices or 1, nodes or 1
    world, here = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    asked = (devices or here, nodes or world // here)
    if asked != (here, world // here):
        raise ValueError(
            f"torchrun has started {here} processes on each of {world // here} nodes, and devices={asked[0]} with "
            f"nodes={asked[1]} was asked for; leave both out, or start as many"
        )
    return asked


def _check_devices(where: torch.device, devices: int) -> None:
    if where.type not in ("cpu", "cuda"):
        raise ValueError(f"several processes compute on cuda or cpu, not on {where.type}; use device='cpu'")
    if where.index is not None:
        raise ValueError(f"device {str(where)!r} is a single one; with devices={devices} give its kind, {where.type!r}")
    if where.type == "cpu" and "TORCHELASTIC_RUN_ID" in os.environ:
        return  # they are there
    there = torch.cuda.device_count() if where.type == "cuda" else max(2, os.cpu_count() or 1)
    if devices > there:
        what = "GPUs" if where.type == "cuda" else "processes at most, one a core"
        raise ValueError(f"devices={devices} were asked for, and here are {there} {what}")


def _launched(kind: str, devices: int, strategy: str, nodes: int, words: list[str] | None) -> Any:
    """A Fabric whose processes run. Raises ValueError."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
    except ImportError as error:
        raise ValueError("scale-out needs lightning-fabric: pip install 'pyrovae[fabric]'") from error
    there = torch.distributed.get_world_size() if torch.distributed.is_initialized() else devices * nodes
    if devices * nodes != there:
        raise ValueError(
            f"this is one of {there} processes already, and {devices * nodes} were asked for; "
            "use one number throughout a script"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=kind, devices=devices, num_nodes=nodes, strategy=_strategy(strategy, devices * nodes)
        )
        environment = getattr(fabric.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and not environment.creates_processes_externally:
            _check_start(words, nodes)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{devices * nodes} processes cannot be started: {' '.join(str(error).split())}") from error
    started = getattr(getattr(fabric.strategy, "launcher", None), "procs", ())
    if started and not _children:
        atexit.register(lambda: give_up() if getattr(sys, "last_value", None) is not None else None)
    _children.extend(started)
    return fabric


def _strategy(name: str, size: int) -> Any:
    """Fabric's. Its own "fsdp" is the older one of torch, for GPUs alone."""
    if name == "ddp":
        return "ddp"
    from lightning_fabric.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    def shard(module: nn.Module, mesh: Any) -> Any:
        return fully_shard(module, mesh=mesh["data_parallel"])

    return ModelParallelStrategy(shard, data_parallel_size=size, tensor_parallel_size=1)


def _check_start(words: list[str] | None, nodes: int) -> None:
    """Fabric starts the other processes by running this command or script again. Raises ValueError where it cannot."""
    main = sys.modules["__main__"]
    if words is not None and sys.argv[1:] != words:
        raise ValueError("only the command `pyrovae` itself can start them, by running again; or torchrun")
    if getattr(main, "__spec__", None) is None and not Path(sys.argv[0]).is_file():
        raise ValueError("only a script that is a file can start them, by running again; or torchrun")
    if nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"nodes={nodes} needs MASTER_ADDR, MASTER_PORT and NODE_RANK on each node; or torchrun, or SLURM's srun"
        )


def give_up() -> None:
    """After an error here alone: ends the processes that this one has started, which would wait for it for ever."""
    for process in _children:
        if process.poll() is None:
            process.terminate()


def speaks() -> bool:
    """Whether this process is rank 0, or alone; before the processes know each other, by their environment."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    several = max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_NTASKS")) > 1
    names = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID") if several else ()
    return all(os.environ.get(name, "0") == "0" for name in names)
