"""Processes that serve one port, each started again when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from asr_kd.common.errors import UserError

#: A process that lives no longer has met something that it would meet again.
MIN_SECONDS = 1.0


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets that listen at one port, over which the system spreads clients.

    Raises:
        UserError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as alone:  # two servers do not share a port by accident
            port = alone.getsockname()[1]
        return [
            socket.create_server((host, port), family=family, backlog=256, reuse_port=True) for _ in range(count)
        ]  # fmt: skip
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{host}, port {port}: {reason}: give another --port or --host") from None


def supervise(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(0)`` to ``work(count - 1)`` in processes of their own, which share the memory of this one.

    They end with this process, however it ends.

    Raises:
        UserError: a process dies as soon as it is started.
    """
    lifeline = os.pipe()
    running = {_start(work, index, lifeline): (index, time.monotonic()) for index in range(count)}
    while True:
        pid, _ = os.wait()
        index, started = running.pop(pid)
        if time.monotonic() - started < MIN_SECONDS:
            raise UserError("a process of the server died as soon as it was started: see above")
        print("asr_kd.serve: a process died, and is started again; its clients must begin again", flush=True)
        running[_start(work, index, lifeline)] = (index, time.monotonic())


def _start(work: Callable[[int], None], index: int, lifeline: tuple[int, int]) -> int:
    if pid := os.fork():
        return pid
    with contextlib.suppress(KeyboardInterrupt):
        os.close(lifeline[1])
        threading.Thread(target=_end_with_parent, args=(lifeline[0],), daemon=True).start()
        work(index)
    os._exit(0)


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when no process has the other end
    os.kill(os.getpid(), signal.SIGTERM)
