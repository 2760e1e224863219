"""What the benchmarks share: timing, memory, tables."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from asr_kd.common.storage import write_json
from asr_kd.report.facts import processor


def seconds(function: Callable[[], object], device: str, repeats: int = 5, least: float = 0.3) -> float:
    """Median wall time of one call, after one to warm up; short calls are repeated within a measurement."""

    def once(calls: int) -> float:
        wait(device)
        begun = time.perf_counter()
        for _ in range(calls):
            function()
        wait(device)
        return (time.perf_counter() - begun) / calls

    function()
    calls = max(1, round(least / max(once(1), 1e-9)))
    return sorted(once(calls) for _ in range(repeats))[repeats // 2]


def extra_bytes(function: Callable[[], object], device: str) -> int:
    """Memory that one call needs beyond what was held before it, at its worst moment; what it returns counts."""
    function()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # else what earlier calls freed is used again, and does not show
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak below
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def machine(device: str) -> str:
    """The machine in words."""
    cores = torch.get_num_threads()
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{cores} cores of {processor()}, torch {torch.__version__}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of rows that have the same keys."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "|".join(" --- " for _ in rows[0]) + "|"]
    return "\n".join(lines + ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows])


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Write the JSON, if asked for."""
    if path is not None:
        write_json(path, result)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
