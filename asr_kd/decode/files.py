"""Words of plain audio files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lhotse import Features, MonoCut
from lhotse.features.io import MemoryRawWriter

from asr_kd.common.errors import UserError
from asr_kd.decode.output import Words
from asr_kd.decode.pipeline import Decoder
from asr_kd.decode.worker import SearchOptions
from asr_kd.features.audio import SAMPLING_RATE, read_audio
from asr_kd.features.filterbanks import extract
from asr_kd.models.scorer import Scorer


def decode_files(paths: Sequence[Path], decoder: Decoder, options: SearchOptions, words: Words) -> int:
    """Print path<TAB>words for each file, in their order; complaints go to stderr.

    Args:
        paths: audio of any rate and number of channels.

    Returns:
        How many files could not be decoded.
    """
    bad = 0
    for start in range(0, len(paths), decoder.batch):
        for path, text, reason in _decode(paths[start : start + decoder.batch], decoder, options, words):
            if reason:
                bad += 1
                print(reason if str(path) in reason else f"{path}: {reason}", file=sys.stderr, flush=True)
            else:
                print(f"{path}\t{text}", flush=True)
    return bad


def _decode(
    paths: Sequence[Path], decoder: Decoder, options: SearchOptions, words: Words
) -> Iterator[tuple[Path, str, str]]:
    """(path, words, complaint) of each file."""
    scores = [_scores(path, decoder.scorer) for path in paths]
    outcomes = iter(decoder.searches[0]([m for m in scores if isinstance(m, np.ndarray)], options))
    for path, matrix in zip(paths, scores, strict=True):
        if isinstance(matrix, str):
            yield path, "", matrix
            continue
        outcome = next(outcomes)
        text = words.text(outcome.found.words or []) if outcome.found else ""
        yield path, text, outcome.reason


def _scores(path: Path, scorer: Scorer) -> np.ndarray | str:
    """Scores of a file, or what is wrong with it."""
    try:
        return scorer(_cut(extract(read_audio(path))))
    except UserError as error:
        return str(error)


def _cut(features: np.ndarray) -> MonoCut:
    """Raw log-mels (T, 40) of an unknown speaker as a cut that holds them in memory."""
    frames, dim = features.shape
    held = Features(
        type="fbank", num_frames=frames, num_features=dim, frame_shift=0.01, sampling_rate=SAMPLING_RATE, start=0,
        duration=frames / 100, storage_type="memory_raw", storage_path="",
        storage_key=MemoryRawWriter().write("", features),
    )  # fmt: skip
    return MonoCut(id="file", start=0, duration=held.duration, channel=0, features=held)
