"""Tasks of a study: calls of stages in order, with the time left for all of them."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.storage import is_finished


@dataclass(frozen=True)
class Task:
    """One or more calls of a stage that run together.

    Attributes:
        title: what it does, for the user.
        kind: estimates of the tasks of one kind are corrected together.
        expected: seconds on the cores of this machine, by a rough rule; called when all tasks before have run.
        run: does it.
    """

    title: str
    kind: str
    expected: Callable[[], float]
    run: Callable[[], None]


def run_tasks(tasks: Sequence[Task]) -> None:
    """Run the tasks in order, with a line before each that tells the time left for all."""
    speeds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # by kind: seconds taken, seconds expected
    for number, task in enumerate(tasks):
        left = time_left([(one.kind, one.expected()) for one in tasks[number:]], speeds)
        remaining = "less than a minute" if left < 60 else f"about {left / 60:.0f} min"
        print(f"\n== {number + 1} of {len(tasks)}: {task.title} ({remaining} left in all)", flush=True)
        expected, start = task.expected(), time.monotonic()
        task.run()
        seconds = time.monotonic() - start
        if seconds > 0.1 * expected > 0:  # else it was done already
            for kind in (task.kind, ""):
                speeds[kind][0] += seconds
                speeds[kind][1] += expected


def time_left(tasks: Sequence[tuple[str, float]], speeds: Mapping[str, Sequence[float]]) -> float:
    """Seconds that tasks of (kind, expected seconds) will take, judged by finished tasks of the same kind, else by all
    finished tasks."""
    total = 0.0
    for kind, expected in tasks:
        taken, planned = next((speeds[k] for k in (kind, "") if k in speeds), (1.0, 1.0))
        total += expected * taken / planned
    return total


def unless_finished(folder: Path, seconds: Callable[[], float]) -> float:
    """0 when a stage has finished in the folder, with whatever flags: good enough for estimates."""
    return 0.0 if is_finished(folder) else seconds()


def count(number: int, thing: str) -> str:
    """1 network, 2 networks."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
