"""Decoding through the real k2, on a toy HCLG of 20 words made with Kaldi's own pieces."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
import kaldifst
import soundfile
from decode_toy import PDFS, WORDS, toy_cuts, toy_graph, toy_model
from lhotse import CutSet

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.decode.__main__ import main
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search, SearchPool, check_scores
from asr_kd.decode.config import Config
from asr_kd.decode.output import Words, lattice_text
from asr_kd.decode.pipeline import Decoder
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.tuning import smooth_errors
from asr_kd.decode.worker import SearchOptions, prepare, read_openfst

CHECK_DECODERS = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "check_decoders.py"))


def k2_python() -> Path:
    try:
        return find_k2_python()
    except UserError:
        pytest.skip("no interpreter with k2: run tools/setup.sh")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    python = k2_python()
    root = tmp_path_factory.mktemp("exp")
    toy_graph(root / "graph")
    toy_model(root / "model")
    features = root / "features"
    toy_cuts(features, "dev", 40, seed=1)
    toy_cuts(features, "test", 70, seed=2)
    write_json(features / "cmvn.json", {"normalise": "speaker", "normalise_over": "all", "speakers": ["toy"]})
    identity = np.stack([np.zeros(40), np.ones(40)])
    np.save(features / "cmvn_speakers.npy", identity[None])
    np.save(features / "cmvn_global.npy", identity)
    return SimpleNamespace(
        root=root, graph=root / "graph", features=features, model=root / "model", python=python,
        prepared=prepared_graph(root / "graph", python),
    )  # fmt: skip


@pytest.fixture(scope="module")
def search(toy: SimpleNamespace) -> Iterator[Search]:
    search = Search(toy.prepared, toy.python, PDFS)
    yield search
    search.close()


def random_scores(seed: int, count: int, longest: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=5, size=(int(t), PDFS)).astype(np.float32) for t in rng.integers(20, longest, size=count)]


def config(toy: SimpleNamespace, out: Path | None, **values: Any) -> Config:
    given = {"model": (toy.model,), "graph": toy.graph, "features": toy.features, "out": out, "jobs": 1}
    return Config(**{**given, **values})


# ---------------------------------------------------------------------------------------------------- graph


def test_reading_openfst_gives_every_arc(tmp_path: Path) -> None:
    text = "2 0 3 7 0.5\n2 1 4 0 1.5\n0 1 5 8 -0.25\n1 2 0 9\n1 0.75\n0\n"  # starts at state 2
    fst = kaldifst.compile(text, keep_state_numbering=True)
    fst.write(str(tmp_path / "a.fst"))
    arcs, outputs, scores = read_openfst(tmp_path / "a.fst")
    found = {
        (*arc, out, score) for arc, out, score in zip(arcs.tolist(), outputs.tolist(), scores.tolist(), strict=True)
    }
    # States 0 and 2 change names, state 3 is the final one.
    expected = {
        (0, 2, 3, 7, -0.5), (0, 1, 4, 0, -1.5), (2, 1, 5, 8, 0.25), (1, 0, 0, 9, 0.0),
        (1, 3, -1, 0, -0.75), (2, 3, -1, 0, 0.0),
    }  # fmt: skip
    assert found == expected
    assert (np.diff(arcs[:, 0]) >= 0).all()


def test_a_damaged_graph_is_named(toy: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "HCLG.fst").write_bytes(b"not an FST, surely, but long enough")
    with pytest.raises(UserError, match="could not be prepared"):
        prepared_graph(tmp_path / "graph", toy.python)


def test_several_processes_prepare_one_graph(toy: SimpleNamespace, tmp_path: Path) -> None:
    worker = Path(prepare.__code__.co_filename)
    command = [str(toy.python), str(worker), "prepare", str(toy.graph / "HCLG.fst"), str(tmp_path / "made")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    for name in ("arcs", "words", "splits"):
        assert (tmp_path / "made" / f"{name}.npy").read_bytes() == (toy.prepared / f"{name}.npy").read_bytes()


# --------------------------------------------------------------------------------------------------- search


def test_k2_agrees_with_kaldi_decoder(toy: SimpleNamespace, search: Search) -> None:
    options = SearchOptions(beam=20.0, max_active=5000, acoustic_scale=0.3)
    result = CHECK_DECODERS["compare"](toy.graph / "HCLG.fst", search, iter(random_scores(1, 120)), options)
    assert result.utterances == result.same_words == 120
    assert result.largest_difference < 1e-2


def test_the_comparing_tool(toy: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    flags = CHECK_DECODERS["Config"](
        graph=toy.graph, model=(toy.model,), features=toy.features, cuts=toy.features / "cuts_dev.jsonl.gz",
        acoustic_scale=0.5, k2_python=toy.python,
    )  # fmt: skip
    CHECK_DECODERS["main"](flags)
    assert "same words: 40 of 40" in capsys.readouterr().out


def test_scores_are_told_apart(search: Search) -> None:
    """The acoustic part grows with the scale; the graph's part is the sum along the path."""
    (matrix,) = random_scores(2, 1)
    (small,) = search([matrix], SearchOptions(acoustic_scale=0.3))
    (large,) = search([matrix * 3], SearchOptions(acoustic_scale=0.1))
    assert small.found and large.found
    assert small.found.words == large.found.words
    assert small.found.graph == pytest.approx(large.found.graph, abs=1e-3)
    assert small.found.acoustic == pytest.approx(large.found.acoustic, abs=1e-3)
    assert small.found.graph < 0


