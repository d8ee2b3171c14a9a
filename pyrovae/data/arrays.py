"""From raw arrays to a `Dataset`: checks, the meaning of the values, and the splits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import nearest
from .binarise import KINDS, SPLITS, stream
from .dataset import Dataset

VALUES = ("binary", "counts", "unit", "real")
PEEK = 1_000  # rows that decide what a memory-mapped array holds
SCAN_BYTES = 2**31  # larger files are not read from end to end at loading


@dataclass
class Raw:
    """What a source hands over: splits as tensors [N, *event], and where they come from."""

    name: str
    splits: dict[str, Tensor]
    labels: dict[str, Tensor] = field(default_factory=dict)
    values: str = "auto"
    levels: int | None = None
    mapped: bool = False  # on disk: cut in contiguous slices, read as little as possible
    in_files: frozenset[str] = frozenset()  # the splits that are memory maps, however they are cut
    test_fraction: float = 0.0  # held out of train where the source has no test split
    origin: dict[str, str] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)  # what each was made from, [N, F] by split
    factor_names: tuple[str, ...] = ()


def from_arrays(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    labels: Any = None,
    name: str = "arrays",
    values: str = "auto",
    levels: int | None = None,
    binarise: str | None = None,
    seed: int = 0,
    threshold: float = 0.5,
    validation_size: float | None = None,
    missing: bool = False,
    labelled: bool | int = False,
) -> Dataset:
    """A `Dataset` from numpy arrays, tensors or nested lists [N, *event]; scalars are [N].

    `values` says what the numbers are; "auto" reads uint8 as grey levels (x / 255), numbers in {0, 1} as binary,
    in [0, 1] as unit, and anything else as real. Counts 0..levels have to be asked for. `labels` are integers, for
    `train` or by split. Without `validation`, `validation_size` examples are held out of `train`: a number, a
    fraction, 0 for none; by default a tenth, at most 5,000. They are a seeded choice, or the last rows of a
    memory-mapped array. With `missing`, NaN is allowed and means not observed: what the numbers are is read from the
    others, and the protocol has the share of NaN by split (None for a file too large to be read at loading).
    With `labelled`, x is the label and then the numbers of a datum, as `load` says.

    Raises ValueError for empty, non-finite or out-of-range data and for splits or labels that do not fit together.

    >>> from_arrays([[0.0, 1.0], [0.5, 0.2]], test=[[1.0, 1.0]])
    Dataset('arrays': 2 train, 1 test; x [2], unit)
    """
    given = {"train": train, "validation": validation, "test": test}
    arrays = {split: as_array(x, name, split) for split, x in given.items() if x is not None}
    if labels is not None and not isinstance(labels, Mapping):
        labels = {"train": labels}
    splits = {split: as_tensor(x) for split, x in arrays.items()}
    raw = Raw(
        name,
        splits,
        labels=as_labels(labels or {}, name),
        values=values,
        levels=levels,
        mapped=any(is_mapped(x) for x in arrays.values()),
        in_files=frozenset(split for split, x in arrays.items() if is_mapped(x, splits[split])),
    )
    return assemble(raw, validation_size, binarise, seed, threshold, "validation_size", missing, labelled)


def assemble(
    raw: Raw,
    validation: float | None,
    binarise: str | None,
    seed: int,
    threshold: float,
    option: str = "validation",
    missing: bool = False,
    labelled: bool | int = False,
) -> Dataset:
    """Check what a source handed over, cut the missing splits, and write the protocol down."""
    who = f"data {raw.name!r}"
    _check_options(who, raw, binarise, seed, threshold, missing)
    _check_shapes(who, raw)
    values, scale, decided = _settle_values(who, raw, missing)
    if binarise is not None:
        if values == "real":
            low, high = _scan(raw.splits["train"], PEEK).bounds
            raise ValueError(
                f"{who}: binarise={binarise!r} expects values in [0, 1], got real values from {low:.4g} to {high:.4g}. "
                "Rescale the arrays to [0, 1], or leave binarise=None and use a likelihood for real values."
            )
        scale = float(raw.levels or 1) if values == "counts" else scale
        values = "binary"
    origin = dict.fromkeys(raw.splits, "as given") | raw.origin
    stored, labels, factors, origin = _cut(who, raw, origin, validation, seed, option)
    levels = raw.levels if values == "counts" else None
    event_shape = tuple(stored["train"].shape[1:])
    told = _tell(who, stored, labels, labelled, seed) if labelled is not False else None
    if told is not None:
        event_shape = (1 + math.prod(event_shape),)
    protocol: dict[str, Any] = {
        "name": raw.name,
        "sizes": {split: len(x) for split, x in stored.items()},
        "origin": origin,
        "event_shape": list(event_shape),
        "values": values,
        **({"levels": levels} if levels is not None else {}),
        **({"values_decided_from": decided} if decided else {}),
        "binarise": binarise,
        **({"threshold": float(threshold)} if binarise == "threshold" else {}),
        "seed": int(seed),
        **({"factors": list(raw.factor_names)} if factors else {}),
        **({} if told is None else {"labelled": {split: int((~y.isnan()).sum()) for split, y in told.items()}}),
        **({"missing": {split: _share_missing(raw, x) for split, x in stored.items()}} if missing else {}),
    }
    files = {raw.splits[split].untyped_storage().data_ptr() for split in raw.in_files}
    mapped = frozenset(split for split, x in stored.items() if x.untyped_storage().data_ptr() in files)
    how = binarise, int(seed), threshold
    known = labels, scale, *how, mapped, missing, told, factors, raw.factor_names
    return Dataset(raw.name, protocol, values, levels, event_shape, stored, *known)


def as_array(x: Any, name: str, split: str) -> np.ndarray | Tensor:
    """A numeric array or CPU tensor; ValueError for what is neither."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        if x.is_complex():
            raise ValueError(f"data {name!r}, split {split!r} expects real numbers, got {x.dtype}. Take its parts.")
        return x
    try:
        array = x if isinstance(x, np.ndarray) else np.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"data {name!r}, split {split!r} is not a rectangular array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"data {name!r}, split {split!r} expects an array of numbers, got dtype {array.dtype}. "
            "Convert it (np.asarray(x, dtype='float32')) or save numeric arrays only."
        )
    return array


