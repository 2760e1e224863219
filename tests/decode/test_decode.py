"""The decode stage, on the toy graph: tuning, splits, audio files, clusters, flags."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
from decode_toy import PDFS
from lhotse import CutSet

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.decode.__main__ import main
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search, SearchPool
from asr_kd.decode.config import Config
from asr_kd.decode.pipeline import Decoder
from asr_kd.decode.tuning import Point, _beyond_edges, smooth_errors
from asr_kd.decode.worker import SearchOptions
from asr_kd.features.normalise import QUIET
from asr_kd.lang.words import Words
from asr_kd.models.scorer import NOT_SILENCE


def config(toy: SimpleNamespace, out: Path | None, **values: Any) -> Config:
    given = {"model": (toy.model,), "graph": toy.graph, "features": toy.features, "out": out, "jobs": 1}
    return Config(**{**given, **values})


def table(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


def test_tuning_on_dev_and_decoding(toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    chosen = config(
        toy, out, tune_on="dev", lattices=True, lattice_beam=3.0, splits=("dev", "test"), acoustic_scale=0.3,
        scales=(0.1, 0.3, 1.0), penalties=(0.0, 1.0),
    )  # fmt: skip
    main(chosen)
    sweep = read_json(out / "sweep_dev.json")["points"]
    tuned = read_json(out / "tuned.json")
    errors = sorted(point["errors"] for point in sweep)
    assert tuned["errors"] <= errors[len(errors) // 4] < errors[-1]
    assert tuned["wer"] < 40
    hypotheses = table(out / "hyp_test.tsv")
    cuts = CutSet.from_file(toy.features / "cuts_test.jsonl.gz")
    assert list(hypotheses) == sorted(cut.id for cut in cuts)
    correct = sum(hypotheses[cut.id] == cut.supervisions[0].text for cut in cuts)
    assert correct > 20
    figures = read_json(out / "decode.json")
    assert figures["text"] == "upper"
    assert figures["options"]["acoustic_scale"] == tuned["acoustic_scale"]
    assert figures["splits"]["test"]["failed"] == 0 and figures["splits"]["test"]["search_rtf"] > 0
    with gzip.open(out / "lattices_test.gz", "rt") as file:
        lattices = [entry.splitlines() for entry in file.read().split("\n\n")[:-1]]
    assert {name for name, *_ in lattices} == set(hypotheses)
    for _, *arcs, end in lattices:  # no dead ends
        sources, targets = ({line.split()[column] for line in arcs} for column in (0, 1))
        assert sources | {end.split()[0]} == targets | {"0"}
    assert not (out / "shards").exists()

    main(chosen)
    assert "up to date" in capsys.readouterr().out

    again = tmp_path / "again"
    main(config(toy, again, tuned=out / "tuned.json", lattice_beam=3.0, splits=("test",), jobs=2))
    assert (again / "hyp_test.tsv").read_bytes() == (out / "hyp_test.tsv").read_bytes()


def test_a_cluster_decodes_the_same_words(toy: SimpleNamespace, tmp_path: Path, scheduler: str) -> None:
    for name, address in (("local", ""), ("cluster", scheduler)):
        main(config(toy, tmp_path / name, splits=("dev", "test"), scheduler=address))
    for name in ("hyp_dev.tsv", "hyp_test.tsv"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "cluster" / name).read_bytes()


def test_searches_stay_open_for_the_next_network(toy: SimpleNamespace, tmp_path: Path) -> None:
    configs = [config(toy, tmp_path / name, jobs=jobs, splits=("test",)) for name, jobs in (("one", 2), ("two", 1))]
    with closing(SearchPool()) as searches:
        main(configs[0], searches=searches)
        two = searches(2, toy.prepared, toy.python, PDFS)
        engines = [search.engine for search in two]
        main(configs[1], searches=searches)
        assert None not in engines and engines == [search.engine for search in two]
        other = searches(1, toy.prepared, toy.python, PDFS + 1)
        assert other[0] not in two and [search.engine for search in two] == [None, None]
    assert (tmp_path / "one/hyp_test.tsv").read_bytes() == (tmp_path / "two/hyp_test.tsv").read_bytes()
    with pytest.raises(UserError, match="one command at a time"):
        main(configs[0], config(toy, None, files=(tmp_path / "a.wav",)))


def test_tuning_ignores_a_lucky_point() -> None:
    """The centre of a region of 9s is better than a single 5 among 20s."""
    errors = [[20, 20, 20, 20, 20], [20, 5, 20, 9, 9], [20, 20, 20, 9, 8], [20, 20, 20, 9, 9]]
    around = smooth_errors([e for row in errors for e in row], scales=4, penalties=5)
    assert around.index(min(around)) == 14
    assert around[0] == 20


def test_tuning_does_not_favour_the_edge() -> None:
    """Errors that fall from the edge inwards are extrapolated outwards."""
    row = [10.0, 8.0, 7.0, 9.0, 12.0]
    around = smooth_errors([*row] * 3, scales=3, penalties=5)
    assert around[5:10] == pytest.approx([10.0, 25 / 3, 8.0, 28 / 3, 12.0])
    assert smooth_errors([4], scales=1, penalties=1) == [4.0]


def test_values_beyond_an_edge() -> None:
    """Scales keep their ratio and penalties their distance; inside, and with one or two values, there are none."""
    options = SearchOptions(scales=(0.05, 0.1, 0.15, 0.2), penalties=(-1.0, -0.5, 0.0, 1.0))
    for scale, penalty, scales, penalties in (
        (0.1, -0.5, [], []), (0.2, 1.0, [0.2667, 0.3556], [2.0, 3.0]), (0.05, -1.0, [0.025, 0.0125], [-1.5, -2.0]),
    ):  # fmt: skip
        assert _beyond_edges(Point(scale, penalty, 0, 1, 0.0), options) == (scales, penalties)
    two = SearchOptions(scales=(0.1, 0.2), penalties=(0.0,))
    assert _beyond_edges(Point(0.2, 0.0, 0, 1, 0.0), two) == ([], [])


def test_shards_are_not_decoded_again(toy: SimpleNamespace, search: Search, tmp_path: Path) -> None:
    cuts = list(CutSet.from_file(toy.features / "cuts_test.jsonl.gz"))[:16]
    decoder = Decoder(load_scorer([toy.model], toy.features, PDFS), [search])
    shards = decoder.run(cuts, SearchOptions(), tmp_path, "test")
    found = [path.read_bytes() for path in shards]
    kept = {"utterances": {"kept": {"reason": ""}}}
    write_json(shards[0], kept)
    shards[1].unlink()
    assert decoder.run(cuts, SearchOptions(), tmp_path, "test") == shards
    assert read_json(shards[0]) == kept
    again, before = json.loads(shards[1].read_bytes()), json.loads(found[1])
    assert again["utterances"] == before["utterances"] and len(found) == 2


def test_bad_features_fail_alone(toy: SimpleNamespace, tmp_path: Path) -> None:
    cuts = list(CutSet.from_file(toy.features / "cuts_test.jsonl.gz"))[:10]
    assert cuts[3].features is not None
    cuts[3].features.storage_key = "absent.npy"
    folder = tmp_path / "cuts"
    folder.mkdir()
    CutSet.from_cuts(cuts).to_file(folder / "cuts_test.jsonl.gz")
    out = tmp_path / "out"
    main(config(toy, out, cuts=folder, splits=("test",)))
    failed = table(out / "failed_test.tsv")
    assert list(failed) == [cuts[3].id] and "absent.npy" in failed[cuts[3].id]
    assert table(out / "hyp_test.tsv")[cuts[3].id] == ""
    assert read_json(out / "decode.json")["splits"]["test"]["failed"] == 1
    with pytest.raises(UserError, match="cuts_absent"):
        main(config(toy, tmp_path / "none", splits=("test", "absent")))
    CutSet.from_cuts(cuts[3:4]).to_file(folder / "cuts_dev.jsonl.gz")
    with pytest.raises(UserError, match=r"no utterance could be decoded \(none dev\); the first one: .*absent.npy"):
        main(config(toy, tmp_path / "none", cuts=folder, splits=("dev",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_active": 10, "max_active": 10}, "must exceed"),
        ({"tune_on": "test"}, "worthless"),
        ({"out": None}, "--out DIR is missing"),
        ({"files": (Path("a.wav"),)}, "are for splits"),
    ],
)
def test_invalid_flags(toy: SimpleNamespace, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(config(toy, **{"out": tmp_path, **values}))


def test_silence_has_one_score_and_is_certain_where_a_recording_is_quiet(toy):
    rng, silence = np.random.default_rng(0), [0, 1, 2]
    plain, scorer = (load_scorer([toy.model], toy.features, PDFS, pdfs) for pdfs in ((), silence))
    features = rng.normal(size=(200, 40)).astype(np.float32)
    features[50:120] = QUIET
    scores, expected = scorer.scores(features, 0, 200), plain.scores(features, 0, 200)
    loud = np.r_[0:50, 120:200]
    assert np.array_equal(scores[loud, 3:], expected[loud, 3:])
    together = np.log(np.exp(expected[loud, :3]).mean(1))  # the prior of the toy is flat
    np.testing.assert_allclose(scores[loud, :3], together[:, None].repeat(3, 1), rtol=1e-4, atol=1e-4)
    assert (scores[50:120, :3] == 0).all() and (scores[50:120, 3:] == NOT_SILENCE).all()


def test_a_model_of_another_graph_is_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    for name in ("HCLG.fst", "words.txt"):
        (tmp_path / "graph" / name).write_bytes((toy.graph / name).read_bytes())
    write_json(tmp_path / "graph" / "graph.json", {"num_pdfs": PDFS + 1})
    with pytest.raises(UserError, match="24 senones but the graph has 25"):
        main(config(toy, tmp_path / "out", graph=tmp_path / "graph"))
    with pytest.raises(UserError, match="holds no finished model"):
        main(config(toy, tmp_path / "out", model=(tmp_path / "graph",)))


def test_pieces_join_into_words(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("<eps> 0\n▁HE 1\nLLO 2\n▁YOU 3\n<UNK> 4\n", encoding="utf-8")
    assert Words(tmp_path).text([1, 2, 4, 3]) == "HELLO <UNK> YOU"
    assert Words(tmp_path).confidences([1, 2, 4, 3], [0.9, 0.8, 0.5, 1.0]) == [0.8, 0.5, 1.0]
    assert Words(tmp_path).text([]) == ""
    write_json(tmp_path / "graph.json", {"num_pdfs": 1})
    assert Words(tmp_path).split("Hello  you\u2019ll") == ["HELLO", "YOU'LL"]
    write_json(tmp_path / "graph.json", {"text": "keep"})
    assert Words(tmp_path).split("Hello  you\u2019ll") == ["Hello", "you'll"]
