"""Frame accuracy of networks and ensembles against the forced alignment."""

import dataclasses
from pathlib import Path
from typing import Any

from asr_kd.common.storage import read_json, write_json
from asr_kd.corpora.cuts import load_cuts, load_senones
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import Mean
from asr_kd.models.checkpoints import load_model
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.network import num_parameters
from asr_kd.models.posteriors import check_finite, posteriors
from asr_kd.models.senones import check_same_senones
from asr_kd.score.frame_accuracy import FrameAccuracy


@dataclasses.dataclass(frozen=True)
class Job:
    """One system: folders of its networks, data and mean to measure it with, and folder of the result."""

    models: tuple[Path, ...]
    features: Path
    cuts: Path
    splits: tuple[str, ...]
    mean: Mean
    out: Path


def measure(job: Job) -> dict[str, Any]:
    """Write the counts of correct frames of every split; returns the number of parameters."""

    for folder in job.models:
        check_same_senones(folder, job.cuts)
    check_same_front_end(job.models, job.features)
    models = [load_model(folder) for folder in job.models]
    normaliser = Normaliser.load(job.features)
    silence = read_json(job.cuts / "hmm.json")["silence_pdfs"]
    results = {}
    for split in job.splits:
        accuracy = FrameAccuracy(silence)
        for cut in load_cuts(job.cuts, split):
            average = posteriors(models, normaliser(cut), mean=job.mean)
            check_finite(average, cut.id)
            accuracy.update(load_senones(cut), average.argmax(1))
        results[split] = accuracy.result()
    write_json(job.out / "accuracy.json", results)
    return {"parameters": sum(map(num_parameters, models))}
