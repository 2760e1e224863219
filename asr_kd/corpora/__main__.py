"""Stage ``python -m asr_kd.corpora``: recordings and transcripts as Lhotse manifests, one pair a split."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, write_json
from asr_kd.corpora.config import Config
from asr_kd.corpora.parts import Part

SPLITS = ("train", "dev", "test")


def main(config: Config) -> None:
    if config.corpus_dir is None and config.corpus == "embedded":
        _embedded(config)
    else:
        _layout(config)


def _layout(config: Config) -> None:
    """A corpus that lies in LibriSpeech layout on disk, or is downloaded to."""
    names = {"train": config.train, "dev": config.dev, "test": config.test}
    if config.corpus_dir is not None:
        root = config.corpus_dir
        missing = [split for split in SPLITS if not names[split]]
        if missing:
            raise UserError(f"--corpus-dir needs the parts of each split: name --{' and --'.join(missing)} too")
    else:
        from asr_kd.corpora.download import DEFAULT_PARTS, fetch

        names = {
            split: names[split] or parts for split, parts in zip(SPLITS, DEFAULT_PARTS[config.corpus], strict=True)
        }
        root = fetch(config.download_dir, [spec for specs in names.values() for spec in specs])
    parts = {split: [Part.parse(root, spec) for spec in specs] for split, specs in names.items()} | _further(config)
    stage = _stage(config, parts, {}, [])
    if stage.begin():
        with config.executor() as executor:
            stage.finish(**_write(config.out, parts, executor))


def _embedded(config: Config) -> None:
    """The synthetic corpus; the code that makes it counts as its input, so a change of it is a new corpus."""
    if config.train or config.dev or config.test:
        raise UserError("--train, --dev and --test name parts of a tree on disk: give its root with --corpus-dir")
    minutes = {"train": config.train_minutes, "dev": config.dev_minutes, "test": config.test_minutes}
    voices = dict(zip(SPLITS, config.voices, strict=True))
    if min(*minutes.values(), *voices.values()) <= 0:
        raise UserError("a split of nothing makes no corpus: give --train-minutes and the like, and --voices, above 0")
    sources = [Path(__file__).parent / f"{name}.py" for name in ("embedded", "espeak", "sentences", "effects")]
    further = _further(config)
    stage = _stage(config, further, {"minutes": minutes, "voices": voices, "seed": config.seed}, sources)
    if not stage.begin():
        return
    from asr_kd.corpora.embedded import make_corpus

    root = config.out / "corpus"
    with config.executor() as executor:
        make_corpus(root, config.out, minutes, voices, config.seed, executor)
        parts = {split: [Part.parse(root, split)] for split in SPLITS} | further
        stage.finish(**_write(config.out, parts, executor))


def _further(config: Config) -> dict[str, list[Part]]:
    """The further test sets, by their name."""
    parts: dict[str, list[Part]] = {}
    for path in config.also:
        part = Part.parse(path.parent, path.name)
        name = part.folder.name
        if name in parts or name in SPLITS:
            raise UserError(f"--also {path}: there is a test set named {name} already, rename the folder")
        parts[name] = [part]
    return parts


def _stage(config: Config, parts: Mapping[str, list[Part]], settings: Mapping[str, Any], sources: list[Path]) -> Stage:
    """The stage as identified by what its splits are made of, not by how that was asked for."""
    labels = {split: [part.label for part in some] for split, some in parts.items()}
    folders = dict.fromkeys(part.folder for some in parts.values() for part in some)
    return Stage("corpora", config.out, {"parts": labels, **settings}, [*sources, *folders])


def _write(out: Path, parts: Mapping[str, list[Part]], executor: Executor) -> dict[str, dict[str, float]]:
    """Write all splits; returns (and writes) the summary."""
    from asr_kd.corpora.librispeech import write_split

    summary: dict[str, dict[str, float]] = {}
    speakers: dict[str, set[str]] = {}
    for split, some in parts.items():
        figures, speakers[split] = write_split(out, split, some, executor)
        summary[split] = figures
        print(
            f"{split}: {figures['utterances']} utterances, {figures['speakers']} speakers, "
            f"{figures['hours']:.2f} h, {figures['skipped']} skipped", flush=True,
        )  # fmt: skip
        shared = speakers["train"] & speakers[split] if split != "train" else set()
        if shared:
            print(
                f"warning: {len(shared)} of the {figures['speakers']} speakers of {split} are in train too "
                f"(such as {min(shared)}), so {split} says little about new speakers", flush=True,
            )  # fmt: skip
    write_json(out / "summary.json", summary)
    return summary


if __name__ == "__main__":
    run(Config, main)
