"""Networks on features of another kind, number and rate than the default."""

import numpy as np
import pytest
from lhotse import CutSet
from training import config, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures
from asr_kd.corpora.shar.__main__ import main as shar
from asr_kd.corpora.shar.config import Config as SharConfig
from asr_kd.features.__main__ import main as features
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.hmm.transfer.__main__ import main as transfer
from asr_kd.hmm.transfer.config import Config as TransferConfig
from asr_kd.models.checkpoints import load_log_prior
from asr_kd.models.scorer import NetworkScorer, ensemble_posteriors
from asr_kd.score.accuracy.__main__ import main as accuracy
from asr_kd.score.accuracy.config import Config as AccuracyConfig
from asr_kd.soft_targets.__main__ import main as soft_targets
from asr_kd.train.__main__ import main as train


@pytest.mark.parametrize(
    ("flags", "size"),
    [({"sampling_rate": 8000, "num_filters": 64, "normalise": "speaker"}, 64), ({"kind": "mfcc"}, 13)],
)
def test_the_dimension_flows_into_everything(prepared, tmp_path, inline, flags, size):
    made = type(prepared)(prepared.data, tmp_path / "features", tmp_path / "senones")
    features(FeaturesConfig(made.data, made.features, **flags))
    transfer(TransferConfig(made.features, prepared.senones, made.senones))
    train(config(made, tmp_path / "teachers", seeds=(0, 1)))
    assert read_json(tmp_path / "teachers" / "seed-0" / "model.json")["network"]["feature_dim"] == size
    soft_targets(store_config(made, tmp_path / "teachers", tmp_path / "store"))
    shar(SharConfig(made.senones, tmp_path / "shards"))
    students = config(made, tmp_path / "student", soft_targets=tmp_path / "store", hard_weight=0.5, temperature=2.0)
    students.cuts = tmp_path / "shards"
    train(students)
    student = tmp_path / "student" / "seed-0"
    assert stage_figures(student)["dev_accuracy"] > 40
    accuracy(AccuracyConfig((f"student={student}",), made.features, made.senones, tmp_path / "a", splits=("dev",)))
    assert stage_figures(tmp_path / "a" / "student")
    cut = next(iter(CutSet.from_file(made.features / "cuts_test.jsonl.gz")))
    scorer = NetworkScorer(ensemble_posteriors([student], 6, "arithmetic"), student, made.features)
    assert scorer(cut).shape == (cut.num_frames, 6) == (cut.num_frames, len(load_log_prior(student)))
    assert np.isfinite(scorer(cut)).all()
    with pytest.raises(UserError, match=rf"was trained on {size} .*, but .* has 40 log-mels at 16000 Hz"):
        accuracy(
            AccuracyConfig((f"a={student}",), prepared.features, prepared.senones, tmp_path / "b", splits=("dev",))
        )
