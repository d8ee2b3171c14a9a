"""A data set in memory or on disk: what is stored, and the rule by which it becomes x."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat, tee
from typing import Any

import torch
from torch import Tensor

from ..config import nearest
from .binarise import SPLITS, fixed_draw, fresh_draw, thresholded, to_float
from .reading import exceeds_memory, fetch, gather, read_ahead

RESIDENT_BYTES = 2**31  # a larger split stays where it is, and its batches travel
AHEAD_BYTES = 2**28  # a file of less is in memory after one short pass, where a thread gains nothing


def share_of(rows: int, rank: int, ranks: int) -> slice:
    """The rows of a batch that are for one of several ranks: as equal as can be, and none where there are too few."""
    return slice(rows * rank // ranks, rows * (rank + 1) // ranks)


def _share_within(start: int, rows: int, rank: int, ranks: int) -> slice:
    mine = share_of(rows, rank, ranks)
    return slice(start + mine.start, start + mine.stop) if mine.stop > mine.start else slice(start, start + 1)


def _behind(y: Tensor | None, x: Tensor) -> Tensor:
    """x with its labels [B] in front, where there are any: [B, *event] -> [B, 1 + D]."""
    return x if y is None else torch.cat([y.to(x.device)[:, None], x.flatten(1)], 1)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits of examples x, kept as they came and made float32 when they are asked for.

    x = stored / scale, then binarised where `binarise` says so. `values` tells what x is: "binary" ({0, 1}),
    "counts" (integers 0..levels), "unit" ([0, 1]) or "real". `protocol` is plain data: what a reported figure
    needs beside it to mean something. `labels` (int64 [N] by split) may be empty. With `labelled`, x is [1 + D]: the
    label, NaN where it is not told, and then the D numbers of what is stored; without, no model sees them. `mapped`
    names the splits that lie in a file. With `missing`, a NaN in x means that the entry is not observed.
    `factors` ([N, F] by split, int64 where they are choices, named by `factor_names`) are what drawn data were made
    from, where that is known; no model sees them.

    >>> from pyrovae import data
    >>> digits = data.load("digits")
    >>> digits
    Dataset('digits': 1295 train, 143 validation, 359 test; x [1, 8, 8], counts 0..16)
    >>> next(digits.batches("train", 100, shuffle=True)).shape
    torch.Size([100, 1, 8, 8])
    """

    name: str
    protocol: dict[str, Any]
    values: str
    levels: int | None
    event_shape: tuple[int, ...]
    stored: dict[str, Tensor]
    labels: dict[str, Tensor] = field(default_factory=dict)
    scale: float = 1.0
    binarise: str | None = None
    seed: int = 0
    threshold: float = 0.5
    mapped: frozenset[str] = frozenset()
    missing: bool = False
    told: dict[str, Tensor] | None = None  # the labels that stand in front of x, float32 [N] by split
    factors: dict[str, Tensor] = field(default_factory=dict)
    factor_names: tuple[str, ...] = ()
    _cache: dict[tuple[str, ...], Tensor] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(x)} {split}" for split, x in self.stored.items())
        levels = "" if self.levels is None else f" 0..{self.levels}"
        label = f"label and {list(self.content_shape)}" if self.labelled else list(self.event_shape)
        return f"Dataset({self.name!r}: {sizes}; x {label}, {self.values}{levels})"

    @property
    def labelled(self) -> bool:
        """Whether x begins with a label."""
        return self.told is not None

    @property
    def content_shape(self) -> tuple[int, ...]:
        """The shape of what is stored of a datum: that of x without its label."""
        return tuple(self.stored["train"].shape[1:])

    @property
    def classes(self) -> int:
        """How many classes the labels know: 0 where there are none."""
        return 1 + max((int(y.max()) for y in self.labels.values()), default=-1)

    @property
    def train(self) -> Tensor:
        """All of the training split, float32 [N, *event]; under dynamic binarisation one draw that the seed fixes.

        Training reads `batches`, where each batch is drawn afresh and nothing is held as float32.
        """
        return self._whole("train")

    @property
    def validation(self) -> Tensor | None:
        """All of the validation split, float32 [N, *event], binarised by one fixed draw; None where there is none."""
        return self._whole("validation") if self.size("validation") else None

    @property
    def test(self) -> Tensor | None:
        """All of the test split, float32 [N, *event], binarised by one fixed draw; None where there is none."""
        return self._whole("test") if self.size("test") else None

    def size(self, split: str) -> int:
        """How many examples a split holds: 0 where it is absent; ValueError for a name that is no split."""
        if split not in SPLITS:
            raise ValueError(f"data {self.name!r} has no split {split!r}; {nearest(str(split), SPLITS)}")
        return len(self.stored.get(split, ()))

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool,
        device: str | torch.device = "cpu",
        share: tuple[int, int] = (0, 1),
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """One pass over a split as float32 batches [B, *event] on `device`.

        Shuffling draws one permutation from the generator, torch's global one by default, which the caller seeds.
        Batches are gathered from the stored bytes and converted on the device. Under dynamic binarisation each training
        batch is a fresh draw, and the other splits keep one fixed draw, so that their figures compare between epochs.
        What lies in a large file, or in memory that the device does not share, is read ahead by a thread, which draws
        nothing.

        A `share` (rank, ranks) takes the rows of one rank out of every batch; where there are fewer rows than ranks,
        those that have none get the first.

        Raises ValueError for an absent or unknown split and for a batch size below 1, and RuntimeError, at the batch
        where it happens, for what cannot be read.
        """
        n, device = self.size(split), torch.device(device)
        if not n:
            raise ValueError(
                f"data {self.name!r} has no {split} split, it holds {', '.join(self.stored)}. "
                f"Load it with a {split} split (data.load(..., validation=0.1), from_arrays(..., {split}=x))."
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batches expects batch_size to be a positive integer, got {batch_size!r}.")
        fixed = self._is_drawn and not (self.binarise == "dynamic" and split == "train")
        source = self._resident(split, fixed, device)
        order = torch.randperm(n, generator=generator).to(source.device) if shuffle else None
        slices = (_share_within(start, min(batch_size, n - start), *share) for start in range(0, n, batch_size))
        keys, again = tee(slices if order is None else (order[rows] for rows in slices))
        on_disk = split in self.mapped and not fixed and source.numel() * source.element_size() >= AHEAD_BYTES
        if source.device.type == "cpu" and (on_disk or device.type != "cpu"):
            advise = on_disk and exceeds_memory(source)
            read = partial(fetch, source, pin=device.type == "cuda", advise=advise)
            batches = read_ahead(read, keys, f"data {self.name!r}, split {split!r}: a batch")
        else:
            batches = map(partial(gather, source), keys)
        labels = repeat(None) if self.told is None else map(partial(gather, self.told[split].to(source.device)), again)
        return self._walk(batches, labels, fixed, device)

    def _walk(
        self, batches: Iterator[Tensor], labels: Iterator[Tensor | None], fixed: bool, device: torch.device
    ) -> Iterator[Tensor]:
        for rows, y in zip(batches, labels, strict=False):
            yield _behind(y, self._ready(rows.to(device, non_blocking=device.type == "cuda"), fixed))

    def _ready(self, rows: Tensor, fixed: bool) -> Tensor:
        """Rows of a fixed draw, or stored rows, as x: float32 [B, *event]."""
        if fixed:
            return to_float(rows, 1)
        if self.binarise == "dynamic":
            return fresh_draw(rows, self.scale)
        x = to_float(rows, self.scale)
        return thresholded(x, self.threshold) if self.binarise == "threshold" else x

    def _whole(self, split: str) -> Tensor:
        x = self._ready(self._resident(split, self._is_drawn, torch.device("cpu")), self._is_drawn)
        return _behind(None if self.told is None else self.told[split], x)

    @property
    def _is_drawn(self) -> bool:
        return self.binarise in ("static", "dynamic")

    def _resident(self, split: str, fixed: bool, device: torch.device) -> Tensor:
        """What batches are sliced from: the stored split or its fixed draw, on the device where it fits."""
        source = self.stored[split]
        if fixed:
            if ("draw", split) not in self._cache:
                self._cache["draw", split] = fixed_draw(source, self.scale, self.seed, split)
            source = self._cache["draw", split]
        if device.type == "cpu" or source.numel() * source.element_size() >= RESIDENT_BYTES:
            return source
        key = ("draw" if fixed else "stored", split, str(device))
        if key not in self._cache:
            self._cache[key] = source.to(device)
        return self._cache[key]
