"""``python -m asr_kd.hmm.realign``: align every split again, with a network's scores instead of the GMMs'."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from asr_kd.common.storage import read_json
from asr_kd.hmm.align import ScoredAlignment, Scorer
from asr_kd.hmm.store import align_splits, copy_models, finish


def realign(gmm_dir: Path, scores: Scorer, lang: Path, features: Path, out: Path, executor: Executor) -> dict[str, Any]:
    """Align every split of ``features`` with any scores.

    Args:
        gmm_dir: topology, tree and transition model.
        scores: cut -> (T, C) float32 log-likelihoods; it must pickle, since it goes to worker processes.
        lang: pronunciations.
        features: folder with cuts_SPLIT.jsonl.gz.
        out: filled with what python -m asr_kd.hmm makes.
        executor: who aligns.

    Returns:
        figures of each split.
    """
    description = read_json(gmm_dir / "hmm.json")
    out = out.resolve()
    copy_models(gmm_dir, out)
    source = ScoredAlignment(out, lang.resolve(), scores)
    figures = align_splits(executor, source, features, out, description["num_pdfs"])
    return finish(out, {**description, "realigned": True}, figures)
