"""The benchmark of training runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import bench_train

from asr_kd.common.storage import read_json


def test_measures_a_dnn_and_a_sequence_network(tmp_path):
    out = tmp_path / "train.json"
    sizes = ("tiny:50", "tdnnf:50")
    bench_train.main(bench_train.Config(sizes, frames=4000, seconds=0.01, batch=256, threads=1, out=out))
    dnn, tdnnf = read_json(out)["rows"]
    assert (dnn["network"], tdnnf["network"]) == ("tiny, 50 senones", "tdnnf, 50 senones")
    assert dnn["speedup"] > 0 and tdnnf["speedup"] is None
    assert all(row["training / products"] > 0 for row in (dnn, tdnnf))
