"""The search through the real k2, on a toy HCLG of 20 words built with Kaldi's own tools."""

from __future__ import annotations

import dataclasses
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
import kaldifst
from decode_toy import PDFS, aborting_python, random_scores

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.decode import kernel, worker
from asr_kd.decode.client import Search, check_scores
from asr_kd.decode.output import lattice_text
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.worker import SearchOptions
from asr_kd.lang.openfst import read_openfst

TOOLS = Path(__file__).parents[2] / "tools"


# ---------------------------------------------------------------------------------------------------- graph


def test_reading_openfst_gives_every_arc(tmp_path: Path) -> None:
    text = "2 0 3 7 0.5\n2 1 4 0 1.5\n0 1 5 8 -0.25\n1 2 0 9\n1 0.75\n0\n"  # starts at state 2
    fst = kaldifst.compile(text, keep_state_numbering=True)
    fst.write(str(tmp_path / "a.fst"))
    arcs, outputs, scores = read_openfst(tmp_path / "a.fst")
    found = {
        (*arc, out, score) for arc, out, score in zip(arcs.tolist(), outputs.tolist(), scores.tolist(), strict=True)
    }
    # States 0 and 2 are exchanged, and state 3 is the final state.
    expected = {
        (0, 2, 3, 7, -0.5), (0, 1, 4, 0, -1.5), (2, 1, 5, 8, 0.25), (1, 0, 0, 9, 0.0),
        (1, 3, -1, 0, -0.75), (2, 3, -1, 0, 0.0),
    }  # fmt: skip
    assert found == expected
    assert (np.diff(arcs[:, 0]) >= 0).all()


