"""``python -m asr_kd.hmm.realign``: realigns the corpus with the scores of networks or with stored scores."""

from functools import partial

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, read_json
from asr_kd.hmm.realign.config import Config


def main(config: Config) -> None:
    if bool(config.model) == (config.scores is not None):
        raise UserError("give the scores to align with: either --model or --scores")
    sources = config.model if config.scores is None else (config.scores,)
    inputs = [config.gmm, *sources, config.lang, config.features]
    stage = Stage("realign", config.out, config, inputs, elsewhere=["senones/*"])
    if not stage.begin():
        return
    from asr_kd.hmm.align import ForcedAligner
    from asr_kd.hmm.scores import StoredScores, network_scorer
    from asr_kd.hmm.store import align_splits, copy_models, write_summary
    from asr_kd.models.front_end import check_same_front_end
    from asr_kd.models.senones import check_same_senones

    networks = tuple(path.resolve() for path in config.model)
    load_scorer = (
        partial(network_scorer, networks, config.features.resolve(), config.mean)
        if config.scores is None
        else partial(StoredScores, config.scores.resolve())
    )
    for network in networks:
        check_same_senones(network, config.gmm)
    check_same_front_end(networks, config.features)
    out = config.out.resolve()
    copy_models(config.gmm, out)
    description = read_json(config.gmm / "hmm.json")
    aligner = ForcedAligner(out, config.lang.resolve(), load_scorer)
    with config.executor() as executor:
        statistics = align_splits(executor, aligner, config.features, out, description["num_pdfs"])
    stage.finish(**write_summary(out, {**description, "realigned": True}, statistics))


if __name__ == "__main__":
    run(Config, main)
