"""Stages whose workers are killed, stopped or slow: local processes and those of a Dask cluster.

Each disturbed run must give the results of an undisturbed one, or end with a sentence, after which the same command
gives them.  A stopped local process is a person's decision, so the stage waits; it must say so, and goes on when the
process does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import psutil
from distributed import LocalCluster

from drills.inputs import append_row, read_rows
from drills.judges import outputs
from drills.place import DECODE, ROOT, TRAIN, Place

MODES = ("killed", "stopped", "slow")
MAX_SECONDS = 120.0
#: Further runs, if one is over before a worker that has a job is found.
ATTEMPTS = 5
#: After so many seconds without a heartbeat a Dask scheduler gives a worker's jobs to others (default: 5 min).
WORKER_TTL = "8s"
DATA = "--features {exp}/features --out {out}"
#: Stage -> flags.  All jobs of a stage go through the same executor, and those of decode to search processes.
FANOUTS = {
    "corpora": "--corpus embedded --train-minutes 0.5 --dev-minutes 0.2 --test-minutes 0.2 --voices 4 2 2 --out {out}",
    "features": "--data {exp}/data --out {out}",
    "hmm": DATA + " --lang {exp}/lang --leaves 50 --mono-gaussians 100",
    "hmm.realign": DATA + " --gmm {exp}/gmm --lang {exp}/lang --model {exp}/teachers/seed-0",
    "train": TRAIN + " --seeds 0 1 2 --out {out}",
    "soft_targets": DATA + " --models {exp}/teachers/seed-0 --cuts {exp}/gmm/cuts_train.jsonl.gz --device cpu",
    "score.accuracy": DATA + " --systems one={exp}/teachers/seed-0 two={exp}/teachers/seed-1 --cuts {exp}/gmm",
    "decode": DECODE.replace("--jobs 1", "") + " --model {exp}/teachers/seed-0 --out {out}",
    "corpora.shar": "--cuts {exp}/gmm --shard-frames 500 --out {out}",
}
LOCAL_ONLY = ("corpora.shar",)


@dataclass
class Command:
    """A stage in processes of its own, which write to a log."""

    place: Place
    stage: str
    extra: Sequence[str] = ()

    def start(self) -> subprocess.Popen[bytes]:
        flags = FANOUTS[self.stage].format(exp=self.place.exp, user=self.place.user, out=self.place.work / "out")
        self.place.work.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"asr_kd.{self.stage}", *flags.split(), *self.extra], stdout=log, stderr=log,
                start_new_session=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.place.work / "log"

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def sentence(self) -> bool:
        return ": error: " in self.output and "Traceback (most recent call last)" not in self.output

    def results(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in outputs(self.place.work / "out").items()}

    def undisturbed(self) -> tuple[dict[str, bytes], float]:
        """The results of an undisturbed run, and its seconds."""
        shutil.rmtree(self.place.work, ignore_errors=True)
        begun = time.monotonic()
        if self.start().wait():
            raise RuntimeError(f"{self.stage} fails undisturbed: {self.output[-2000:]}")
        return self.results(), time.monotonic() - begun


def local_workers(pid: int) -> list[psutil.Process]:
    """The worker processes that a stage has started: those forked by the server, and searches."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid).children(recursive=True)
        commands = {child.pid: " ".join(child.cmdline()) for child in found}
        forked = [c for c in found if "forkserver" in commands[c.pid] and "forkserver" in commands.get(c.ppid(), "")]
        return forked + [child for child in found if "worker.py" in commands[child.pid]]
    return []


