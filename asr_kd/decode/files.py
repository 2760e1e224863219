"""Decoding of audio files named on the command line."""

import dataclasses
import functools
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import prefetch
from asr_kd.common.storage import atomic_open
from asr_kd.decode.calibration import Calibration, read_calibration
from asr_kd.decode.client import Outcome
from asr_kd.decode.config import Config
from asr_kd.decode.pipeline import Decoder
from asr_kd.decode.recogniser import search_options
from asr_kd.decode.recordings import in_memory, message, unexpected
from asr_kd.features.audio import audio_blocks
from asr_kd.features.extractors import compute_features
from asr_kd.features.front_end import FRAME_SHIFT, FrontEnd
from asr_kd.features.parts import WHOLE, usable_parts
from asr_kd.lang.formats import ctm, escape, json_line, srt, vtt
from asr_kd.lang.words import Words


@dataclasses.dataclass
class Recording:
    """An audio file, and what is known of it so far.

    Attributes:
        seconds: None until all of it has been read.
        words: word ids of the pieces that have been searched.
        times: the frames of each, if asked for.
        confidences: of each.
        error: why it cannot be decoded, or "".
    """

    path: Path
    seconds: float | None = None
    words: list[int] = dataclasses.field(default_factory=list)
    times: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    confidences: list[float] = dataclasses.field(default_factory=list)
    error: str = ""


class Piece(NamedTuple):
    """A part of a recording that is searched at once.

    Attributes:
        start: its first frame.
        features: what the scorer takes, (T, D).
        last: none of the recording follows.
    """

    recording: Recording
    start: int
    features: np.ndarray
    last: bool


def decode_files(config: Config, decoder: Decoder) -> int:
    """Print the words of each file of ``config``, in order, as --format says; errors go to stderr.

    Memory depends neither on the number of files nor on their length: they are read, scored and searched one after the
    other, and a long recording is cut into pieces at its pauses.

    Returns:
        The number of files that could not be decoded.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # print names of files as they are, whatever bytes they have
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    words, failed, front_end = Words(config.graph), 0, FrontEnd.load(config.features)
    calibration = read_calibration(config.tuned)
    for recording in _decode(config, front_end, decoder):
        if recording.error:
            failed += 1
            print(message(recording.path, recording.error), file=sys.stderr, flush=True)
        text = _text(config, recording, words, calibration)
        if text and config.out:
            with atomic_open(config.out / f"{recording.path.stem}.{config.format}") as file:
                file.write(text)
        else:
            print(end=text, flush=True)
    if failed:
        print(f"{failed} of {len(config.files)} files could not be decoded", file=sys.stderr, flush=True)
    return failed


def _text(config: Config, recording: Recording, words: Words, calibration: Calibration) -> str:
    """What --format makes of a recording; nothing of one that failed, but for JSON."""
    text, spoken = words.text(recording.words), None
    if config.with_times:
        spoken = words.spoken(recording.words, recording.times, calibration(recording.confidences))
    if config.format == "jsonl":
        return json_line(recording.path, text, recording.seconds, recording.error, spoken)
    if recording.error:
        return ""
    if config.format == "text":
        return f"{escape(recording.path)}\t{text}\n"
    assert spoken is not None
    if config.format == "ctm":
        return ctm(escape(recording.path), spoken, max(1, config.channel))
    return srt(spoken) if config.format == "srt" else vtt(spoken)


def _decode(config: Config, front_end: FrontEnd, decoder: Decoder) -> Iterator[Recording]:
    """Every file, once all its pieces have been searched; a thread reads and scores the next ones meanwhile."""
    options, search = search_options(config), functools.partial(decoder.search, decoder.searches[0])
    for batch, scores in prefetch(_scored(config, front_end, decoder)):
        outcomes = iter(search([matrix for matrix in scores if isinstance(matrix, np.ndarray)], options))
        for piece, matrix in zip(batch, scores, strict=True):
            recording = piece.recording
            _add(piece, Outcome(None, matrix) if isinstance(matrix, str) else next(outcomes))
            if piece.last:
                yield recording


def _add(piece: Piece, outcome: Outcome) -> None:
    """Add the words of a piece to those of its recording, or the reason why there are none."""
    recording = piece.recording
    if outcome.hypothesis is not None:
        recording.words += outcome.hypothesis.words or []
        recording.times += [(piece.start + begin, piece.start + end) for begin, end in outcome.hypothesis.times]
        recording.confidences += outcome.hypothesis.confidences
    elif not recording.error:
        stop = piece.start + len(piece.features)
        part = "" if piece.start == 0 and piece.last else f"{piece.start // 100} to {-(-stop // 100)} s: "
        recording.error = part + outcome.reason


def _scored(
    config: Config, front_end: FrontEnd, decoder: Decoder
) -> Iterator[tuple[list[Piece], list[np.ndarray | str]]]:
    """Batches of pieces, and the scores (T, C) of each, or why there are none."""
    for batch in decoder.batches(_pieces(config, front_end, decoder), lambda piece: len(piece.features)):
        yield batch, [_scores(piece, decoder) for piece in batch]


def _scores(piece: Piece, decoder: Decoder) -> np.ndarray | str:
    if not len(piece.features):
        return piece.recording.error
    try:
        return decoder.scorer.scores(piece.features, 0, len(piece.features))
    except Exception as error:  # as below
        return unexpected(piece.recording.path, error)


def _pieces(config: Config, front_end: FrontEnd, decoder: Decoder) -> Iterator[Piece]:
    """The pieces of all files, in order; the last one of a file that cannot be read has no frames."""
    for path in config.files:
        recording, count = Recording(path), 0
        piece = Piece(recording, 0, np.empty((0, 0)), True)
        for start, features in _read(recording, config.channel, front_end, decoder):
            if count:
                yield piece._replace(last=False)
            piece, count = Piece(recording, start, features, True), count + 1
        if recording.error and count:
            yield piece._replace(last=False)
            piece = Piece(recording, piece.start + len(piece.features), np.empty((0, 0)), True)
        elif count > 1:
            logging.warning(
                "%s: %.0f s are decoded in %d pieces, cut where it is quietest", path, recording.seconds, count
            )
        yield piece


def _read(
    recording: Recording, channel: int, front_end: FrontEnd, decoder: Decoder
) -> Iterator[tuple[int, np.ndarray]]:
    """The first frame of each piece of a recording, and its features; the recording gets an ``error`` if it fails."""
    path, rate, samples = recording.path, front_end.sampling_rate, 0
    shift, limit = round(FRAME_SHIFT * rate), min(WHOLE, decoder.max_frames)

    def counted(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    try:
        blocks = counted(audio_blocks(path, rate, channel=channel))
        for first, part in usable_parts(blocks, rate, shift, str(path), limit, limit):
            features = in_memory(compute_features(front_end, part), front_end)
            yield round(first * shift / rate / FRAME_SHIFT), decoder.scorer.features(features)
        recording.seconds = samples / rate
    except UserError as error:
        recording.error = str(error)
    except Exception as error:  # whatever a library may raise: one strange file must not end the others
        recording.error = unexpected(path, error)
