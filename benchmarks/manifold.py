"""Tangent planes of 60,000 images from their neighbours: seconds and memory.

    python -m benchmarks.manifold [--images 60000] [--k 20] [--d 10] > benchmarks/results/manifold.md

Protocol: MNIST, 60,000 training images of 784 grey values in [0, 1], in float32. Of each the 20 nearest of the others
(`pv.manifold.neighbours`, exact), then the plane of 10 dimensions next to it and them (`pv.manifold.local_tangents`).
Memory is the greatest resident set of the process up to the end of a row, Python, torch and the images included; the
planes alone are 60,000 × 784 × 10 numbers, 1.75 GiB. The bar: minutes, and under 4 GiB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import pyrovae as pv


def timed(name: str, work: Callable[[], Any]) -> Any:
    """What the work gives; its row is printed."""
    began = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - began
    print(f"| {name} | {seconds:.1f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} |", flush=True)
    return found


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--d", type=int, default=10)
    options = parser.parse_args()
    print("# Tangent planes of images\n\n" + (__doc__ or "").partition("\n\n    python")[2].partition("\n\n")[2])
    told = f"with `{' '.join(sys.argv[1:])}`" if sys.argv[1:] else "without options"
    print(f"Run {told}, on {torch.get_num_threads()} thread(s).\n\n| | seconds | GiB |\n|---|---|---|")

    def images() -> torch.Tensor:
        data = pv.data.load(options.data)
        return torch.cat([data.train, data.validation])[: options.images].flatten(1)

    x = timed("images", images)
    near = timed(f"{options.k} neighbours", lambda: pv.manifold.neighbours(x, options.k))
    planes = timed(f"planes of {options.d}", lambda: pv.manifold.local_tangents(x, options.d, near=near))
    parts = timed("parts of the graph", near.parts)
    print(
        f"\nThe graph of {len(x):,} has {len(parts)} part(s), the largest of {parts[0]:,}. Median rank gap "
        f"{planes.gap.median():.2f}, median share of the variance of a neighbourhood outside its plane "
        f"{planes.residual.median():.2f}: a plane of {options.d} dimensions ends here where no other would not."
    )


if __name__ == "__main__":
    main()
