"""Where training reads cuts from: Lhotse manifests, or whatever else is a ``Source`` (asr_kd.corpora.shar.shards)."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import clean_id, shared_frames
from asr_kd.corpora.manifests import DAMAGED, Skipped, read_manifest

if TYPE_CHECKING:
    from lhotse import MonoCut


class Source(Protocol):
    """Cuts in pieces that are each read at once: single cuts of a manifest, or whole shards."""

    @property
    def sizes(self) -> Sequence[int]:
        """Frames of each piece that are learnt from (``shared_frames``)."""

    @property
    def unlabelled(self) -> str:
        """The id of the first cut without senones; empty if all cuts have some."""

    def read(self, number: int) -> Sequence[MonoCut]:
        """Return the cuts of a piece."""


class Manifests:
    """Cuts listed in Lhotse manifests (.jsonl.gz or .jsonl).

    The unpacked lines are kept in a temporary file (in TMPDIR); a cut takes 24 bytes of memory.

    Args:
        paths: of the manifests.
        bootstrap: seed of a bootstrap sample: as many cuts as there are, drawn with replacement.  None: every cut once.
        fault: returns why there are no soft targets for a cut, given its id (that of the clean one for a copy)
            and frames, or "" if there are; those without are left out.
        whole: leave out copies that lack frames of their clean recording.

    Attributes:
        skipped: ids of the cuts that are left out, with the reasons.

    Raises:
        UserError: a manifest is missing, damaged or empty, or all cuts are left out.
    """

    def __init__(
        self, paths: Sequence[Path], bootstrap: int | None = None, fault: Callable[[str, int], str] | None = None,
        whole: bool = False,
    ) -> None:  # fmt: skip
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object is
        starts, sizes, self.unlabelled = array("q", [0]), array("q"), ""
        self.skipped: list[Skipped] = []
        for path in paths:
            for cut, frames, labelled in _read_sizes(path):
                shared = shared_frames(cut, frames)
                reason = "" if fault is None else fault(clean_id(cut), shared.total)
                if whole and not reason and shared.count < shared.total:
                    reason = f"it lacks {shared.total - shared.count} frames of the clean recording"
                if reason:
                    self.skipped.append((cut["id"], reason))
                    continue
                self.unlabelled = self.unlabelled or ("" if labelled else cut["id"])
                sizes.append(shared.count)
                starts.append(starts[-1] + self._lines.write(json.dumps(cut).encode()))
        if not sizes:
            name, reason = self.skipped[0]
            raise UserError(f"no utterance can be trained on: the first ({name}) is left out because {reason}")
        self._lines.flush()
        self._starts, drawn = starts, np.arange(len(sizes))
        if bootstrap is not None:
            drawn = np.sort(np.random.default_rng([bootstrap, 2]).integers(len(sizes), size=len(sizes)))
        self._drawn, self.sizes = array("q", drawn.tobytes()), array("q", (sizes[index] for index in drawn))

    def read(self, number: int) -> Sequence[MonoCut]:
        from lhotse.serialization import deserialize_item

        start, stop = self._starts[self._drawn[number]], self._starts[self._drawn[number] + 1]
        cut = json.loads(os.pread(self._lines.fileno(), stop - start, start))
        try:
            return [deserialize_item(cut)]
        except DAMAGED as error:
            raise UserError(
                f"the cut {cut['id']} is damaged ({type(error).__name__}: {error}): run the stage again that made it"
            ) from None


def _read_sizes(path: Path) -> Iterator[tuple[dict[str, Any], int, bool]]:
    """Yield each cut of a manifest, its frames, and whether it has senones."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run the alignment first (python -m asr_kd.hmm)")
    cut = None
    for cut in read_manifest(path, _sized):
        yield cut
    if cut is None:
        raise UserError(f"{path} contains no utterances: see the list of skipped ones in the same folder")


def _sized(cut: dict[str, Any]) -> tuple[dict[str, Any], int, bool]:
    senones = (cut.get("custom") or {}).get("senones")
    frames = senones["array"]["shape"][0] if senones else cut["features"]["num_frames"]
    if not isinstance(frames, int) or frames < 0 or not isinstance(cut["id"], str):
        raise ValueError(f"the cut {cut['id']} has {frames} frames")
    return cut, frames, bool(senones)
