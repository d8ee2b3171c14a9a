"""Loading: what lies in a file gives the batches that memory gives, threads end, decoded folders are kept whole."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from pyrovae import data
from pyrovae.data import dataset, files, reading

needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch):
    monkeypatch.setattr(dataset, "AHEAD_BYTES", 0)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("pyrovae-read-ahead") and t.is_alive()]


def wait_for_threads_to_end():
    for _ in range(200):
        if not threads():
            return True
        time.sleep(0.01)
    return False


def stored(kind, n=500):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)
    return {
        "bytes": grey[..., 0],
        "channels last": grey,
        "floats": rng.random((n, 4), dtype=np.float32),
        "doubles": rng.random((n, 4)),
        "scalars": rng.random(n, dtype=np.float32),
    }[kind]


def on_disk_and_in_memory(folder, kind, **options):
    """The same examples twice: memory-mapped, and as arrays."""
    np.save(folder / "x.npy", stored(kind))
    disk = data.load(folder / "x.npy", **options)
    return disk, data.from_arrays(**{s: x.clone() for s, x in disk.stored.items()}, **options)


# Read ahead


@pytest.mark.parametrize("larger_than_memory", [False, True])
@pytest.mark.parametrize("binarise", [None, "dynamic", "static", "threshold"])
@pytest.mark.parametrize("kind", ["bytes", "channels last", "floats", "doubles", "scalars"])
def test_a_file_gives_the_batches_of_memory(kind, binarise, larger_than_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "exceeds_memory", lambda store: larger_than_memory)
    disk, memory = on_disk_and_in_memory(tmp_path, kind, binarise=binarise)
    assert disk.mapped == {"train", "validation", "test"}
    assert memory.mapped == frozenset()
    for split in ("train", "test"):
        for shuffle in (True, False):
            passes = []
            for d in (disk, memory):
                torch.manual_seed(1)
                batches = list(d.batches(split, 64, shuffle=shuffle))
                passes.append([*batches, torch.rand(3)])  # and the generator is where it would be
            assert len(passes[0]) == -(-disk.size(split) // 64) + 1
            for a, b in zip(*passes, strict=True):
                assert torch.equal(a, b)
                assert a.dtype == b.dtype == torch.float32
                assert a.is_contiguous()


def test_draws_are_made_when_a_batch_is_asked_for(tmp_path):
    """Whoever draws between batches, as every training step does, gets the same on disk and in memory."""
    passes = []
    for d in on_disk_and_in_memory(tmp_path, "bytes", binarise="dynamic"):
        torch.manual_seed(1)
        passes.append([(x, torch.randn(3)) for x in d.batches("train", 64, shuffle=True)])
    for a, b in zip(*passes, strict=True):
        assert all(map(torch.equal, a, b))


def test_only_a_file_is_read_ahead_and_only_from_the_second_batch_on(tmp_path):
    disk, memory = on_disk_and_in_memory(tmp_path, "bytes")
    batches = memory.batches("train", 64, shuffle=True)
    next(batches), next(batches)
    assert not threads()
    batches = disk.batches("train", 64, shuffle=True)
    next(batches)
    assert not threads()
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert wait_for_threads_to_end()


def test_a_small_file_is_not_read_ahead(tmp_path, monkeypatch):
    monkeypatch.undo()
    disk, _ = on_disk_and_in_memory(tmp_path, "bytes")
    assert disk.mapped
    monkeypatch.setattr(dataset, "read_ahead", None)
    list(disk.batches("train", 64, shuffle=True))


def test_an_array_that_is_copied_is_no_file(tmp_path):
    np.save(tmp_path / "x.npy", stored("floats").astype(">f4"))
    assert data.load(tmp_path / "x.npy").mapped == frozenset()
    np.save(tmp_path / "y.npy", stored("floats"))
    y = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert data.from_arrays(y, test=stored("floats")).mapped == {"train", "validation"}


@pytest.mark.parametrize("end", ["dropped", "closed", "exhausted", "raised"])
def test_the_thread_ends_with_the_iterator(end, tmp_path):
    disk, _ = on_disk_and_in_memory(tmp_path, "bytes")
    batches = disk.batches("train", 16, shuffle=True)
    next(batches), next(batches)
    assert threads()
    if end == "dropped":
        del batches
        gc.collect()
    elif end == "closed":
        batches.close()
    elif end == "exhausted":
        list(batches)
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt())
    assert wait_for_threads_to_end()


def test_no_more_is_read_ahead_than_said():
    asked = []

    def read(key):
        asked.append(key)
        return torch.tensor(key)

    for i, x in enumerate(reading.read_ahead(read, range(20), "it")):
        time.sleep(0.005)
        assert int(x) == i
        assert len(asked) <= i + 1 + reading.DEPTH
    assert asked == list(range(20))


def test_what_fails_in_the_thread_is_told_where_the_batch_is_asked_for(tmp_path, monkeypatch):
    disk, _ = on_disk_and_in_memory(tmp_path, "bytes")

    def broken(store, rows, **how):
        if len(asked) == 3:
            raise MemoryError("no room for\n 64 rows")
        asked.append(rows)
        return reading.fetch(store, rows)

    asked = []
    monkeypatch.setattr(dataset, "fetch", broken)
    batches = disk.batches("train", 64, shuffle=True)
    for _ in range(3):
        next(batches)
    with pytest.raises(RuntimeError, match=r"data 'x', split 'train': a batch cannot be read: no room for 64 rows.$"):
        next(batches)
    assert wait_for_threads_to_end()


def test_rows_that_are_announced_are_whole_and_start_at_a_page(monkeypatch):
    told = []
    library = namedtuple("Library", "madvise")(lambda *a: told.append((a[0].value, a[1].value, a[2])))
    monkeypatch.setattr(reading.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(reading.sys, "platform", "linux")
    store = torch.zeros(100, 3, 1000, dtype=torch.int16)
    reading.will_need(store, torch.tensor([99, 5]))
    for (start, length, advice), row in zip(told, (99, 5), strict=True):
        assert start % 4096 == 0
        assert start <= store[row].data_ptr() < start + 65536
        assert start + length == store[row].data_ptr() + 6000
        assert advice == 3


SCRIPT = """
import signal, sys, time, numpy as np, torch
from pyrovae import data
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
data.dataset.AHEAD_BYTES = 0
d = data.load(sys.argv[1])
batches = d.batches("train", 8, shuffle=True)
next(batches), next(batches)
print("started", flush=True)
try:
    if sys.argv[2] == "interrupted":
        while True:
            for x in d.batches("train", 8, shuffle=True):
                time.sleep(0.01)
