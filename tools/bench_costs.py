"""What stages cost as the corpus grows: seconds of a core and memory, beside what asr_kd.plan says.

    taskset -c 0 python tools/bench_costs.py --exp EXP --hours 1 10 100 --work DIR --out tools/results/costs.json \
        --figure docs/figures/costs.svg

Recordings of an experiment are repeated under new ids, by new speakers, until there are so many hours of them.  Every
stage then runs as its command does: features; alignment with the experiment's GMMs; soft targets of its quarter-size
network; training of a tiny network on these for an epoch; decoding.  What a file of results has already is kept, so
stages may be measured one by one.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
from matplotlib.figure import Figure
from process_tree import Usage, run_measured

from asr_kd.common.cli import run
from asr_kd.common.storage import MARK, Stage, copy_file, read_json, write_json
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl
from asr_kd.corpora.shar.__main__ import main as write_shards
from asr_kd.corpora.shar.config import Config as SharConfig
from asr_kd.decode.config import Search
from asr_kd.hmm.config import Config as HmmConfig
from asr_kd.hmm.pipeline import align as align_with_gmms
from asr_kd.hmm.store import copy_models, write_summary
from asr_kd.models.dnn import dnn
from asr_kd.models.network import read_network
from asr_kd.plan.calibrate import Rates, measure
from asr_kd.plan.costs import Job, Machines, costs
from asr_kd.report.figures import styled
from asr_kd.report.svg import PAGE, SERIES, render, standalone

TEACHER, PRESET, BATCH = Path("quarter_hard", "seed-0"), "tiny", 1024
#: Stages in the order in which they run, by the name that asr_kd.plan has for them.
STAGES = {
    "features": "features", "alignment": "alignment", "soft_targets": "soft targets", "training": "students",
    "shards": "students", "decoding": "decoding",
}  # fmt: skip


@dataclasses.dataclass
class Config:
    """Run stages on more and more hours of repeated recordings, on one core."""

    exp: Path
    """Folder of an experiment (recipes/librispeech), with data, features, lang, gmm, graph and quarter_hard."""
    hours: tuple[float, ...] = (1, 10, 100)
    """Hours of speech."""
    stages: tuple[str, ...] = ("features", "alignment", "soft_targets", "training", "decoding")
    """Stages that run; training needs soft_targets before it, and so does shards, which is training from shards."""
    beam: float = 8.0
    """Beam of the search."""
    search: Search = "k2"
    """What searches (asr_kd.decode --search)."""
    busy: bool = False
    """Note with the results that the machine does other work, which makes a core slower."""
    work: Path | None = None
    """Folder for what the stages write, up to 10 GB for 100 hours, until they have finished; default: TMPDIR."""
    out: Path | None = None
    """JSON file for the results, to which others may be added."""
    figure: Path | None = None
    """SVG file for a figure of all results."""


def main(config: Config) -> None:
    exp = config.exp.resolve()
    known = read_json(config.out) if config.out is not None and config.out.is_file() else {}
    calibrated = known.get("rates") or calibrate(config, exp)
    rows = {(row["stage"], row["hours"]): row for row in known.get("rows", [])}
    for hours in config.hours:
        for stage, usage in measured(config, exp, hours):
            rows[stage, hours] = {
                "stage": stage, "hours": hours, "s": round(usage.cpu, 1), "MB": round(usage.largest / 1e6),
                "all processes, MB": round(usage.memory / 1e6), "busy": config.busy,
            }  # fmt: skip
            print(rows[stage, hours], flush=True)
            if config.out is not None:  # 100 hours take an hour or more, which nobody should lose
                write_json(config.out, {**known, "rates": calibrated, "rows": [*rows.values()]})
    ordered = [
        rows[key] | planned(*key, exp, calibrated)
        for key in sorted(rows, key=lambda key: ([*STAGES].index(key[0]), key[1]))
    ]
    bench.report(config, ordered)
    if config.out is not None:
        write_json(config.out, {**read_json(config.out), "rates": calibrated})
    if config.figure is not None:
        config.figure.write_text(standalone(render(draw(ordered), "costs")), encoding="utf-8")


def calibrate(config: Config, exp: Path) -> dict[str, float]:
    """The rates of a plan for these networks, and the real-time factor of the search, which dev tells."""
    teacher = read_network(exp / TEACHER)
    rates = measure(teacher, dnn(teacher.feature_dim, teacher.num_senones, PRESET), BATCH)
    with tempfile.TemporaryDirectory(dir=config.work) as name:
        run_measured([sys.executable, *_decode(config, exp, exp / "features", "dev", Path(name, "decode"))])
        found = read_json(Path(name, "decode", "decode.json"))["splits"]["dev"]["search_rtf"]
    return {**vars(rates), "real_time_factor": found}


def planned(stage: str, hours: float, exp: Path, calibrated: dict[str, float]) -> dict[str, float]:
    """What the plan says of a stage: seconds of one core, and memory of its largest process."""
    teacher = read_network(exp / TEACHER)
    student = dnn(teacher.feature_dim, teacher.num_senones, PRESET)
    trained, decoded = (0.0, hours) if stage == "decoding" else (hours, 0.0)
    rates = {name: value for name, value in calibrated.items() if name != "real_time_factor"}
    factor = calibrated["real_time_factor"]
    job = Job(trained, 1, decoded, teacher, student, 1, 1, 1, 1, BATCH, 2_000_000, 1, 1, factor)
    machines = Machines(1, 0, 0, 500e6, 1e10)
    (cost,) = (cost for cost in costs(job, machines, Rates(**rates)) if cost.stage == STAGES[stage])
    return {"planned s": round(cost.total, 1), "planned MB": round(cost.memory / 1e6)}


def measured(config: Config, exp: Path, hours: float) -> Iterator[tuple[str, Usage]]:
    """What every stage took for so many hours."""
    with tempfile.TemporaryDirectory(dir=config.work) as name:
        for stage in config.stages:
            yield stage, run_measured([sys.executable, *command(config, stage, exp, Path(name), hours)])


def command(config: Config, stage: str, exp: Path, root: Path, hours: float) -> list[str]:
    """The command line of a stage, after what it reads has been made in ``root``."""
    out, features, cuts = root / stage, exp / "features", root / "cuts"
    if stage == "features":
        repeat(exp / "data", "train", root / "data", hours)
        return ["-m", "asr_kd.features", *bench.flags(data=root / "data", out=out)]
    if stage == "alignment":
        repeat(features, "train", root / "unaligned", hours)
        return [__file__, "align", *map(str, (root / "unaligned", exp / "lang", exp / "gmm", out))]
    if stage == "decoding":
        repeat(features, "test", root / "spoken", hours)
        return _decode(config, exp, root / "spoken", "test", out)
    if not cuts.exists():
        repeat(exp / "gmm", "train", cuts, hours)
        copy_file(exp / "gmm" / "cuts_dev.jsonl.gz", cuts / "cuts_dev.jsonl.gz")
    if stage == "soft_targets":
        flags = bench.flags(models=exp / TEACHER, features=features, cuts=cuts / "cuts_train.jsonl.gz", out=out)
        return ["-m", "asr_kd.soft_targets", *flags]
    if stage == "shards":
        write_shards(SharConfig(cuts=cuts, out=root / "shar"))
        cuts = root / "shar"
    flags = bench.flags(features=features, cuts=cuts, soft_targets=root / "soft_targets", preset=PRESET, out=out)
    return ["-m", "asr_kd.train", *flags, *bench.flags(epochs=1, batch_size=BATCH)]


def _decode(config: Config, exp: Path, cuts: Path, split: str, out: Path) -> list[str]:
    flags = bench.flags(model=exp / TEACHER, graph=exp / "graph", features=exp / "features", cuts=cuts, splits=split)
    search = bench.flags(beam=config.beam, search=config.search, acoustic_scale=0.12)
    return ["-m", "asr_kd.decode", *flags, *search, *bench.flags(out=out)]


def repeat(source: Path, split: str, out: Path, hours: float) -> None:
    """Copy the folder ``source`` with so many hours of a split, and no other split."""
    stage = Stage("repeat", out, {"hours": hours}, [source])
    stage.begin()
    for path in source.iterdir():
        if path.is_file() and path.name != MARK and not path.name.startswith("cuts_"):
            copy_file(path, out / path.name)
    seconds, cuts = 0.0, _repeated(source / f"cuts_{split}.jsonl.gz")
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add:
        while seconds < 3600 * hours:
            add(cut := next(cuts))
            seconds += cut["duration"]
    if (out / "hmm.json").is_file():
        description = read_json(out / "hmm.json")
        description["splits"][split]["frames"] = round(100 * seconds)  # on which the size of shards depends
        write_json(out / "hmm.json", description)
    stage.finish()


def _repeated(manifest: Path) -> Iterator[dict[str, Any]]:
    """Cuts again and again, under new ids and by new speakers."""
    for turn in itertools.count():
        for cut in read_jsonl(manifest):
            spoken = [{**one, "speaker": f"{one['speaker']}-{turn}"} for one in cut["supervisions"]]
            yield {**cut, "id": f"{cut['id']}-{turn}", "supervisions": spoken}


def align(features: str, lang: str, gmm: str, out: str) -> None:
    """What asr_kd.hmm does once its GMMs are trained."""
    settings = HmmConfig(features=Path(features), lang=Path(lang), out=Path(out))
    copy_models(Path(gmm), settings.out)
    model = read_json(Path(gmm, "hmm.json"))
    with settings.executor() as executor:
        write_summary(settings.out, model, align_with_gmms(executor, settings, settings.out, model))


@styled
def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Seconds and memory against hours: dots for what was measured, hollow on a busy machine; lines for the plan."""
    figure = Figure(figsize=(8.2, 3.5))
    panels = figure.subplots(1, 2)
    for axes, title, found, plan, scale in (
        (panels[0], "seconds of a core", "s", "planned s", 1.0),
        (panels[1], "memory of the largest process, GB", "MB", "planned MB", 1e-3),
    ):
        for number, stage in enumerate(STAGES):
            if not (own := [row for row in rows if row["stage"] == stage]):
                continue
            x, colour = [row["hours"] for row in own], SERIES[1 + number]
            axes.plot(x, [scale * row[plan] for row in own], color=colour, linewidth=1.4, alpha=0.7)
            label = stage.replace("_", " ")
            axes.scatter(
                x, [scale * row[found] for row in own], 26, [PAGE if row["busy"] else colour for row in own],
                edgecolors=colour, label=label, zorder=3,
            )  # fmt: skip
        axes.set_title(title, fontweight="normal", fontsize=9.5)
        axes.set_xlabel("hours of speech")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_formatter("{x:,g}")
    panels[0].legend(frameon=False, fontsize=9)
    panels[1].set_ylim(0)
    return figure


if __name__ == "__main__":
    if sys.argv[1:2] == ["align"]:
        align(*sys.argv[2:])
    else:
        run(Config, main)
