"""``python -m asr_kd.hmm.import_alignments``: imports alignments made with Kaldi as senones of the cuts."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.import_alignments.config import Config


def main(config: Config) -> None:
    if config.phones and not config.model:
        raise UserError("--phones needs --model: pdf-ids alone do not determine the phone")
    given = [path for path in (config.model, config.tree, config.phones) if path]
    inputs = [config.features, *config.ark, *given]
    stage = Stage("import_alignments", config.out, config, inputs, elsewhere=["senones/*"])
    if not stage.begin():
        return
    from asr_kd.hmm.import_alignments.kaldi_alignments import import_alignments

    stage.finish(**import_alignments(config))


if __name__ == "__main__":
    run(Config, main)
