"""The protocol of a run: what it ran on, with which versions, and when."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import data

PACKAGES = ("pyrovae", "torch", "pyro-ppl", "numpyro", "jax", "pythae")


def describe(threads: int) -> dict[str, str]:
    """By name, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "processor": f"{_model()}, {cores} cores, {threads} threads used",
        "load before": load,
        "images": data.source(),
        "versions": f"Python {sys.version.split()[0]}, " + ", ".join(f"{p} {_version(p)}" for p in PACKAGES),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _model() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
