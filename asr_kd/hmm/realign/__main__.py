"""``python -m asr_kd.hmm.realign``: aligns the corpus again with a network's scores, or with stored scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.realign.config import Config

if TYPE_CHECKING:
    from asr_kd.hmm.align import Scorer


def main(config: Config) -> None:
    sources = config.model if config.scores is None else (config.scores,)
    if not sources or (config.model and config.scores is not None):
        raise UserError("give the scores to align with: either --model or --scores")
    stage = Stage("realign", config.out, config, [config.gmm, *sources, config.lang, config.features])
    from asr_kd.hmm.realign.align import realign

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


if __name__ == "__main__":
    run(Config, main)
