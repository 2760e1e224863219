"""``python -m asr_kd.specialists.assign``: which classes go to which specialist (section 5.3)."""

from __future__ import annotations

from pathlib import Path

from asr_kd.common.storage import read_json

CLUSTERS = "clusters.json"


def load_clusters(folder: Path) -> list[list[int]]:
    """Classes of each specialist."""
    return read_json(folder / CLUSTERS)["clusters"]