def is_mapped(array: Any, tensor: Tensor | None = None) -> bool:
    """Whether an array, or the array that it is a view of, lies in a file, and a tensor made of it still does."""
    if tensor is not None and isinstance(array, np.ndarray) and tensor.data_ptr() != array.ctypes.data:
        return False
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def as_tensor(array: np.ndarray | Tensor) -> Tensor:
    """uint8, float32 and what lies in a file stay without a copy; the rest becomes float32."""
    if isinstance(array, Tensor):
        if array.dtype == torch.bool:
            return array.to(torch.uint8)
        return array if array.dtype == torch.uint8 else array.to(torch.float32)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    native = array.dtype.isnative and array.dtype.name not in ("uint16", "uint32", "uint64", "float128", "longdouble")
    if array.dtype != np.uint8 and not (is_mapped(array) and native):
        array = array.astype(np.float32, copy=False)
    if not array.dtype.isnative or any(step < 0 for step in array.strides):
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing here writes to what is stored
        return torch.from_numpy(array)


def as_labels(labels: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Labels by split, int64 [N]; ValueError where they are not whole numbers."""
    found = {}
    for split, y in labels.items():
        array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]  # Keras saves a column
        whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and bool(np.all(array == np.rint(array))))
        if array.ndim != 1 or not whole:
            raise ValueError(
                f"data {name!r} expects the labels of split {split!r} to be integers [N], "
                f"got {array.dtype} {list(array.shape)}. Number the classes, or leave the labels out."
            )
        found[split] = torch.from_numpy(array.astype(np.int64))
    return found


def _check_options(who: str, raw: Raw, binarise: str | None, seed: int, threshold: float, missing: bool) -> None:
    if not isinstance(missing, bool):
        raise ValueError(
            f"{who} expects missing as True or False, got {missing!r}; True says that NaN is not observed."
        )
    if missing and binarise is not None:
        raise ValueError(
            f"{who} expects missing=True or binarise={binarise!r}, got both. Binarise the arrays first, leaving NaN in."
        )
    if binarise is not None and binarise not in KINDS:
        raise ValueError(f"{who} cannot binarise by {binarise!r}; {nearest(str(binarise), KINDS)}")
    if raw.values not in ("auto", *VALUES):
        raise ValueError(f"{who} does not know values={raw.values!r}; {nearest(str(raw.values), ('auto', *VALUES))}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"{who} expects seed to be an integer >= 0, got {seed!r}.")
    if not 0 <= threshold < 1:
        raise ValueError(f"{who} expects threshold in [0, 1), got {threshold!r}: x in [0, 1] becomes x > threshold.")
    if raw.values == "counts" and (raw.levels is None or raw.levels < 1):
        raise ValueError(
            f"{who}: values='counts' expects levels, the largest count, got {raw.levels!r}. Pass levels=16."
        )
    if raw.values != "counts" and raw.levels is not None:
        raise ValueError(f"{who}: levels={raw.levels!r} expects values='counts', got values={raw.values!r}.")


def _check_shapes(who: str, raw: Raw) -> None:
    for split, x in raw.splits.items():
        if x.ndim < 1:
            raise ValueError(
                f"{who}, split {split!r} expects an array [N, *event], got a single number. Pass one number a row, [N]."
            )
        if not x.numel():
            raise ValueError(f"{who}, split {split!r} is empty: shape {list(x.shape)}. Pass at least one example.")
        if x.shape[1:] != raw.splits["train"].shape[1:]:
            raise ValueError(
                f"{who} expects one event shape, got {list(raw.splits['train'].shape[1:])} in split 'train' and "
                f"{list(x.shape[1:])} in split {split!r}. Bring the splits to one size."
            )
    for split, y in raw.labels.items():
        if split not in raw.splits:
            raise ValueError(
                f"{who} has labels for split {split!r} and no such data; {nearest(str(split), raw.splits)}"
            )
        if len(y) != len(raw.splits[split]):
            raise ValueError(
                f"{who}, split {split!r} expects one label for each of its {len(raw.splits[split])} examples, "
                f"got {len(y)}. Pass labels in the order of the examples."
            )


@dataclass
class _Scan:
    bounds: tuple[float, float]
    whole: bool
    missing: int  # NaN
    infinite: int
    total: int


def _scan(x: Tensor, rows: int | None = None) -> _Scan:
    """Bounds and wholeness of what is finite, and the number of the rest, block by block: nothing large is made."""
    x = x[:rows]
    low, high, whole, missing, infinite = float("inf"), -float("inf"), True, 0, 0
    step = max(1, 2**22 // x[0].numel())
    for start in range(0, len(x), step):
        block = x[start : start + step]
        if block.dtype != torch.uint8:
            block = block.to(torch.float64) if block.dtype != torch.float32 else block
            finite = torch.isfinite(block)
            if bad := block.numel() - int(finite.sum()):
                absent = int(block.isnan().sum())
                missing, infinite = missing + absent, infinite + bad - absent
                block = block[finite]
            whole = whole and bool((block == block.round()).all())
        if block.numel():
            smallest, largest = torch.aminmax(block)
            low, high = min(low, float(smallest)), max(high, float(largest))
    return _Scan((low, high), whole, missing, infinite, x.numel())


def _is_large(raw: Raw, x: Tensor) -> bool:
    """Whether a split is not read from end to end at loading."""
    return raw.mapped and x.numel() * x.element_size() > SCAN_BYTES


def _share_missing(raw: Raw, x: Tensor) -> float | None:
    """The share of NaN among the entries of a split; None for one that is too large to be read."""
    if _is_large(raw, x):
        return None
    found = _scan(x)
    return found.missing / found.total


def _settle_values(who: str, raw: Raw, missing: bool) -> tuple[str, float, str | None]:
    """What the numbers are, what divides them, and which rows decided it; ValueError where a split disagrees."""
    values, decided = raw.values, None
    if values == "auto":
        values = _guess(raw.splits["train"], PEEK if raw.mapped else None)
        decided = f"the first {PEEK:,} rows of train" if raw.mapped else None
    for split, x in raw.splits.items():
        if x.dtype == torch.uint8 and values in ("unit", "real"):
            continue  # every byte is legal
        found = _scan(x, PEEK if _is_large(raw, x) else None)
        _check_values(f"{who}, split {split!r}", found, values, raw.levels, missing)
    is_grey_byte = values == "unit" and any(x.dtype == torch.uint8 for x in raw.splits.values())
    if is_grey_byte and any(x.dtype != torch.uint8 for x in raw.splits.values()):
        raise ValueError(f"{who} mixes uint8 and float splits as values='unit'. Give all of them the same dtype.")
    return values, 255.0 if is_grey_byte else 1.0, decided


def _guess(x: Tensor, rows: int | None) -> str:
    found = _scan(x, rows)
    low, high = found.bounds
    if low >= 0 and high <= 1 and found.whole:
        return "binary"  # bytes 0 and 1 too: as grey levels they would be black
    if x.dtype == torch.uint8:
        return "unit"
    return "unit" if low >= 0 and high <= 1 else "real"


_REMEDY = ", or load with missing=True, where NaN means not observed"


def _check_values(where: str, found: _Scan, values: str, levels: int | None, missing: bool) -> None:
    bad = found.infinite + (0 if missing else found.missing)
    if bad:
        kind, remedy = ("infinite", "") if missing else ("NaN or infinite", _REMEDY)
        raise ValueError(
            f"{where} expects finite numbers, got {bad} {kind} of {found.total}. "
            f"Drop those examples or fill the gaps first{remedy}."
        )
    if found.missing == found.total:
        raise ValueError(f"{where} expects numbers, got NaN alone. Leave it out, or give it something observed.")
    low, high = found.bounds
    top = {"binary": 1, "unit": 1, "counts": levels}.get(values)
    if top is None:
        return
    if low < 0 or high > top or (values != "unit" and not found.whole):
        kind = {"binary": "{0, 1}", "unit": "[0, 1]", "counts": f"the integers 0..{levels}"}[values]
        what = "numbers" if found.whole else "non-integer numbers"
        raise ValueError(
            f"{where}: values={values!r} expects numbers in {kind}, got {what} from {low:.4g} to {high:.4g}. "
            "Rescale the arrays, or say what they are: from_arrays(..., values='unit', 'counts' or 'real')."
        )


def _tell(
    who: str, stored: dict[str, Tensor], labels: dict[str, Tensor], labelled: bool | int, seed: int
) -> dict[str, Tensor]:
    """The labels that stand in x, float32 [N] by split: of train so many, as many of each class as can be."""
    if without := [split for split in stored if split not in labels]:
        raise ValueError(
            f"{who}: labelled={labelled!r} expects labels of every split, got none for {without[0]!r}; give them "
            "(from_arrays(..., labels={split: y}), or y_train, y_test in the .npz file), or leave labelled out"
        )
    y, told = labels["train"], {split: y.to(torch.float32) for split, y in labels.items()}
    if labelled is True:
        return told
    classes = int(y.max()) + 1
    if not isinstance(labelled, int) or not classes <= labelled <= len(y):
        raise ValueError(
            f"{who} expects labelled as True, False, or how many of {len(y)} training data keep their label, at least "
            f"one for each of {classes} classes, got {labelled!r}"
        )
    order = torch.from_numpy(stream(seed, "labelled").permutation(len(y)))
    place = (F.one_hot(y[order], classes).cumsum(0) - 1).gather(1, y[order, None])[:, 0]  # among those of its class
    kept = order[place.argsort(stable=True)[:labelled]]  # every class in turn, as long as it has any
    told["train"] = torch.full_like(told["train"], torch.nan).index_copy(0, kept, told["train"][kept])
    return told


def _count(who: str, n: int, validation: float | None, option: str) -> int:
    """How many of n training examples are held out."""
    if validation is None:
        return min(n // 10, 5_000)
    is_number = isinstance(validation, int | float | np.integer) and not isinstance(validation, bool)
    is_fraction = is_number and 0 < validation < 1
    if not is_fraction and not (is_number and validation >= 0 and float(validation).is_integer()):
        raise ValueError(
            f"{who} expects {option} to be a number of examples or a fraction in (0, 1), got {validation!r}."
        )
    return max(1, round(validation * n)) if is_fraction else int(validation)


def _cut(
    who: str, raw: Raw, origin: dict[str, str], validation: float | None, seed: int, option: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """Data, labels and factors by split: those that the source does not bring are cut out of train."""
    splits, labels, factors = dict(raw.splits), dict(raw.labels), dict(raw.factors)
    n = len(splits["train"])
    tests = 0 if "test" in splits else int(raw.test_fraction * n)
    held = 0
    if "validation" not in splits:
        held = _count(who, n - tests, validation, option)
    elif validation is not None and validation != 0:
        raise ValueError(f"{who} brings its own validation split, got {option}={validation!r}. Leave {option} out.")
    elif validation == 0:
        for kept in (splits, labels, factors, origin):
            kept.pop("validation", None)
    if tests + held >= n:
        raise ValueError(
            f"{who} holds {n} training examples, and {option}={validation!r} leaves none to train on. Hold out fewer."
        )
    if tests + held:
        rest = n - tests - held
        if raw.mapped:  # slices of the file: views, where a random choice would copy it
            parts = {"train": slice(0, rest), "validation": slice(rest, rest + held), "test": slice(rest + held, n)}
        else:
            order = torch.from_numpy(stream(seed, "split").permutation(n))
            parts = {"test": order[:tests], "validation": order[tests : tests + held], "train": order[tests + held :]}
            parts = {split: index.sort().values for split, index in parts.items()}
        how = "the last rows before the test split" if raw.mapped else "a choice by the seed"
        for kept in (splits, labels, factors):
            whole = kept.get("train")
            for split, count in (("train", rest), ("validation", held), ("test", tests)):
                if count and whole is not None:
                    kept[split] = whole[parts[split]]
        if held:
            origin["validation"] = f"{held} of the training set: {how}"
        if tests:
            origin["test"] = f"{tests} of all examples: {'the last rows' if raw.mapped else how}"
    splits, labels, factors = ({s: kept[s] for s in SPLITS if s in kept} for kept in (splits, labels, factors))
    return splits, labels, factors, origin
