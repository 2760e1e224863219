"""``python -m asr_kd.hmm.realign``: align every role again, with a network's scores instead of the GMMs'."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asr_kd.cli import run
from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError

if TYPE_CHECKING:
    from asr_kd.hmm.align import Scorer


@dataclass
class Config(Workers):
    """Forced alignment with a network's scores, or with scores made elsewhere: the same senones, better placed.

    The scores of an utterance are log-likelihoods (log posterior − log prior) of the senones of ``gmm``.
    The result has the form of the folder that python -m asr_kd.hmm makes, and takes its place.
    """

    gmm: Path
    """Folder that python -m asr_kd.hmm filled: the topology, tree and transition model to align with."""
    lang: Path
    """Folder that python -m asr_kd.lang filled."""
    features: Path
    """Folder that python -m asr_kd.features filled: its cuts are aligned."""
    out: Path
    """Folder for the aligned cuts and copies of the models."""
    model: tuple[Path, ...] = ()
    """A network's folder, or several for an ensemble."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""
    scores: Path | None = None
    """Instead of --model, a folder with one (T, C) array per utterance, ID.npy."""


def main(config: Config) -> None:
    sources = config.model if config.scores is None else (config.scores,)
    if not sources or (config.model and config.scores is not None):
        raise UserError("give the scores to align with: either --model or --scores")
    stage = Stage("realign", config.out, config, [config.gmm, *sources, config.lang, config.features])
    if stage.begin():
        scorer: Scorer
        if config.scores is None:
            from asr_kd.hmm.scores import NetworkScores

            scorer = NetworkScores(tuple(path.resolve() for path in config.model), config.features, config.mean)
        else:
            from asr_kd.hmm.scores import StoredScores

            scorer = StoredScores(config.scores.resolve())
        with config.executor() as executor:
            stage.finish(**realign(config.gmm, scorer, config.lang, config.features, config.out, executor))


def realign(gmm_dir: Path, scores: Scorer, lang: Path, features: Path, out: Path, executor: Executor) -> dict[str, Any]:
    """Align every role of ``features`` with any scores.

    Args:
        gmm_dir: topology, tree and transition model.
        scores: cut -> (T, C) float32 log-likelihoods; it must pickle, since it goes to worker processes.
        lang: pronunciations.
        features: folder with cuts_ROLE.jsonl.gz.
        out: filled with what python -m asr_kd.hmm makes.
        executor: who aligns.

    Returns:
        figures of each role.
    """
    from asr_kd.hmm.align import ScoredAlignment
    from asr_kd.hmm.store import align_roles, copy_models, finish
    from asr_kd.storage import read_json

    description = read_json(gmm_dir / "hmm.json")
    out = out.resolve()
    copy_models(gmm_dir, out)
    source = ScoredAlignment(out, lang.resolve(), scores)
    figures = align_roles(executor, source, features, out, description["num_pdfs"])
    return finish(out, {**description, "realigned": True}, figures)


if __name__ == "__main__":
    run(Config, main)
