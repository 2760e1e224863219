"""The splits of a corpus: what its parts have is checked, and written as Lhotse cuts with one supervision each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import write_json
from asr_kd.corpora.kaldi import read_kaldi
from asr_kd.corpora.lhotse_manifests import read_cuts, read_recordings
from asr_kd.corpora.librispeech import read_tree
from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_utterances, write_skipped
from asr_kd.corpora.parts import Kind, Options, Part, find_kind
from asr_kd.corpora.recordings import make_cuts
from asr_kd.corpora.tables import read_table
from asr_kd.corpora.utterances import Utterance, checked, speaker_groups

CHUNK_SIZE = 250  # utterances per job
READERS: Mapping[Kind, Callable[[Path, Options], Iterator[Utterance]]] = {
    "tree": read_tree, "kaldi": read_kaldi, "cuts": read_cuts, "recordings": read_recordings, "table": read_table,
}  # fmt: skip


def read_part(part: Part, options: Options) -> list[Utterance]:
    """All utterances of a part, also those that cannot be used.

    Raises:
        UserError: the part is empty, damaged, or has fewer speakers than groups.
    """
    utterances = list(READERS[find_kind(part.path)](part.path, options))
    if not utterances:
        raise UserError(f"{part.path} is empty: it has no utterances")
    if options.unknown_speakers == "recording":
        utterances = [replace(one, speaker=one.speaker or one.recording or one.id) for one in utterances]
    if part.groups == 1:
        return utterances
    speakers = Counter(utterance.speaker or "" for utterance in utterances)
    chosen = speaker_groups(speakers, part.groups)[part.group - 1]
    if not chosen:
        raise UserError(f"{part.label} has no speakers: {part.path.name} has fewer than {part.groups}")
    return [utterance for utterance in utterances if (utterance.speaker or "") in chosen]


def write_splits(
    out: Path, parts: Mapping[str, Sequence[Part]], options: Options, executor: Executor
) -> dict[str, dict[str, float]]:
    """Write the manifests of all splits and summary.json; return the summary.

    Raises:
        UserError: see ``write_split``.
    """
    summary: dict[str, dict[str, float]] = {}
    speakers: dict[str, set[str]] = {}
    for split, members in parts.items():
        figures, speakers[split] = write_split(out, split, members, options, executor)
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


def write_split(
    out: Path, split: str, parts: Sequence[Part], options: Options, executor: Executor
) -> tuple[dict[str, float], set[str]]:
    """Write cuts_SPLIT.jsonl.gz, sorted by id, and skipped_SPLIT.tsv.

    Returns:
        The figures for summary.json, and the speakers.

    Raises:
        UserError: a part is empty or damaged, or no utterance is usable.
    """
    utterances = checked(sorted((u for part in parts for u in read_part(part, options)), key=lambda one: one.id))
    chunks = [utterances[i : i + CHUNK_SIZE] for i in range(0, len(utterances), CHUNK_SIZE)]
    results = run_in_order(executor, make_cuts, chunks, f"manifest of {split}", "chunk")
    skipped: list[Skipped] = []
    speakers: set[str] = set()
    count, seconds = 0, 0.0
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add_cut:
        for chunk, outcomes in zip(chunks, results, strict=True):
            for utterance, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, str):
                    skipped.append((utterance.id, outcome))
                    continue
                add_cut(outcome.to_dict())
                speakers.add(outcome.supervisions[0].speaker)
                count, seconds = count + 1, seconds + outcome.duration
    write_skipped(out, split, skipped)
    require_utterances(count, skipped, split, out)
    hours = round(seconds / 3600, 4)
    figures = {"utterances": count, "speakers": len(speakers), "hours": hours, "skipped": len(skipped)}
    return figures, speakers
