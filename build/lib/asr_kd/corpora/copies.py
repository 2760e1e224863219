"""Copies of utterances at another speed, with noise or degraded: fields of the cut name what the copy was made from.

The suffixes of the copies' ids only keep ids unique; nothing reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

#: Custom field of a copy that was cut or lengthened: the frame of the clean cut at which it begins (negative: before
#: its begin), and the frames of the clean cut.
CLEAN_FRAMES = "clean_frames"


@dataclass(frozen=True)
class Shared:
    """The frames that a copy and its clean cut have in common.

    Attributes:
        own: which frames of the copy they are.
        clean: which frames of the clean cut.
        total: frames of the clean cut.
    """

    own: slice
    clean: slice
    total: int

    @property
    def count(self) -> int:
        """Their number."""
        return int(self.own.stop - self.own.start)


def noisy_name(name: str, snr: float) -> str:
    """The name of a copy of ``name`` with noise at a signal-to-noise ratio of ``snr`` dB."""
    return f"{name}_snr{snr:g}"


def degraded_name(name: str, condition: str) -> str:
    """The name of a copy of ``name`` under a condition of recording, as ``mp3:32``."""
    return f"{name}_{condition.replace(':', '-')}"


def clean_id(cut: MonoCut | Mapping[str, Any]) -> str:
    """The id of the cut that this one degrades or adds noise to; of a clean cut, its own."""
    return str(_field(cut, "clean_id", _id(cut)))


def source_id(cut: MonoCut | Mapping[str, Any]) -> str:
    """The id of the utterance as recorded: at its own speed and without added noise."""
    return str(_field(cut, "source_id", _id(cut)))


def shared_frames(cut: MonoCut | Mapping[str, Any], frames: int) -> Shared:
    """What a cut of that many frames shares with its clean cut: all frames, unless it was cut or lengthened."""
    first, total = _field(cut, CLEAN_FRAMES, (0, frames))
    start, stop = max(first, 0), min(first + frames, total)
    return Shared(slice(start - first, stop - first), slice(start, stop), total)


def _id(cut: MonoCut | Mapping[str, Any]) -> str:
    return cut["id"] if isinstance(cut, Mapping) else cut.id


def _field(cut: MonoCut | Mapping[str, Any], name: str, default: Any) -> Any:
    """A custom field of a cut, or of its line in a manifest."""
    return ((cut.get("custom") if isinstance(cut, Mapping) else cut.custom) or {}).get(name, default)
