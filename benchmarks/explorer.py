"""The explorer's pages in a headless Chromium: megabytes, decodes and frames a second, distance to PyTorch.

    python -m benchmarks.explorer > benchmarks/results/explorer.md

Protocol: models as `VAE.build` makes them, not trained, as neither size nor speed depends on the weights; 300 training
images, and the greatest distance to PyTorch's images as the page itself measures it when it is opened, in the range of
the images. Decodes are those of 200 milliseconds; frames are 120 in a row with another z in each: decoded, drawn, the
nearest images found, the map. Milliseconds are the median of the work in one. The browser shows at most 60 frames a
second. The bars: 3 MB and 60 frames for MLPs on digits and MNIST, 1e-4 of the range.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from selenium import webdriver

import pyrovae as pv

ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("digits", "MLP, L = 2", {"latent": 2}),
    ("digits", "MLP, L = 20", {"latent": 20}),
    ("mnist", "MLP, L = 2", {"latent": 2}),
    ("mnist", "MLP, L = 20", {"latent": 20}),
    ("mnist", "conv, L = 20", {"latent": 20, "network": "conv"}),
    ("mnist", "ResNet, L = 20", {"latent": 20, "network": "resnet"}),
]


def main() -> None:
    """Print the page."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,1400"):
        options.add_argument(f"--{word}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    print("# The explorer\n\n" + (__doc__ or "").partition("\n\n    python")[2].partition("\n\n")[2])
    print("| data | decoder | MB | decodes a second | frames a second | ms a frame | off PyTorch |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, told, how in ROWS:
            data = pv.data.load(name)
            torch.manual_seed(0)
            vae = pv.models.VAE.build(data, **how)
            page = pv.explore(vae, data.train[:300], data.labels["train"][:300], posteriors=24 * (how["latent"] == 2))
            path = page.save(Path(folder) / "page.html")
            browser.get(path.as_uri())
            off = browser.execute_script("return checkDecoder()")
            found = browser.execute_async_script("const done = arguments[0]; measure().then(done)")
            size = path.stat().st_size / 1e6
            speed = f"{found['decodes']:,.0f} | {found['frames']:.0f} | {found['milliseconds']:.1f}"
            print(f"| {name} | {told} | {size:.2f} | {speed} | {off:.0e} |", flush=True)
    browser.quit()


if __name__ == "__main__":
    main()
