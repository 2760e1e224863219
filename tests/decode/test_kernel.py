"""The search by the kernel, against k2's, on the toy graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
from decode_toy import PDFS, random_scores

from asr_kd.common.errors import UserError
from asr_kd.decode import kernel
from asr_kd.decode.__main__ import main
from asr_kd.decode.client import InProcess, Search
from asr_kd.decode.config import Config
from asr_kd.decode.recogniser import make_recogniser
from asr_kd.decode.worker import Hypothesis, SearchOptions


@pytest.fixture
def by_kernel(toy: SimpleNamespace) -> Iterator[Search]:
    if kernel.library() is None:
        pytest.skip("there is no C++ compiler")
    search = Search(toy.prepared, "kernel", PDFS)
    yield search
    search.close()


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(acoustic_scale=0.3),
        SearchOptions(acoustic_scale=0.3, insertion_penalty=0.7, lattice=True),
        SearchOptions(acoustic_scale=0.1, insertion_penalty=-0.5, lattice=True, lattice_beam=9.0, max_active=60),
        SearchOptions(acoustic_scale=1.0, beam=3.0, lattice=True, lattice_beam=8.0, min_active=40),
        SearchOptions(acoustic_scale=0.3, scales=(0.2, 0.3, 0.5), penalties=(-1.0, 0.0, 1.0)),
    ],
)
def test_k2_has_the_same_lattices(search: Search, by_kernel: Search, options: SearchOptions) -> None:
    matrices = [*random_scores(11, 24, longest=200), np.zeros((2, PDFS), np.float32)]  # the last one has no path
    expected, found = ([outcome.hypothesis for outcome in s(matrices, options)] for s in (search, by_kernel))
    assert [h is None for h in found] == [h is None for h in expected] == [False] * 24 + [True]
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        assert one and other
        assert_equal(one, other)
    assert by_kernel.seconds > 0


def assert_equal(one: Hypothesis, other: Hypothesis) -> None:
    assert dataclasses.replace(one, lattice=None) == dataclasses.replace(other, lattice=None)
    assert (one.lattice is None) == (other.lattice is None)
    if one.lattice and other.lattice:
        for name, array in vars(one.lattice).items():
            expected = getattr(other.lattice, name)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected, err_msg=name)


def test_searches_share_a_graph_and_keep_their_penalties(toy: SimpleNamespace, by_kernel: Search) -> None:
    matrices, plain = random_scores(12, 3), SearchOptions(acoustic_scale=0.3)
    before = by_kernel(matrices, plain)
    other = InProcess(toy.prepared, "kernel")
    penalised, _ = other.search(matrices, dataclasses.replace(plain, insertion_penalty=20.0))
    after = by_kernel(matrices, plain)
    assert [o.hypothesis for o in before] == [o.hypothesis for o in after]
    lengths = [len(o.hypothesis.words or []) for o in after if o.hypothesis]
    assert all(len(h.words or []) < length for h, length in zip(penalised, lengths, strict=True))
    assert by_kernel.engine._searcher.graph is other._searcher.graph  # type: ignore[union-attr]


def test_the_kernel_searches_where_it_is_asked_for_and_there_is_a_compiler(
    toy: SimpleNamespace, by_kernel: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("k2", "kernel"):
        settings = Config(
            (toy.model,), toy.graph, toy.features, out=tmp_path / name, splits=("test",), acoustic_scale=0.3, jobs=1,
            search=name, k2_python=toy.python,
        )  # fmt: skip
        assert make_recogniser(settings).by == {"k2": toy.python, "kernel": "kernel"}[name]
        main(settings)
    assert (tmp_path / "k2/hyp_test.tsv").read_bytes() == (tmp_path / "kernel/hyp_test.tsv").read_bytes()
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernel.library.cache_clear()
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        make_recogniser(settings)
    kernel.library.cache_clear()