def test_the_grid_finds_what_searches_find(search: Search) -> None:
    matrices = random_scores(3, 8)
    wide = SearchOptions(beam=30, lattice_beam=25, max_active=10000, acoustic_scale=0.3)
    grid = dataclasses.replace(wide, scales=(0.25, 0.3, 0.36), penalties=(-0.5, 0.0, 1.0))
    outcomes = search(matrices, grid)
    points = [(scale, penalty) for scale in grid.scales for penalty in grid.penalties]
    for place, (scale, penalty) in enumerate(points):
        direct = search(matrices, dataclasses.replace(wide, acoustic_scale=scale, insertion_penalty=penalty))
        for swept, alone in zip(outcomes, direct, strict=True):
            assert swept.found and alone.found
            assert swept.found.grid[swept.found.grid_index[place]] == alone.found.words


def test_a_lattice_holds_the_best_path(search: Search) -> None:
    (matrix,) = random_scores(4, 1)
    (outcome,) = search([matrix], SearchOptions(acoustic_scale=0.3, insertion_penalty=0.5, lattice=True))
    assert outcome.found and outcome.found.lattice
    name, *lines = lattice_text("utt", outcome.found.lattice, 0.3).splitlines()
    assert name == "utt" and lines[-1] == ""
    weighed = []
    for line in lines[:-1]:
        *ends, costs = line.split()
        graph, acoustic = map(float, costs.split(","))
        penalty = 0.5 if len(ends) == 4 and ends[3] != "0" else 0.0
        weighed.append(" ".join([*ends, str(graph + 0.3 * acoustic + penalty)]))
    path = kaldifst.shortest_path(kaldifst.compile("\n".join(weighed)))
    _, frames, words, weight = kaldifst.get_linear_symbol_sequence(path)
    assert list(words) == outcome.found.words
    assert len(frames) == len(matrix)
    total = outcome.found.acoustic + outcome.found.graph - 0.5 * len(outcome.found.words or [])
    assert -weight.value == pytest.approx(total, abs=0.02)


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (np.full((9, PDFS), np.nan, dtype=np.float32), "9 of 9 frames are NaN"),
        (np.zeros((9, PDFS + 1), dtype=np.float32), "the graph has 24 senones"),
        (np.zeros((0, PDFS), dtype=np.float32), "no frames"),
        (np.zeros((2, PDFS), dtype=np.float32), "no path reached the end"),  # shorter than a silence
    ],
)
def test_poison_fails_alone(search: Search, matrix: np.ndarray, reason: str) -> None:
    good = random_scores(5, 2)
    outcomes = search([good[0], matrix, good[1]], SearchOptions())
    assert reason in outcomes[1].reason and outcomes[1].found is None
    assert outcomes[0].found and outcomes[2].found
    assert check_scores(good[0], PDFS) == ""


