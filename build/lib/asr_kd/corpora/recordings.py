"""Recordings: what their files say of them, and cuts of the utterances in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.corpora.utterances import MAX_RATE, MIN_RATE, TOLERANCE, Utterance

#: What libsndfile logs of a WAV or AIFF file that is shorter than its header says: bytes announced, bytes there.
CUT_OFF = re.compile(r"(?:data|SSND)\s*: (\d+) \(should be (\d+)\)")
UNKNOWN_SIZE = 0x7FF00000  # programs that write to a pipe announce the largest size there is
TAIL = 1600  # samples to read at the end of each recording, where a truncated FLAC fails


def make_cuts(utterances: Sequence[Utterance]) -> list[MonoCut | str]:
    """The cut of each utterance at the rate of its file, or the reason why it cannot be used."""
    known: dict[Path, Recording | str] = {}
    cuts: list[MonoCut | str] = []
    for utterance in utterances:
        if utterance.fault or utterance.audio is None:
            cuts.append(utterance.fault)
            continue
        if utterance.audio not in known:
            known[utterance.audio] = examine(utterance.audio)
        recording = known[utterance.audio]
        cuts.append(recording if isinstance(recording, str) else _cut(utterance, recording))
    return cuts


def examine(path: Path) -> Recording | str:
    """The recording in a file, as its header has it, or the reason why it cannot be used.

    This reads the header and the end only: the extraction of features checks all samples.
    """
    if not path.is_file():
        return f"transcript without audio: {path} is missing"
    try:
        with soundfile.SoundFile(path) as file:
            if not MIN_RATE <= file.samplerate <= MAX_RATE:
                return f"sampled at {file.samplerate} Hz, outside {MIN_RATE} to {MAX_RATE}: export it again"
            if not file.frames:
                return "no samples"
            tail = min(TAIL, file.frames)
            file.seek(file.frames - tail)
            samples = file.read(dtype="float32")
            log = file.extra_info
    except (OSError, RuntimeError, ValueError) as error:
        return f"damaged recording ({error})"
    announced = CUT_OFF.search(log)
    if len(samples) < tail or (announced and int(announced[2]) < int(announced[1]) < UNKNOWN_SIZE):
        return "truncated: the file ends earlier than its header says"
    if not np.isfinite(samples).all():
        return "NaN or infinite samples"
    source = AudioSource("file", list(range(file.channels)), str(path))
    return Recording(path.stem, [source], file.samplerate, file.frames, file.frames / file.samplerate)


def _cut(utterance: Utterance, recording: Recording) -> MonoCut | str:
    """The cut of an utterance in its recording, or the reason why there is none."""
    channel, channels = utterance.channel, recording.num_channels
    if channel is None and channels > 1:
        return f"{channels} channels: name one with --channel"
    if (channel or 0) >= channels:
        return f"it has no channel {channel}, but {channels} (from 0)"
    end = recording.duration if utterance.end is None else utterance.end
    if end > recording.duration + TOLERANCE:
        return f"its segment ends at {end:g} s, its recording at {recording.duration:g} s"
    start = max(utterance.start, 0.0)
    duration = round(min(end, recording.duration) - start, 8)
    if duration <= 0:
        return f"its segment starts at {start:g} s, where its recording ends"
    recording = fastcopy(recording, id=utterance.recording or utterance.id)
    text = " ".join((utterance.text or "").split())
    supervision = SupervisionSegment(
        utterance.id, recording.id, 0.0, duration, channel or 0, text, speaker=utterance.speaker
    )
    return MonoCut(utterance.id, start, duration, channel or 0, [supervision], recording=recording)
