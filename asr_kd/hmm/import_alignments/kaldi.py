"""The work of import_alignments: Kaldi's tables of integer vectors, and cuts that get them as senones."""

from __future__ import annotations

import functools
import gzip
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from kaldiio.matio import read_ascii_mat, read_int32vector, read_token
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import copy_file, read_json, write_json
from asr_kd.hmm.align import Aligned
from asr_kd.hmm.kaldi_io import read_transition_model
from asr_kd.hmm.store import align_splits, finish
from asr_kd.hmm.viterbi import Transitions, phones_of
from asr_kd.hmm.words import Lexicon

#: An alignment may be this many frames shorter or longer than the features (another rule for the last ones).
TOLERANCE = 3
SILENCE_NAMES = ("SIL", "SPN", "NSN")


def read_table(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, int32 vector) of an archive (.ark, .gz) or of what a script file (.scp) points to.

    Only vectors are read: kaldiio's own ``load_ark`` also unpickles, and runs commands that a script names.

    Raises:
        UserError: missing, damaged, or something else than integer vectors.
    """
    try:
        if path.suffix == ".scp":
            for line in path.read_text(encoding="utf-8").splitlines():
                utterance, place = line.split(maxsplit=1)
                name, _, offset = place.rpartition(":")
                with open(name, "rb") as file:
                    file.seek(int(offset))
                    yield utterance, _read_vector(file)
        else:
            with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
                while (token := read_token(file)) is not None:
                    yield token, _read_vector(file)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: check --ark (and the paths inside a .scp)") from None
    except (OSError, EOFError, ValueError, AssertionError) as error:
        raise UserError(f"{path} is not a table of integer vectors ({error}): check --ark") from None


def _read_vector(file: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    flag = file.read(3)
    file.seek(-len(flag), 1)
    if flag == b"\0B\4":
        return np.asarray(read_int32vector(file), dtype=np.int32)
    if not flag.replace(b" ", b"").strip().isdigit():
        raise ValueError("an entry of another kind")
    return np.asarray(read_ascii_mat(file), dtype=np.int32).reshape(-1)


@dataclass(frozen=True)
class ImportedAlignment:
    """A source of alignments for ``align.store_split``: vectors in a scratch folder, by utterance.

    Attributes:
        vectors: folder that ``_gather`` filled.
        model: Kaldi's model if the vectors are transition-ids.
        names: of its phones, index = id.
    """

    vectors: Path
    model: Path | None
    names: tuple[str, ...]

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Aligned | str], Lexicon]:
        index = _index(self.vectors)
        values = np.memmap(self.vectors / "values.i32", dtype=np.int32, mode="r")
        transitions = _transitions(self.model) if self.model else None
        results: list[Aligned | str] = []
        for cut in cuts:
            if cut.id not in index:
                results.append("no alignment was given")
                continue
            start, end = index[cut.id]
            if abs(end - start - cut.num_frames) > TOLERANCE or end == start:
                results.append(f"an alignment of {end - start} frames for {cut.num_frames} frames of features")
                continue
            vector = np.array(values[start:end])
            vector = np.pad(vector, (0, max(0, cut.num_frames - len(vector))), "edge")[: cut.num_frames]
            results.append(self._describe(vector, transitions))
        return results, {}

    def _describe(self, vector: np.ndarray, transitions: Transitions | None) -> Aligned | str:
        if transitions is None:
            return Aligned(vector)
        if vector.min() < 1 or vector.max() >= len(transitions.pdf):
            return f"transition-id {vector.max()}, but the model has {len(transitions.pdf) - 1}"
        ids, first = phones_of(vector, transitions)
        bounds = [*first.tolist(), len(vector)]
        bounds[0] = 0
        phones = [(self._name(phone), bounds[i], bounds[i + 1]) for i, phone in enumerate(ids.tolist())]
        return Aligned(transitions.pdf[vector].astype(np.int32), phones)

    def _name(self, phone: int) -> str:
        """Without the place in the word (_B, _I, _E, _S) and stress."""
        name = self.names[phone] if phone < len(self.names) else str(phone)
        return name.split("_")[0].rstrip("012") or name


@functools.lru_cache(maxsize=1)
def _index(folder: Path) -> dict[str, list[int]]:
    return dict(read_json(folder / "index.json"))


@functools.lru_cache(maxsize=1)
def _transitions(model: Path) -> Transitions:
    return Transitions.of(read_transition_model(model))


def _gather(tables: Sequence[Path], folder: Path) -> int:
    """Write all vectors one after the other, with an index; returns the highest value."""
    index: dict[str, tuple[int, int]] = {}
    highest = at = 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "values.i32", "wb") as file:
        for table in tables:
            for utterance, vector in read_table(table):
                file.write(vector.astype("<i4").tobytes())
                index[utterance] = (at, at + len(vector))
                at += len(vector)
                highest = max(highest, int(vector.max(initial=0)))
    if not index:
        raise UserError(f"{', '.join(map(str, tables))} hold no alignment: check --ark")
    write_json(folder / "index.json", index)
    return highest


def import_tables(
    features: Path, tables: Sequence[Path], out: Path, model: Path | None, tree: Path | None,
    phones: Path | None, silence_pdfs: Sequence[int], executor: Executor,
) -> dict[str, Any]:  # fmt: skip
    """Fill ``out`` with aligned cuts of every split; returns the splits' figures.

    Raises:
        UserError: a table is missing or damaged, or nothing of a split is aligned.
    """
    out = out.resolve()
    highest = _gather(tables, out / "vectors")
    names = _phone_names(phones) if phones else ()
    num_pdfs = highest + 1
    if model:
        transitions = _transitions(model)
        num_pdfs = transitions.num_pdfs
        silent = [i for i, name in enumerate(names) if name.startswith(SILENCE_NAMES)]
        silence_pdfs = silence_pdfs or sorted(set(transitions.pdf[np.isin(transitions.phone, silent)].tolist()))
        copy_file(model, out / "tri.mdl")
    if tree:
        copy_file(tree, out / "tree")
    source = ImportedAlignment(out / "vectors", model.resolve() if model else None, names)
    figures = align_splits(executor, source, features, out, num_pdfs)
    shutil.rmtree(out / "vectors")
    return finish(out, {"num_pdfs": num_pdfs, "silence_pdfs": list(silence_pdfs)}, figures)


def _phone_names(path: Path) -> tuple[str, ...]:
    try:
        rows = dict(line.split()[::-1] for line in path.read_text(encoding="utf-8").splitlines())
        return tuple(rows[str(i)] for i in range(len(rows)))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a table of phones and their numbers ({error}): check --phones") from None
