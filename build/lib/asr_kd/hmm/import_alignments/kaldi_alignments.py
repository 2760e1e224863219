"""Import of Kaldi's alignments: tables of integer vectors become the senones of the cuts."""

import functools
import gzip
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from kaldiio.matio import read_ascii_mat, read_token
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import copy_file, read_json, write_json
from asr_kd.corpora.manifests import DAMAGED
from asr_kd.hmm.align import Alignment
from asr_kd.hmm.import_alignments.config import Config
from asr_kd.hmm.kaldi_io import read_transition_model, read_tree
from asr_kd.hmm.kaldi_tables import script_entries
from asr_kd.hmm.store import align_splits, write_summary
from asr_kd.hmm.viterbi import Transitions, phone_segments
from asr_kd.lang.lexicon import Lexicon

#: Maximum difference in frames between an alignment and the features, whose rules for the last frames can differ.
TOLERANCE = 3
BLOCK = 1 << 16  # values of a vector that are read at once
MAX_ID = 1 << 20  # no model has as many senones or transitions, and arrays are as long as the largest id
SILENCE_NAMES = ("SIL", "SPN", "NSN")


def read_table(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, int32 vector) of an archive (.ark, .gz) or of the archives that a script file (.scp) names.

    It reads vectors only, since kaldiio's ``load_ark`` also unpickles objects and runs commands in script files.

    Raises:
        UserError: the file is missing or damaged, or its entries are not integer vectors.
    """
    try:
        if path.suffix == ".scp":
            for utterance, entry in script_entries(path):
                with open(entry.archive, "rb") as file:
                    file.seek(entry.offset)
                    yield utterance, _read_vector(file)
        else:
            with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
                while (token := read_token(file)) is not None:
                    yield token, _read_vector(file)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: check --ark (and the paths inside a .scp)") from None
    except (*DAMAGED, struct.error, MemoryError) as error:
        raise UserError(f"{path} is not a table of integer vectors ({error}): check --ark") from None


def _read_vector(file: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    flag = file.read(3)
    file.seek(-len(flag), 1)
    if flag == b"\0B\4":
        return _read_binary(file)
    if not flag.replace(b" ", b"").strip().isdigit():
        raise ValueError("an entry is not an integer vector")
    return np.asarray(read_ascii_mat(file), dtype=np.int32).reshape(-1)


def _read_binary(file: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    """A vector in Kaldi's binary format, in blocks: its head is not trusted for an allocation."""
    item = np.dtype([("size", "i1"), ("value", "<i4")])
    size, left = struct.unpack("<bi", file.read(7)[2:])
    blocks = [np.zeros(0, item)]
    while left > 0 and (data := file.read(item.itemsize * min(left, BLOCK))):
        blocks.append(np.frombuffer(data, item))
        left -= len(blocks[-1])
    items = np.concatenate(blocks)
    if left or size != 4 or not (items["size"] == 4).all():
        raise ValueError("a vector is damaged")
    return items["value"].astype(np.int32)


