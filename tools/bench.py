"""Helpers that the benchmarks share: timing, memory, tables."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from asr_kd.common.progress import progress
from asr_kd.common.storage import write_json
from asr_kd.report import facts

Key = TypeVar("Key", bound=Hashable)


def seconds(function: Callable[[], object], device: str, repeats: int = 5, min_seconds: float = 0.3) -> float:
    """The median wall time of one call, after a warm-up call.

    Short calls are repeated within each measurement until it takes ``min_seconds``.
    """

    def measure(calls: int) -> float:
        synchronise(device)
        started = time.perf_counter()
        for _ in range(calls):
            function()
        synchronise(device)
        return (time.perf_counter() - started) / calls

    function()
    calls = max(1, round(min_seconds / max(measure(1), 1e-9)))
    return sorted(measure(calls) for _ in range(repeats))[repeats // 2]


def in_turn(work: Mapping[Key, Callable[[], object]], rounds: int = 3) -> dict[Key, float]:
    """The median wall time of each piece of work over rounds in which each has its turn, after a round to warm up."""
    taken: dict[Key, list[float]] = {key: [] for key in work}
    for key in progress([*work] * (1 + rounds), "measuring", unit="piece"):
        started = time.perf_counter()
        work[key]()
        taken[key].append(time.perf_counter() - started)
    return {key: statistics.median(times[1:]) for key, times in taken.items()}


def extra_bytes(function: Callable[[], object], device: str, warm_up: bool = True) -> int:
    """The peak memory of one call, after a warm-up call, beyond what was allocated before it, including its result."""
    if warm_up:
        function()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call reuses memory that earlier calls freed, and nothing shows
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that is read below
    before = _process_memory("VmRSS")
    function()
    return _process_memory("VmHWM") - before


def synchronise(device: str) -> None:
    """Wait for the GPU, if the device is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def report(config: Any, rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Print the machine and a table of ``rows``; also write them as JSON if ``config.out`` is set.

    Args:
        config: dataclass of the benchmark's flags; it has ``out`` and, unless it runs on the CPU only, ``device``.
        rows: have the same keys.
        note: what else the reader should know about the run.
    """
    described = machine(getattr(config, "device", "cpu"))
    print(f"{described}{'; ' if note else ''}{note}\n\n{table(rows)}")
    if config.out is not None:
        settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "out"}
        write_json(config.out, {"machine": described, "settings": settings, "rows": rows})


def machine(device: str) -> str:
    """A description of the machine."""
    name = torch.cuda.get_device_name() if device == "cuda" else facts.machine()
    threads = "" if device == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{name}{threads}, torch {torch.__version__}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "|".join(" --- " for _ in rows[0]) + "|"]
    return "\n".join(lines + ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows])


def flags(**values: object) -> list[str]:
    """Command-line flags: ``batch_size=8`` becomes ["--batch-size", "8"]."""
    return [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _process_memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
