"""A folder has one owner at a time.

The lock ends with the process that holds it, however that ends, also on disks that several machines share.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from asr_kd.common.errors import UserError

LOCK = ".lock"
#: How long an owner is waited for: a killed one may take some seconds to end with all its processes.
WAIT_SECONDS = 20.0
#: Locks of this process.  They must stay open: closing any handle of a file ends a process's lock on it.
_held: dict[Path, IO[str]] = {}


def acquire(folder: Path) -> None:
    """Make this process the owner of a folder, which is made if it does not exist.

    Raises:
        UserError: another process owns it, and still does after ``WAIT_SECONDS``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, begun = folder.resolve() / LOCK, time.monotonic()
    while path not in _held:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    logging.warning("%s cannot be locked (%s): run nothing else in it", folder, error)
                    return
                file.seek(0)
                owner = file.read().strip() or "another process"
            if time.monotonic() - begun < WAIT_SECONDS:
                time.sleep(0.1)
                continue
            raise UserError(f"{folder} is in use by {owner}: wait until it ends, or choose another folder") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(
                    f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
                )
                file.flush()
                _held[path] = file
                continue
        file.close()  # its last owner has just removed it


def release(folder: Path) -> None:
    """Give up a folder that this process owns."""
    path = folder.resolve() / LOCK
    if path in _held:
        path.unlink(missing_ok=True)
        _held.pop(path).close()
