"""Artefacts on disk: atomic writes, fingerprints and completion marks.

Every stage writes one folder.  ``stage.json`` in it says what was made, from which inputs and settings
(as one fingerprint), and whether the stage finished; a reader compares fingerprints and a second run of
the same stage returns at once.  This module needs only the standard library and NumPy, so that checking
a finished stage is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from asr_kd import __version__
from asr_kd.common.errors import UserError

MARK = "stage.json"
#: Version of the layout of folders and marks; raised when an older experiment cannot be used any more.
LAYOUT = 2
#: Metadata of a settings field that changes how a stage runs, but not what it makes:
#: ``jobs: int = dataclasses.field(default=0, metadata=RUN_ONLY)``.
RUN_ONLY = MappingProxyType({"identity": False})


@contextlib.contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` for writing; rename it to ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path (same suffixes, for writers that look at them); rename to ``path`` on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, atomically."""
    with open(source, "rb") as before, atomic_open(target, "wb") as after:
        shutil.copyfileobj(before, after)


def write_json(path: Path | str, value: Any) -> None:
    with atomic_open(path) as file:
        json.dump(value, file, indent=2, default=_plain)
        file.write("\n")


def read_json(path: Path | str) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it first") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run its stage again") from None


def save_array(path: Path | str, array: np.ndarray) -> None:
    """Write ``array`` as .npy, atomically, without pickle."""
    with atomic_open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def fingerprint(*values: Any) -> str:
    """16 hex digits that identify JSON-like ``values`` (paths count as strings, dataclasses as dicts)."""
    text = json.dumps(values, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path_fingerprint(path: Path | str) -> str:
    """Fingerprint of an input: a finished stage's own, a file's content, or a folder's listing.

    Raises:
        UserError: the path is missing, or belongs to a stage that did not finish.
    """
    path = Path(path)
    for folder in (path, path.parent):
        if (folder / MARK).is_file():
            return fingerprint(_finished(folder)["fingerprint"], "" if folder == path else path.name)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return fingerprint([(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    raise UserError(f"{path} is missing: check the name, or run the stage that makes it first")


class Stage:
    """Completion mark of one stage's folder.

    >>> stage = Stage("features", config.out, config, inputs=[config.data])   # doctest: +SKIP
    >>> if stage.begin():        # False: up to date already, nothing to do    # doctest: +SKIP
    ...     ...                  # write files into config.out
    ...     stage.finish(cuts=1340)

    Args:
        name: the stage's name, used in messages.
        out: the folder that the stage fills; nothing else may write there.
        settings: the stage's dataclass (or mapping); paths and fields marked ``RUN_ONLY`` do not count.
        inputs: files and folders that it reads; each counts by ``path_fingerprint``, not by its name.
        instead: settings of this folder that replace those, as the one seed of a network.
    """

    def __init__(
        self,
        name: str,
        out: Path,
        settings: Any,
        inputs: Sequence[Path | str] = (),
        instead: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name, self.out = name, Path(out)
        self.defaults: dict[str, Any] = {}
        if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
            counted = [f for f in dataclasses.fields(settings) if f.metadata.get("identity", True)]
            self.defaults = {f.name: f.default for f in counted}
            settings = {f.name: getattr(settings, f.name) for f in counted}
        # Where an input lies does not matter, only what it is: moved or copied folders stay valid.
        self.settings = {k: v for k, v in {**settings, **instead}.items() if not _is_path(v)}
        self.inputs = [path_fingerprint(path) for path in inputs]
        self.fingerprint = self._fingerprint(self.settings)
        self._started = time.time()

    def _fingerprint(self, settings: Mapping[str, Any]) -> str:
        return fingerprint(self.name, __version__, settings, self.inputs)

    def begin(self) -> bool:
        """Prepare the folder; False when it already holds the finished result of the same inputs.

        What an interrupted run of the same inputs left is kept, so the stage can resume from it; what
        other inputs or settings made is removed, and a line says so.  Settings that asr_kd had not yet when the folder
        was made count as having been at their defaults.

        Raises:
            UserError: the folder holds files that no stage made, or an older asr_kd's.
        """
        mark = _read_mark(self.out) if (self.out / MARK).is_file() else None
        if mark and mark["fingerprint"] == self._fingerprint(known := self._known_to(mark)):
            self.settings, self.fingerprint = known, mark["fingerprint"]
            if mark["status"] == "done":
                print(f"{self.name}: up to date ({self.out})", flush=True)
                return False
        elif self.out.is_dir() and any(self.out.iterdir()):
            if mark is None:
                raise UserError(f"{self.out} holds files that are not asr_kd's: choose an empty folder for --out")
            print(f"{self.name}: {self.out} is outdated ({self._difference(mark)}): rebuilding", flush=True)
            shutil.rmtree(self.out)
        self._write("running", {})
        return True

    def _known_to(self, mark: Mapping[str, Any]) -> dict[str, Any]:
        """The settings without those that the mark does not have and that are at their defaults."""
        return {
            key: value
            for key, value in self.settings.items()
            if key in mark["settings"] or self.defaults.get(key, dataclasses.MISSING) != value
        }

    def _difference(self, mark: Mapping[str, Any]) -> str:
        """Why what is there cannot be used."""
        now = json.loads(json.dumps(self._known_to(mark), default=_plain))
        names = sorted(now.keys() | mark["settings"].keys())
        before, after = ([values.get(name) for name in names] for values in (mark["settings"], now))
        changed = [
            f"{name.replace('_', ' ')} was {old}, is {new}"
            for name, old, new in zip(names, before, after, strict=True)
            if old != new
        ]
        return "; ".join(changed) if changed else "its inputs or the version of asr_kd changed"

    def finish(self, **figures: Any) -> None:
        """Mark the folder as complete; ``figures`` (counts, seconds, …) are kept for the report."""
        self._write("done", {"seconds": round(time.time() - self._started, 1), **figures})

    def _write(self, status: str, figures: Mapping[str, Any]) -> None:
        write_json(
            self.out / MARK,
            {
                "stage": self.name,
                "layout": LAYOUT,
                "status": status,
                "fingerprint": self.fingerprint,
                "settings": self.settings,
                "figures": figures,
            },
        )


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, tuple) and any(isinstance(v, Path) for v in value))


def _read_mark(folder: Path) -> dict[str, Any]:
    """A stage's mark.

    Raises:
        UserError: it is missing or damaged, or of another layout.
    """
    mark: dict[str, Any] = read_json(folder / MARK)
    if mark.get("layout") != LAYOUT:
        raise UserError(
            f"{folder} was made by another version of asr_kd, whose files this one cannot use: "
            "choose another folder for this experiment, or delete that one"
        )
    return mark


def _finished(folder: Path) -> dict[str, Any]:
    mark = _read_mark(folder)
    if mark["status"] != "done":
        raise UserError(f"{folder} is unfinished: run its stage ({mark['stage']}) to the end first")
    return mark


def is_finished(folder: Path) -> bool:
    """Whether a stage has run to its end in this folder."""
    return (folder / MARK).is_file() and _read_mark(folder)["status"] == "done"


def stage_fingerprint(folder: Path | str) -> str:
    """The fingerprint of a finished stage's folder.

    Raises:
        UserError: the stage never ran or did not finish.
    """
    return str(_finished(Path(folder))["fingerprint"])


def stage_figures(folder: Path | str) -> dict[str, Any]:
    """What the stage noted in ``finish`` (always with ``seconds``)."""
    return dict(_read_mark(Path(folder))["figures"])
