"""Fan-out over a ``concurrent.futures`` Executor, with a progress bar: local processes, one thread each, or the workers
of a Dask cluster."""

from __future__ import annotations

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

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import RUN_ONLY, Stage

WAITING = 4  # jobs given out for each worker, the one that it does among them
MOST_TMPDIR = 70  # characters; a socket's address has 107, of which multiprocessing adds some
Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(kw_only=True)
class Workers:
    """Flags of a stage that fans out: who does its jobs."""

    jobs: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    """Jobs at once, a process each (0: one a core)."""
    scheduler: str = dataclasses.field(default="", metadata=RUN_ONLY)
    """Address of a Dask scheduler, as tcp://HOST:8786, whose workers do the jobs instead; they must see the same
    folders."""

    def executor(self, tasks: int | None = None, resources: str = "") -> Executor:
        """Local processes (see ``make_executor``), or the cluster (see ``connect``)."""
        return connect(self.scheduler, resources) if self.scheduler else make_executor(self.jobs, tasks)


def make_executor(jobs: int = 0, tasks: int | None = None) -> ProcessPoolExecutor:
    """A pool of ``jobs`` processes (0: one a core) that compute with one thread each: two processes of one thread
    were faster than one of two in every stage of this project.  Where the number of ``tasks`` is known, there are
    no more processes than that, and cores without a process are shared out as threads."""
    jobs = jobs or cpu_count()
    threads = 1
    if tasks is not None:
        jobs = max(1, min(jobs, tasks))
        threads = max(1, cpu_count() // jobs)
    return ProcessPoolExecutor(jobs, _context(), _start_worker, (threads, dict(os.environ)))


def _context() -> BaseContext:
    """Processes are forked from one that has imported what takes seconds, once for all pools of this process."""
    if len(tempfile.gettempdir()) > MOST_TMPDIR:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lhotse", "torch"])
    return context


def connect(scheduler: str, resources: str = "") -> Executor:
    """The workers of a Dask cluster, which must see the same folders as this process.

    Args:
        scheduler: its address, as tcp://HOST:8786.
        resources: what a job takes of a worker, as "gpu=1".

    Raises:
        UserError: Dask is not installed, nothing answers there, or ``resources`` makes no sense.
    """
    try:
        from distributed import Client
        from distributed.cfexecutor import ClientExecutor
    except ImportError:
        raise UserError("--scheduler needs Dask: pip install 'asr_kd[cluster]'") from None
    taken = {}
    for one in filter(None, resources.split(",")):
        name, _, amount = one.partition("=")
        if not name or not amount.replace(".", "", 1).isdigit():
            raise UserError(f"--resources takes NAME=NUMBER[,NAME=NUMBER...], not {resources!r}: correct the flag")
        taken[name] = float(amount)
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {scheduler} ({error}): start one (dask scheduler) and its workers "
            "(dask worker ADDRESS --nthreads 1), or leave out --scheduler"
        ) from None
    offered = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    if not any(all(one.get(name, 0) >= amount for name, amount in taken.items()) for one in offered):
        client.close()
        raise UserError(
            f"no worker of {scheduler} has {resources}: start some (dask worker ADDRESS --resources {resources})"
            if offered
            else f"{scheduler} has no workers: start some (dask worker ADDRESS --nthreads 1)"
        )

    class Connected(ClientExecutor):
        """Leaves the scheduler when it is shut down."""

        def shutdown(self, *how: Any, **more: Any) -> None:
            super().shutdown(*how, **more)
            client.close()

    return Connected(client, **({"resources": taken} if taken else {}))


def _workers(executor: Executor) -> int:
    """How many jobs it does at once."""
    local = getattr(executor, "_max_workers", None)
    return local or sum(executor._client.nthreads().values())  # type: ignore[attr-defined]


def _start_worker(threads: int, environment: Mapping[str, str]) -> None:
    """Bound the threads; and end with the parent, however that ends: an orphan would go on writing into a
    folder that the next run resumes."""
    os.environ.update(environment)  # it was forked from a process that may be older
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # What was imported before this reads no environment any more: threads of NumPy's BLAS that wait for each other
    # made the GMM's passes take twenty times as long.
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


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
    """Yield (index, function(item)) as jobs end, in whatever order; a failed job raises here.

    Args:
        items: taken as workers become free, so that a generator's need not all be in memory.
        total: how many there are, where ``items`` cannot tell.
        shown: draw a progress bar.
    """
    total = len(items) if isinstance(items, Sized) else total
    numbered = enumerate(items)
    waiting: dict[Future[Result], int] = {}
    with progress(None, description, total, unit, shown) as bar:
        while True:
            free = max(0, WAITING * max(1, _workers(executor)) - len(waiting))
            given = {executor.submit(function, item): number for number, item in itertools.islice(numbered, free)}
            waiting |= given
            if not waiting:
                return
            if len(given) < free:  # that was all: now their number is known
                bar.total = bar.n + len(waiting)
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
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
    """As ``run_all``, but the results in the order of ``items``: sums come out the same whatever ends first."""
    early: dict[int, Result] = {}
    following = 0
    for number, result in run_all(executor, function, items, description, unit, total, shown):
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


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
