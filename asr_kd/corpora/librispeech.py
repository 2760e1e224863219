"""Lhotse manifests of trees in LibriSpeech layout (ROOT/PART/SPEAKER/CHAPTER/ID.flac and .trans.txt).

``lhotse.recipes.librispeech.prepare_librispeech`` rejects the whole corpus at the first bad recording or empty
transcript, so this module calls its ``parse_utterance`` for each utterance and lists the bad ones.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording, SupervisionSegment
from lhotse.recipes.librispeech import parse_utterance

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import write_json
from asr_kd.common.text import read_lines
from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_utterances, write_skipped
from asr_kd.corpora.parts import Part

SAMPLING_RATE = 16000
CHUNK_SIZE = 250  # utterances per job
TAIL = 1600  # samples to read at the end of each recording, where a truncated FLAC fails


@dataclass(frozen=True)
class Item:
    """An utterance with a transcript line, an audio file, or both."""

    part: Path
    id: str
    text: str | None  # None: there is no transcript
    twice: bool = False  # there are several

    @property
    def speaker(self) -> str:
        return self.id.partition("-")[0]


def find_items(part: Part) -> list[Item]:
    """All utterances of a part, sorted by id.

    Raises:
        UserError: the part has no transcripts and no audio, or fewer speakers than groups, or a file of transcripts is
            damaged or not UTF-8.
    """
    texts: dict[str, str] = {}
    twice: set[str] = set()
    for path in sorted(part.folder.rglob("*.trans.txt")):
        for line in read_lines(path):
            if line.strip():
                utterance, *words = line.split()
                twice |= {utterance} & texts.keys()
                texts[utterance] = " ".join(words)
    orphans = {path.stem for path in part.folder.rglob("*.flac")} - texts.keys()
    items = [Item(part.folder, i, texts.get(i), i in twice) for i in sorted(texts.keys() | orphans)]
    if not items:
        raise UserError(f"{part.folder} is empty: it has no .trans.txt and no .flac in LibriSpeech layout")
    if part.groups == 1:
        return items
    chosen = speaker_groups(Counter(item.speaker for item in items), part.groups)[part.group - 1]
    if not chosen:
        raise UserError(f"{part.label} has no speakers: {part.folder.name} has fewer than {part.groups}")
    return [item for item in items if item.speaker in chosen]


def speaker_groups(counts: Counter[str], groups: int) -> list[set[str]]:
    """Disjoint groups of speakers with about the same number of utterances.

    Speakers are added in descending order of their utterances, each to the group that has the fewest.
    """
    members: list[set[str]] = [set() for _ in range(groups)]
    totals = [0] * groups
    for speaker, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        smallest = totals.index(min(totals))
        members[smallest].add(speaker)
        totals[smallest] += count
    return members


def prepare_item(item: Item) -> tuple[Recording, SupervisionSegment] | str:
    """The manifests of an utterance, or the reason why it cannot be used."""
    path = item.part.joinpath(*item.id.split("-")[:-1], f"{item.id}.flac")
    if item.text is None:
        return "audio without a transcript: its id is in no .trans.txt"
    if item.twice:
        return "two transcripts: its id is in two lines of .trans.txt"
    if not path.is_file():
        return f"transcript without audio: {path} is missing"
    if not item.text:
        return "empty transcript"
    try:
        reason = audio_fault(path)
        parsed = None if reason else parse_utterance(item.part, f"{item.id} {item.text}", {})
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        return f"damaged recording ({error})"
    return reason or parsed or "unreadable"


def audio_fault(path: Path) -> str | None:
    """The reason why a recording cannot be used, or None; errors of soundfile pass through.

    This reads the header and the end only, except for floating-point files, which can contain NaN.  The extraction of
    features checks all samples.
    """
    with soundfile.SoundFile(path) as file:
        if file.samplerate != SAMPLING_RATE:
            return f"sampled at {file.samplerate} Hz: {SAMPLING_RATE} Hz is needed, resample it"
        if file.channels != 1:
            return f"{file.channels} channels: mono is needed, mix it down"
        if not file.frames:
            return "no samples"
        floating = file.subtype in ("FLOAT", "DOUBLE")
        tail = file.frames if floating else min(TAIL, file.frames)
        file.seek(file.frames - tail)
        samples = file.read(dtype="float32")
    if len(samples) < tail:
        return "truncated: the file ends earlier than its header says"
    return None if np.isfinite(samples).all() else "NaN or infinite samples"


def _prepare_chunk(items: Sequence[Item]) -> list[tuple[Recording, SupervisionSegment] | str]:
    return [prepare_item(item) for item in items]


def write_splits(out: Path, parts: Mapping[str, Sequence[Part]], executor: Executor) -> dict[str, dict[str, float]]:
    """Write the manifests of all splits and summary.json; return the summary.

    Raises:
        UserError: see ``write_split``.
    """
    summary: dict[str, dict[str, float]] = {}
    speakers: dict[str, set[str]] = {}
    for split, members in parts.items():
        figures, speakers[split] = write_split(out, split, members, executor)
        summary[split] = figures
        print(
            f"{split}: {figures['utterances']} utterances, {figures['speakers']} speakers, "
            f"{figures['hours']:.2f} h, {figures['skipped']} skipped", flush=True,
        )  # fmt: skip
        shared = speakers["train"] & speakers[split] if split != "train" else set()
        if shared:
            print(
                f"warning: train also has {len(shared)} of the {len(speakers[split])} speakers of {split} "
                f"(such as {min(shared)}), so results on {split} say little about new speakers", flush=True,
            )  # fmt: skip
    write_json(out / "summary.json", summary)
    return summary


def write_split(out: Path, split: str, parts: Sequence[Part], executor: Executor) -> tuple[dict[str, float], set[str]]:
    """Write the manifests of one split and the list of skipped utterances.

    Returns:
        The figures for summary.json, and the speakers.

    Raises:
        UserError: a part is empty, two utterances have the same id, or no utterance is usable.
    """
    items = sorted((item for part in parts for item in find_items(part)), key=lambda item: item.id)
    duplicates = [a.id for a, b in itertools.pairwise(items) if a.id == b.id]
    if duplicates:
        raise UserError(f"utterance {duplicates[0]} occurs twice in {split}: name each part once, with unique ids")
    chunks = [items[i : i + CHUNK_SIZE] for i in range(0, len(items), CHUNK_SIZE)]
    results = run_in_order(executor, _prepare_chunk, chunks, f"manifests of {split}", "chunk")
    skipped: list[Skipped] = []
    speakers: set[str] = set()
    utterances, seconds = 0, 0.0
    with (
        jsonl_writer(out / f"recordings_{split}.jsonl.gz") as add_recording,
        jsonl_writer(out / f"supervisions_{split}.jsonl.gz") as add_supervision,
    ):
        for chunk, outcomes in zip(chunks, results, strict=True):
            for item, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, str):
                    skipped.append((item.id, outcome))
                    continue
                recording, supervision = outcome
                add_recording(recording.to_dict())
                add_supervision(supervision.to_dict())
                speakers.add(item.speaker)
                utterances, seconds = utterances + 1, seconds + recording.duration
    write_skipped(out, split, skipped)
    require_utterances(utterances, skipped, split, out)
    hours = round(seconds / 3600, 4)
    figures = {"utterances": utterances, "speakers": len(speakers), "hours": hours, "skipped": len(skipped)}
    return figures, speakers
