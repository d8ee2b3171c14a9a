"""The memory of this process, in MiB: what is resident, and the most there was, which Linux can restart."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> float:
    """Resident now."""
    return psutil.Process().memory_info().rss / 2**20


def peak_of_life() -> float:
    """The most that was resident since the process began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def restart_peak() -> None:
    """From here on `peak` begins anew, where the system lets it."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def peak() -> float:
    """The most that was resident since `restart_peak`; since the process began where that is not to be had."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return peak_of_life()
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), peak_of_life())
