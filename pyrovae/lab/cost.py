"""What an objective costs: rows through the model, bytes at the peak, seconds."""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..program.sites import DATA

ROWS = (DATA, "particles", "num_particles_vectorized")  # the plates whose rows are run on: ours, and Pyro's


class ModelRows(Messenger):
    """Counts the rows that a model is run on, forward: a site of K·S·B rows is K·S decoder passes for each of B data.

    What is counted are the observed sites, also where they are drawn in a dream; of several the one with most rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: Counter[str] = Counter()

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["infer"].get("was_observed"):
            within = [f.size for f in msg["cond_indep_stack"] if f.vectorized and f.name not in ROWS]
            self.rows[msg["name"]] += msg["fn"].batch_shape.numel() // math.prod(within)

    def passes(self, data: int) -> float:
        """Decoder passes for each datum."""
        return max(self.rows.values(), default=0) / data


class _Alive(TorchDispatchMode):
    """The bytes of the tensors that were made inside and are alive, at their peak. Views count once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for t in tree_leaves(made):
            if isinstance(t, Tensor):
                storage = t.untyped_storage()
                if storage.data_ptr() not in self.known | given:
                    self._add(storage, storage.data_ptr(), storage.nbytes())
        return made

    def _add(self, storage: Any, key: int, size: int) -> None:
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a call holds at its peak, over those that were there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with _Alive() as alive:
        call()
    return alive.peak


class Stopwatch:
    """Times what is done within it; the device is waited for. `seconds` is the median of the last 1,000 times."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, deque[float](maxlen=1000)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.times) if self.times else math.nan

    def __enter__(self) -> None:
        self.started = self._now()

    def __exit__(self, *_: Any) -> None:
        self.times.append(self._now() - self.started)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
