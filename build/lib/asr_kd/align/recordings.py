"""Recordings and their transcripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.files import files_below
from asr_kd.corpora.parts import AUDIO

#: Endings of transcripts next to recordings.
TEXTS = (".txt", ".lab")


@dataclass(frozen=True)
class Pair:
    """A recording and its transcript.

    Attributes:
        name: of the output files, below the output folder.
        audio, text: the files; the transcript may be missing.
    """

    name: str
    audio: Path
    text: Path | None


def find_pairs(recordings: Sequence[Path], text: Path | None = None) -> list[Pair]:
    """The recordings that paths name, in order, with their transcripts.

    Args:
        recordings: audio files, and folders, which may have folders below them.
        text: transcript of the one recording; default: those next to them.

    Raises:
        UserError: a folder has no audio files, or two recordings have the same name.
    """
    pairs: list[Pair] = []
    for path in recordings:
        if path.is_dir():
            found = sorted(file for file in files_below(path) if file.suffix.lower() in AUDIO)
            if not found:
                raise UserError(f"{path} has no audio files ({', '.join(AUDIO)}): name other files or folders")
            pairs += [Pair(str(file.relative_to(path).with_suffix("")), file, _text_of(file)) for file in found]
        else:
            pairs.append(Pair(path.stem, path, text or _text_of(path)))
    names = Counter(pair.name for pair in pairs)
    if double := next((name for name, count in names.items() if count > 1), None):
        raise UserError(f"two recordings are named {double}, and so would be their alignments: align them one by one")
    return pairs


def _text_of(audio: Path) -> Path | None:
    return next((path for ending in TEXTS if (path := audio.with_suffix(ending)).is_file()), None)
