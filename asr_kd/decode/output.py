"""Words of word ids, tables of hypotheses, lattices as text, and tuned values."""

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, read_json
from asr_kd.decode.worker import Lattice


def write_table(path: Path, rows: Mapping[str, str]) -> None:
    """Write one line per key, sorted: key<TAB>value."""
    with atomic_open(path) as file:
        file.writelines(f"{key}\t{rows[key]}\n" for key in sorted(rows))


def lattice_text(name: str, lattice: Lattice, acoustic_scale: float) -> str:
    """``lattice`` as an entry of a Kaldi text archive.

    Each arc is a line "source target label word graph_cost,acoustic_cost".  Costs are scores with their sign changed;
    acoustic costs are unscaled.  Labels are pdf + 1, or 0 on arcs that take no frame.  The last state is final.
    """
    counts = np.diff(lattice.row_splits)
    sizes = np.maximum(counts, 1)  # lines of each arc: between the words of one that has several are further states
    last = np.cumsum(sizes) - 1
    final, total = int(lattice.arcs[:, 1].max()), int(sizes.sum())
    inserted = np.ones(total, np.int64)
    inserted[last] = 0
    targets = final + np.cumsum(inserted)
    targets[last] = lattice.arcs[:, 1]
    sources = np.roll(targets, 1)
    sources[last - sizes + 1] = lattice.arcs[:, 0]
    labels, words = np.zeros((2, total), np.int32)
    labels[last] = np.maximum(lattice.arcs[:, 2], 0)
    words[np.repeat(counts > 0, sizes)] = lattice.words
    graph, acoustic = np.zeros((2, total), np.float32)
    graph[last] = -lattice.scores[:, 0]
    acoustic[last] = -lattice.scores[:, 1] / np.float32(acoustic_scale)
    columns = [column.tolist() for column in (sources, targets, labels, words, graph, acoustic)]
    values = itertools.chain.from_iterable(zip(*columns, strict=True))
    lines = "%d %d %d %d %.6g,%.6g\n" * total % tuple(values)  # three times as fast as line by line
    return f"{name}\n{lines}{final} 0,0\n\n"


def join_files(path: Path, parts: Iterable[Path]) -> None:
    """Concatenate ``parts`` (several gzip files in a row are a gzip file)."""
    with atomic_open(path, "wb") as file:
        for part in parts:
            file.write(part.read_bytes())


def read_tuned(path: Path) -> tuple[float, float]:
    """Acoustic scale and word insertion penalty from a tuned.json.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    values: dict[str, Any] = read_json(path)
    try:
        scale, penalty = float(values["acoustic_scale"]), float(values["insertion_penalty"])
        if not (0 < scale < math.inf and math.isfinite(penalty)):
            raise ValueError
        return scale, penalty
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has no tuned values: give the tuned.json of a decoding with --tune-on") from None
