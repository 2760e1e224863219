"""Frame accuracy of networks and ensembles on a small real corpus."""

import numpy as np
import pytest
from lhotse import CutSet

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures
from asr_kd.features.normalise import Normaliser
from asr_kd.models.checkpoints import load_model
from asr_kd.models.network import num_parameters
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.score.accuracy import __main__ as accuracy


def config(prepared, out, *systems, **changes):
    return accuracy.Config(systems, prepared.features, prepared.senones, out, **({"jobs": 1} | changes))


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_systems_are_measured_side_by_side(prepared, teachers, tmp_path, capsys, mean):
    first, second = teachers / "seed-0", teachers / "seed-1"
    settings = config(prepared, tmp_path, f"one={first}", f"both={first},{second}", splits=("test",), mean=mean)
    accuracy.main(settings)
    models = [load_model(first), load_model(second)]
    normaliser = Normaliser.load(prepared.features)
    correct = {"one": 0, "both": 0}
    frames = 0
    for cut in CutSet.from_file(prepared.senones / "cuts_test.jsonl.gz"):
        senones = cut.load_custom("senones")
        one, two = (z.log_softmax(1) for z in ensemble_logits(models, normaliser(cut)))
        frames += len(senones)
        both = one + two if mean == "geometric" else one.exp() + two.exp()
        for name, values in (("one", one), ("both", both)):
            correct[name] += int(np.sum(values.argmax(1).numpy() == senones))
    for name, count in correct.items():
        found = read_json(tmp_path / name / "accuracy.json")["test"]
        assert (found["frames"], found["correct"]) == (frames, count)
        assert found["speech_frames"] < frames
    parameters = [stage_figures(tmp_path / name)["parameters"] for name in ("one", "both")]
    assert parameters[1] == 2 * parameters[0] == 2 * num_parameters(models[0])
    accuracy.main(settings)
    assert capsys.readouterr().out.count("up to date") == 2


def test_wrong_flags_are_refused(prepared, teachers, tmp_path):
    with pytest.raises(UserError, match=r"NAME=DIR.*not 'one'"):
        accuracy.main(config(prepared, tmp_path, "one"))
    with pytest.raises(UserError, match=r"cuts_other.jsonl.gz is missing"):
        accuracy.main(config(prepared, tmp_path, f"one={teachers / 'seed-0'}", splits=("other",)))
    with pytest.raises(UserError, match="missing"):
        accuracy.main(config(prepared, tmp_path, f"one={tmp_path / 'nothing'}"))
