"""Fan-out over a ``concurrent.futures`` Executor, with a progress bar: local processes, one thread each, or the workers
of a Dask cluster."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

if TYPE_CHECKING:
    from asr_kd.storage import Stage

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_executor(jobs: int = 0, tasks: int | None = None) -> ProcessPoolExecutor:
    """A pool of ``jobs`` processes (0: one a core) that compute with one thread each: two processes of one thread
    were faster than one of two in every stage of this project.  Where the number of ``tasks`` is known, there are
    no more processes than that, and cores without a process are shared out as threads."""
    jobs = jobs or cpu_count()
    threads = 1
    if tasks is not None:
        jobs = max(1, min(jobs, tasks))
        threads = max(1, cpu_count() // jobs)
    return ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(threads,),
    )


def connect(scheduler: str) -> Executor:
    """The workers of a Dask cluster, which must see the same folders as this process.

    Args:
        scheduler: its address, as tcp://HOST:8786.

    Raises:
        UserError: Dask is not installed, or nothing answers there.
    """
    from asr_kd.storage import UserError

    try:
        from distributed import Client
    except ImportError:
        raise UserError("--scheduler needs Dask: pip install 'asr_kd[cluster]'") from None
    try:
        return Client(scheduler, timeout=10, set_as_default=False).get_executor()
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {scheduler} ({error}): start one (dask scheduler) and its workers "
            "(dask worker ADDRESS --nthreads 1), or leave out --scheduler"
        ) from None


def _start_worker(threads: int) -> None:
    """Bound the threads; and end with the parent, however that ends: an orphan would go on writing into a
    folder that the next run resumes."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # What was imported before this reads no environment any more: threads of NumPy's BLAS that wait for each other
    # made the GMM's passes take twenty times as long.
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def progress(
    items: Iterable[Item], description: str, total: int | None = None, unit: str = "it", shown: bool = True
) -> Iterable[Item]:
    """``items`` with a bar on stderr that shows the time left (sparse when stderr is not a terminal)."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm(
        items, desc=description, total=total, unit=unit, mininterval=interval, dynamic_ncols=True, disable=not shown
    )


def run_all(
    executor: Executor, function: Callable[[Item], Result], items: Sequence[Item], description: str, unit: str = "job"
) -> Iterator[tuple[int, Result]]:
    """Yield (index, function(item)) as jobs end, in whatever order; a failed job raises here."""
    futures: dict[Future[Result], int] = {executor.submit(function, item): i for i, item in enumerate(items)}
    for future in progress(as_completed(futures), description, len(items), unit):
        yield futures[future], future.result()


def run_stages(
    executor: Executor,
    function: Callable[[Item], dict[str, Any]],
    todo: Sequence[tuple[Stage, Item]],
    description: str,
    unit: str = "job",
) -> None:
    """Finish stages that have begun, each with the figures that function(its item) returns, and its own seconds."""
    timed = functools.partial(_timed, function)
    for index, figures in run_all(executor, timed, [item for _, item in todo], description, unit):
        todo[index][0].finish(**figures)


def _timed(function: Callable[[Item], dict[str, Any]], item: Item) -> dict[str, Any]:
    # All stages have begun at once, so their own clocks count the time in the queue, too.
    begun = time.perf_counter()
    figures = function(item)
    return {"seconds": round(time.perf_counter() - begun, 1), **figures}


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """``items``, none of them None, the next one being made in a thread while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item
