"""``python -m asr_kd.hmm.import_alignments``: senones from alignments made elsewhere (Kaldi's archives)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.cli import run
from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError


@dataclass
class Config(Workers):
    """Put alignments made elsewhere on the cuts: one pdf-id per frame, or transition-ids with --model.

    Utterances without an alignment, or with one that is more than 3 frames longer or shorter than the
    features, are skipped and listed in skipped_ROLE.tsv.
    """

    features: Path
    """Folder that python -m asr_kd.features filled."""
    ark: tuple[Path, ...]
    """Kaldi tables of integer vectors by utterance: .ark, .ark.gz (or ali.1.gz), .scp."""
    out: Path
    """Folder for the aligned cuts."""
    model: Path | None = None
    """Kaldi's .mdl (binary): the vectors hold its transition-ids, as ali.*.gz do, not pdf-ids."""
    tree: Path | None = None
    """Kaldi's tree of that model; with both, a decoding graph can be made."""
    phones: Path | None = None
    """Kaldi's phones.txt, names for the model's phones; those that begin with SIL, SPN or NSN are silence."""
    silence_pdfs: tuple[int, ...] = ()
    """pdf-ids of silence, when --phones does not tell."""


def main(config: Config) -> None:
    if config.phones and not config.model:
        raise UserError("--phones needs --model: pdf-ids alone do not tell the phone")
    given = [p for p in (config.model, config.tree, config.phones) if p]
    stage = Stage("import_alignments", config.out, config, [config.features, *config.ark, *given])
    if stage.begin():
        from asr_kd.hmm.imported import import_tables

        with config.executor() as executor:
            figures = import_tables(
                config.features, config.ark, config.out, config.model, config.tree, config.phones,
                config.silence_pdfs, executor,
            )  # fmt: skip
        stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
