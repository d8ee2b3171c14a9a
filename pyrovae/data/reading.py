"""Rows of a split, gathered where they are asked for or, by a thread, before they are."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Key = TypeVar("Key")
Rows = slice | Tensor  # a slice, or indices [B]

DEPTH = 3  # batches that are read before they are asked for
_WILL_NEED = 3  # MADV_WILLNEED


def gather(store: Tensor, rows: Rows) -> Tensor:
    """The rows of a split [N, *event], by a view where they are a slice: [B, *event]."""
    return store[rows] if isinstance(rows, slice) else store.index_select(0, rows)


def fetch(store: Tensor, rows: Rows, pin: bool = False, advise: bool = False) -> Tensor:
    """A copy of the rows of a split on the CPU, made by one thread: [B, *event].

    With `advise` the system is told first which pages are needed, so that it reads them all at once.
    """
    if advise and isinstance(rows, Tensor):
        will_need(store, rows)
    array = store.numpy()  # numpy copies by the calling thread: torch would start a second team of threads
    if isinstance(rows, slice):
        found = array[rows]
    elif array.flags.c_contiguous:
        found = np.take(array, rows.numpy(), axis=0, mode="clip")
    else:
        found = array[rows.numpy()]  # np.take makes the whole array contiguous first
    if pin:
        out = torch.empty(found.shape, dtype=store.dtype, pin_memory=True)
        np.copyto(out.numpy(), found)
        return out
    return torch.from_numpy(found.copy() if isinstance(rows, slice) else np.ascontiguousarray(found))


def read_ahead(read: Callable[[Key], Tensor], keys: Iterable[Key], what: str) -> Iterator[Tensor]:
    """`read(key)` for each key in turn, by a thread that is `DEPTH` batches ahead from the second on.

    The thread ends with the iterator. Raises RuntimeError, in the caller, for what fails in it.
    """
    keys = iter(keys)
    for key in islice(keys, 1):
        yield read(key)  # who wants one batch alone pays for no other
    pool = ThreadPoolExecutor(1, "pyrovae-read-ahead")
    try:
        pending = deque(pool.submit(read, key) for key in islice(keys, DEPTH))
        while pending:
            try:
                batch = pending.popleft().result()
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise RuntimeError(f"{what} cannot be read: {reason}.") from error
            pending.extend(pool.submit(read, key) for key in islice(keys, 1))
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def exceeds_memory(store: Tensor) -> bool:
    """Whether a split is more than half of the machine's memory, so that the system cannot keep its file there."""
    if not hasattr(os, "sysconf"):
        return False
    return store.numel() * store.element_size() > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def will_need(store: Tensor, rows: Tensor) -> None:
    """Tells the system which rows of a memory-mapped split are read next; it may ignore this."""
    # A page that is missed brings its neighbourhood with it, up to 8 MiB, and one is read at a time. Pages that are
    # announced are read alone and all at once.
    if sys.platform not in ("linux", "darwin"):
        return
    madvise = ctypes.CDLL(None).madvise
    page = os.sysconf("SC_PAGE_SIZE")
    length = store.stride(0) * store.element_size()
    for start in (store.data_ptr() + rows.numpy().astype(np.int64) * length).tolist():
        first = start // page * page
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(start + length - first), _WILL_NEED)
