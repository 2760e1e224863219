"""Folders of cuts, with a cuts_SPLIT.jsonl.gz for each split."""

from collections.abc import Iterator
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, stage_figures

CHUNK_FRAMES = 30_000  # five minutes; constant, so that sums do not depend on the number of processes


def chunks(cuts: Iterator[MonoCut], frames: int = CHUNK_FRAMES) -> Iterator[list[MonoCut]]:
    """Groups of consecutive cuts with about ``frames`` frames each."""
    chunk: list[MonoCut] = []
    total = 0
    for cut in cuts:
        chunk.append(cut)
        total += cut.num_frames
        if total >= frames:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def max_chunks(features: Path, split: str) -> int | None:
    """Upper bound of the number of chunks of a split, if the features stage noted its frames."""
    frames = stage_figures(features).get(split, {}).get("frames") if (features / MARK).is_file() else None
    return -(-frames // CHUNK_FRAMES) if frames else None


def splits_of(folder: Path) -> list[str]:
    """The splits of a folder of cuts, train first.

    Raises:
        UserError: the folder has no cuts.
    """
    splits = sorted(p.name[len("cuts_") : -len(".jsonl.gz")] for p in Path(folder).glob("cuts_*.jsonl.gz"))
    if not splits:
        raise UserError(f"{folder} has no cuts_SPLIT.jsonl.gz: run python -m asr_kd.features first")
    return sorted(splits, key=lambda split: split != "train")


def load_cuts(folder: Path, split: str) -> CutSet:
    """The cuts of a split, read lazily."""
    return CutSet.from_jsonl_lazy(folder / f"cuts_{split}.jsonl.gz")
