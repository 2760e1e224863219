"""The error that stages report to users, and what they can do about errors of the system."""

import errno
import os
import sqlite3

#: Errors of the system -> what has happened, and what to do before the same command is run again.
ADVICE = {
    errno.ENOSPC: "the disk is full (or has no inodes left): free some space",
    errno.EDQUOT: "your share of the disk is used up: free some space",
    errno.EFBIG: "a file is larger than the system allows: raise the limit (ulimit -f)",
    errno.EROFS: "the disk is read-only: choose another folder, or mount it for writing",
    errno.EACCES: "permission denied: choose another folder, or change its permissions",
    errno.EPERM: "permission denied: choose another folder, or change its permissions",
    errno.EEXIST: "a file is in the place of a folder: choose another folder",
    errno.EISDIR: "a folder is in the place of a file: remove it",
    errno.ENOENT: "there is no such file: check the name, or first run the stage that makes it,",
    errno.ENOMEM: "memory is short: end other programs, or raise the limit (ulimit -v),",
    errno.ENOTDIR: "a file is in the place of a folder: choose another folder",
    errno.ENAMETOOLONG: "a name is too long for the disk: choose a shorter one",
    errno.EIO: "the disk or the network has failed: check it",
    errno.ESTALE: "a shared disk has been mounted anew: check it",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}

#: What SQLite, whose tables are temporary files here, has met -> the error of the system.
SQLITE_FAULTS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}

#: How libraries say that there is no memory: torch, C++, CUDA, the dynamic linker, threads.
NO_MEMORY = (
    "allocate memory", "unable to allocate", "bad_alloc", "out of memory", "failed to map segment",
    "can't start new thread",
)  # fmt: skip


class UserError(Exception):
    """An error that the user can correct, as one sentence that says how.  Stages print it and exit with status 1."""


def system_fault(error: OSError | sqlite3.Error) -> str:
    """One sentence about a disk that is full, cannot be written, or fails; empty for any other error."""
    if isinstance(error, sqlite3.Error):
        number = SQLITE_FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # the higher bits are details
        folder = os.environ.get("TMPDIR", "/var/tmp")  # where SQLite looks first
        place = f"{folder} (temporary files; TMPDIR names another folder): "
    else:
        number = error.errno
        if number is None and "requested and" in str(error):  # from NumPy: "1000 requested and 12 written"
            number = errno.ENOSPC
        place = f"{error.filename}: " if error.filename else ""
    return f"{place}{ADVICE[number]} and run the same command again" if number in ADVICE else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or another library could not get memory, which each says in its own way."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)
