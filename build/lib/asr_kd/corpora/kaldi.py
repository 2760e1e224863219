"""Kaldi data folders: wav.scp, text, utt2spk and, if recordings have several utterances, segments.

``lhotse.kaldi.load_kaldi_data_dir`` takes one rate for all recordings, cuts their lengths down to milliseconds, ends at
the first bad file and, of pipes, runs the commands; so these files, which are lines of text, are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.corpora.parts import Options, locate
from asr_kd.corpora.utterances import Utterance, read_pairs


def read_kaldi(folder: Path, options: Options) -> Iterator[Utterance]:
    """The utterances of a Kaldi data folder.  Relative paths start where we are or, if nothing is there, in the folder.

    Raises:
        UserError: an audio file is to come from a command, or a file is missing, damaged or not UTF-8.
    """
    recordings, twice = _read(folder, "wav.scp")
    for name, source in recordings.items():
        if source.endswith("|"):
            raise UserError(
                f"{folder / 'wav.scp'}: the audio of {name} is to come from a command ({source}), and no command of "
                "data is run here: write its output to a WAV file first, and name that in wav.scp"
            )
    segmented = (folder / "segments").exists()
    segments, again = _read(folder, "segments") if segmented else (recordings, twice)
    texts, repeated = _read(folder, "text")
    speakers = _read(folder, "utt2spk")[0] if (folder / "utt2spk").exists() else {}
    for name in segments.keys() | texts.keys():
        recording, start, end, fault = _segment(segments.get(name, "")) if segmented else (name, 0.0, None, "")
        if name not in texts:
            fault = "audio without a transcript: its id is not in text"
        elif name in repeated or name in again or recording in twice:
            fault = "its id, or that of its recording, is in two lines"
        elif name not in segments:
            fault = f"transcript without audio: its id is not in {'segments' if segmented else 'wav.scp'}"
        elif not fault and not recordings.get(recording):
            fault = f"transcript without audio: its recording {recording} is not in wav.scp"
        audio = locate(folder, recordings[recording]) if recordings.get(recording) else None
        yield Utterance(name, texts.get(name), speakers.get(name), audio, recording, start, end, options.channel, fault)


def _read(folder: Path, name: str) -> tuple[dict[str, str], set[str]]:
    pairs, twice = read_pairs([folder / name])
    return {key: value for key, (value, _) in pairs.items()}, twice


def _segment(line: str) -> tuple[str, float, float | None, str]:
    """Recording, start and end of a line of segments (-1 is the end of the recording), and what is wrong with it."""
    try:
        recording, start, end = line.split()
        return recording, float(start), None if float(end) == -1 else float(end), ""
    except ValueError:
        return "", 0.0, None, f"its line in segments is not ID RECORDING START END, but ends in {line!r}"