except KeyboardInterrupt:
    sys.exit(7)
"""


@needs_signals
@pytest.mark.parametrize(("how", "code"), [("left open", 0), ("interrupted", 7)])
def test_the_interpreter_exits_while_a_thread_reads_ahead(how, code, tmp_path):
    np.save(tmp_path / "x.npy", stored("bytes"))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "x.npy"), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"started\n"
        if how == "interrupted":
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code, errors.decode()
        assert not errors
    finally:
        process.kill()


# Folders of images


@pytest.fixture
def folder(tmp_path):
    """30 images in three classes; the first pixel tells the class, the second the image."""
    rng = np.random.default_rng(0)
    for i in range(30):
        x = rng.integers(0, 256, (6, 5), dtype=np.uint8)
        x[0, :2] = i // 10, i
        path = tmp_path / "images" / "abc"[i // 10] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Every folder is a large one, and is kept here."""
    monkeypatch.setattr(files, "DECODED_BYTES", 0)
    return tmp_path / "cache"


def contents(d):
    return sorted(x.numpy().tobytes() for split in d.stored.values() for x in split)


def test_a_large_folder_is_decoded_once(folder, cache, monkeypatch):
    d = data.load(folder, root=cache)
    assert d.mapped == {"train", "validation", "test"}
    assert [d.size(s) for s in ("train", "validation", "test")] == [25, 2, 3]
    for split, x in d.stored.items():
        assert x[:, 0, 0, 0].tolist() == d.labels[split].tolist()
    assert d.stored["train"][:, 0, 0, 1].tolist() != sorted(d.stored["train"][:, 0, 0, 1].tolist())
    kept = list(cache.iterdir())
    assert len(kept) == 1
    assert str(kept[0]) in d.protocol["origin"]["train"]
    monkeypatch.setattr(files, "decode_all", None)
    monkeypatch.setattr(files, "_headers", None)
    again = data.load(folder, root=cache, seed=1)
    assert all(torch.equal(again.stored[s], d.stored[s]) for s in d.stored)
    monkeypatch.undo()
    small = data.load(folder, root=cache.parent / "elsewhere")
    assert contents(small) == contents(d)
    assert small.mapped == frozenset()
    assert not (cache.parent / "elsewhere").exists()


