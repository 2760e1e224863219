"""Stages on disk: fingerprints and completion marks; and, from ``asr_kd.common.files``, what reads and writes files.

Every stage writes one folder.  Its ``stage.json`` holds a fingerprint of the stage's inputs and settings, whether the
stage finished, and the checksums of its files: a reader compares fingerprints and checksums, and running a finished
stage again returns at once.  This module needs only the standard library and NumPy, so that checking a finished stage
is quick.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from asr_kd import __version__
from asr_kd.common.checksums import MARK, damaged_mark, list_files
from asr_kd.common.checksums import verify as verify
from asr_kd.common.errors import UserError
from asr_kd.common.files import atomic_open as atomic_open
from asr_kd.common.files import atomic_path as atomic_path
from asr_kd.common.files import copy_file as copy_file
from asr_kd.common.files import files_below, remove_unfinished, to_json
from asr_kd.common.files import load_array as load_array
from asr_kd.common.files import publish as publish
from asr_kd.common.files import read_json as read_json
from asr_kd.common.files import save_array as save_array
from asr_kd.common.files import write_json as write_json
from asr_kd.common.locks import LOCK, acquire, release, share, unshare

#: Version of the layout of folders and marks; raised when older experiments become unusable.
LAYOUT = 4
#: Metadata of a field of the settings that changes how a stage runs but not what it makes:
#: ``jobs: int = dataclasses.field(default=0, metadata=RUN_ONLY)``.
RUN_ONLY = MappingProxyType({"identity": False})


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that identify JSON-like ``values`` (paths count as strings, dataclasses as dicts)."""
    text = json.dumps(values, sort_keys=True, default=to_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path_fingerprint(path: Path | str) -> str:
    """The fingerprint of an input: that of a finished stage, of a file's content, or of a folder's listing.

    Raises:
        UserError: the path is missing or belongs to an unfinished stage.
    """
    path = Path(path)
    if (folder := stage_folder(path)) is not None:
        return fingerprint(_finished_mark(folder)["fingerprint"], "" if folder == path else path.name)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if path.is_dir():
        files = sorted(p for p in files_below(path) if p.is_file())
        return fingerprint([(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    raise UserError(f"{path} is missing: check the name, or first run the stage that makes it")


def stage_folder(path: Path) -> Path | None:
    """The folder of the stage that a path is, or that made it."""
    return next((folder for folder in (path, path.parent) if (folder / MARK).is_file()), None)


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
        elsewhere: patterns of the files (``senones/*``) whose checksums are not for the mark to list: there are many
            of them, and a list of cuts or an index has theirs.
    """

    def __init__(
        self,
        name: str,
        out: Path,
        settings: Any,
        inputs: Sequence[Path | str] = (),
        overrides: Mapping[str, Any] = MappingProxyType({}),
        elsewhere: Sequence[str] = (),
    ) -> None:
        self.name, self.out, self.elsewhere = name, Path(out), elsewhere
        self.defaults: dict[str, Any] = {}
        if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
            fields = [f for f in dataclasses.fields(settings) if f.metadata.get("identity", True)]
            self.defaults = {f.name: f.default for f in fields}
            settings = {f.name: getattr(settings, f.name) for f in fields}
        # The content of an input counts, not its place: moved or copied folders stay valid.
        self.settings = {k: v for k, v in {**settings, **overrides}.items() if not _is_path(v)}
        self.paths = [Path(path) for path in inputs]
        self.inputs = [path_fingerprint(path) for path in inputs]
        self.fingerprint = self._fingerprint(self.settings)
        self._started = time.time()
        self._shared: list[Path] = []

    def _fingerprint(self, settings: Mapping[str, Any]) -> str:
        return fingerprint(self.name, __version__, settings, self.inputs)

    def begin(self) -> bool:
        """Prepare the folder; False if it already holds the finished result of the same inputs and settings.

        The files of an interrupted run with the same inputs and settings are kept, so that the stage can resume; those
        of a different run are removed, and a line says so; so are those of a finished one that lost some of its files.
        Settings that did not exist yet when the folder was made count as having had their default values.  Until the
        stage finishes, no other process can begin one in its folder or in those of its inputs; one that would do the
        same waits for it.

        Raises:
            UserError: another process works in the folder with other settings or makes an input again, or it holds
                files of an older asr_kd, or files that no stage wrote.
        """
        if self._up_to_date():
            return False
        acquire(self.out, self._status)
        try:
            if self._up_to_date():  # its last owner has just finished
                release(self.out)
                return False
            self._hold_inputs()
            self._clear_outdated()
            remove_unfinished(self.out)
            self._write("running", {})
        except BaseException:
            self._release()
            raise
        return True

    def _hold_inputs(self) -> None:
        """Keep the folders of other stages that this one reads as they are."""
        for path, known in zip(self.paths, self.inputs, strict=True):
            if (folder := stage_folder(path)) is not None:
                share(folder)
                self._shared.append(folder)
                if path_fingerprint(path) != known:
                    raise UserError(f"{path} has just been made again by another process: run the same command again")

    def _release(self) -> None:
        release(self.out)
        while self._shared:
            unshare(self._shared.pop())

    def _mark(self) -> dict[str, Any] | None:
        return read_mark(self.out) if (self.out / MARK).is_file() else None

    def _matches(self, mark: Mapping[str, Any]) -> bool:
        """Whether a mark has the same inputs and settings."""
        if mark["fingerprint"] != self._fingerprint(settings := self._settings_known_to(mark)):
            return False
        self.settings, self.fingerprint = settings, mark["fingerprint"]
        return True

    def _status(self) -> str:
        """What the folder says of the same inputs and settings: "done", "running", or nothing."""
        mark = self._mark()
        if mark is None or not self._matches(mark) or (mark["status"] == "done" and _lost_file(self.out, mark)):
            return ""
        return str(mark["status"])

    def _up_to_date(self) -> bool:
        if self._status() != "done":
            return False
        print(f"{self.name}: up to date ({self.out})", flush=True)
        return True

    def _clear_outdated(self) -> None:
        """Remove the files of a run with other inputs or settings."""
        # A run that was killed while it wrote its first mark has left a part of it, and nothing else.
        files = [path for path in self.out.iterdir() if path.name != LOCK and not path.name.startswith(f".{MARK}.")]
        mark = self._mark()
        lost = _lost_file(self.out, mark) if mark and self._matches(mark) else ""
        if not files or (mark and self._matches(mark) and not lost):
            return
        if mark is None:
            raise UserError(f"{self.out} holds files that asr_kd did not write: choose an empty folder for --out")
        reason = f"{lost} is missing or incomplete" if lost else self._difference(mark)
        print(f"{self.name}: {self.out} is outdated ({reason}): rebuilding", flush=True)
        for path in files:
            if lost and any(fnmatch(path.name, pattern.split("/")[0]) for pattern in self.elsewhere):
                continue  # parts that have checksums of their own need not be made again
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
        old, new = mark["settings"], json.loads(json.dumps(self._settings_known_to(mark), default=to_json))
        changes = [
            f"{name.replace('_', ' ')} was {old.get(name)}, is {new.get(name)}"
            for name in sorted(new.keys() | old.keys())
            if old.get(name) != new.get(name)
        ]
        return "; ".join(changes) or "its inputs or the version of asr_kd changed"

    def finish(self, **figures: Any) -> None:
        """Mark the folder as complete; ``figures`` (counts, seconds, …) are stored in the mark."""
        files = list_files(self.out, self.elsewhere)
        self._write("done", {"seconds": round(time.time() - self._started, 1), **figures}, files)
        self._release()

    def _write(
        self, status: str, figures: Mapping[str, Any], files: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> None:
        out = self.out.resolve()
        mark = {
            "stage": self.name,
            "layout": LAYOUT,
            "status": status,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "inputs": {
                os.path.relpath(path.resolve(), out): known for path, known in zip(self.paths, self.inputs, strict=True)
            },
            "figures": figures,
            "elsewhere": list(self.elsewhere),
            "files": dict(files),
        }
        write_json(self.out / MARK, mark, sealed=True)


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, tuple) and any(isinstance(v, Path) for v in value))


def read_mark(folder: Path) -> dict[str, Any]:
    """The completion mark of a folder.

    Raises:
        UserError: the mark is missing or damaged, or has another layout.
    """
    mark = read_json(folder / MARK)
    if not isinstance(mark, dict):
        raise damaged_mark(folder / MARK, ValueError("it is not a mark"))
    if mark.get("layout") != LAYOUT:
        raise UserError(
            f"{folder} was made by another version of asr_kd, whose files this one cannot use: "
            "choose another folder for this experiment, or delete that one"
        )
    return mark


def _lost_file(folder: Path, mark: Mapping[str, Any]) -> str:
    """The first file of a finished folder that is missing or has another size; empty if there is none."""
    for name, (size, _) in mark.get("files", {}).items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != size:
            return str(name)
    return ""


def _finished_mark(folder: Path) -> dict[str, Any]:
    mark = read_mark(folder)
    if mark["status"] != "done":
        raise UserError(f"{folder} is unfinished: first run its stage ({mark['stage']}) to the end")
    return mark


def is_finished(folder: Path) -> bool:
    """Whether a stage has finished in this folder."""
    return (folder / MARK).is_file() and read_mark(folder)["status"] == "done"


def stage_fingerprint(folder: Path | str) -> str:
    """The fingerprint of a finished stage's folder.

    Raises:
        UserError: the stage did not run or did not finish.
    """
    return str(_finished_mark(Path(folder))["fingerprint"])


def stage_figures(folder: Path | str) -> dict[str, Any]:
    """The figures that the stage passed to ``finish``, and its ``seconds``."""
    return dict(read_mark(Path(folder))["figures"])