def disturb(command: Command, mode: str, workers: Callable[[int], list[psutil.Process]], after: float,
            rng: random.Random, told: bool) -> str:  # fmt: skip
    """Disturb a worker of a run: what came of it: "same", …, or a fault.

    Args:
        workers: of a process.
        after: seconds after which a worker is disturbed, or later, when there is one.
        told: a stopped worker is a person's decision: the stage must say so, and the worker goes on then.
    """
    expected = command.place.root / "undisturbed"
    shutil.rmtree(command.place.work, ignore_errors=True)
    process = command.start()
    begun, victim, note = time.monotonic(), None, ""
    while process.poll() is None and time.monotonic() - begun < MAX_SECONDS:
        if victim is None and time.monotonic() - begun >= after:
            found = workers(process.pid)
            victim = _strike(rng.choice(found), mode) if found else None
        if victim is not None and mode == "slow":
            _signal(victim, signal.SIGCONT if rng.random() < 0.3 else signal.SIGSTOP)
        if victim is not None and mode == "stopped" and told and not note and "is stopped" in command.output:
            note = "told, then "
            _signal(victim, signal.SIGCONT)
        time.sleep(0.05)
    if victim is not None:
        _signal(victim, signal.SIGCONT)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"hang over {MAX_SECONDS:g} s: {command.output[-300:]}"
    if victim is None:
        return "over before"
    if process.returncode:
        if not command.sentence:
            return f"no sentence: {command.output[-1500:]}"
        note += "sentence, then "
        if command.start().wait():
            return f"{note}failed again: {command.output[-1500:]}"
    different = [n for n, data in command.results().items() if (expected / n).read_bytes() != data]
    return f"{note}other results: {', '.join(different[:3])}" if different else f"{note}same"


def _strike(victim: psutil.Process, mode: str) -> psutil.Process:
    _signal(victim, signal.SIGKILL if mode == "killed" else signal.SIGSTOP)
    return victim


def _signal(victim: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.send_signal(number)


@contextlib.contextmanager
def _cluster() -> Iterator[LocalCluster]:
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": WORKER_TTL}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield cluster


def run_all(place: Place, results: Path, seed: int, stages: Sequence[str] = tuple(FANOUTS)) -> list[dict[str, Any]]:
    """Disturb a worker of every stage in every mode, local and on a cluster; one row per stage and kind of worker."""
    done: dict[tuple[str, str], dict[str, Any]] = {
        (row["stage"], row["workers"]): row for row in read_rows(results) if row["seed"] == seed
    }
    for stage in stages:
        for where in ("local", "Dask"):
            if (stage, where) in done or (where == "Dask" and stage in LOCAL_ONLY):
                continue
            rng = random.Random(f"workers/{seed}/{stage}/{where}")
            outcomes = _modes(place, stage, where, rng)
            done[stage, where] = {"seed": seed, "stage": stage, "workers": where, **outcomes}
            append_row(results, done[stage, where])
            print(f"workers of {stage}, {where}: {'; '.join(outcomes[mode][:100] for mode in MODES)}", flush=True)
    return [done[stage, where] for stage in stages for where in ("local", "Dask") if (stage, where) in done]


def _modes(place: Place, stage: str, where: str, rng: random.Random) -> dict[str, str]:
    """The outcome of each mode."""
    undisturbed = Command(place, stage, ("--jobs", "2"))
    expected, seconds = undisturbed.undisturbed()
    if not expected:
        raise RuntimeError(f"{stage} has no results")
    shutil.rmtree(place.root / "undisturbed", ignore_errors=True)
    shutil.copytree(place.work / "out", place.root / "undisturbed")
    outcomes = {}
    for mode in MODES:
        for after in (rng.uniform(0.3, 0.9) * seconds, *[0.0] * ATTEMPTS):  # 0: as soon as one has a job
            if where == "local":
                outcomes[mode] = disturb(undisturbed, mode, local_workers, after, rng, told=True)
            else:
                with _cluster() as cluster:
                    command = Command(place, stage, ("--scheduler", cluster.scheduler_address))
                    find = functools.partial(_busy, cluster)
                    outcomes[mode] = disturb(command, mode, find, after, rng, told=False)
            if outcomes[mode] != "over before":
                break
    return outcomes


def _busy(cluster: LocalCluster, _: int) -> list[psutil.Process]:
    """The workers of a cluster that have a job."""
    scheduler: Any = cluster.scheduler
    states = scheduler.workers
    busy = [nanny for nanny in cluster.workers.values() if getattr(states.get(nanny.worker_address), "processing", {})]
    return [psutil.Process(nanny.pid) for nanny in busy if nanny.pid and psutil.pid_exists(nanny.pid)]
