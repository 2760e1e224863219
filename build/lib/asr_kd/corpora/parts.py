"""The parts of a split, and their kinds.  Imports no heavy package, so that an up-to-date stage returns at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.errors import UserError
from asr_kd.common.files import files_below
from asr_kd.common.settings import Settings, within

#: Endings of audio files in a tree.
AUDIO = (".flac", ".wav", ".mp3", ".ogg", ".opus")
TRANSCRIPTS = ".trans.txt"
TABLES = (".csv", ".tsv")
MANIFESTS = (".jsonl", ".jsonl.gz")
RECORDINGS = "recordings"  # in the name of a manifest whose supervisions are in the file named after them
Kind = Literal["tree", "kaldi", "cuts", "recordings", "table"]


@dataclass(kw_only=True)
class Options(Settings):
    """How the parts of a corpus are read."""

    channel: Annotated[int, within(0)] | None = None
    """The channel to use, counted from 0, of recordings that have several; default: the one that a manifest names."""
    unknown_speakers: Literal["skip", "recording"] = "skip"
    """What becomes of utterances without a speaker: they are skipped, or their recording counts as a speaker."""
    audio_dir: Path | None = None
    """Folder of the audio files that tables name; default: the folder of the table, or its folder clips."""
    path_column: str = "path"
    """The column of tables with the audio file."""
    text_column: str = "sentence"
    """The column of tables with the transcript."""
    speaker_column: str = "client_id"
    """The column of tables with the speaker."""


def read_group(text: str) -> tuple[int, int]:
    """i and n of "i/n", which names the i-th of n groups.

    Raises:
        UserError: the text does not have this form, or i is not between 1 and n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    group, groups = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= group <= groups:
        raise UserError(
            f"{text!r} is no group: write i/n, such as 1/2 for the first of two (NAME:1/2 for a group of a part)"
        )
    return group, groups


@dataclass(frozen=True)
class Part:
    """A part of a corpus, or one of ``groups`` disjoint groups of its speakers (``group`` starts at 1)."""

    path: Path
    group: int = 1
    groups: int = 1

    @classmethod
    def parse(cls, root: Path, spec: str) -> Part:
        """The part ``NAME``, or the group ``NAME:i/n`` of it, under ``root`` (or anywhere, if NAME is absolute).

        Raises:
            UserError: there is no such path or group, or no corpus is there.
        """
        name, share = spec, ""
        if not (root / spec).exists() and (found := re.fullmatch(r"(.*):([^:]*)", spec, re.DOTALL)):
            name, share = found[1], found[2]
        group, groups = read_group(share) if share else (1, 1)
        path = root / name
        if not path.parent.is_dir():
            raise UserError(f"{path.parent} does not exist: check --corpus-dir, --train, --dev, --test and --also")
        if not name or not path.exists():
            known = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
            shown = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
            raise UserError(f"{path.parent} has no part {Path(name).name!r}: it has {shown or 'nothing'}")
        part = cls(path.resolve(), group, groups)
        find_kind(part.path)
        return part

    @property
    def name(self) -> str:
        """The name of the folder or file, without the endings of files."""
        return re.sub(r"\.(jsonl|csv|tsv)(\.gz)?$", "", self.path.name)

    @property
    def label(self) -> str:
        """The part as flags name it."""
        return self.path.name + (f":{self.group}/{self.groups}" if self.groups > 1 else "")

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files and folders that say what the part has (a tree, not the audio of others, which is elsewhere)."""
        return manifest_pair(self.path) if find_kind(self.path) == "recordings" else (self.path,)


def find_kind(path: Path) -> Kind:
    """The kind of corpus at a path.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        if (path / "wav.scp").exists():
            return "kaldi"
        if any(_is_manifest(p, RECORDINGS) for p in path.iterdir()):
            return "recordings"
        if any(p.name.endswith(TRANSCRIPTS) or p.suffix.lower() in AUDIO for p in files_below(path)):
            return "tree"
    elif _is_manifest(path):
        return "recordings" if RECORDINGS in path.name else "cuts"
    elif path.suffix.lower() in TABLES:
        return "table"
    raise UserError(
        f"{path} is no corpus: give a folder in LibriSpeech layout (audio and *{TRANSCRIPTS}), a Kaldi data folder "
        "(wav.scp), Lhotse manifests (cuts.jsonl.gz, or recordings.jsonl.gz beside supervisions.jsonl.gz) or a table "
        "(.csv, .tsv)"
    )


def manifest_pair(path: Path) -> tuple[Path, Path]:
    """Lhotse's manifests of recordings and of their supervisions, given the former, or the folder that has one pair.

    Raises:
        UserError: the folder has several pairs, or the supervisions are missing.
    """
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_manifest(p, RECORDINGS))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise UserError(f"{path} has several manifests of recordings ({names}): name one of these files instead")
        path = found[0]
    supervisions = path.name.replace(RECORDINGS, "supervisions")
    stem = supervisions.removesuffix(".gz")
    for name in (supervisions, stem, f"{stem}.gz"):
        if (path.parent / name).is_file():
            return path, path.parent / name
    raise UserError(f"{path} has no {supervisions} beside it: put it there, or give a manifest of cuts")


def _is_manifest(path: Path, name: str = "") -> bool:
    return name in path.name and path.name.endswith(MANIFESTS)


def locate(folder: Path, name: str) -> Path:
    """The absolute path of an audio file that a manifest in ``folder`` names, relative to where we are or to it."""
    path = Path(name)
    return path.absolute() if path.is_file() else folder / path
