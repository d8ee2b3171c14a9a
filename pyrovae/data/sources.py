"""Data sets by name: what scikit-learn embeds, the sets that torchvision reads, and drawn ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import Raw
from .files import cache_folder, decode_into, open_decoded, write_npy
from .synthetic.cells import cells
from .synthetic.gaussian import linear_gaussian
from .synthetic.manifolds import MANIFOLDS, drawn
from .synthetic.oscillations import oscillations
from .synthetic.pendulums import pendulums
from .synthetic.sprites import sprites
from .synthetic.topics import topics

Source = Callable[[str, Path], Raw]


def root_folder(root: str | os.PathLike[str] | None) -> Path:
    """Where named sets are looked for: `root`, else PYROVAE_DATA, else ~/.cache/pyrovae."""
    return Path(root or os.environ.get("PYROVAE_DATA") or Path.home() / ".cache" / "pyrovae").expanduser()


def digits(name: str, root: Path) -> Raw:
    """1,797 digits, 8x8 counts 0..16; one fifth, the same under every seed, is the test split."""
    from sklearn.datasets import load_digits

    embedded = load_digits()
    x = torch.from_numpy(embedded.images.astype(np.uint8)).unsqueeze(1)  # [N, 8, 8] -> [N, 1, 8, 8]
    splits, labels, held = _fixed_fifth(x, embedded.target)
    origin = {"train": "scikit-learn's load_digits", "test": held}
    return Raw(name, splits, labels, "counts", 16, origin=origin)


def _table(name: str, root: Path) -> Raw:
    """A table of scikit-learn's, [N, columns] in the units of its columns; one fifth, under every seed, is for test.

    breast_cancer: 569 x 30, shapes of cell nuclei, heavy-tailed; labels 0 malignant, 1 benign. wine: 178 x 13,
    chemistry of wines, all positive; labels are three growers.
    """
    from sklearn import datasets

    embedded: Any = getattr(datasets, f"load_{name}")()
    splits, labels, held = _fixed_fifth(torch.from_numpy(embedded.data.astype(np.float32)), embedded.target)
    origin = {"train": f"scikit-learn's load_{name}, units as they are", "test": held}
    return Raw(name, splits, labels, "real", origin=origin)


def _fixed_fifth(x: Tensor, labels: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
    """Train and test of a set that comes whole: x, labels, and how the test split was chosen."""
    y = torch.from_numpy(labels.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    held, rest = (part.sort().values for part in order.split([len(x) // 5, len(x) - len(x) // 5]))
    how = f"{len(held)} of {len(x)}: one fixed choice, whatever the seed"
    return {"train": x[rest], "test": x[held]}, {"train": y[rest], "test": y[held]}, how


def _fetch(name: str, root: Path, layout: str, read: Callable[[bool], Any]) -> Any:
    """`read(download)` from the disk, else by download, else an error that says what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns about the old pickles inside some sets
        try:
            return read(False)
        except Exception as error:
            if "not found" not in str(error) and not isinstance(error, FileNotFoundError):
                raise ValueError(
                    f"data {name!r} cannot be read from {root / layout}: {str(error) or type(error).__name__}. "
                    "A file is damaged or cut short; delete it and load again."
                ) from error
        try:
            return read(True)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileNotFoundError(
                f"data {name!r} was not found: looked for {layout} in {root}, and the download failed ({reason}). "
                "Set PYROVAE_DATA (or root=...) to a folder in torchvision's layout, or load once with a connection."
            ) from error


def _official(name: str, splits: dict[str, Tensor], labels: dict[str, Any], how: str = "") -> Raw:
    origin = {split: f"torchvision's {split} split{how}" for split in splits}
    labels = {split: torch.as_tensor(y, dtype=torch.int64) for split, y in labels.items()}
    return Raw(name, splits, labels, values="unit", origin=origin)


def _idx(name: str, root: Path, *, kind: str, **options: Any) -> Raw:
    """MNIST and what is stored like it: bytes [N, 28, 28], read as one array."""
    from torchvision import datasets

    def read(download: bool) -> dict[str, Any]:
        cls = getattr(datasets, kind)
        return {s: cls(root, train=s == "train", download=download, **options) for s in ("train", "test")}

    sets = _fetch(name, root, f"{kind}/raw", read)
    images = {split: d.data.unsqueeze(1) for split, d in sets.items()}  # [N, 28, 28] -> [N, 1, 28, 28]
    if kind == "EMNIST":
        images = {split: x.mT.contiguous() for split, x in images.items()}  # stored column by column
    return _official(name, images, {split: d.targets for split, d in sets.items()})


