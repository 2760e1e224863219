"""Names of copies: an utterance or a speaker at another speed (``ID_sp0.9``), with noise (``ID_snr10``), or both."""

from __future__ import annotations

import re


def noisy_name(name: str, snr: float) -> str:
    """``name`` with noise at a ratio of ``snr`` dB."""
    return f"{name}_snr{snr:g}"


def clean_id(name: str) -> str:
    """The utterance that a copy with noise was made of; any other name stays."""
    return re.sub(r"_snr-?[\d.]+$", "", name)


def original(name: str) -> str:
    """The utterance or speaker as recorded."""
    return re.sub(r"_sp[\d.]+$", "", clean_id(name))
