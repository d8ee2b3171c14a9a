"""The data of a case, as NumPy arrays: MNIST where it lies on the disk, else random bytes of its shape."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .cases import MNIST, Case

BATCHES = 10  # different ones that the steps of a case go through


def folder() -> Path | None:
    """The folder that torchvision would read MNIST from; None where there is none."""
    root = os.environ.get("PYROVAE_DATA")
    return Path(root) if root and (Path(root) / "MNIST/raw/train-images-idx3-ubyte").exists() else None


def grey(n: int) -> np.ndarray:
    """The first n training images, uint8 [n, 1, 28, 28]."""
    root = folder()
    if root is None:
        return np.random.default_rng(0).integers(0, 256, (n, *MNIST), dtype=np.uint8)
    raw = np.fromfile(root / "MNIST/raw/train-images-idx3-ubyte", dtype=np.uint8, count=16 + n * 784, offset=0)
    return raw[16:].reshape(-1, *MNIST)


def binary(n: int) -> np.ndarray:
    """Thresholded at one half, {0, 1} as uint8."""
    return (grey(n) > 127).astype(np.uint8)


def of(case: Case) -> np.ndarray:
    """What a case is measured on: float32 [N, *event], and uint8 for an epoch, which has to convert its batches."""
    if case.measure == "epoch":
        return binary(case.images)
    n = case.images or BATCHES * case.batch
    if case.event != MNIST:
        return np.random.default_rng(0).random((n, *case.event), dtype=np.float32)
    return binary(n).astype(np.float32)


def source() -> str:
    """Where the images come from, in words."""
    return "MNIST" if folder() else "random bytes of MNIST's shape"