def test_a_damaged_graph_is_reported(toy: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    whole = (toy.graph / "HCLG.fst").read_bytes()
    for content in (b"not an FST, surely, but long enough", whole[:50], whole[: len(whole) // 2], b""):
        (tmp_path / "graph" / "HCLG.fst").write_bytes(content)
        with pytest.raises(UserError, match="could not be prepared"):
            prepared_graph(tmp_path / "graph", toy.python)


def test_several_processes_prepare_one_graph(toy: SimpleNamespace, tmp_path: Path) -> None:
    with open(tmp_path / "request", "wb") as file:
        worker.send(file, {}, list(read_openfst(toy.graph / "HCLG.fst")))
    command = [str(toy.python), worker.__file__, "prepare", str(tmp_path / "made" / "graph")]
    with open(tmp_path / "request", "rb") as one, open(tmp_path / "request", "rb") as other:
        processes = [subprocess.Popen(command, stdin=file) for file in (one, other)]
    assert [process.wait() for process in processes] == [0, 0]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["graph"]
    for name in ("arcs", "words", "splits"):
        assert (tmp_path / "made" / "graph" / f"{name}.npy").read_bytes() == (toy.prepared / f"{name}.npy").read_bytes()


# --------------------------------------------------------------------------------------------------- search


@pytest.fixture(scope="module")
def bench_search() -> Iterator[dict[str, Any]]:
    """The names of tools/bench_search.py."""
    sys.path.insert(0, str(TOOLS))
    yield runpy.run_path(str(TOOLS / "bench_search.py"))
    sys.path.remove(str(TOOLS))


def test_the_searches_agree_with_kaldi_decoder(
    toy: SimpleNamespace, search: Search, bench_search: dict[str, Any]
) -> None:
    options = SearchOptions(beam=20.0, max_active=5000, acoustic_scale=0.3)
    searches = {"k2": search} | ({"kernel": Search(toy.prepared, "kernel", PDFS)} if kernel.library() else {})
    decoders = {name: bench_search["searching"](one, options) for name, one in searches.items()}
    decoders["Kaldi"] = bench_search["kaldi"](toy.graph / "HCLG.fst", options)
    result = bench_search["compare"](decoders, random_scores(1, 120), rounds=2)
    for name in searches:
        assert len(result.paths[name]) == result.same_words(name, "Kaldi") == 120
        assert len(result.seconds[name]) == 2 and result.ratio(name, "Kaldi") > 0
        assert result.largest_difference(name, "Kaldi") < 1e-2


@pytest.mark.skipif(kernel.library() is None, reason="there is no C++ compiler")
def test_the_comparison_tool(
    toy: SimpleNamespace, bench_search: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = bench_search["Config"](
        graph=toy.graph, model=(toy.model,), features=toy.features, cuts=toy.features / "cuts_dev.jsonl.gz",
        acoustic_scale=0.5, rounds=1, strict=True, k2_python=toy.python, out=tmp_path / "search.json",
    )  # fmt: skip
    bench_search["main"](flags)
    assert "| 40 of 40 | 40 of 40 |" in capsys.readouterr().out
    rows = read_json(tmp_path / "search.json")["rows"]
    assert [(row["max active"], row["lattices"]) for row in rows] == [
        (2500, "no"), (2500, "yes"), (20000, "no"), (20000, "yes"),
    ]  # fmt: skip
    assert rows[2]["kernel errors"] == rows[2]["k2 errors"] == rows[2]["Kaldi errors"] > 0
    assert all(row["difference from k2"] == 0 for row in rows)
    flags.tolerance = -1.0
    with pytest.raises(UserError, match="the decoders disagree"):
        bench_search["main"](flags)


def test_acoustic_and_graph_scores_are_separate(search: Search) -> None:
    """The acoustic score includes the scale; the graph score is the sum along the path."""
    (matrix,) = random_scores(2, 1)
    (small,) = search([matrix], SearchOptions(acoustic_scale=0.3))
    (large,) = search([matrix * 3], SearchOptions(acoustic_scale=0.1))
    assert small.hypothesis and large.hypothesis
    assert small.hypothesis.words == large.hypothesis.words
    assert small.hypothesis.graph == pytest.approx(large.hypothesis.graph, abs=1e-3)
    assert small.hypothesis.acoustic == pytest.approx(large.hypothesis.acoustic, abs=1e-3)
    assert small.hypothesis.graph < 0


def test_the_grid_agrees_with_separate_searches(search: Search) -> None:
    matrices = random_scores(3, 8)
    wide = SearchOptions(beam=30, lattice_beam=25, max_active=10000, acoustic_scale=0.3)
    grid = dataclasses.replace(wide, scales=(0.25, 0.3, 0.36), penalties=(-0.5, 0.0, 1.0))
    outcomes = search(matrices, grid)
    points = [(scale, penalty) for scale in grid.scales for penalty in grid.penalties]
    for place, (scale, penalty) in enumerate(points):
        direct = search(matrices, dataclasses.replace(wide, acoustic_scale=scale, insertion_penalty=penalty))
        for rescored, separate in zip(outcomes, direct, strict=True):
            assert rescored.hypothesis and separate.hypothesis
            words = rescored.hypothesis.grid[rescored.hypothesis.grid_index[place]]
            assert words == separate.hypothesis.words


def test_a_lattice_contains_the_best_path(search: Search) -> None:
    (matrix,) = random_scores(4, 1)
    (outcome,) = search([matrix], SearchOptions(acoustic_scale=0.3, insertion_penalty=0.5, lattice=True))
    assert outcome.hypothesis and outcome.hypothesis.lattice
    name, *lines = lattice_text("utt", outcome.hypothesis.lattice, 0.3).splitlines()
    assert name == "utt" and lines[-1] == ""
    weighed = []
    for line in lines[:-1]:
        *ends, costs = line.split()
        graph, acoustic = map(float, costs.split(","))
        penalty = 0.5 if len(ends) == 4 and ends[3] != "0" else 0.0
        weighed.append(" ".join([*ends, str(graph + 0.3 * acoustic + penalty)]))
    path = kaldifst.shortest_path(kaldifst.compile("\n".join(weighed)))
    _, frames, words, weight = kaldifst.get_linear_symbol_sequence(path)
    assert list(words) == outcome.hypothesis.words
    assert len(frames) == len(matrix)
    total = outcome.hypothesis.acoustic + outcome.hypothesis.graph - 0.5 * len(outcome.hypothesis.words or [])
    assert -weight.value == pytest.approx(total, abs=0.02)


def test_the_text_of_a_lattice_has_a_line_for_each_word() -> None:
    arcs = np.array([[0, 1, 5], [0, 1, 6], [1, 2, 7], [2, 3, -1]], np.int32)
    scores = np.array([[-1.5, -0.25], [0, 1], [-2, -3], [-1e-5, 0]], np.float32)
    words, row_splits = np.array([8, 9, 4, 3], np.int32), np.array([0, 3, 3, 4, 4], np.int32)
    assert lattice_text("utt", worker.Lattice(arcs, scores, words, row_splits), 0.5).splitlines() == [
        "utt", "0 4 0 8 0,0", "4 5 0 9 0,0", "5 1 5 4 1.5,0.5", "0 1 6 0 -0,-2", "1 2 7 3 2,6", "2 3 0 0 1e-05,-0",
        "3 0,0", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (np.full((9, PDFS), np.nan, dtype=np.float32), "9 of 9 frames are NaN"),
        (np.zeros((9, PDFS + 1), dtype=np.float32), "the graph has 24 senones"),
        (np.zeros((0, PDFS), dtype=np.float32), "no frames"),
        (np.zeros((2, PDFS), dtype=np.float32), "no path reached the end"),  # shorter than a silence
    ],
)
def test_an_invalid_utterance_fails_alone(search: Search, matrix: np.ndarray, reason: str) -> None:
    valid = random_scores(5, 2)
    outcomes = search([valid[0], matrix, valid[1]], SearchOptions())
    assert reason in outcomes[1].reason and outcomes[1].hypothesis is None
    assert outcomes[0].hypothesis and outcomes[2].hypothesis
    assert check_scores(valid[0], PDFS) == ""


# -------------------------------------------------------------------------------------------- workers that die


def test_a_killed_worker_loses_no_utterance(toy: SimpleNamespace) -> None:
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
    found = [o.hypothesis.words for o in outcomes if o.hypothesis]
    assert found == [o.hypothesis.words for o in expected if o.hypothesis]
    assert len(found) == len(matrices)
    search.close()


def test_an_utterance_that_aborts_its_worker_fails_alone(toy: SimpleNamespace, tmp_path: Path) -> None:
    matrices = random_scores(7, 4, longest=70)
    poison = np.zeros((77, PDFS), dtype=np.float32)
    search = Search(toy.prepared, aborting_python(tmp_path, toy.python, 77), PDFS)
    outcomes = search([*matrices[:2], poison, *matrices[2:]], SearchOptions())
    search.close()
    assert [bool(o.hypothesis) for o in outcomes] == [True, True, False, True, True]
    assert "SIGABRT" in outcomes[2].reason and "Check failed" in outcomes[2].reason


def test_an_interpreter_without_k2_is_explained(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did not start"):
        Search(toy.prepared, Path(sys.executable), PDFS)(random_scores(8, 1), SearchOptions())
    with pytest.raises(UserError, match="--k2-python"):
        find_k2_python(toy.root / "absent")
    monkeypatch.setenv("ASR_KD_K2_PYTHON", str(toy.root / "absent"))
    with pytest.raises(UserError, match="variable ASR_KD_K2_PYTHON"):
        find_k2_python()
