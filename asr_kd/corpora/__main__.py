"""Stage ``python -m asr_kd.corpora``: recordings and transcripts as Lhotse manifests, one pair a role."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asr_kd.cli import run
from asr_kd.corpora.parts import Part
from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError, write_json

ROLES = ("train", "dev", "test")


@dataclass
class Config(Workers):
    """Prepare a corpus: Lhotse manifests of the roles train, dev and test (and of further test sets).

    A part is a folder in LibriSpeech layout, NAME or NAME:i/n, the i-th of n disjoint groups of its speakers
    with about as many utterances each.  Bad utterances are skipped and listed in skipped_ROLE.tsv.
    """

    out: Path
    """Folder for the manifests."""
    corpus: Literal["embedded", "mini_librispeech", "train-clean-100", "librispeech"] = "embedded"
    """What to use without --corpus-dir: a synthetic corpus made on the spot, or a download."""
    corpus_dir: Path | None = None
    """Root of a tree in LibriSpeech layout, with --train, --dev and --test."""
    train: tuple[str, ...] = ()
    """Parts to train on."""
    dev: tuple[str, ...] = ()
    """Parts to tune on."""
    test: tuple[str, ...] = ()
    """Parts to test on."""
    also: tuple[Path, ...] = ()
    """Further test sets, ROOT/PART each, named by their part."""
    download_dir: Path = Path("data")
    """Where downloads go."""
    train_minutes: float = 60.0
    """Size of the embedded corpus's train role, in minutes of speech."""
    dev_minutes: float = 6.0
    """The same for dev."""
    test_minutes: float = 12.0
    """The same for test."""
    voices: tuple[int, int, int] = (48, 8, 16)
    """Voices of the embedded corpus's train, dev and test roles."""
    seed: int = 0
    """Seed of the embedded corpus."""


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
        missing = [role for role in ROLES if not names[role]]
        if missing:
            raise UserError(f"--corpus-dir needs the parts of each role: name --{' and --'.join(missing)} too")
    else:
        from asr_kd.corpora.download import DEFAULT_PARTS, fetch

        names = {role: names[role] or parts for role, parts in zip(ROLES, DEFAULT_PARTS[config.corpus], strict=True)}
        root = fetch(config.download_dir, [spec for specs in names.values() for spec in specs])
    parts = {role: [Part.parse(root, spec) for spec in specs] for role, specs in names.items()} | _further(config)
    stage = _stage(config, parts, {}, [])
    if stage.begin():
        with config.executor() as executor:
            stage.finish(**_write(config.out, parts, executor))


def _embedded(config: Config) -> None:
    """The synthetic corpus; the code that makes it counts as its input, so a change of it is a new corpus."""
    if config.train or config.dev or config.test:
        raise UserError("--train, --dev and --test name parts of a tree on disk: give its root with --corpus-dir")
    minutes = {"train": config.train_minutes, "dev": config.dev_minutes, "test": config.test_minutes}
    voices = dict(zip(ROLES, config.voices, strict=True))
    if min(*minutes.values(), *voices.values()) <= 0:
        raise UserError("a role of nothing makes no corpus: give --train-minutes and the like, and --voices, above 0")
    sources = [Path(__file__).parent / f"{name}.py" for name in ("embedded", "espeak", "sentences", "effects")]
    further = _further(config)
    stage = _stage(config, further, {"minutes": minutes, "voices": voices, "seed": config.seed}, sources)
    if not stage.begin():
        return
    from asr_kd.corpora.embedded import make_corpus

    root = config.out / "corpus"
    with config.executor() as executor:
        make_corpus(root, config.out, minutes, voices, config.seed, executor)
        parts = {role: [Part.parse(root, role)] for role in ROLES} | further
        stage.finish(**_write(config.out, parts, executor))


def _further(config: Config) -> dict[str, list[Part]]:
    """The further test sets, by their name."""
    parts: dict[str, list[Part]] = {}
    for path in config.also:
        part = Part.parse(path.parent, path.name)
        name = part.folder.name
        if name in parts or name in ROLES:
            raise UserError(f"--also {path}: there is a test set named {name} already, rename the folder")
        parts[name] = [part]
    return parts


def _stage(config: Config, parts: Mapping[str, list[Part]], settings: Mapping[str, Any], sources: list[Path]) -> Stage:
    """The stage as identified by what its roles are made of, not by how that was asked for."""
    labels = {role: [part.label for part in some] for role, some in parts.items()}
    folders = dict.fromkeys(part.folder for some in parts.values() for part in some)
    return Stage("corpora", config.out, {"parts": labels, **settings}, [*sources, *folders])


def _write(out: Path, parts: Mapping[str, list[Part]], executor: Executor) -> dict[str, dict[str, float]]:
    """Write all roles; returns (and writes) the summary."""
    from asr_kd.corpora.layout import write_role

    summary: dict[str, dict[str, float]] = {}
    speakers: dict[str, set[str]] = {}
    for role, some in parts.items():
        figures, speakers[role] = write_role(out, role, some, executor)
        summary[role] = figures
        print(
            f"{role}: {figures['utterances']} utterances, {figures['speakers']} speakers, "
            f"{figures['hours']:.2f} h, {figures['skipped']} skipped", flush=True,
        )  # fmt: skip
        shared = speakers["train"] & speakers[role] if role != "train" else set()
        if shared:
            print(
                f"warning: {len(shared)} of the {figures['speakers']} speakers of {role} are in train too "
                f"(such as {min(shared)}), so {role} says little about new speakers", flush=True,
            )  # fmt: skip
    write_json(out / "summary.json", summary)
    return summary


if __name__ == "__main__":
    run(Config, main)
