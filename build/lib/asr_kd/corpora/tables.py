"""Tables (CSV, TSV) with a line per audio file, such as those of Common Voice."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from asr_kd.common.errors import UserError
from asr_kd.common.text import read_lines
from asr_kd.corpora.parts import Options
from asr_kd.corpora.utterances import Utterance

SEPARATORS = "\t,;"


def read_table(path: Path, options: Options) -> Iterator[Utterance]:
    """An utterance per line: its id is the path of the audio file without its ending.

    The header tells what separates columns.  Quotes are letters where that is a tab, as in Common Voice.

    Raises:
        UserError: a column is missing, or the file is damaged or not UTF-8.
    """
    lines = (line + "\n" for line in read_lines(path))
    header = next(lines, "")
    separator = max(SEPARATORS, key=header.count)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    (columns,) = csv.reader([header], delimiter=separator, quoting=quoting)
    for flag in ("path_column", "text_column", "speaker_column"):
        if (name := getattr(options, flag)) not in columns:
            raise UserError(
                f"{path} has no column {name!r}, only {', '.join(columns)}: name the right one with "
                f"--{flag.replace('_', '-')}"
            )
    folders = [options.audio_dir] if options.audio_dir else [path.parent, path.parent / "clips"]
    try:
        for row in csv.DictReader(lines, columns, delimiter=separator, quoting=quoting):
            name = row[options.path_column] or ""
            places = [folder / name for folder in folders]
            audio = next((place for place in places if place.is_file()), places[0])
            yield Utterance(
                str(Path(name).with_suffix("")).lstrip("/") if Path(name).name else "", row[options.text_column],
                row[options.speaker_column], audio.absolute() if name else None, channel=options.channel,
            )  # fmt: skip
    except csv.Error as error:
        raise UserError(f"{path} is no table ({error}): export it again") from None
