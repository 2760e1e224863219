"""The lattices that k2 writes, as sequence training reads them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("kaldifst")
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.__main__ import main
from asr_kd.decode.config import Config
from asr_kd.features.normalise import Normaliser
from asr_kd.lattices.__main__ import main as lattices_stage
from asr_kd.lattices.batch import LatticeBatch
from asr_kd.lattices.config import Config as LatticesConfig
from asr_kd.lattices.criteria import SequenceCriterion
from asr_kd.lattices.store import LatticeStore
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.models.posteriors import ensemble_logits


def test_a_network_has_no_divergence_from_its_own_lattices(toy: SimpleNamespace, tmp_path: Path) -> None:
    """The scores of sequence training are those of the search, on every arc of real lattices."""
    main(
        Config(
            (toy.model,), toy.graph, toy.features, splits=("dev",), out=tmp_path / "out", lattices=True,
            lattice_beam=6.0, acoustic_scale=0.3, insertion_penalty=0.5, k2_python=toy.python, jobs=1,
        )
    )  # fmt: skip
    lattices_stage(LatticesConfig(tmp_path / "out", tmp_path / "lattices", splits=("dev",)))
    store, model, normalise = (
        LatticeStore(tmp_path / "lattices", "dev"),
        load_model(toy.model),
        Normaliser.load(toy.features),
    )
    criterion = SequenceCriterion("kl", store.scale, torch.from_numpy(load_log_prior(toy.model)))
    cuts = [cut for cut in load_cuts(toy.features, "dev") if not store.fault(cut.id, cut.num_frames)]
    assert len(cuts) > 30
    logits = torch.cat([ensemble_logits([model], normalise(cut))[0] for cut in cuts]).clone().requires_grad_()
    batch = LatticeBatch.of([store.read(cut.id) for cut in cuts])
    quiet, labels = torch.zeros(len(logits), dtype=torch.bool), torch.full((len(logits),), -100)
    frame = criterion.frame_scores(logits, batch.row, batch.pdf, quiet).detach()
    np.testing.assert_allclose(frame[~batch.final], batch.acoustic[~batch.final], atol=1e-3)
    loss, _ = criterion(logits, labels, quiet, batch)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert gradient.abs().max() * len(logits) < 1e-2
