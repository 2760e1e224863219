"""Rescoring against searches of a graph that was made from the other language model, and the stage's second pass."""

from __future__ import annotations

import dataclasses
import functools
import logging
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
from decode_toy import PDFS, WORDS, spoken_pdfs, toy_arpa, toy_arpa_grammar, toy_graph
from test_decode import config, table

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.decode.__main__ import main
from asr_kd.decode.client import Search, SearchPool
from asr_kd.decode.config import Config
from asr_kd.decode.lattices import Frames, prune
from asr_kd.decode.mbr import word_acceptor
from asr_kd.decode.prepare import prepared_graph
from asr_kd.decode.second_pass import SecondPass, make_second_pass
from asr_kd.decode.worker import Lattice, SearchOptions
from asr_kd.lang.histories import read_histories

NUMBERS = {f"W{number:02d}": number for number in range(1, WORDS + 1)}
WIDE = SearchOptions(beam=40, lattice_beam=10, max_active=20000, acoustic_scale=0.3)


@pytest.fixture(scope="module")
def graphs(toy: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Two graphs and their searches: of a pruned bigram model, and of a trigram model."""
    root = tmp_path_factory.mktemp("graphs")
    toy_arpa(root / "small.arpa", 2, prune=3e-3)
    toy_arpa(root / "large.arpa", 3)
    for name in ("small", "large"):
        toy_graph(root / name, root / f"{name}.arpa")
    searches = [Search(prepared_graph(root / name, toy.python), toy.python, PDFS) for name in ("small", "large")]
    grammars = {name: toy_arpa_grammar(root / f"{name}.arpa") for name in ("small", "large")}
    models = {name: read_histories(root / f"{name}.arpa", NUMBERS, "upper") for name in grammars}

    def gain(name: str, words: tuple[int, ...]) -> float:
        """What a graph gains where it backs off from an n-gram that is listed: its score less the model's."""
        arcs = "".join(f"{place} {place + 1} {word} {word}\n" for place, word in enumerate(words))
        paths = kaldifst.compose(kaldifst.compile(f"{arcs}{len(words)} 0\n"), grammars[name])
        *_, cost = kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(paths))
        state, score = np.array([models[name].start]), 0.0
        for word in words:
            log_prob, state = models[name].step(state, np.array([word]))
            score += float(log_prob[0])
        return -cost.value - score - float(models[name].end(state)[0])

    yield SimpleNamespace(root=root, small=searches[0], large=searches[1], gain=gain)
    for search in searches:
        search.close()


def utterances(count: int) -> list[np.ndarray]:
    """Scores (T, C) of sentences that are hard to tell from others."""
    rng = np.random.default_rng(11)
    scores = []
    for _ in range(count):
        pdfs = spoken_pdfs(rng, rng.integers(1, WORDS + 1, size=rng.integers(1, 6)).tolist())
        matrix = rng.normal(scale=6, size=(len(pdfs), PDFS)).astype(np.float32)
        matrix[np.arange(len(pdfs)), pdfs] += 8
        scores.append(matrix)
    return scores


def sequences(lattice: Lattice | None, penalty: float, beam: float) -> dict[tuple[int, ...], float]:
    """The score of the best path of every sequence of words up to ``beam`` below the best one."""
    assert lattice is not None
    scores = Frames(lattice).scores(1.0, penalty)
    fst = word_acceptor(prune(dataclasses.replace(lattice, scores=scores[:, None]), scores, beam))
    arcs = [list(kaldifst.ArcIterator(fst, state)) for state in range(fst.num_states)]

    @functools.cache
    def ahead(state: int) -> float:
        return max([-fst.final(state).value, *(ahead(arc.nextstate) - arc.weight.value for arc in arcs[state])])

    found: dict[tuple[int, ...], float] = {}
    partial: list[tuple[int, tuple[int, ...], float]] = [(fst.start, (), 0.0)]
    while partial:
        state, words, score = partial.pop()
        if score + ahead(state) > ahead(fst.start) - beam + 0.01:
            if score - fst.final(state).value > ahead(fst.start) - beam + 0.01:
                found[words] = score - fst.final(state).value
            partial += [(arc.nextstate, (*words, arc.ilabel), score - arc.weight.value) for arc in arcs[state]]
    return found


