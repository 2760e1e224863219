"""``python -m asr_kd.corpora``: writes Lhotse cuts with transcripts, a manifest per split."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.corpora.config import Config
from asr_kd.corpora.parts import Options, Part

SPLITS = ("train", "dev", "test")


def main(config: Config) -> None:
    if config.corpus == "embedded" and config.corpus_dir is None and not (config.train or config.dev or config.test):
        _prepare_embedded(config)
    else:
        _prepare_parts(config)


def _prepare_parts(config: Config) -> None:
    """Prepare a corpus that is on disk or can be downloaded."""
    names = {"train": config.train, "dev": config.dev, "test": config.test}
    if config.corpus_dir is not None or config.corpus == "embedded":
        root = config.corpus_dir or Path()
        missing = [split for split in SPLITS if not names[split]]
        if missing:
            raise UserError(f"a corpus of your own needs the parts of each split: name --{' and --'.join(missing)} too")
    else:
        from asr_kd.corpora.download import DEFAULT_PARTS, fetch

        defaults = dict(zip(SPLITS, DEFAULT_PARTS[config.corpus], strict=True))
        names = {split: names[split] or defaults[split] for split in SPLITS}
        root = fetch(config.download_dir, [spec for specs in names.values() for spec in specs])
    parts = {split: [Part.parse(root, spec) for spec in specs] for split, specs in names.items()}
    parts |= _extra_test_sets(config)
    stage = _stage(config, parts, {}, [])
    if not stage.begin():
        return
    from asr_kd.corpora.splits import write_splits

    with config.executor() as executor:
        stage.finish(**write_splits(config.out, parts, config, executor))


def _prepare_embedded(config: Config) -> None:
    """Synthesise and prepare the embedded corpus, of which its code is an input: a change makes the corpus outdated."""
    minutes = {"train": config.train_minutes, "dev": config.dev_minutes, "test": config.test_minutes}
    voices = dict(zip(SPLITS, config.voices, strict=True))
    sources = [Path(__file__).parent / f"{name}.py" for name in ("embedded", "espeak", "sentences", "effects")]
    extra = _extra_test_sets(config)
    stage = _stage(config, extra, {"minutes": minutes, "voices": voices, "seed": config.seed}, sources)
    if not stage.begin():
        return
    from asr_kd.corpora.embedded import make_corpus
    from asr_kd.corpora.splits import write_splits

    root = config.out / "corpus"
    with config.executor() as executor:
        make_corpus(root, config.out, minutes, voices, config.seed, executor)
        parts = {split: [Part.parse(root, split)] for split in SPLITS} | extra
        stage.finish(**write_splits(config.out, parts, config, executor))


def _extra_test_sets(config: Config) -> dict[str, list[Part]]:
    """The test sets of ``--also``, by name."""
    parts: dict[str, list[Part]] = {}
    for path in config.also:
        part = Part.parse(Path(), str(path))
        name = part.name
        if name in parts or name in SPLITS:
            raise UserError(f"--also {path}: there already is a test set named {name}, so rename the folder or file")
        parts[name] = [part]
    return parts


def _stage(config: Config, parts: Mapping[str, list[Part]], settings: Mapping[str, Any], sources: list[Path]) -> Stage:
    """The stage, identified by the parts of its splits rather than by the flags that named them."""
    labels = {split: [part.label for part in members] for split, members in parts.items()}
    inputs = dict.fromkeys(path for members in parts.values() for part in members for path in part.inputs)
    options = {field.name: getattr(config, field.name) for field in fields(Options)}
    audio = [config.audio_dir] if config.audio_dir else []
    return Stage("corpora", config.out, {"parts": labels, **options, **settings}, [*sources, *inputs, *audio])


if __name__ == "__main__":
    run(Config, main)