def _cifar10(name: str, root: Path) -> Raw:
    from torchvision import datasets

    def read(download: bool) -> dict[str, Any]:
        return {s: datasets.CIFAR10(root, train=s == "train", download=download) for s in ("train", "test")}

    sets = _fetch(name, root, "cifar-10-batches-py", read)
    images = {s: torch.from_numpy(d.data).permute(0, 3, 1, 2).contiguous() for s, d in sets.items()}  # channels first
    return _official(name, images, {split: d.targets for split, d in sets.items()})


def _svhn(name: str, root: Path) -> Raw:
    from torchvision import datasets

    def read(download: bool) -> dict[str, Any]:
        return {s: datasets.SVHN(root, split=s, download=download) for s in ("train", "test")}

    sets = _fetch(name, root, "{train,test}_32x32.mat", read)
    images = {split: torch.from_numpy(np.ascontiguousarray(d.data)) for split, d in sets.items()}
    return _official(name, images, {split: d.labels for split, d in sets.items()})


def _decoded(
    name: str,
    root: Path,
    splits: tuple[str, ...],
    shape: tuple[int, ...],
    layout: str,
    read: Any,
    decode: Any,
    how: str,
) -> Raw:
    """A set of image files, decoded once into `.npy` files beside it and memory-mapped from then on."""
    home = cache_folder(root)
    size = "x".join(map(str, shape))
    cached = {s: home / f"{name}_{s}_{size}.npy" for s in splits}
    cached_labels = {s: home / f"{name}_{s}_labels.npy" for s in splits}
    if not all(path.is_file() for path in (*cached.values(), *cached_labels.values())):
        for split, (files, labels) in _fetch(name, root, layout, read).items():
            y = np.asarray(labels, dtype=np.int64)
            decode_into(cached[split], files, decode, shape)
            write_npy(cached_labels[split], y.shape, np.int64, partial(np.copyto, src=y))
    images = {s: open_decoded(path, name) for s, path in cached.items()}
    labels = {s: open_decoded(path, name) for s, path in cached_labels.items()}
    raw = _official(name, images, labels, how)
    raw.in_files = frozenset(images)
    return raw


def _omniglot(name: str, root: Path) -> Raw:
    from PIL import Image
    from torchvision import datasets

    def read(download: bool) -> dict[str, Any]:
        found = {}
        for split in ("train", "test"):
            d = datasets.Omniglot(root, background=split == "train", download=download)
            folder = Path(d.target_folder)
            files = [folder / d._characters[c] / image for image, c in d._flat_character_images]
            found[split] = (files, [c for _, c in d._flat_character_images])
        return found

    def decode(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            small = image.convert("L").resize((28, 28), Image.Resampling.BILINEAR)
        return 255 - np.asarray(small)[None]  # drawn black on white: ink is to be 1

    how = " (train: background, test: evaluation), resized to 28x28, ink 1"
    return _decoded(name, root, ("train", "test"), (1, 28, 28), "omniglot-py", read, decode, how)


def _celeba(name: str, root: Path) -> Raw:
    from PIL import Image
    from torchvision import datasets

    def read(download: bool) -> dict[str, Any]:
        found = {}
        for split, theirs in (("train", "train"), ("validation", "valid"), ("test", "test")):
            d = datasets.CelebA(root, split=theirs, target_type="identity", download=download)
            files = [root / d.base_folder / "img_align_celeba" / file for file in d.filename]
            found[split] = (files, d.identity.squeeze(-1))
        return found

    def decode(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            left, top = (image.width - 148) // 2, (image.height - 148) // 2
            face = image.convert("RGB").crop((left, top, left + 148, top + 148))
        return np.moveaxis(np.asarray(face.resize((64, 64), Image.Resampling.BILINEAR)), -1, 0)

    how = ", centre 148x148 resized to 64x64"
    return _decoded(name, root, ("train", "validation", "test"), (3, 64, 64), "celeba", read, decode, how)


SOURCES: dict[str, Source] = {
    "digits": digits,
    "breast_cancer": _table,
    "wine": _table,
    "oscillations": oscillations,
    "pendulums": pendulums,
    "topics": topics,
    "cells": cells,
    "sprites": sprites,
    "linear_gaussian": linear_gaussian,
    **dict.fromkeys(MANIFOLDS, drawn),
    "mnist": partial(_idx, kind="MNIST"),
    "fashion": partial(_idx, kind="FashionMNIST"),
    "kmnist": partial(_idx, kind="KMNIST"),
    "emnist": partial(_idx, kind="EMNIST", split="balanced"),
    "cifar10": _cifar10,
    "svhn": _svhn,
    "omniglot": _omniglot,
    "celeba": _celeba,
}
