"""``python -m asr_kd.score``: word error rates with confidence intervals, and frame accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, atomic_open, write_json
from asr_kd.score.config import Config


def main(config: Config) -> None:
    names = [path.name for path in config.hyp]
    if len(set(names)) != len(names):
        raise UserError(f"--hyp has two folders of the same name ({', '.join(names)}): rename one of them")
    pairs = [_parse_pair(text, names) for text in config.pairs]
    stage = Stage("score", config.out, config, [*config.hyp, *(_cuts(config.cuts, split) for split in config.splits)])
    if not stage.begin():
        return
    from asr_kd.score.wer import Scores

    scores: dict[str, dict[str, Scores]] = {}
    from asr_kd.score.wer import read_references, score_folder

    for split in config.splits:
        references = read_references(_cuts(config.cuts, split))
        scores[split] = {path.name: score_folder(path, split, references) for path in config.hyp}
    from asr_kd.score.bootstrap import Bootstrap

    bootstrap = Bootstrap(config.bootstrap_by, config.replications, config.seed)
    from asr_kd.score.tables import summary

    systems = {r: {n: summary(s, bootstrap) for n, s in scores[r].items()} for r in config.splits}
    from asr_kd.score.bootstrap import compare

    compared = [
        {"a": a, "b": b, "split": split, **asdict(compare(scores[split][a], scores[split][b], bootstrap))}
        for split in config.splits
        for a, b in pairs
    ]
    settings = {"bootstrap_by": config.bootstrap_by, "replications": config.replications, "seed": config.seed}
    write_json(config.out / "score.json", {"splits": systems, "pairs": compared, **settings})
    from asr_kd.score.tables import markdown

    text = markdown(systems, compared)
    with atomic_open(config.out / "score.md") as file:
        file.write(text)
    print(text, end="")
    stage.finish(systems=len(names), utterances={r: next(iter(s.values()))["utterances"] for r, s in systems.items()})


def _cuts(folder: Path, split: str) -> Path:
    return folder / f"cuts_{split}.jsonl.gz"


def _parse_pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    first, _, second = text.partition(":")
    if first not in names or second not in names:
        raise UserError(f"--pairs {text!r} is not A:B with two of the systems: they are {', '.join(names)}")
    return first, second


if __name__ == "__main__":
    run(Config, main)
