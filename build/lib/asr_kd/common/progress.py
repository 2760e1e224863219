"""Progress bars that show the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item] | None, description: str, total: int | None = None, unit: str = "it", shown: bool = True
) -> tqdm[Item]:
    """``items`` with a progress bar on stderr, updated rarely when stderr is not a terminal."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm(
        items, desc=description, total=total, unit=unit, mininterval=interval, dynamic_ncols=True, disable=not shown
    )
