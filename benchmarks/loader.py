"""What a batch costs before the training step sees it, from memory, from a memory-mapped file, and as image files.

    OMP_NUM_THREADS=1 python benchmarks/loader.py [--batch_size 128] [--step 2.0] [--folder DIR] > FILE.md

Memory: 55,000 random images of 784 bytes, shuffled; the fastest of five passes over 400 batches. "Plainly" is what one
would write: `x[rows].float() / 255`, and `torch.bernoulli` of it. Random bytes are the worst case of `torch.bernoulli`,
which is faster where most pixels are black.

Memory map: a file of 500 MB in --folder, shuffled, with a step of --step milliseconds (a fixed number of matrix
products) between batches. "Share": the part of the time over --batches batches that is not that of the steps alone,
timed just before; the median of three. "Cold": the file is dropped from the page cache first. The file fits into memory
here, so its pages come in neighbourhoods; "rows announced" reads each row alone, as from a file that does not fit.

Folder: --images JPEG and PNG files, decoded into memory by one thread and by two; the median of three.

A machine that is busy with something else shows nothing: reading ahead needs a core to do it on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from pyrovae import data
from pyrovae.data import dataset, files


def fastest(run, n, repeats=5):
    """Microseconds a batch of the fastest run, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / n * 1e6


def memory(size, step):
    n, batches = 55_000, 400
    grey = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
    ink = (grey > 127).to(torch.uint8)

    def plainly(prepare, x):
        order = torch.randperm(n)
        for i in range(batches):
            prepare(x[order[i * size : (i + 1) * size]])

    def ours(d):
        for _ in itertools.islice(d.batches("train", size, shuffle=True), batches):
            pass

    kinds = {
        "binary": ({}, ink, lambda x: x.float()),
        "grey": ({}, grey, lambda x: x.float() / 255),
        "threshold": ({"binarise": "threshold"}, grey, lambda x: (x.float() / 255 > 0.5).float()),
        "static": ({"binarise": "static"}, ink, lambda x: x.float()),
        "dynamic": ({"binarise": "dynamic"}, grey, lambda x: torch.bernoulli(x.float() / 255)),
        "dynamic, floats": ({"binarise": "dynamic"}, grey / 255, torch.bernoulli),
    }
    print(f"| in memory, batches of {size} | µs a batch | plainly | share of a {step:g} ms step |\n|---|--:|--:|--:|")
    for name, (options, x, prepare) in kinds.items():
        d = data.from_arrays(x, validation_size=0, **options)
        us, plain = (fastest(run, batches) for run in (partial(ours, d), partial(plainly, prepare, x)))
        print(f"| {name} | {us:,.0f} | {plain:,.0f} | {us / (us + step * 1000):.1%} |", flush=True)


def make_step(milliseconds):
    """Matrix products that take this long, as many each time."""
    a, b = torch.randn(128, 400), torch.randn(400, 784)
    once = fastest(lambda: [a @ b for _ in range(100)], 100)
    count = max(1, round(milliseconds * 1000 / once))

    def step():
        for _ in range(count):
            a @ b

    return step


def drop(path):
    """The pages of a file leave the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def mapped(folder, event, size, step, batches):
    path = folder / "mapped.npy"
    n = 500_000_000 // int(np.prod(event))
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, *event))
    block = np.random.default_rng(0).integers(0, 256, (1000, *event), dtype=np.uint8)
    for start in range(0, n, 1000):
        array[start : start + 1000] = block[: n - start]
    array.flush()
    del array

    def timed(batches_of):
        started = time.perf_counter()
        for _ in batches_of:
            step()
        return time.perf_counter() - started

    exceeds = dataset.exceeds_memory
    for cold in (False, True):
        for how in ("none", "thread", "thread, rows announced"):
            shares = []
            for _ in range(3):
                if cold:
                    drop(path)
                d = data.from_arrays(np.load(path, mmap_mode="c"), values="unit")
                d = dataclasses.replace(d, mapped=frozenset()) if how == "none" else d
                announced = how.endswith("announced")
                dataset.exceeds_memory = lambda store, announced=announced: announced
                if not cold:
                    d.stored["train"].sum()
                alone = timed(range(batches))
                torch.manual_seed(0)
                full = timed(itertools.islice(d.batches("train", size, shuffle=True), batches))
                shares.append((1 - alone / full, (full - alone) / batches * 1e6))
                del d
            share, us = median(shares)
            kind = "cold" if cold else "in the page cache"
            print(f"| {list(event)}, {kind} | {how} | {us:,.0f} | {share:.1%} |", flush=True)
    dataset.exceeds_memory = exceeds


def decoding(folder, count):
    rng = np.random.default_rng(0)
    print("\n| image files | images/s, 1 thread | 2 threads | ratio |\n|---|--:|--:|--:|")
    for kind, (height, width) in (("jpg", (218, 178)), ("png", (64, 64))):
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            (folder / kind).mkdir(exist_ok=True)
            small.resize((width, height)).save(folder / kind / f"{i:05d}.{kind}")
        listed = sorted((folder / kind).iterdir())
        decode, shape = files._decoder(listed)
        out = np.ones((count, *shape), dtype=np.uint8)
        seconds = {1: [], 2: []}
        for _, threads in itertools.product(range(3), seconds):
            started = time.perf_counter()
            files.decode_all(listed, decode, shape, out, threads)
            seconds[threads].append(time.perf_counter() - started)
        one, two = (count / median(s) for s in seconds.values())
        print(f"| {kind} {width}×{height} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--step", type=float, default=2.0, help="milliseconds of a training step")
    parser.add_argument("--batches", type=int, default=400, help="of a pass over the memory map")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one by default")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {os.cpu_count()} cores\n")
    memory(args.batch_size, args.step)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        print("\n| memory-mapped file | read ahead | µs a batch beyond the step | share |\n|---|---|--:|--:|")
        for event in ((1, 28, 28), (3, 64, 64)):
            mapped(Path(name), event, args.batch_size, make_step(args.step), args.batches)
        decoding(Path(name), args.images)


if __name__ == "__main__":
    main()
