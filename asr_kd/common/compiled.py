"""C++ sources of this package, built by the machine's compiler, once for all processes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def compiled(source: Path, flags: Sequence[str]) -> ctypes.CDLL | None:
    """Return the library, built if it was not before; None if that fails, as without a compiler.

    The compiler is $CXX, else c++, g++ or clang++.  Libraries are kept in $XDG_CACHE_HOME/asr_kd, by default
    ~/.cache/asr_kd, by source and command.

    Args:
        source: file of C++17.
        flags: for the compiler.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        return None
    command = [*shlex.split(compiler), "-O3", "-std=c++17", "-shared", "-fPIC", *flags]
    key = hashlib.sha256(source.read_bytes() + " ".join(command).encode()).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr_kd"
        path = folder / f"{source.stem}_{key}.so"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:  # others may build it at the same time
                built = Path(scratch) / path.name
                subprocess.run([*command, str(source), "-o", str(built)], check=True, capture_output=True)
                built.replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: the user has no home
        return None
