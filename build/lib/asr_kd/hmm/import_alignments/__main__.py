"""``python -m asr_kd.hmm.import_alignments``: imports alignments made elsewhere as senones of the cuts."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.hmm.import_alignments.config import Config, check


def main(config: Config) -> None:
    check(config)
    given = [path for path in (config.model, config.tree, config.phones, config.lang) if path]
    inputs = [config.features, *config.ark, *config.ctm, *config.textgrids, *given]
    stage = Stage("import_alignments", config.out, config, inputs, elsewhere=["senones/*"])
    if not stage.begin():
        return
    from asr_kd.hmm.import_alignments.kaldi_alignments import import_alignments
    from asr_kd.hmm.import_alignments.phones import import_phones

    stage.finish(**(import_alignments if config.ark else import_phones)(config))


if __name__ == "__main__":
    run(Config, main)
