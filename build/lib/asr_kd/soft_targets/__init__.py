"""Soft targets: averaged posteriors of teachers at temperature T for every frame of a transfer set.

``python -m asr_kd.soft_targets`` writes them to a compact store, and ``python -m asr_kd.soft_targets.inspect`` shows
what a store contains.  ``Writer`` and ``SoftTargets`` write and read stores in any training loop, with torch and NumPy
alone, and ``collate`` makes padded batches for ``asr_kd.losses.frame_kd_loss``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_kd.soft_targets.rows import TargetRows, collate
    from asr_kd.soft_targets.store import SoftTargets
    from asr_kd.soft_targets.writer import Writer

__all__ = ["SoftTargets", "TargetRows", "Writer", "collate"]

_HOMES = {"SoftTargets": "store", "TargetRows": "rows", "Writer": "writer", "collate": "rows"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the flags of stages are in this package too, and ``--help`` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
