"""``python -m asr_kd.score``: word error rates with confidence intervals, comparisons and frame accuracies."""

from collections.abc import Sequence
from pathlib import Path

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, atomic_open, is_finished, write_json
from asr_kd.score.config import Config


def main(config: Config) -> None:
    from asr_kd.score.bootstrap import Bootstrap
    from asr_kd.score.collect import collect, collect_experiment
    from asr_kd.score.systems import Run, System, read_systems
    from asr_kd.score.tables import comparisons, word_error_rates

    bootstrap = Bootstrap(config.bootstrap_by, config.replications, config.seed)
    if config.exp is not None:
        if config.systems is None or config.hyp:
            raise UserError("--exp needs --systems, and takes no --hyp: correct the flags")
        exp, cuts = config.exp, config.cuts or config.exp / "features"
        systems = read_systems(config.systems, exp, config.variables).systems
        folders = [f for s in systems for run in s.runs for f in (*run.models, run.decode, run.accuracy) if f]
        inputs = [config.systems, cuts, *filter(is_finished, dict.fromkeys(folders))]
    else:
        cuts = _check_folders(config)
        inputs = [*config.hyp, *(cuts / f"cuts_{split}.jsonl.gz" for split in config.splits)]
    stage = Stage("score", config.out, config, inputs)
    if not stage.begin():
        return
    if config.exp is not None:
        results = collect_experiment(systems, exp, cuts, bootstrap)
    else:
        runs = {path.name: [Run(0, decode=path)] for path in config.hyp}
        systems = [System(name, name, "single", tuple(run)) for name, run in runs.items()]
        pairs = [_parse_pair(text, list(runs)) for text in config.pairs]
        results = collect(systems, runs, cuts, bootstrap, pairs=pairs, splits=config.splits)
    write_json(config.out / "score.json", results.as_json())
    text = word_error_rates(results).markdown() + "\n"
    if results.comparisons:
        text += "\n" + comparisons(results).markdown() + "\n"
    with atomic_open(config.out / "score.md") as file:
        file.write(text)
    print(text, end="", flush=True)
    stage.finish(systems=len(results.rows))


def _check_folders(config: Config) -> Path:
    """The folder of the reference, for ``--hyp``."""
    names = [path.name for path in config.hyp]
    if not names or config.cuts is None:
        raise UserError("give --exp with --systems, or --hyp with --cuts: correct the flags")
    if len(set(names)) != len(names):
        raise UserError(f"--hyp has two folders of the same name ({', '.join(names)}): rename one of them")
    for text in config.pairs:
        _parse_pair(text, names)
    for split in config.splits:
        if not (path := config.cuts / f"cuts_{split}.jsonl.gz").is_file():
            raise UserError(f"{path} is missing: check --splits and --cuts, or run the stage that makes it")
    return config.cuts


def _parse_pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    """A:B as (B, A): the system, and the one that it is compared with."""
    first, _, second = text.partition(":")
    if first not in names or second not in names:
        raise UserError(f"--pairs {text!r} is not A:B with two of the systems: they are {', '.join(names)}")
    return second, first


if __name__ == "__main__":
    run(Config, main)