def test_the_same_model_changes_nothing(graphs: SimpleNamespace) -> None:
    second_pass = make_second_pass(graphs.root / "small", graphs.root / "small.arpa", False)
    options = dataclasses.replace(WIDE, insertion_penalty=0.5, lattice=True)
    matrices = utterances(6)
    plain, same = graphs.small(matrices, options), second_pass(graphs.small, matrices, options)
    for before, after in zip(plain, same, strict=True):
        assert before.hypothesis and after.hypothesis
        assert before.hypothesis.words == after.hypothesis.words
        assert before.hypothesis.graph == pytest.approx(after.hypothesis.graph, abs=1e-3)
        assert before.hypothesis.acoustic == pytest.approx(after.hypothesis.acoustic, abs=1e-3)
        best = sum(dataclasses.astuple(before.hypothesis)[1:3]) - 0.5 * len(before.hypothesis.words or [])
        kept = sequences(after.hypothesis.lattice, 0.5, 3.0)
        assert max(kept.values()) == pytest.approx(best, abs=1e-3)
        assert kept == pytest.approx(sequences(before.hypothesis.lattice, 0.5, 3.0), abs=5e-3)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_another_model_gives_the_scores_of_its_own_graph(graphs: SimpleNamespace, penalty: float) -> None:
    second_pass = make_second_pass(graphs.root / "small", graphs.root / "large.arpa", False)
    options = dataclasses.replace(WIDE, insertion_penalty=penalty, lattice=True)
    matrices = utterances(6)
    compared = changed = 0
    found = zip(*(f(matrices, options) for f in (graphs.small, graphs.large)), strict=True)
    rescored = second_pass(graphs.small, matrices, options)
    for (small, large), outcome in zip(found, rescored, strict=True):
        assert small.hypothesis and large.hypothesis and outcome.hypothesis
        assert outcome.hypothesis.words == large.hypothesis.words
        changed += small.hypothesis.words != large.hypothesis.words
        assert outcome.hypothesis.graph == pytest.approx(large.hypothesis.graph, abs=5e-3)
        assert outcome.hypothesis.acoustic == pytest.approx(large.hypothesis.acoustic, abs=5e-3)
        expected = sequences(large.hypothesis.lattice, penalty, 7.0)
        for words, score in sequences(outcome.hypothesis.lattice, penalty, 6.0).items():
            if words in expected:
                gains = [graphs.gain(name, words) for name in ("small", "large")]
                assert score == pytest.approx(expected[words] + gains[0] - gains[1], abs=1e-2)
                compared += 1
    assert changed and compared > 20


def test_the_grid_is_that_of_searches_with_the_other_model(graphs: SimpleNamespace) -> None:
    second_pass = make_second_pass(graphs.root / "small", graphs.root / "large.arpa", True)
    grid = dataclasses.replace(WIDE, scales=(0.25, 0.3, 0.36), penalties=(0.0, 1.0))
    matrices = utterances(6)
    outcomes = second_pass(graphs.small, matrices, grid)
    points = [(scale, penalty) for scale in grid.scales for penalty in grid.penalties]
    for place, (scale, penalty) in enumerate(points):
        direct = graphs.large(matrices, dataclasses.replace(WIDE, acoustic_scale=scale, insertion_penalty=penalty))
        for outcome, separate in zip(outcomes, direct, strict=True):
            assert outcome.hypothesis and separate.hypothesis and outcome.hypothesis.lattice is None
            assert outcome.hypothesis.grid[outcome.hypothesis.grid_index[place]] == separate.hypothesis.words


