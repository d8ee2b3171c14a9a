"""One progress bar for all: lively on a terminal, a line every half minute in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


def bar(total: int, show: bool, unit: str, **options: Any) -> Any:
    """A tqdm bar on standard error."""
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        total=total,
        disable=not show,
        unit=unit,
        mininterval=interval,
        maxinterval=2 * interval,
        smoothing=0.1,
        **options,
    )
