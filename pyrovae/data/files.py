"""Arrays and images on disk: `.npz`, `.npy` (memory-mapped), and folders of images."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import Raw, as_array, as_labels, as_tensor, is_mapped

IMAGES = (".png", ".jpg", ".jpeg")
DECODED_BYTES = 2**31  # a folder with more pixels than this is decoded into a file, once
_CHUNK = 32  # images that a thread decodes in one go
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_BROKEN = (ValueError, OSError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile, zlib.error)


def read_path(path: Path, root: Path) -> Raw:
    """The arrays behind a path; FileNotFoundError where it is absent, ValueError for what is not read.

    Large folders of images are kept decoded in `root`, or in ~/.cache/pyrovae where that is read-only.
    """
    if not path.exists():
        raise FileNotFoundError(f"data {str(path)!r} does not exist (looked in {Path.cwd()}). Check the path.")
    if path.is_dir():
        return read_folder(path, root)
    readers = {".npz": read_npz, ".npy": read_npy}
    if path.suffix not in readers:
        raise ValueError(
            f"data {str(path)!r} expects a .npz or .npy file or a folder of images, got {path.name!r}. "
            "Save it with numpy.savez, or read it yourself and use data.from_arrays."
        )
    return readers[path.suffix](path)


def read_npz(path: Path) -> Raw:
    """`train`, `validation`, `test` or `x_train`, ...; labels in `y_train`, `labels_train` or `train_labels`."""
    with path.open("rb") as opened:  # by numpy it would stay open where the archive is damaged
        file = _open(path, opened)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError(f"data {str(path)!r} is not a .npz archive. Save it with numpy.savez(path, train=...).")
        names = file.files
        found, labels = {}, {}
        for split, aliases in _SPLIT_NAMES.items():
            key = next((k for a in aliases for k in (a, f"x_{a}") if k in names), None)
            if key is not None:
                found[split] = _images(as_array(_member(path, file, key), path.stem, split))
            for_labels = (k for a in aliases for k in (f"y_{a}", f"labels_{a}", f"{a}_labels"))
            key_labels = next((k for k in for_labels if k in names), None)
            if key is not None and key_labels is not None:
                labels[split] = _member(path, file, key_labels)
    if "train" not in found:
        raise ValueError(
            f"data {str(path)!r} expects an array 'train' or 'x_train', got {', '.join(sorted(names)) or 'nothing'}. "
            "Save it with numpy.savez(path, train=...)."
        )
    splits = {split: as_tensor(x) for split, x in found.items()}
    origin = dict.fromkeys(splits, f"file {path.resolve()}")
    return Raw(path.stem, splits, as_labels(labels, path.stem), origin=origin)


def read_npy(path: Path) -> Raw:
    """One array [N, *event], left in the file: its last tenth is the test split."""
    array = _images(as_array(_open(path, path, mmap_mode="c"), path.stem, "train"))  # "c": writable, never written back
    origin = {"train": f"file {path.resolve()}"}
    x = as_tensor(array)
    in_files = frozenset(["train"] if is_mapped(array, x) else [])
    return Raw(path.stem, {"train": x}, mapped=True, in_files=in_files, test_fraction=0.1, origin=origin)


def _open(path: Path, file: Any, **how: Any) -> Any:
    try:
        return np.load(file, allow_pickle=False, **how)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _member(path: Path, file: Any, key: str) -> np.ndarray:
    try:
        return file[key]
    except _BROKEN as error:
        raise _unreadable(path, error, f" (array {key!r})") from error


def _unreadable(path: Path, error: Exception, where: str = "") -> ValueError:
    if "object" in str(error).lower() or "pickle" in str(error).lower():
        return ValueError(
            f"data {str(path)!r}{where} expects numbers, got Python objects or no array at all, and pyrovae never "
            "unpickles. Save a numeric array: numpy.save(path, np.asarray(x, dtype='float32'))."
        )
    return ValueError(
        f"data {str(path)!r}{where} cannot be read: {error}. The file is damaged or cut short; copy it again."
    )


def _images(array: Any) -> Any:
    """Arrays that are images as [N, C, H, W], by views: bytes [N, H, W], and channels that come last."""
    if array.ndim == 3 and array.dtype == np.uint8:
        return array[:, None]
    if array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        return np.moveaxis(array, -1, 1)
    return array


def read_folder(folder: Path, root: Path) -> Raw:
    """PNG and JPEG images of one size, flat or in class folders, under train/, val/ and test/ where these exist."""
    name = folder.resolve().name
    roots = {
        split: next((folder / a for a in aliases if (folder / a).is_dir()), None)
        for split, aliases in _SPLIT_NAMES.items()
    }
    if roots["train"] is None:
        roots = {"train": folder}
    homes = {split: home for split, home in roots.items() if home is not None}
    files = {split: _list_images(home) for split, home in homes.items()}
    for split, home in homes.items():
        if not files[split]:
            raise ValueError(f"data {str(home)!r} expects a folder of images ({', '.join(IMAGES)}), found none in it.")
    origin = {split: f"folder {home.resolve()}" for split, home in homes.items()}
    cached = _cached_folder(folder, files, root)
    is_kept = all(path.is_file() for path in cached.values())
    decode, shape = (None, ()) if is_kept else _decoder([file for listed in files.values() for file in listed])
    if decode is not None and sum(map(len, files.values())) * math.prod(shape) <= DECODED_BYTES:
        splits = {split: torch.from_numpy(decode_all(listed, decode, shape)) for split, listed in files.items()}
        labels = _class_labels({split: (homes[split], listed) for split, listed in files.items()})
        return Raw(name, splits, labels, values="unit", test_fraction=0.1, origin=origin)
    # Splits are cut from a file in slices, and classes lie in a row: one shuffle, the same under every seed.
    files["train"] = [files["train"][i] for i in np.random.default_rng(0).permutation(len(files["train"]))]
    if decode is not None:
        for split, path in cached.items():
            decode_into(path, files[split], decode, shape)
    origin = {split: f"{text}, decoded into {cached[split]}" for split, text in origin.items()}
    origin["train"] += " in one fixed random order"
    splits = {split: open_decoded(path, name) for split, path in cached.items()}
    labels = _class_labels({split: (homes[split], listed) for split, listed in files.items()})
    in_files = frozenset(splits)
    return Raw(name, splits, labels, values="unit", mapped=True, in_files=in_files, test_fraction=0.1, origin=origin)


def _decoder(files: Sequence[Path]) -> tuple[Callable[[Path], np.ndarray], tuple[int, ...]]:
    """How one of these images becomes uint8 [C, H, W], and its shape."""
    size, mode = _headers(files)

    def decode(file: Path) -> np.ndarray:
        with _image(file) as image:
            pixels = np.asarray(image if image.mode == mode else image.convert(mode))  # [H, W] or [H, W, C]
        return pixels[None] if mode == "L" else np.moveaxis(pixels, -1, 0)

    return decode, (3 if mode == "RGB" else 1, size[1], size[0])


def _cached_folder(folder: Path, files: dict[str, list[Path]], root: Path) -> dict[str, Path]:
    """Where the pixels of a folder are kept, by split: other names once a file is added, removed or written anew.

    What was kept of the folder as it was before is deleted.
    """
    content = hashlib.sha256()
    for split, listed in files.items():
        for file in listed:
            stat = file.stat()
            content.update(f"{split}\0{file.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    home = cache_folder(root)
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    names = {split: f"images_{key}_{content.hexdigest()[:16]}_{split}.npy" for split in files}
    for path in home.glob(f"images_{key}_*.npy"):
        if path.name not in names.values():
            path.unlink(missing_ok=True)
    return {split: home / name for split, name in names.items()}


def _list_images(root: Path) -> list[Path]:
    found = (file for file in root.rglob("*") if file.suffix.lower() in IMAGES and not file.name.startswith("."))
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _class_labels(files: dict[str, tuple[Any, list[Path]]]) -> dict[str, Tensor]:
    """Class numbers by the sorted names of the class folders; none where an image lies outside of one."""
    names = {split: [file.relative_to(root).parts for file in listed] for split, (root, listed) in files.items()}
    if any(len(parts) < 2 for listed in names.values() for parts in listed):
        return {}
    classes = {c: i for i, c in enumerate(sorted({parts[0] for listed in names.values() for parts in listed}))}
    return {split: torch.tensor([classes[parts[0]] for parts in listed]) for split, listed in names.items()}


def _image(file: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(file)
    except OSError as error:
        raise ValueError(f"image {str(file)!r} cannot be read: {error}. Remove it or copy it again.") from error


def _headers(files: Sequence[Path]) -> tuple[tuple[int, int], str]:
    """The one size of all images, and "L" where all of them are grey, else "RGB"; nothing is decoded."""
    size, mode = None, "L"
    for file in files:
        with _image(file) as image:
            size = size or image.size
            if image.size != size:
                raise ValueError(
                    f"a folder of images expects one size, got {size[0]}x{size[1]} in {str(files[0])!r} and "
                    f"{image.size[0]}x{image.size[1]} in {str(file)!r}. Resize them to one size first."
                )
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"image {str(file)!r} expects 8 bits a channel, got mode {image.mode!r}. Convert it first."
                )
            mode = mode if image.mode in ("1", "L", "LA") else "RGB"
    assert size is not None
    return size, mode


def decode_all(
    files: Sequence[Path],
    decode: Callable[[Path], np.ndarray],
    shape: tuple[int, ...],
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Each file through `decode`, once and by a pool of threads, as uint8 [N, *shape], into `out` where it is given."""
    from tqdm import tqdm

    images = np.empty((len(files), *shape), dtype=np.uint8) if out is None else out

    def put(i: int) -> None:
        try:
            images[i] = decode(files[i])
        except (OSError, SyntaxError) as error:  # what Pillow raises for damaged images
            raise ValueError(f"image {str(files[i])!r} cannot be read: {error}. Remove it or copy it again.") from error

    def put_all(chunk: range) -> int:
        for i in chunk:
            put(i)
        return len(chunk)

    chunks = [range(i, min(i + _CHUNK, len(files))) for i in range(0, len(files), _CHUNK)]
    with (
        ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool,
        tqdm(desc="decoding", total=len(files), leave=False, disable=out is None) as bar,
    ):
        for done in pool.map(put_all, chunks):
            bar.update(done)
    return images


