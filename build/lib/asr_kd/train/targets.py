"""What a student learns from: a store of soft targets, running teachers, or posteriors made elsewhere."""

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import clean_id
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.models.network import AcousticModel
from asr_kd.models.senones import check_num_senones, check_same_senones
from asr_kd.soft_targets.online import OnlineTargets
from asr_kd.soft_targets.posteriors import PosteriorTargets, open_teachers
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.train.config import Config, training_cuts

#: What gives the soft targets of an utterance, and of a batch of its frames.
Targets = SoftTargets | OnlineTargets | PosteriorTargets


def open_targets(config: Config, student: AcousticModel, device: str) -> Targets | None:
    """Return the soft targets that the flags name; None: there are hard targets only.

    Raises:
        UserError: they do not fit the labels, the features, or the student.
    """
    if config.teachers:
        temperature = config.temperature or 1.0
        for teacher in config.teachers:
            check_same_senones(teacher, config.cuts)
        return OnlineTargets(config.teachers, config.features, student, temperature, config.mean, device)
    if config.soft_targets is not None:
        check_same_senones(config.soft_targets, config.cuts)
        store = SoftTargets(config.soft_targets, config.features, config.temperature or None)
        check_num_senones(config.soft_targets, store.num_classes, config.cuts)
        return store
    if config.posteriors:
        if any(path.is_dir() for path in training_cuts(config)):
            raise UserError(
                "--posteriors does not work with shards: make a store with asr_kd.soft_targets --posteriors, and give "
                "it with --soft-targets"
            )
        ids = [clean_id(cut) for path in training_cuts(config) for cut in read_jsonl(path)]
        teachers = open_teachers(config, ids)
        check_num_senones(teachers[0].name, teachers[0].num_classes, config.cuts)
        return PosteriorTargets(teachers, config.temperature or 1.0, config.mean)
    return None