@dataclass(frozen=True)
class ImportedAlignment:
    """Aligner that looks up imported vectors.

    Attributes:
        vectors: folder filled by ``_collect``.
        model: Kaldi's model if the vectors are transition-ids.
        names: names of its phones, indexed by id.
    """

    vectors: Path
    model: Path | None
    names: tuple[str, ...]

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Alignment | str], Lexicon]:
        index = _index(self.vectors)
        values = np.memmap(self.vectors / "values.i32", dtype=np.int32, mode="r")
        transitions = _transitions(self.model) if self.model else None
        results: list[Alignment | str] = []
        for cut in cuts:
            if cut.id not in index:
                results.append("the tables have no alignment of this utterance")
                continue
            start, end = index[cut.id]
            if abs(end - start - cut.num_frames) > TOLERANCE or end == start:
                results.append(f"the alignment has {end - start} frames, the features have {cut.num_frames}")
                continue
            vector = np.array(values[start:end])
            vector = np.pad(vector, (0, max(0, cut.num_frames - len(vector))), "edge")[: cut.num_frames]
            results.append(self._to_alignment(vector, transitions))
        return results, {}

    def _to_alignment(self, vector: np.ndarray, transitions: Transitions | None) -> Alignment | str:
        if transitions is None:
            return Alignment(vector)
        if vector.min() < 1 or vector.max() >= len(transitions.pdf):
            return f"transition-id {vector.max()} is out of range: the model has {len(transitions.pdf) - 1}"
        ids, first = phone_segments(vector, transitions)
        bounds = [*first.tolist(), len(vector)]
        bounds[0] = 0
        phones = [(self._name(phone), bounds[i], bounds[i + 1]) for i, phone in enumerate(ids.tolist())]
        return Alignment(transitions.pdf[vector].astype(np.int32), phones)

    def _name(self, phone: int) -> str:
        """The name of a phone without word position (_B, _I, _E, _S) and stress."""
        name = self.names[phone] if phone < len(self.names) else str(phone)
        return name.split("_")[0].rstrip("012") or name


@functools.lru_cache(maxsize=1)
def _index(folder: Path) -> dict[str, list[int]]:
    return dict(read_json(folder / "index.json"))


@functools.lru_cache(maxsize=1)
def _transitions(model: Path) -> Transitions:
    return Transitions.of(read_transition_model(model))


def _collect(tables: Sequence[Path], folder: Path) -> int:
    """Write the concatenated vectors and an index; returns the maximum value."""
    index: dict[str, tuple[int, int]] = {}
    maximum = offset = 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "values.i32", "wb") as file:
        for table in tables:
            for utterance, vector in read_table(table):
                if len(vector) and not 0 <= vector.min() <= vector.max() < MAX_ID:
                    raise UserError(f"{table} is damaged: {utterance} has ids outside 0 to {MAX_ID}: check --ark")
                file.write(vector.astype("<i4").tobytes())
                index[utterance] = (offset, offset + len(vector))
                offset += len(vector)
                maximum = max(maximum, int(vector.max(initial=0)))
    if not offset:
        raise UserError(f"there are no alignments in {', '.join(map(str, tables))}: check --ark")
    write_json(folder / "index.json", index)
    return maximum


def import_alignments(config: Config) -> dict[str, Any]:
    """Fill ``config.out`` with the aligned cuts of every split; returns the figures for the completion mark.

    Raises:
        UserError: a table is missing or damaged, or no utterance of a split has an alignment.
    """
    out = config.out.resolve()
    num_pdfs = _collect(config.ark, out / "vectors") + 1
    names = _phone_names(config.phones) if config.phones else ()
    silence_pdfs = list(config.silence_pdfs)
    if config.model:
        transitions = _transitions(config.model)
        num_pdfs = transitions.num_pdfs
        silence = [i for i, name in enumerate(names) if name.startswith(SILENCE_NAMES)]
        silence_pdfs = silence_pdfs or sorted(set(transitions.pdf[np.isin(transitions.phone, silence)].tolist()))
        copy_file(config.model, out / "tri.mdl")
    if config.tree:
        read_tree(config.tree)  # raises an error if it is damaged
        copy_file(config.tree, out / "tree")
    aligner = ImportedAlignment(out / "vectors", config.model.resolve() if config.model else None, names)
    with config.executor() as executor:
        statistics = align_splits(executor, aligner, config.features, out, num_pdfs)
    shutil.rmtree(out / "vectors")
    return write_summary(out, {"num_pdfs": num_pdfs, "silence_pdfs": silence_pdfs}, statistics)


def _phone_names(path: Path) -> tuple[str, ...]:
    """The names in a phones.txt, indexed by id."""
    try:
        rows = dict(line.split()[::-1] for line in path.read_text(encoding="utf-8").splitlines())
        return tuple(rows[str(i)] for i in range(len(rows)))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a table of phones and their ids ({error}): check --phones") from None
