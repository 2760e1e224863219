"""Artefacts on disk: atomic writes, fingerprints and completion marks.

Every stage writes one folder.  Its ``stage.json`` holds a fingerprint of the stage's inputs and settings, and whether
the stage finished: a reader compares fingerprints, and running a finished stage again returns at once.  This module
needs only the standard library and NumPy, so that checking a finished stage is quick.
"""

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
from asr_kd.common.locks import LOCK, acquire, release

MARK = "stage.json"
#: Version of the layout of folders and marks; raised when older experiments become unusable.
LAYOUT = 2
#: Metadata of a field of the settings that changes how a stage runs but not what it makes:
#: ``jobs: int = dataclasses.field(default=0, metadata=RUN_ONLY)``.
RUN_ONLY = MappingProxyType({"identity": False})


@contextlib.contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` for writing; rename it to ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        _publish(Path(name), path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path of the same name; rename it to ``path`` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        _publish(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    """Rename a complete file, once it is on the disk, with the mode that the umask gives, whatever wrote it."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    os.replace(temporary, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, atomically."""
    with open(source, "rb") as original, atomic_open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON, atomically."""
    with atomic_open(path) as file:
        json.dump(value, file, indent=2, default=_to_json)
        file.write("\n")


def read_json(path: Path | str) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: first run the stage that makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from None


def save_array(path: Path | str, array: np.ndarray) -> None:
    """Write ``array`` as .npy, atomically, without pickle."""
    with atomic_open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _to_json(value: Any) -> Any:
    """A path, NumPy number or dataclass as JSON represents it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that identify JSON-like ``values`` (paths count as strings, dataclasses as dicts)."""
    text = json.dumps(values, sort_keys=True, default=_to_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path_fingerprint(path: Path | str) -> str:
    """The fingerprint of an input: that of a finished stage, of a file's content, or of a folder's listing.

    Raises:
        UserError: the path is missing or belongs to an unfinished stage.
    """
    path = Path(path)
    for folder in (path, path.parent):
        if (folder / MARK).is_file():
            return fingerprint(_finished_mark(folder)["fingerprint"], "" if folder == path else path.name)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return fingerprint([(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    raise UserError(f"{path} is missing: check the name, or first run the stage that makes it")


class Stage:
    """The completion mark of a stage's folder.

    >>> stage = Stage("features", config.out, config, inputs=[config.data])   # doctest: +SKIP
    >>> if stage.begin():        # False: the folder is up to date           # doctest: +SKIP
    ...     ...                  # write files into config.out
    ...     stage.finish(cuts=1340)

    Args:
        name: the stage's name, used in messages and in the fingerprint.
        out: the folder that the stage fills; nothing else may write there.
        settings: the stage's dataclass (or a mapping); paths and fields marked ``RUN_ONLY`` do not count.
        inputs: files and folders that the stage reads; they count by ``path_fingerprint``, not by name.
        overrides: settings that are different for this folder, such as a network's seed.
    """

    def __init__(
        self,
        name: str,
        out: Path,
        settings: Any,
        inputs: Sequence[Path | str] = (),
        overrides: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name, self.out = name, Path(out)
        self.defaults: dict[str, Any] = {}
        if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
            fields = [f for f in dataclasses.fields(settings) if f.metadata.get("identity", True)]
            self.defaults = {f.name: f.default for f in fields}
            settings = {f.name: getattr(settings, f.name) for f in fields}
        # The content of an input counts, not its place: moved or copied folders stay valid.
        self.settings = {k: v for k, v in {**settings, **overrides}.items() if not _is_path(v)}
        self.inputs = [path_fingerprint(path) for path in inputs]
        self.fingerprint = self._fingerprint(self.settings)
        self._started = time.time()

    def _fingerprint(self, settings: Mapping[str, Any]) -> str:
        return fingerprint(self.name, __version__, settings, self.inputs)

    def begin(self) -> bool:
        """Prepare the folder; False if it already holds the finished result of the same inputs and settings.

        The files of an interrupted run with the same inputs and settings are kept, so that the stage can resume; those
        of a different run are removed, and a line says so.  Settings that did not exist yet when the folder was made
        count as having had their default values.

        Raises:
            UserError: another process works in the folder, or it holds files of an older asr_kd, or files that no stage
                wrote.
        """
        if self._up_to_date():
            return False
        acquire(self.out)
        try:
            if self._up_to_date():  # its last owner has just finished
                release(self.out)
                return False
            self._clear_outdated()
            self._write("running", {})
        except BaseException:
            release(self.out)
            raise
        return True

    def _mark(self) -> dict[str, Any] | None:
        return _read_mark(self.out) if (self.out / MARK).is_file() else None

    def _matches(self, mark: Mapping[str, Any]) -> bool:
        """Whether a mark has the same inputs and settings."""
        if mark["fingerprint"] != self._fingerprint(settings := self._settings_known_to(mark)):
            return False
        self.settings, self.fingerprint = settings, mark["fingerprint"]
        return True

    def _up_to_date(self) -> bool:
        mark = self._mark()
        if mark is None or mark["status"] != "done" or not self._matches(mark):
            return False
        print(f"{self.name}: up to date ({self.out})", flush=True)
        return True

    def _clear_outdated(self) -> None:
        """Remove the files of a run with other inputs or settings."""
        files = [path for path in self.out.iterdir() if path.name != LOCK]
        mark = self._mark()
        if not files or (mark and self._matches(mark)):
            return
        if mark is None:
            raise UserError(f"{self.out} holds files that asr_kd did not write: choose an empty folder for --out")
        print(f"{self.name}: {self.out} is outdated ({self._difference(mark)}): rebuilding", flush=True)
        for path in files:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _settings_known_to(self, mark: Mapping[str, Any]) -> dict[str, Any]:
        """The settings without those that are missing from the mark and have their default values."""
        return {
            key: value
            for key, value in self.settings.items()
            if key in mark["settings"] or self.defaults.get(key, dataclasses.MISSING) != value
        }

    def _difference(self, mark: Mapping[str, Any]) -> str:
        """Why the files in the folder cannot be used."""
        old, new = mark["settings"], json.loads(json.dumps(self._settings_known_to(mark), default=_to_json))
        changes = [
            f"{name.replace('_', ' ')} was {old.get(name)}, is {new.get(name)}"
            for name in sorted(new.keys() | old.keys())
            if old.get(name) != new.get(name)
        ]
        return "; ".join(changes) or "its inputs or the version of asr_kd changed"

    def finish(self, **figures: Any) -> None:
        """Mark the folder as complete; ``figures`` (counts, seconds, …) are stored in the mark."""
        self._write("done", {"seconds": round(time.time() - self._started, 1), **figures})
        release(self.out)

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
    """The completion mark of a folder.

    Raises:
        UserError: the mark is missing or damaged, or has another layout.
    """
    mark: dict[str, Any] = read_json(folder / MARK)
    if mark.get("layout") != LAYOUT:
        raise UserError(
            f"{folder} was made by another version of asr_kd, whose files this one cannot use: "
            "choose another folder for this experiment, or delete that one"
        )
    return mark


def _finished_mark(folder: Path) -> dict[str, Any]:
    mark = _read_mark(folder)
    if mark["status"] != "done":
        raise UserError(f"{folder} is unfinished: first run its stage ({mark['stage']}) to the end")
    return mark


def is_finished(folder: Path) -> bool:
    """Whether a stage has finished in this folder."""
    return (folder / MARK).is_file() and _read_mark(folder)["status"] == "done"


def stage_fingerprint(folder: Path | str) -> str:
    """The fingerprint of a finished stage's folder.

    Raises:
        UserError: the stage did not run or did not finish.
    """
    return str(_finished_mark(Path(folder))["fingerprint"])


def stage_figures(folder: Path | str) -> dict[str, Any]:
    """The figures that the stage passed to ``finish``, and its ``seconds``."""
    return dict(_read_mark(Path(folder))["figures"])
