"""Fixtures for decoding: an experiment on the toy graph of ``decode_toy``, and a search of that graph."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from asr_kd.common.errors import UserError
from asr_kd.decode.client import Search
from asr_kd.decode.prepare import find_k2_python, prepared_graph


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folders of the experiment, the interpreter that has k2, and the graph prepared for it."""
    from decode_toy import toy_experiment

    try:
        python = find_k2_python()
    except UserError:
        pytest.skip("no interpreter has k2: run tools/setup.sh")
    root = tmp_path_factory.mktemp("exp")
    toy_experiment(root)
    return SimpleNamespace(
        root=root, graph=root / "graph", features=root / "features", model=root / "model", python=python,
        prepared=prepared_graph(root / "graph", python),
    )  # fmt: skip


@pytest.fixture(scope="session")
def search(toy: SimpleNamespace) -> Iterator[Search]:
    from decode_toy import PDFS

    search = Search(toy.prepared, toy.python, PDFS)
    yield search
    search.close()
