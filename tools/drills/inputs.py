"""Damaged inputs: cases drawn from a seed, each run in a process of its own and judged."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from asr_kd.common.errors import UserError
from asr_kd.common.locks import LOCK
from drills.judges import Run, newly_listed, weights
from drills.kinds import FOLDER, MISSING, Damage, Kind, choose_kind, damage
from drills.place import Place, prepare, run_recipe
from drills.process import Ended, preload

#: Outcomes of a case, in the order of the table.
OUTCOMES = ("used", "listed", "refused", "traceback", "wrong", "hang", "memory")
SMALL = Path(__file__).parent / "small.yaml"


class Bench:
    """Runs cases in a place."""

    def __init__(self, place: Place) -> None:
        self.place, self._printed = place, dict[str, str]()
        self._backup = place.root / "backup"
        if not self._backup.exists():
            shutil.copytree(place.exp, self._backup / "exp")  # with the times of the files
            shutil.copytree(place.user, self._backup / "user")
        self.mend()  # a killed drill leaves its last damage

    def mend(self) -> list[str]:
        """Restore inputs that a case has changed; returns them, without graphs converted for k2 and studies."""
        changed = []
        for name, folder in (("exp", self.place.exp), ("user", self.place.user)):
            for saved in (self._backup / name).rglob("*"):
                path = folder / saved.relative_to(self._backup / name)
                if saved.is_file() and saved.name != LOCK and (not path.is_file() or _state(path) != _state(saved)):
                    changed += [os.path.relpath(path, self.place.root)] * (
                        not {"graph.k2", "studies"} & set(path.parts)
                    )
                    path.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(saved, path)
        return changed

    def reference(self, kind: Kind) -> tuple[Path, str]:
        """The outputs and the words of the undamaged run of a kind's stage."""
        folder = self.place.root / "reference" / kind.job
        if kind.job not in self._printed:
            ended = self.place.run(kind.job, self.place.user / "audio/pcm16.wav", 300)
            self.place.check(kind.job, ended)
            shutil.rmtree(folder, ignore_errors=True)
            (self.place.work / "out").mkdir(exist_ok=True)
            shutil.copytree(self.place.work / "out", folder)
            self._printed[kind.job] = ended.stdout
        return folder, self._printed[kind.job]

    def case(self, seed: int, number: int, kind: Kind | None = None) -> dict[str, Any]:
        """Run a case; returns what was damaged, how, and what came of it."""
        rng = random.Random(f"{seed}/{number}")
        kind = kind or choose_kind(rng)
        reference, printed = self.reference(kind)
        harm = damage(self.place, kind, rng)
        before, times = harm.path.read_bytes(), harm.path.stat()
        try:
            _apply(harm)
            ended = self.place.run(kind.job, harm.path)
        finally:
            _restore(harm.path, before, times)
        changed = self.mend()
        after = harm.data if isinstance(harm.data, bytes) else None
        run = Run(ended, self.place.work / "out", reference, printed, harm.path, before, after)
        outcome, reason = classify(kind, run)
        if changed and outcome in ("used", "listed", "refused"):
            outcome, reason = "wrong", f"the stage changed its inputs: {', '.join(changed[:3])}"
        name = os.path.relpath(harm.path, self.place.root)
        return {
            "case": number, "seed": seed, "group": kind.group, "stage": kind.job, "file": name, "damage": harm.name,
            "outcome": outcome, "reason": reason, "seconds": round(ended.seconds, 1), "peak": ended.peak >> 20,
        }  # fmt: skip


def _apply(harm: Damage) -> None:
    if isinstance(harm.data, bytes):
        harm.path.write_bytes(harm.data)
        return
    harm.path.unlink()
    if harm.data == FOLDER:
        harm.path.mkdir()
    assert harm.data in (FOLDER, MISSING)


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _restore(path: Path, data: bytes, times: os.stat_result) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def classify(kind: Kind, run: Run) -> tuple[str, str]:
    """The outcome, one of ``OUTCOMES``, and its reason: the message, or what is wrong."""
    ended = run.ended
    if ended.stopped:
        return ended.stopped, ended.output[-300:]
    if "Traceback (most recent call last)" in ended.output or ended.code not in (0, 1, 2):
        return "traceback", f"exit status {ended.code}: {ended.output[-1500:]}"
    if kind.job != "files" and ended.code:
        return ("refused" if ended.refused else "traceback"), _last_line(ended)
    try:
        wrong = kind.judge(run) or weights(run)
    except Exception:  # an output that cannot be read
        wrong = f"the outputs cannot be read: {traceback.format_exc(limit=-2)}"
    if wrong:
        return "wrong", wrong
    if kind.job == "files":
        return ("used", "") if ended.code == 0 else ("listed", _last_line(ended))
    listed = newly_listed(run)
    return ("listed", ", ".join(sorted(listed)[:3])) if listed else ("used", "")


def _last_line(ended: Ended) -> str:
    return next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "no message")


def make_place(root: Path, exp: Path | None) -> Place:
    """A place in ``root``, with a finished experiment or a small one of its own."""
    root.mkdir(parents=True, exist_ok=True)
    if exp is None:
        run_recipe(root / "exp", SMALL, root / "recipe.log")
    return Place(root, exp or root / "exp")


def run_cases(out: Path, count: int, seed: int, jobs: int, exp: Path | None = None) -> list[dict[str, Any]]:
    """Run cases 0 to ``count`` − 1 that ``out``/inputs.jsonl does not have yet; returns all, in order.

    Args:
        exp: a finished experiment, damaged by one process; default: one for each of ``jobs`` processes.

    Raises:
        UserError: a process failed.
    """
    jobs = jobs if exp is None else 1
    results = out / "inputs.jsonl"
    done = {row["case"] for row in read_rows(results) if row["seed"] == seed}
    todo = [number for number in range(count) if number not in done]
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(out / f"place-{i}", exp, results, todo[i::jobs], seed))
        for i in range(min(jobs, len(todo)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = [row for row in read_rows(results) if row["seed"] == seed and row["case"] < count]
    if len(rows) < count:
        raise UserError(f"only {len(rows)} of {count} cases ran: see above, and run the same command again")
    return sorted(rows, key=lambda row: row["case"])


def _work(root: Path, exp: Path | None, results: Path, numbers: Sequence[int], seed: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    preload()
    torch.set_num_threads(1)
    place = make_place(root, exp)
    prepare(place)
    bench = Bench(place)
    for number in numbers:
        append_row(results, row := bench.case(seed, number))
        if row["outcome"] not in ("used", "listed", "refused"):
            print(f"case {number}: {row['outcome']}: {row['group']}, {row['file']}, {row['damage']}", flush=True)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a result in one write."""
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The results so far; a line that a killed run left unfinished is passed over."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts of outcomes by kind of input, and the largest time and memory; the last row is the sum."""
    groups = dict.fromkeys(row["group"] for row in rows)
    counts = {group: Counter(row["outcome"] for row in rows if row["group"] == group) for group in sorted(groups)}
    counts["all"] = Counter(row["outcome"] for row in rows)
    return [
        {"inputs": group, "cases": sum(count.values())} | {outcome: count[outcome] for outcome in OUTCOMES}
        for group, count in counts.items()
    ]
