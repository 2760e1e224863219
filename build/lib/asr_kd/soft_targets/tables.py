"""Arrays by utterance that other toolkits have written: folders of .npy files, Kaldi tables, arrays on Lhotse cuts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lhotse.array import deserialize_array

from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.corpora.manifests import DAMAGED, read_jsonl
from asr_kd.hmm.kaldi_tables import Entry, archive_entries, matrix_shape, read_matrix, script_entries


class Table(Protocol):
    """Arrays by utterance.  It pickles, and ``subset`` makes it small before that."""

    def __contains__(self, utterance: str) -> bool: ...

    def shape(self, utterance: str) -> tuple[int, ...]:
        """Return the shape of an array without reading its values.

        Raises:
            UserError: the array is damaged.
        """

    def read(self, utterance: str) -> np.ndarray:
        """Return an array.

        Raises:
            UserError: the array is damaged.
        """

    def subset(self, utterances: Iterable[str]) -> Table:
        """Return the table of those of ``utterances`` that it has."""


@dataclass(frozen=True)
class NpyFolder:
    """ID.npy files in a folder."""

    folder: Path

    def _path(self, utterance: str) -> Path:
        return self.folder / f"{utterance}.npy"

    def __contains__(self, utterance: str) -> bool:
        return self._path(utterance).is_file()

    def shape(self, utterance: str) -> tuple[int, ...]:
        return self._load(utterance, "r").shape

    def read(self, utterance: str) -> np.ndarray:
        return self._load(utterance, None)

    def _load(self, utterance: str, mmap_mode: Any) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self._path(utterance), mmap_mode=mmap_mode, allow_pickle=False)
            return array
        except UNREADABLE as error:
            raise UserError(f"{self._path(utterance)} is damaged ({error}): write it again with numpy.save") from None

    def subset(self, utterances: Iterable[str]) -> NpyFolder:
        return self


@dataclass(frozen=True)
class KaldiTable:
    """Matrices in Kaldi archives."""

    entries: Mapping[str, Entry]

    def __contains__(self, utterance: str) -> bool:
        return utterance in self.entries

    def shape(self, utterance: str) -> tuple[int, ...]:
        return matrix_shape(self.entries[utterance])

    def read(self, utterance: str) -> np.ndarray:
        return read_matrix(self.entries[utterance])

    def subset(self, utterances: Iterable[str]) -> KaldiTable:
        return KaldiTable({one: self.entries[one] for one in utterances if one in self})


@dataclass(frozen=True)
class CutArrays:
    """Arrays of a custom field of Lhotse cuts, as their manifests describe them."""

    manifests: Mapping[str, dict[str, Any]]

    def __contains__(self, utterance: str) -> bool:
        return utterance in self.manifests

    def shape(self, utterance: str) -> tuple[int, ...]:
        manifest = self.manifests[utterance]
        return tuple(manifest.get("array", manifest)["shape"])

    def read(self, utterance: str) -> np.ndarray:
        try:
            return np.asarray(deserialize_array(self.manifests[utterance]).load())
        except DAMAGED as error:
            raise UserError(f"the array of {utterance} cannot be read ({error}): check the manifest's paths") from None

    def subset(self, utterances: Iterable[str]) -> CutArrays:
        return CutArrays({one: self.manifests[one] for one in utterances if one in self})


def open_table(path: Path, field: str) -> Table:
    """Return the arrays at a path, whose name tells what it is.

    Args:
        field: custom field of the cuts, for a manifest.

    Raises:
        UserError: the path is missing, damaged, or nothing that can be read.
    """
    if path.is_dir():
        return NpyFolder(path)
    if path.suffix == ".scp":
        return KaldiTable(dict(script_entries(path)))
    if path.suffix == ".ark":
        return KaldiTable(dict(archive_entries(path)))
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        cuts = ((cut["id"], (cut.get("custom") or {}).get(field)) for cut in read_jsonl(path))
        arrays = {
            name: array for name, array in cuts if isinstance(array, dict) and "shape" in array.get("array", array)
        }
        if not arrays:
            raise UserError(f"no cut of {path} has an array called {field}: name the field with --posteriors-field")
        return CutArrays(arrays)
    raise UserError(f"{path} is missing, or no folder of .npy files, .ark, .scp or .jsonl.gz: give one of these")
