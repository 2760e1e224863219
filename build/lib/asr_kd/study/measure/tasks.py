"""Tasks that measure systems: frame accuracies, tuning of the search, decoding."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from asr_kd.common.cli import build_config, read_yaml
from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import is_finished
from asr_kd.decode.__main__ import main as decode
from asr_kd.decode.client import SearchPool
from asr_kd.decode.config import Config as DecodeConfig
from asr_kd.hmm.adapt.__main__ import main as adapt
from asr_kd.hmm.adapt.config import Config as AdaptConfig
from asr_kd.hmm.scores import INDEPENDENT
from asr_kd.score.accuracy.__main__ import main as measure_accuracy
from asr_kd.score.accuracy.config import Config as AccuracyConfig
from asr_kd.score.systems import Run, System, SystemList
from asr_kd.study.tasks import Task, count, unless_finished

#: First estimates in seconds: a split on one core, the frame accuracy of a network, and adaptation to speakers.
DECODE_SECONDS, ACCURACY_SECONDS, ADAPT_SECONDS = 60.0, 5.0, 10.0


def measure_tasks(systems: SystemList, conf: Path, searches: SearchPool, scheduler: str = "") -> Iterator[Task]:
    """Tasks that measure frame accuracies, tune the search, and decode.

    Args:
        systems: what to measure.
        conf: the recipe's configuration, with the sections decode and accuracy.
        searches: search processes for decoding; the caller closes them.
        scheduler: address of a Dask scheduler; "" for local processes.
    """
    yield from _accuracies(systems, conf, scheduler)
    yield from _tuning(systems, conf, searches, scheduler)
    yield from _decoding(systems, conf, searches, scheduler)


def _accuracies(systems: SystemList, conf: Path, scheduler: str) -> Iterator[Task]:
    """One task for all systems that are measured on the same data and belong to the same folder."""
    groups: dict[tuple[Path, Path, Path], dict[str, Sequence[Path]]] = defaultdict(dict)
    for system in systems.systems:
        for run in system.runs:
            if run.accuracy is not None:
                key = system.data["features"], system.data["cuts"], run.accuracy.parent
                groups[key][run.accuracy.name] = run.models
    for (features, cuts, out), networks in groups.items():
        flags = {
            **read_yaml(f"{conf}:accuracy"), "features": features, "cuts": cuts, "out": out,
            "systems": [f"{name}={','.join(map(str, models))}" for name, models in networks.items()],
            "splits": list(systems.splits), "scheduler": scheduler,
        }  # fmt: skip
        config = build_config(AccuracyConfig, flags)
        title = f"frame accuracy of {count(len(networks), 'system')}"
        yield Task(
            title, "accuracy", partial(_accuracy_seconds, out, list(networks)), partial(measure_accuracy, config)
        )


def _tuning(systems: SystemList, conf: Path, searches: SearchPool, scheduler: str) -> Iterator[Task]:
    """One task for each network that acoustic scale and word insertion penalty are tuned on."""
    needed = {s.tuned: s for s in systems.systems if s.tuned is not None and any(run.decode for run in s.runs)}
    for tuned, system in needed.items():
        tuned_on = (other.data for other in systems.systems for run in other.runs if system.tune in run.models)
        data = next(tuned_on, systems.data)  # a network may hear other features than the study's
        flags = {
            **read_yaml(f"{conf}:decode"), "graph": data["graph"], "features": data["features"],
            "scheduler": scheduler, "model": [system.tune], "splits": [], "tune_on": "dev", "out": tuned,
        }  # fmt: skip
        seconds = partial(unless_finished, tuned, lambda: 3 * DECODE_SECONDS)
        config = build_config(DecodeConfig, flags)
        title = f"tuning of the search, {'all networks' if system.tune == systems.tune else system.label}"
        yield Task(title, "tune", seconds, partial(decode, config, searches=searches))


def _decoding(systems: SystemList, conf: Path, searches: SearchPool, scheduler: str) -> Iterator[Task]:
    named = {system.name: system for system in systems.systems}
    for system in systems.systems:
        decoded = [run for run in system.runs if run.decode is not None]
        if system.kind == "adapted":
            gmm = named[system.twin].runs[0]
            if not (gmm.models[0] / INDEPENDENT).is_file():
                continue  # it was not trained for that, and the report says that this is missing
            yield _adaptation(system, gmm, scheduler)
        for number, run in enumerate(decoded, 1):
            assert run.decode is not None and system.tuned is not None
            flags = {
                **read_yaml(f"{conf}:decode"), "graph": system.data["graph"], "features": system.data["features"],
                "scheduler": scheduler, "model": list(run.models), "splits": list(run.splits),
                "tuned": system.tuned / "tuned.json", "out": run.decode,
            }  # fmt: skip
            seconds = partial(unless_finished, run.decode, partial(_decode_seconds, len(run.splits)))
            config = build_config(DecodeConfig, flags)
            title = f"decoding of {system.label}" + (f", {number} of {len(decoded)}" if len(decoded) > 1 else "")
            yield Task(title, "decode", seconds, partial(decode, config, searches=searches))


def _adaptation(system: System, gmm: Run, scheduler: str) -> Task:
    """Adapt a GMM to the speakers of the splits that it has decoded."""
    flags = {
        "gmm": gmm.models[0], "decoded": gmm.decode, "lang": system.data["lang"], "features": system.data["features"],
        "out": system.runs[0].models[0], "splits": list(gmm.splits), "scheduler": scheduler,
    }  # fmt: skip
    config = build_config(AdaptConfig, flags)
    cost = partial(unless_finished, config.out, lambda: ADAPT_SECONDS)
    return Task("adaptation to the speakers", "adapt", cost, partial(adapt, config))


def _decode_seconds(splits: int) -> float:
    return DECODE_SECONDS * splits / cpu_count()


def _accuracy_seconds(out: Path, names: Sequence[str]) -> float:
    return sum(ACCURACY_SECONDS for name in names if not is_finished(out / name)) / cpu_count()