def decode_into(
    path: Path, files: Sequence[Path], decode: Callable[[Path], np.ndarray], shape: tuple[int, ...]
) -> None:
    """Each file through `decode` into a `.npy` file of uint8 [N, *shape]."""
    write_npy(path, (len(files), *shape), np.uint8, partial(decode_all, files, decode, shape))


def open_decoded(path: Path, name: str) -> Tensor:
    """What `decode_into` wrote, as a memory map; ValueError where it is damaged."""
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"data {name!r}: the decoded {path} cannot be read: {error}. Delete it and load again."
        ) from error


def cache_folder(root: Path) -> Path:
    """Where decoded images are kept: `root`, or ~/.cache/pyrovae where that is read-only."""
    return root if os.access(root, os.W_OK) or not root.exists() else Path.home() / ".cache" / "pyrovae"


def write_npy(path: Path, shape: tuple[int, ...], dtype: Any, fill: Callable[[np.ndarray], Any]) -> None:
    """A `.npy` file filled in place on disk, and there whole or not at all: another process may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:  # a full disk ends a process that writes to a memory map, without a word
        raise OSError(
            f"{str(path)!r} needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left. "
            "Free some, or set PYROVAE_DATA to a folder on a larger disk."
        )
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        fill(array)
        array.flush()
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
