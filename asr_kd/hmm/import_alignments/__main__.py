"""``python -m asr_kd.hmm.import_alignments``: senones from alignments made elsewhere (Kaldi's archives)."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.import_alignments.config import Config


def main(config: Config) -> None:
    if config.phones and not config.model:
        raise UserError("--phones needs --model: pdf-ids alone do not tell the phone")
    given = [p for p in (config.model, config.tree, config.phones) if p]
    stage = Stage("import_alignments", config.out, config, [config.features, *config.ark, *given])
    if stage.begin():
        from asr_kd.hmm.import_alignments.kaldi import import_tables

        with config.executor() as executor:
            figures = import_tables(
                config.features, config.ark, config.out, config.model, config.tree, config.phones,
                config.silence_pdfs, executor,
            )  # fmt: skip
        stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
