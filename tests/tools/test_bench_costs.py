"""Corpora of repeated recordings, and the figure of what stages cost on them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import bench_costs
from process_tree import Usage

from asr_kd.common.storage import read_json, stage_figures, write_json
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl


def test_recordings_are_repeated_until_there_are_enough(tmp_path: Path) -> None:
    source = tmp_path / "gmm"
    for split in ("train", "dev"):
        with jsonl_writer(source / f"cuts_{split}.jsonl.gz") as add:
            for name in "ab":
                add({"id": name, "duration": 10.0, "supervisions": [{"speaker": "x", "text": "A"}]})
    write_json(source / "hmm.json", {"splits": {"train": {"frames": 2000}}})
    write_json(source / "cmvn.json", {})
    bench_costs.repeat(source, "train", tmp_path / "out", 45 / 3600)
    cuts = list(read_jsonl(tmp_path / "out" / "cuts_train.jsonl.gz"))
    assert [cut["id"] for cut in cuts] == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    assert [cut["supervisions"][0]["speaker"] for cut in cuts] == ["x-0", "x-0", "x-1", "x-1", "x-2"]
    assert read_json(tmp_path / "out" / "hmm.json")["splits"]["train"]["frames"] == 5000
    assert (tmp_path / "out" / "cmvn.json").is_file() and not (tmp_path / "out" / "cuts_dev.jsonl.gz").exists()
    assert stage_figures(tmp_path / "out"), "readers take it for a finished stage"


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(config: bench_costs.Config, exp: Path, hours: float) -> Iterator[tuple[str, Usage]]:
        yield "features", Usage(cpu=1.5, wall=2.0, memory=3_000_000, largest=2_000_000)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_costs, "measured", measured)
    monkeypatch.setattr(bench_costs, "calibrate", lambda config, exp: {"features": 1e-6})
    out = tmp_path / "costs.json"
    write_json(out, {"rows": [{"stage": "features", "hours": 1, "s": 7.0}]})
    with pytest.raises(KeyboardInterrupt):
        bench_costs.main(bench_costs.Config(exp=tmp_path, hours=(10,), out=out))
    kept = read_json(out)
    assert [(row["hours"], row["s"]) for row in kept["rows"]] == [(1, 7.0), (10, 1.5)]
    assert kept["rates"] == {"features": 1e-6}


def test_the_figure_has_a_dot_for_every_measurement() -> None:
    rows = [
        {
            "stage": stage,
            "hours": hours,
            "s": 5 + hours,
            "planned s": 6 + hours,
            "MB": 700,
            "planned MB": 800,
            "busy": hours == 100,
        }
        for stage in ("features", "soft_targets")
        for hours in (1, 10, 100)
    ]
    seconds, memory = bench_costs.draw(rows).axes
    for panel, dots, line in ((seconds, [6, 15, 105], [7, 16, 106]), (memory, [0.7] * 3, [0.8] * 3)):
        assert len(panel.lines) == len(panel.collections) == 2
        for drawn, measured in zip(panel.lines, panel.collections, strict=True):
            assert list(drawn.get_xdata()) == [1, 10, 100] and list(drawn.get_ydata()) == pytest.approx(line)
            x, y = measured.get_offsets().T.tolist()
            assert x == [1, 10, 100] and y == pytest.approx(dots)
            faces = measured.get_facecolors()
            assert (faces[0] == faces[1]).all() and (faces[1] != faces[2]).any(), "hollow on a busy machine"
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == ["features", "soft targets"]
