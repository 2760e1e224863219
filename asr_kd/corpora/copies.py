"""Copies of utterances at another speed or with noise: fields of the cut name what the copy was made from.

The suffixes of the copies' ids only keep ids unique; nothing reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def noisy_name(name: str, snr: float) -> str:
    """The name of a copy of ``name`` with noise at a signal-to-noise ratio of ``snr`` dB."""
    return f"{name}_snr{snr:g}"


def clean_id(cut: MonoCut | Mapping[str, Any]) -> str:
    """The id of the cut that this one adds noise to; of a clean cut, its own."""
    return _field(cut, "clean_id")


def source_id(cut: MonoCut | Mapping[str, Any]) -> str:
    """The id of the utterance as recorded: at its own speed and without added noise."""
    return _field(cut, "source_id")


def _field(cut: MonoCut | Mapping[str, Any], name: str) -> str:
    """A custom field of a cut, or of its line in a manifest; the cut's id where there is no such field."""
    own, custom = (cut["id"], cut.get("custom")) if isinstance(cut, Mapping) else (cut.id, cut.custom)
    return str((custom or {}).get(name, own))
