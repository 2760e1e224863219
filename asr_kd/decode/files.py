"""Decoding of audio files named on the command line."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lhotse import Features, MonoCut
from lhotse.features.io import MemoryRawWriter

from asr_kd.common.errors import UserError
from asr_kd.decode.config import Config
from asr_kd.decode.output import Words
from asr_kd.decode.pipeline import Decoder
from asr_kd.decode.recogniser import search_options
from asr_kd.decode.worker import SearchOptions
from asr_kd.features.audio import SAMPLING_RATE, read_audio
from asr_kd.features.filterbanks import extract
from asr_kd.models.scorer import Scorer


def decode_files(config: Config, decoder: Decoder) -> int:
    """Print path<TAB>words for each file of ``config``, in order; errors go to stderr.

    A tab, newline or backslash in a path is printed as \\t, \\n or \\\\, so that a line has one meaning.

    Returns:
        The number of files that could not be decoded.
    """
    options, words, failed = search_options(config), Words(config.graph), 0
    for start in range(0, len(config.files), decoder.batch):
        for path, text, reason in _decode(config.files[start : start + decoder.batch], decoder, options, words):
            if reason:
                failed += 1
                print(reason if str(path) in reason else f"{path}: {reason}", file=sys.stderr, flush=True)
            else:
                name = str(path).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
                print(f"{name}\t{text}", flush=True)
    return failed


def _decode(
    paths: Sequence[Path], decoder: Decoder, options: SearchOptions, words: Words
) -> Iterator[tuple[Path, str, str]]:
    """(path, words, error message) of each file."""
    scores = [_scores(path, decoder.scorer) for path in paths]
    outcomes = iter(decoder.searches[0]([m for m in scores if isinstance(m, np.ndarray)], options))
    for path, matrix in zip(paths, scores, strict=True):
        if isinstance(matrix, str):
            yield path, "", matrix
            continue
        outcome = next(outcomes)
        ids = (outcome.hypothesis.words if outcome.hypothesis else None) or []
        yield path, words.text(ids), outcome.reason


def _scores(path: Path, scorer: Scorer) -> np.ndarray | str:
    """The scores (T, C) of a file, or the error message."""
    try:
        return scorer(_cut(extract(read_audio(path))))
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever a library may raise: one strange file must not end the others
        return f"{path} cannot be decoded ({type(error).__name__}: {error}): export it again as WAV or FLAC"


def _cut(features: np.ndarray) -> MonoCut:
    """A cut of an unknown speaker with log-mels (T, 40), before normalisation, in memory."""
    frames, dim = features.shape
    stored = Features(
        type="fbank", num_frames=frames, num_features=dim, frame_shift=0.01, sampling_rate=SAMPLING_RATE, start=0,
        duration=frames / 100, storage_type="memory_raw", storage_path="",
        storage_key=MemoryRawWriter().write("", features),
    )  # fmt: skip
    return MonoCut(id="file", start=0, duration=stored.duration, channel=0, features=stored)
