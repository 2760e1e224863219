"""Words of word ids, tables of hypotheses, lattices as text, and tuned values."""

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
    lines = [name]
    final = int(lattice.arcs[:, 1].max())
    extra = final + 1  # the next state to insert between the words of an arc that has several
    graph = -lattice.scores[:, 0]
    acoustic = -lattice.scores[:, 1] / np.float32(acoustic_scale)
    for number, (source, target, label) in enumerate(lattice.arcs.tolist()):
        words = lattice.words[lattice.row_splits[number] : lattice.row_splits[number + 1]].tolist() or [0]
        for word in words[:-1]:
            lines.append(f"{source} {extra} 0 {word} 0,0")
            source, extra = extra, extra + 1
        costs = f"{graph[number]:.6g},{acoustic[number]:.6g}"
        lines.append(f"{source} {target} {max(label, 0)} {words[-1]} {costs}")
    return "\n".join([*lines, f"{final} 0,0", "", ""])


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
