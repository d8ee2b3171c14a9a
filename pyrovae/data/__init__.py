"""Data as tensors: `load` by name or path, `from_arrays`, and the `Dataset` that both return."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import nearest
from .arrays import assemble, from_arrays
from .dataset import Dataset
from .files import read_path
from .sources import SOURCES, root_folder
from .synthetic.gaussian import linear_gaussian_truth
from .synthetic.manifolds import manifold

__all__ = ["Dataset", "from_arrays", "linear_gaussian_truth", "load", "manifold"]


def load(
    name: str | os.PathLike[str] = "digits",
    *,
    binarise: str | None = None,
    validation: float | None = None,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    threshold: float = 0.5,
    missing: bool = False,
    labelled: bool | int = False,
) -> Dataset:
    """A `Dataset` by name or by path.

    Names: digits, breast_cancer and wine (tables of real numbers, in
    their units) need no files, nor do the drawn ones: oscillations [12] and pendulums [12, 2], series of different
    lengths with NaN behind the end, for missing=True; sprites, binary images with the factors that they were made from;
    topics, bags of words; cells, counts of genes; linear_gaussian, whose evidence is known; points of manifolds whose
    tangent planes are known, by `manifold` in any number: swiss_roll, sphere, torus, rotated and shifted images.
    These are read by torchvision: mnist, fashion, kmnist, emnist, cifar10, svhn, omniglot and celeba.

    A path is a `.npz` file (`train`, `validation`, `test` or `x_train`, `x_test`; labels `y_train`, ...), a `.npy`
    file, which stays on disk (its last rows are validation and test: shuffle a sorted file first), or a folder of
    images. Named sets lie in `root`, else in the folder PYROVAE_DATA, else in ~/.cache/pyrovae, as torchvision lays
    them out. A folder of more than 2 GiB of pixels is decoded once into a file there. Images are [N, C, H, W].

    `binarise`: "dynamic" (x ~ Bernoulli(grey), afresh for each training batch), "static" (one draw by the seed) or
    "threshold" (x = 1 where grey > threshold). `validation`: how many training examples are held out, a number or
    a fraction, 0 for none; by default a tenth, at most 5,000. `missing`: NaN is allowed, and means not observed.
    `labelled`: x is a vector, the label 0, 1, ... and then the numbers of the datum, for models that read or observe
    it; a number says how many training data keep their label, spread over the classes by the seed, the others having
    NaN there.

    Raises ValueError for an unknown name or unfit data, FileNotFoundError where there is no such file.

    >>> load("digits", binarise="dynamic").train.unique()
    tensor([0., 1.])
    >>> load("minst")
    Traceback (most recent call last):
    ValueError: data 'minst' is not known; did you mean 'mnist'? Known: breast_cancer, celeba, ...
    """
    text = os.fspath(name)
    if text in SOURCES:
        raw = SOURCES[text](text, root_folder(root))
    else:
        path = Path(text).expanduser()
        if not (path.suffix in (".npz", ".npy") or len(path.parts) > 1 or path.exists()):
            raise ValueError(f"data {text!r} is not known; {nearest(text, SOURCES)} Or a path: .npz, .npy, a folder.")
        raw = read_path(path, root_folder(root))
    return assemble(raw, validation, binarise, seed, threshold, missing=missing, labelled=labelled)
