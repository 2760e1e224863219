"""Jobs on a ``concurrent.futures`` executor, with a progress bar: local processes or the workers of a Dask cluster."""

import contextlib
import ctypes
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from asr_kd.common.cluster import connect
from asr_kd.common.progress import progress
from asr_kd.common.settings import Natural, Settings
from asr_kd.common.stopped import tell_stopped
from asr_kd.common.storage import RUN_ONLY, Stage

JOBS_PER_WORKER = 4  # submitted at a time, including the running one
QUIET_SECONDS = 10.0  # without a finished job, after which processes that are stopped are named
MAX_TMPDIR_LENGTH = 70  # characters; a socket's address has at most 107, and multiprocessing appends to the folder
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(kw_only=True)
class Workers(Settings):
    """Flags of a stage that splits its work into jobs: where they run."""

    jobs: Natural = dataclasses.field(default=0, metadata=RUN_ONLY)
    """Number of processes (0: one per core)."""
    scheduler: str = dataclasses.field(default="", metadata=RUN_ONLY)
    """Address of a Dask scheduler (tcp://HOST:8786) whose workers run the jobs; they must see the same folders."""

    def executor(self, tasks: int | None = None, resources: str = "") -> Executor:
        """Local processes (see ``make_executor``), or a Dask cluster (see ``connect``)."""
        return connect(self.scheduler, resources) if self.scheduler else make_executor(self.jobs, tasks)


def make_executor(jobs: int = 0, tasks: int | None = None) -> ProcessPoolExecutor:
    """A pool of processes that compute with one thread each.

    Two processes with one thread each were faster than one with two threads in every stage of this project.

    Args:
        jobs: number of processes (0: one per core).
        tasks: number of jobs, if known: there are at most that many processes, which share idle cores as threads.
    """
    jobs = jobs or cpu_count()
    threads = 1
    if tasks is not None:
        jobs = max(1, min(jobs, tasks))
        threads = max(1, cpu_count() // jobs)
    return _Pool(jobs, _context(), _start_worker, (threads, dict(os.environ)))


class _Pool(ProcessPoolExecutor):
    """Tells which idle worker is stopped when it is to end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        manager: Any = self._executor_manager_thread  # it waits for the workers
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        while wait and manager is not None and manager.is_alive():
            manager.join(QUIET_SECONDS)
            if manager.is_alive():
                tell_stopped("the end of the work")


def _context() -> BaseContext:
    """A server that forks the workers of all pools: it imports the packages that take seconds only once."""
    if len(tempfile.gettempdir()) > MAX_TMPDIR_LENGTH:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lhotse", "torch"])
    return context


def _workers(executor: Executor) -> int:
    """The number of jobs that an executor runs at a time."""
    local = getattr(executor, "_max_workers", None)
    return local or sum(executor._client.nthreads().values())  # type: ignore[attr-defined]


def _start_worker(threads: int, environment: Mapping[str, str]) -> None:
    """Limit the threads of a worker, and end it with its parent, even a killed one: an orphan would go on writing into
    a folder that the next run resumes."""
    os.environ.update(environment)  # the server that forked this process may have started with another one
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Libraries that are already loaded do not read the environment again.  Without this limit, threads of NumPy's
    # BLAS waited for each other, and the passes of GMM training took twenty times as long.
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def keep_freed_memory() -> None:
    """Let the C library keep the memory that this process frees for what it does next.

    By default it returns large blocks to the kernel, which clears their pages before it hands them out again.  That
    took a fifth of an update of the paper's network.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def run_all(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    description: str,
    unit: str = "job",
    total: int | None = None,
    shown: bool = True,
) -> Iterator[tuple[int, Result]]:
    """Yield (index, function(item)) as jobs finish, in any order; the exception of a failed job is raised here.

    Args:
        items: read as workers become free, so a generator's items need not fit into memory at once.
        total: number of items, if ``items`` has no length.
        shown: draw a progress bar.
    """
    total = len(items) if isinstance(items, Sized) else total
    numbered = enumerate(items)
    pending: dict[Future[Result], int] = {}
    with progress(None, description, total, unit, shown) as bar:
        while True:
            free = max(0, JOBS_PER_WORKER * max(1, _workers(executor)) - len(pending))
            submitted = {executor.submit(function, item): number for number, item in itertools.islice(numbered, free)}
            pending |= submitted
            if not pending:
                return
            if len(submitted) < free:  # there are no more items: now their number is known
                bar.total = bar.n + len(pending)
            done, _ = wait(pending, QUIET_SECONDS, FIRST_COMPLETED)
            if not done:
                tell_stopped(description)
            for future in done:
                yield pending.pop(future), future.result()
                bar.update()


def run_in_order(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    description: str,
    unit: str = "job",
    total: int | None = None,
    shown: bool = True,
) -> Iterator[Result]:
    """Like ``run_all``, but yield the results in the order of ``items``, so that sums do not depend on timing."""
    results: dict[int, Result] = {}
    position = 0
    for number, result in run_all(executor, function, items, description, unit, total, shown):
        results[number] = result
        while position in results:
            yield results.pop(position)
            position += 1


def run_stages(
    executor: Executor,
    function: Callable[[Item], dict[str, Any]],
    todo: Sequence[tuple[Stage, Item]],
    description: str,
    unit: str = "job",
) -> None:
    """Finish stages that have begun, each with the figures that ``function`` returns for its item and its own time."""
    timed = functools.partial(_timed, function)
    for index, figures in run_all(executor, timed, [item for _, item in todo], description, unit):
        todo[index][0].finish(**figures)


def _timed(function: Callable[[Item], dict[str, Any]], item: Item) -> dict[str, Any]:
    # All stages have begun at once, so their own clocks include the time in the queue.
    start = time.perf_counter()
    figures = function(item)
    return {"seconds": round(time.perf_counter() - start, 1), **figures}


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """``items``, none of which is None; a thread computes the next item while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        future = thread.submit(next, items, None)
        while (item := future.result()) is not None:
            future = thread.submit(next, items, None)
            yield item
