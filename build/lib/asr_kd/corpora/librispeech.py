"""Trees in LibriSpeech layout: PART/SPEAKER/CHAPTER/ID.flac and *.trans.txt.

The speaker is the folder below the part; how deep chapters are nested below, and whether audio is FLAC, WAV, MP3, OGG
or Opus, does not matter.  ``lhotse.recipes.librispeech`` rejects a whole corpus at its first bad recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr_kd.common.files import files_below
from asr_kd.corpora.parts import AUDIO, TRANSCRIPTS, Options
from asr_kd.corpora.utterances import Utterance, read_pairs


def read_tree(part: Path, options: Options) -> Iterator[Utterance]:
    """All utterances of a part, with a transcript line, an audio file, or both.

    Raises:
        UserError: a file of transcripts is damaged or not UTF-8.
    """
    files = sorted(files_below(part))
    texts, twice = read_pairs(path for path in files if path.name.endswith(TRANSCRIPTS))
    audio: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in AUDIO:
            audio.setdefault(path.stem, []).append(path)
    for name in texts.keys() | audio.keys():
        text, source = texts.get(name, (None, None))
        paths = audio.get(name, [])
        folders = (paths[0] if paths or source is None else source).relative_to(part).parts[:-1]
        fault = ""
        if text is None:
            fault = f"audio without a transcript: its id is in no {TRANSCRIPTS}"
        elif name in twice:
            fault = f"two transcripts: its id is in two lines of {TRANSCRIPTS}"
        elif len(paths) > 1:
            fault = f"two recordings: {paths[0]} and {paths[1]}"
        elif not paths:
            fault = "transcript without audio: no file has its name"
        yield Utterance(
            name, text, folders[0] if folders else None, paths[0] if paths else None, channel=options.channel,
            fault=fault,
        )  # fmt: skip