def test_a_large_folder_with_splits(folder, cache):
    for split in ("train", "val"):
        (folder / split).mkdir()
        for cls in "abc":
            (folder / split / cls).mkdir()
    for path in list(folder.glob("[abc]/*.png")):
        path.rename(folder / ("val" if int(path.stem) % 5 == 0 else "train") / path.relative_to(folder))
    d = data.load(folder, root=cache)
    assert [d.size(s) for s in ("train", "validation", "test")] == [22, 6, 2]
    assert d.stored["validation"][:, 0, 0, 1].tolist() == [0, 5, 10, 15, 20, 25]
    for split, x in d.stored.items():
        assert x[:, 0, 0, 0].tolist() == d.labels[split].tolist()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["added", "removed", "written anew", "touched", "renamed"])
def test_a_folder_that_changed_is_decoded_again(change, folder, cache):
    data.load(folder, root=cache)
    before = {p.name for p in cache.iterdir()}
    one = folder / "a" / "00.png"
    other = np.full((6, 5), 9, dtype=np.uint8)
    if change == "added":
        Image.fromarray(other).save(folder / "a" / "zz.png")
    elif change == "removed":
        one.unlink()
    elif change == "written anew":
        Image.fromarray(other).save(one)
    elif change == "touched":
        os.utime(one, (1, 1))
    else:
        one.rename(folder / "b" / "00.png")
    d = data.load(folder, root=cache)
    after = {p.name for p in cache.iterdir()}
    assert len(after) == 1
    assert not after & before
    assert len(contents(d)) == {"added": 31, "removed": 29}.get(change, 30)
    assert (other.tobytes() in contents(d)) == (change in ("added", "written anew"))


def test_folders_do_not_share_what_is_kept(folder, cache):
    data.load(folder / "a", root=cache)
    data.load(folder / "b", root=cache)
    assert len(list(cache.iterdir())) == 2
    assert data.load(folder / "a", root=cache).stored["train"][:, 0, 0, 0].unique().tolist() == [0]


def test_a_folder_is_kept_whole_or_not_at_all(folder, cache):
    (folder / "c" / "29.png").write_bytes((folder / "c" / "29.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"29.png' cannot be read"):
        data.load(folder, root=cache)
    assert not list(cache.iterdir())


def test_a_damaged_file_of_decoded_images_is_named(folder, cache):
    data.load(folder, root=cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"the decoded .*{kept.name} cannot be read.*Delete it and load again"):
        data.load(folder, root=cache)


def test_a_full_disk_is_named_before_anything_is_written(folder, cache, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10))
    with pytest.raises(OSError, match=r"needs 0.00 GB and the disk has 0.00 GB left. Free some, or set PYROVAE_DATA"):
        data.load(folder, root=cache)
    assert not list(cache.iterdir())