# -------------------------------------------------------------------------------------------- dying workers


def test_a_worker_killed_in_the_middle_loses_nothing(toy: SimpleNamespace) -> None:
    search = Search(toy.prepared, toy.python, PDFS)
    matrices = random_scores(6, 24, longest=400)
    options = SearchOptions(beam=30, max_active=10000, acoustic_scale=0.3)
    expected = search(matrices, options)
    first = search.engine.process.pid  # type: ignore[union-attr]
    started = time.perf_counter()
    search(matrices, options)
    half = (time.perf_counter() - started) / 2
    threading.Timer(half, os.kill, (first, signal.SIGKILL)).start()
    outcomes = search(matrices, options)
    assert search.engine.process.pid != first  # type: ignore[union-attr]
    assert [o.found.words for o in outcomes if o.found] == [o.found.words for o in expected if o.found]
    assert len([o for o in outcomes if o.found]) == len(matrices)
    search.close()


def test_an_utterance_that_aborts_its_worker_is_left_out(toy: SimpleNamespace, tmp_path: Path) -> None:
    """The real worker with an abort() put in for matrices of 77 frames."""
    (tmp_path / "aborting.py").write_text(
        "import importlib.util, os, sys\n"
        "spec = importlib.util.spec_from_file_location('worker', sys.argv[1])\n"
        "worker = sys.modules['worker'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(worker)\n"
        "search = worker.Searcher.search\n"
        "def poisoned(self, scores, options):\n"
        "    if any(len(matrix) == 77 for matrix in scores):\n"
        "        print('[F] somewhere.cu:1 Check failed: something', file=sys.stderr, flush=True)\n"
        "        os.abort()\n"
        "    print('noise on stdout')\n"
        "    return search(self, scores, options)\n"
        "worker.Searcher.search = poisoned\n"
        "worker.main(sys.argv[2:])\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {toy.python} {tmp_path}/aborting.py "$@"\n')
    python.chmod(0o755)
    matrices = random_scores(7, 4, longest=70)
    poison = np.zeros((77, PDFS), dtype=np.float32)
    search = Search(toy.prepared, python, PDFS)
    outcomes = search([*matrices[:2], poison, *matrices[2:]], SearchOptions())
    search.close()
    assert [bool(o.found) for o in outcomes] == [True, True, False, True, True]
    assert "SIGABRT" in outcomes[2].reason and "Check failed" in outcomes[2].reason


def test_an_interpreter_without_k2_is_explained(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did not start"):
        Search(toy.prepared, Path(sys.executable), PDFS)(random_scores(8, 1), SearchOptions())
    with pytest.raises(UserError, match="--k2-python"):
        find_k2_python(toy.root / "absent")
    monkeypatch.setenv("ASR_KD_K2_PYTHON", str(toy.root / "absent"))
    with pytest.raises(UserError, match="variable ASR_KD_K2_PYTHON"):
        find_k2_python()


# ---------------------------------------------------------------------------------------------------- stage


def table(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


def test_tunes_on_dev_then_decodes(toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    right = sum(hypotheses[cut.id] == cut.supervisions[0].text for cut in cuts)
    assert right > 20
    figures = read_json(out / "decode.json")
    assert figures["options"]["acoustic_scale"] == tuned["acoustic_scale"]
    assert figures["splits"]["test"]["failed"] == 0 and figures["splits"]["test"]["search_rtf"] > 0
    with gzip.open(out / "lattices_test.gz", "rt") as file:
        assert {line.strip() for line in file if line.startswith("test-")} == set(hypotheses)
    assert not (out / "shards").exists()

    main(chosen)
    assert "up to date" in capsys.readouterr().out

    again = tmp_path / "again"
    main(config(toy, again, tuned=out / "tuned.json", lattice_beam=3.0, splits=("test",), jobs=2))
    assert (again / "hyp_test.tsv").read_bytes() == (out / "hyp_test.tsv").read_bytes()


def test_a_cluster_finds_the_same_words(toy: SimpleNamespace, tmp_path: Path, scheduler: str) -> None:
    for name, address in (("near", ""), ("far", scheduler)):
        main(config(toy, tmp_path / name, splits=("dev", "test"), scheduler=address))
    for name in ("hyp_dev.tsv", "hyp_test.tsv"):
        assert (tmp_path / "near" / name).read_bytes() == (tmp_path / "far" / name).read_bytes()


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


def test_tuning_passes_over_a_lucky_point() -> None:
    """A lone 5 among 20s loses to the middle of a plain of 9s."""
    errors = [[20, 20, 20, 20, 20], [20, 5, 20, 9, 9], [20, 20, 20, 9, 8], [20, 20, 20, 9, 9]]
    around = smooth_errors([e for row in errors for e in row], scales=4, penalties=5)
    assert around.index(min(around)) == 14
    assert around[0] == 20


def test_tuning_does_not_favour_the_edge() -> None:
    """Errors that fall from the edge inwards go on rising outside."""
    row = [10.0, 8.0, 7.0, 9.0, 12.0]
    around = smooth_errors([*row] * 3, scales=3, penalties=5)
    assert around[5:10] == pytest.approx([10.0, 25 / 3, 8.0, 28 / 3, 12.0])
    assert smooth_errors([4], scales=1, penalties=1) == [4.0]


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


def test_files_on_the_command_line(toy: SimpleNamespace, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    soundfile.write(tmp_path / "stereo.wav", rng.normal(scale=0.1, size=(8000, 2)), 8000)
    soundfile.write(tmp_path / "mono.flac", rng.normal(scale=0.1, size=16000), 16000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF....WAVE")
    files = [tmp_path / name for name in ("stereo.wav", "bad.wav", "mono.flac")]
    command = [
        sys.executable, "-m", "asr_kd.decode", "--model", toy.model, "--graph", toy.graph,
        "--k2-python", toy.python, "--features", toy.features, *files,
    ]  # fmt: skip
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["stereo.wav", "mono.flac"]
    assert set(" ".join(line[1] for line in lines).split()) <= {f"W{i:02d}" for i in range(1, WORDS + 1)}
    assert "bad.wav" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_active": 10, "max_active": 10}, "must exceed"),
        ({"tune_on": "test"}, "worthless"),
        ({"acoustic_scale": 0.0}, "positive"),
        ({"out": None}, "--out DIR is missing"),
    ],
)
def test_senseless_flags(toy: SimpleNamespace, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(config(toy, **{"out": tmp_path, **values}))


def test_a_model_of_another_graph_is_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    for name in ("HCLG.fst", "words.txt"):
        (tmp_path / "graph" / name).write_bytes((toy.graph / name).read_bytes())
    write_json(tmp_path / "graph" / "graph.json", {"num_pdfs": PDFS + 1})
    with pytest.raises(UserError, match="24 senones, the graph 25"):
        main(config(toy, tmp_path / "out", graph=tmp_path / "graph"))
    with pytest.raises(UserError, match="holds no finished model"):
        main(config(toy, tmp_path / "out", model=(tmp_path / "graph",)))


def test_pieces_join_into_words(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("<eps> 0\n▁HE 1\nLLO 2\n▁YOU 3\n<UNK> 4\n", encoding="utf-8")
    assert Words(tmp_path).text([1, 2, 4, 3]) == "HELLO <UNK> YOU"
    assert Words(tmp_path).text([]) == ""
