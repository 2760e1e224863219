"""Small files around the search: words of word ids, hypothesis tables, lattices as text, tuned values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, read_json
from asr_kd.decode.worker import Lattice

BOUNDARY = "▁"  # begins every sentencepiece piece that begins a word
UNKNOWN = "<UNK>"  # a word by itself among pieces


class Words:
    """Word ids to text, from the graph's words.txt.

    Raises:
        UserError: words.txt is missing or damaged.
    """

    def __init__(self, graph: Path) -> None:
        path = graph / "words.txt"
        try:
            pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
            self.names = {int(number): word for word, number in pairs}
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run python -m asr_kd.hmm.graph first") from None
        except ValueError:
            raise UserError(f"{path} is damaged: run python -m asr_kd.hmm.graph again") from None
        # Only sentencepiece pieces carry the mark of a word's beginning.
        self.pieces = any(name.startswith(BOUNDARY) for name in self.names.values())

    def text(self, ids: Sequence[int]) -> str:
        """Words joined by blanks; sentencepiece pieces joined into words."""
        names = [self.names[i] for i in ids]
        if not self.pieces:
            return " ".join(names)
        whole = "".join(f"{BOUNDARY}{name}" if name == UNKNOWN else name for name in names)
        return " ".join(whole.replace(BOUNDARY, " ").split())


def write_table(path: Path, rows: Mapping[str, str]) -> None:
    """One line a key, sorted: key<TAB>value."""
    with atomic_open(path) as file:
        file.writelines(f"{key}\t{rows[key]}\n" for key in sorted(rows))


def lattice_text(name: str, lattice: Lattice, acoustic_scale: float) -> str:
    """``lattice`` as an entry of a Kaldi text archive.

    Each arc is "from to label word graph_cost,acoustic_cost", costs being scores with the opposite sign and
    the acoustic ones without their scale; labels are pdf + 1, 0 on arcs that take no frame.  The last state is final.
    """
    lines = [name]
    final = int(lattice.arcs[:, 1].max())
    spare = final + 1  # states between the words of an arc that has several
    graph = -lattice.scores[:, 0]
    acoustic = -lattice.scores[:, 1] / np.float32(acoustic_scale)
    for number, (source, target, label) in enumerate(lattice.arcs.tolist()):
        words = lattice.words[lattice.splits[number] : lattice.splits[number + 1]].tolist() or [0]
        for word in words[:-1]:
            lines.append(f"{source} {spare} 0 {word} 0,0")
            source, spare = spare, spare + 1
        costs = f"{graph[number]:.6g},{acoustic[number]:.6g}"
        lines.append(f"{source} {target} {max(label, 0)} {words[-1]} {costs}")
    return "\n".join([*lines, f"{final} 0,0", "", ""])


def join_files(path: Path, parts: Iterable[Path]) -> None:
    """``parts``, one after the other (gzip members make a gzip file)."""
    with atomic_open(path, "wb") as file:
        for part in parts:
            file.write(part.read_bytes())


def read_tuned(path: Path) -> tuple[float, float]:
    """Acoustic scale and word insertion penalty from a tuned.json.

    Raises:
        UserError: the file is missing, damaged, or something else.
    """
    values: dict[str, Any] = read_json(path)
    try:
        return float(values["acoustic_scale"]), float(values["insertion_penalty"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has no tuned values: give the tuned.json of a decoding with --tune-on") from None
