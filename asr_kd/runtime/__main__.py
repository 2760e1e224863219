"""``python -m asr_kd.runtime``: recognises audio files with a bundle; without torch, and without the rest of asr_kd."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.lang.formats import ctm, escape, srt, vtt
from asr_kd.lang.words import Spoken
from asr_kd.runtime.recogniser import Recogniser
from asr_kd.runtime.search import Word

#: Forms with times -> what writes them.
TIMED: dict[str, Callable[[Path, list[Spoken], int], str]] = {
    "ctm": lambda path, words, channel: ctm(escape(path), words, channel),
    "srt": lambda path, words, channel: srt(words),
    "vtt": lambda path, words, channel: vtt(words),
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the number of files that could not be recognised, at most 100."""
    parser = argparse.ArgumentParser("asr_kd.runtime", description="Recognise audio files with a bundle.")
    parser.add_argument("bundle", type=Path, help="folder made by asr_kd.bundle")
    parser.add_argument("files", type=Path, nargs="+", help="audio files of any rate, mono or stereo")
    parser.add_argument("--format", choices=("text", "jsonl", *TIMED), default="text", help="what is printed for each "
                        "file: path<TAB>words; a JSON object with file, words (each with begin and end in seconds, and "
                        "confidence) and error; lines of a CTM; or the subtitles of one file (default: "
                        "text)")  # fmt: skip
    parser.add_argument("--channel", type=int, default=0, help="recognise this channel, from 1; 0: the mean of all "
                        "(default: 0)")  # fmt: skip
    parser.add_argument("--words", type=Path, help="file of words and phrases that are recognised too, a line each: "
                        "words, phones (of one word) and a weight (natural logarithm; 0: the average word), separated "
                        "by tabs; the last two may be missing")  # fmt: skip
    parser.add_argument("--float32", action="store_true", help="use the network in float32 (default: int8)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network (default: 1)")
    flags = parser.parse_args(arguments)
    if flags.channel < 0:
        parser.error("--channel must be 0 or more")
    if flags.format in ("srt", "vtt") and len(flags.files) > 1:
        sys.exit(f"asr_kd.runtime: error: {len(flags.files)} files cannot share subtitles: give one file at a time")
    try:
        recogniser = Recogniser.from_bundle(flags.bundle, not flags.float32, flags.threads, flags.words)
    except UserError as error:
        sys.exit(f"asr_kd.runtime: error: {error}")
    failed = 0
    for path in flags.files:
        words: tuple[Word, ...] = ()
        fault = ""
        try:
            words = recogniser(path, flags.channel).words
        except UserError as error:
            fault, failed = str(error), failed + 1
            print(fault, file=sys.stderr, flush=True)
        if flags.format == "jsonl":
            found = None if fault else [word._asdict() for word in words]
            print(json.dumps({"file": str(path), "words": found, "error": fault or None}), flush=True)
        elif not fault and flags.format in TIMED:
            print(end=TIMED[flags.format](path, [Spoken(*word) for word in words], max(1, flags.channel)), flush=True)
        elif not fault:
            print(f"{path}\t{' '.join(word.text for word in words)}", flush=True)
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
