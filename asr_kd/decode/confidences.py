"""Confidences and times of the words of prepared splits: calibration on one split, files, and calibration errors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut

from asr_kd.common.storage import atomic_open, read_json, write_json
from asr_kd.decode.calibration import Calibration, calibration_error, fit, right_words
from asr_kd.decode.output import write_table
from asr_kd.decode.pipeline import read_records
from asr_kd.lang.formats import ctm
from asr_kd.lang.words import Words


@dataclasses.dataclass(frozen=True)
class Judged:
    """The recognised words of utterances with transcripts: their posteriors, and whether they are right."""

    posteriors: list[float]
    right: list[bool]

    def error(self, calibration: Calibration) -> float:
        """The calibration error in per cent."""
        return round(100 * calibration_error(calibration(self.posteriors), self.right), 2)


def judge(cuts: Iterable[MonoCut], shards: Sequence[Path], words: Words) -> Judged:
    texts = {cut.id: words.split(cut.supervisions[0].text or "") for cut in cuts if cut.supervisions}
    judged = Judged([], [])
    for name, record in read_records(shards):
        if record["words"] and texts.get(name):
            heard = [word for word, _ in words.parts(record["words"])]
            judged.right.extend(right_words(texts[name], heard))
            judged.posteriors.extend(words.confidences(record["words"], record["confidences"]))
    return judged


def calibrate(cuts: Iterable[MonoCut], shards: Sequence[Path], words: Words, tuned: Path) -> Calibration:
    """Fit the map of confidences to a split that has been decoded, and add it to tuned.json."""
    judged = judge(cuts, shards, words)
    found = fit(judged.posteriors, judged.right)
    before, after = judged.error(Calibration()), judged.error(found)
    figures = {**dataclasses.asdict(found), "words": len(judged.right), "error_before": before, "error_after": after}
    write_json(tuned, {**read_json(tuned), "confidence": figures})
    if found == Calibration():
        logging.warning("confidences stay as they are: %d words do not suffice to calibrate them", len(judged.right))
    else:
        logging.info("confidences calibrated on %d words: calibration error %.2f %%, was %.2f %%",
                     len(judged.right), after, before)  # fmt: skip
    return found


def write_confidences(path: Path, shards: Sequence[Path], words: Words, calibration: Calibration) -> None:
    """Write id<TAB>confidences of the words."""
    values = {
        name: calibration(words.confidences(record["words"], record["confidences"])) if record["words"] else []
        for name, record in read_records(shards)
    }  # fmt: skip
    write_table(path, {name: " ".join(f"{value:.3f}" for value in row) for name, row in values.items()})


def write_ctm(path: Path, shards: Sequence[Path], words: Words, calibration: Calibration) -> None:
    """Write a CTM of all utterances, in the order of their ids."""
    records = {name: record for name, record in read_records(shards) if record["words"]}
    with atomic_open(path) as file:
        for name in sorted(records):
            own = records[name]
            file.write(ctm(name, words.spoken(own["words"], own["times"], calibration(own["confidences"]))))


def confidence_figures(
    cuts: Iterable[MonoCut], shards: Sequence[Path], words: Words, calibration: Calibration
) -> dict[str, Any]:
    """What decode.json says of the confidences of a split; nothing if it has no transcripts."""
    judged = judge(cuts, shards, words)
    if not judged.right:
        return {}
    return {
        "words": len(judged.right), "right": sum(judged.right), "error": judged.error(calibration),
        "error_uncalibrated": judged.error(Calibration()),
    }  # fmt: skip
