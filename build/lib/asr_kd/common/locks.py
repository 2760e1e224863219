"""A folder has one owner at a time, and none while others read it.

The lock ends with the process that holds it, however that ends, also on disks that several machines share.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asr_kd.common.errors import UserError

LOCK = ".lock"
#: How long processes with other work are waited for: a killed one may take some seconds to end with all its own.
WAIT_SECONDS = 20.0


@dataclass
class _Lock:
    """A lock of this process."""

    file: IO[str]  # stays open: closing any handle of a file ends a process's lock on it
    owned: bool = False
    readers: int = 0


_held: dict[Path, _Lock] = {}


def acquire(folder: Path, status: Callable[[], str] = str) -> None:
    """Make this process the owner of a folder, which is made if it does not exist.

    Args:
        status: how far the work that this process would do there is: "done" ends the wait, without the folder;
            "running" is waited for as long as it takes, unless this process owns another folder, for which the owner
            of this one may wait in turn.

    Raises:
        UserError: another process owns or reads it, and still does after ``WAIT_SECONDS``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder, fcntl.LOCK_EX, status)


def share(folder: Path) -> None:
    """Keep other processes from owning a folder while this one reads it.

    Raises:
        UserError: another process owns it, and still does after ``WAIT_SECONDS``.
    """
    try:
        _lock(folder, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise  # where this process may not write, it cannot lock


def _lock(folder: Path, kind: int, status: Callable[[], str] = str) -> None:
    path, begun = folder.resolve() / LOCK, time.monotonic()
    while path not in _held:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        try:
            if not _wait_for(folder, file, kind, begun, status):
                return
            with contextlib.suppress(FileNotFoundError):  # its last holder has just removed it
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    _held[path] = _Lock(file)
        finally:
            if path not in _held:
                file.close()
    lock = _held[path]
    upgrade = kind == fcntl.LOCK_EX and lock.readers and not lock.owned
    if upgrade and not _wait_for(folder, lock.file, kind, begun, status):
        return
    if not lock.owned and (kind == fcntl.LOCK_EX or not lock.readers):
        _sign(lock.file, kind)
    lock.owned |= kind == fcntl.LOCK_EX
    lock.readers += kind == fcntl.LOCK_SH


def _wait_for(folder: Path, file: IO[str], kind: int, begun: float, status: Callable[[], str]) -> bool:
    """Lock a file; False where the disk has no locks, or when the work in the folder is done.

    Raises:
        UserError: another process holds it for too long.
    """
    told = False
    while True:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logging.warning("%s cannot be locked (%s): run nothing else in it", folder, error)
                return False
        state = status()
        if state == "done":
            return False
        if state == "running" and not any(lock.owned for lock in _held.values()):
            if not told:
                logging.info("%s is being made by %s with the same settings: waiting for it", folder, _holders(file))
                told = True
        elif time.monotonic() - begun > WAIT_SECONDS:
            raise UserError(f"{folder} is in use by {_holders(file)}: wait until it ends, or choose another folder")
        time.sleep(0.1)


def _holders(file: IO[str]) -> str:
    """Who holds a lock, as they have signed."""
    file.seek(0)
    return ", ".join(file.read().split("\n")[:-1]) or "another process"


def _sign(file: IO[str], kind: int) -> None:
    """Add a line for others to read about who holds the lock."""
    if kind == fcntl.LOCK_EX:
        file.truncate(0)
    use = "" if kind == fcntl.LOCK_EX else ", which reads it,"
    file.write(f"process {os.getpid()} on {socket.gethostname()}{use} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()


def release(folder: Path) -> None:
    """Give up a folder that this process owns."""
    if (lock := _held.get(path := folder.resolve() / LOCK)) is not None:
        if lock.owned and lock.readers:
            fcntl.lockf(lock.file, fcntl.LOCK_SH)
        lock.owned = False
        _drop(path, lock)


def unshare(folder: Path) -> None:
    """Undo one ``share``."""
    if (lock := _held.get(path := folder.resolve() / LOCK)) is not None:
        lock.readers = max(0, lock.readers - 1)
        _drop(path, lock)


def _drop(path: Path, lock: _Lock) -> None:
    if lock.owned or lock.readers:
        return
    with contextlib.suppress(OSError):  # other processes still read it, and the last of them removes the file
        fcntl.lockf(lock.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    _held.pop(path).file.close()