def test_a_lattice_that_fails_fails_alone(graphs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = utterances(3)
    minimum = SecondPass._refine

    def refine(self: SecondPass, hypothesis: Any, options: SearchOptions) -> None:
        if len(hypothesis.lattice.arcs) == sizes[1]:
            raise MemoryError("too large")
        minimum(self, hypothesis, options)

    plain = graphs.small(matrices, dataclasses.replace(WIDE, lattice=True))
    sizes = [len(o.hypothesis.lattice.arcs) for o in plain]
    monkeypatch.setattr(SecondPass, "_refine", refine)
    outcomes = SecondPass(mbr=True)(graphs.small, matrices, WIDE)
    assert [o.reason for o in outcomes] == ["", "its lattice failed: too large", ""]


# ----------------------------------------------------------------------------------------------------- the stage


def test_the_stage_rescores_and_minimises_errors(
    toy: SimpleNamespace, graphs: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Penalties far below the best one show that tuning goes beyond the edge, with the new weights."""
    chosen = config(
        toy, tmp_path / "rescored", graph=graphs.root / "small", rescore=graphs.root / "large.arpa", mbr=True,
        tune_on="dev", splits=("dev",), acoustic_scale=0.5, scales=(0.4, 0.5), penalties=(-6.0, -5.0, -4.0),
        lattice_beam=8.0,
    )  # fmt: skip
    caplog.set_level(logging.INFO)
    with closing(SearchPool()) as searches:
        main(chosen, searches=searches)
        sweep, tuned = read_json(tmp_path / "rescored/sweep_dev.json"), read_json(tmp_path / "rescored/tuned.json")
        assert sweep["added"]["scales"] == [] and sweep["added"]["penalties"][:2] == [-3.0, -2.0]
        assert len(sweep["points"]) == 2 * (3 + len(sweep["added"]["penalties"]))
        assert tuned["insertion_penalty"] > -4 and "edge of --penalties: trying -3, -2, too" in caplog.text
        hypotheses, sure = (table(tmp_path / f"rescored/{name}_dev.tsv") for name in ("hyp", "confidences"))
        for name, words in hypotheses.items():
            values = [float(value) for value in sure[name].split()]
            assert len(values) == len(words.split()) and all(0 < value <= 1 for value in values)
        main(config(toy, tmp_path / "paths", graph=graphs.root / "small", splits=("dev",), acoustic_scale=0.5,
                    rescore=graphs.root / "large.arpa", lattice_beam=8.0), searches=searches)  # fmt: skip
        main(config(toy, tmp_path / "large", graph=graphs.root / "large", splits=("dev",), acoustic_scale=0.5,
                    lattice_beam=8.0), searches=searches)  # fmt: skip
    rescored, direct = (table(tmp_path / name / "hyp_dev.tsv") for name in ("paths", "large"))
    assert sum(rescored[name] == words for name, words in direct.items()) >= len(direct) - 1
    assert not (tmp_path / "paths/confidences_dev.tsv").exists()


def test_files_are_rescored(
    toy: SimpleNamespace, graphs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their words are those of the graph of the other model, and some differ from those of the graph itself."""
    files = tuple(tmp_path / f"{number}.wav" for number in range(6))
    for seed, path in enumerate(files):
        soundfile.write(path, np.random.default_rng(seed).normal(scale=0.1, size=8000), 16000)

    def words(name: str, **flags: Any) -> list[str]:
        values = {"acoustic_scale": 2.0, "lattice_beam": 8.0, **flags}
        with pytest.raises(SystemExit) as status:
            main(Config((toy.model,), graphs.root / name, toy.features, files, **values), searches=searches)
        assert not status.value.code
        return capsys.readouterr().out.splitlines()

    with closing(SearchPool()) as searches:
        rescored = words("small", rescore=graphs.root / "large.arpa")
        plain = words("small")
        large = words("large")
    assert [line.split("\t")[0] for line in rescored] == list(map(str, files))
    assert rescored == large != plain


def test_models_that_cannot_be_exchanged_are_errors(
    toy: SimpleNamespace, graphs: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"lm.arpa is missing, and with it the weights that --rescore takes out"):
        main(config(toy, tmp_path / "out", rescore=graphs.root / "large.arpa"))
    (tmp_path / "no.arpa").write_text("W01 W02\n")
    with pytest.raises(UserError, match=r"no.arpa is not an ARPA language model"):
        main(config(toy, tmp_path / "out", graph=graphs.root / "small", rescore=tmp_path / "no.arpa"))
    with pytest.raises(UserError, match=r"absent.arpa is missing"):
        main(config(toy, tmp_path / "out", graph=graphs.root / "small", rescore=tmp_path / "absent.arpa"))
