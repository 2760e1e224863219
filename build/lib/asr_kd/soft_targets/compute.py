"""The teachers of a store, and the jobs that compute their soft targets, a shard each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.cuts import open_cuts
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.features.normalise import Normaliser
from asr_kd.models.checkpoints import load_ensemble, load_log_prior
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.models.senones import check_num_senones, check_same_senones, senones_of
from asr_kd.soft_targets.config import Config
from asr_kd.soft_targets.posteriors import ForeignTeacher, open_teachers
from asr_kd.soft_targets.shards import INDEX, read_index, shard_folder
from asr_kd.soft_targets.writer import Writer


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard.

    Attributes:
        store: folder of the store.
        number: of the shard.
        cuts: whose soft targets it contains.
        models: folders of the networks among the teachers.
        foreign: the teachers made elsewhere.
        features: features folder.
        settings: of the ``Writer``, with the number of classes and the seed of the random draws.
        device: that the networks run on.
    """

    store: Path
    number: int
    cuts: Sequence[MonoCut]
    models: Sequence[Path]
    foreign: Sequence[ForeignTeacher]
    features: Path
    settings: Mapping[str, Any]
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class Teachers:
    """The teachers of a store.

    Attributes:
        foreign: those made elsewhere.
        settings: of the ``Writer`` of their soft targets.
        senones: identity of their classes, "" if it is not known.
    """

    foreign: Sequence[ForeignTeacher]
    settings: Mapping[str, Any]
    senones: str

    @staticmethod
    def of(config: Config) -> Teachers:
        """Return the teachers that the flags name, after checking that they fit each other and the transfer set.

        Raises:
            UserError: they do not.
        """
        for model in config.models[1:]:
            check_same_senones(config.models[0], model)
        check_same_front_end(config.models, config.features)
        ids = [cut["id"] for cut in read_jsonl(config.cuts)] if config.posteriors else []
        foreign = open_teachers(config, ids)
        labels = config.cuts.parent
        for teacher in foreign if (labels / "hmm.json").is_file() else ():
            check_num_senones(teacher.name, teacher.num_classes, labels)
        prior = np.exp(load_log_prior(config.models[0])) if config.models else None
        if prior is not None and foreign and foreign[0].num_classes != len(prior):
            raise UserError(
                f"{foreign[0].name} has {foreign[0].num_classes} classes and {config.models[0]} has {len(prior)} "
                "senones: average teachers that have the same"
            )
        form = {name: getattr(config, name) for name in ("temperatures", "mean", "floor", "tail", "top", "draws")}
        form["prior"] = prior.tolist() if prior is not None and config.tail == "prior" else None
        num_classes = foreign[0].num_classes if prior is None else len(prior)
        return Teachers(
            foreign, {"num_classes": num_classes, **form}, senones_of(config.models[0] if config.models else labels)
        )


def missing_shards(config: Config, teachers: Teachers, shards: int, cuts_per_shard: int) -> Iterator[ShardJob]:
    """Yield the jobs of the shards that no earlier run has finished."""
    cuts = iter(open_cuts(config.cuts))
    for number in range(shards):
        shard = list(itertools.islice(cuts, cuts_per_shard))
        if not (shard_folder(config.out, number) / INDEX).is_file():
            foreign = [teacher.subset([cut.id for cut in shard]) for teacher in teachers.foreign]
            settings = {**teachers.settings, "seed": 1000 * config.seed + number}
            yield ShardJob(config.out, number, shard, config.models, foreign, config.features, settings, config.device)


def summarise(store: Path, shards: int, temperatures: Sequence[float]) -> tuple[int, dict[str, dict[str, float]]]:
    """Return the number of frames in finished shards, and for each temperature bytes per frame and mass kept."""
    indices = [read_index(store, number) for number in range(shards)]
    frames = sum(sum(index["frames"].values()) for index in indices)
    size, mass = (np.sum([index[key] for index in indices], 0) for key in ("bytes", "mass"))
    return frames, {
        f"{temperature:g}": {"bytes_per_frame": round(size[i] / frames, 2), "mass_kept": round(mass[i] / frames, 5)}
        for i, temperature in enumerate(temperatures)
    }


def make_shard(job: ShardJob) -> None:
    """Compute and write one shard; utterances whose foreign posteriors cannot be used are listed in it."""
    models, device = load_ensemble(job.models, job.device)
    normaliser = Normaliser.load(job.features)
    writer = Writer(job.store, shard=job.number, **job.settings)
    for cut in job.cuts:
        try:
            logits = [teacher.read(cut.id, cut.num_frames).to(device) for teacher in job.foreign]
        except UserError as error:
            writer.skip(cut.id, str(error))
            continue
        writer.write(cut.id, [*(ensemble_logits(models, normaliser(cut)) if models else ()), *logits])
    writer.close()
