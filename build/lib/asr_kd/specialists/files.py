"""Files that the stages pass to each other."""

from pathlib import Path
from typing import Any

from asr_kd.common.storage import read_json

CLUSTERS, SIMILARITY = "clusters.json", "likeness.npy"  # written by assign
CLASSES = "classes.npy"  # of one specialist, written by train
RESULTS = "results.json"  # written by evaluate


def load_clusters(folder: Path) -> list[list[int]]:
    """Return the classes of each specialist."""
    return read_json(folder / CLUSTERS)["clusters"]


def load_class_names(folder: Path) -> list[list[str]]:
    """Return the names of each specialist's classes."""
    return read_json(folder / CLUSTERS)["names"]


def specialist_folder(out: Path, number: int) -> Path:
    """Return the folder of one specialist."""
    return out / f"specialist-{number:02d}"


def specialist_folders(out: Path) -> list[Path]:
    """Return the folders of all specialists, in order."""
    return sorted(out.glob("specialist-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def load_results(folder: Path) -> dict[str, Any]:
    """Return the results of an evaluation."""
    return read_json(folder / RESULTS)
