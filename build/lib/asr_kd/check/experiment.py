"""The faults of an experiment: files that are not what their stages wrote, and stages that do not fit their inputs."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut

from asr_kd.common.checksums import MARK, SEAL, checksum, own_files
from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import path_fingerprint, read_json, read_mark, stage_folder
from asr_kd.corpora.cuts import load_senones, open_cuts
from asr_kd.corpora.shar.shards import INDEX as SHARDS
from asr_kd.corpora.shar.shards import Shards
from asr_kd.decode.worker import CHECKSUMS, load_prepared
from asr_kd.features.extractors import raw_features
from asr_kd.soft_targets.shards import INDEX

#: Pattern of the arrays that a mark does not list -> what reads those of a cut and verifies their checksum.
READERS = (
    ("storage/*", raw_features), ("*/*.tar", raw_features), ("senones/*", load_senones), ("*/*.tar", load_senones),
)  # fmt: skip
#: Faults of a folder that are shown.
SHOWN = 10


class Check:
    """Verifies the stages below a folder.

    Args:
        exp: the folder.

    Attributes:
        faults: {folder: what is wrong in it}.
        stages: {folder: name of its stage, if its mark can be read}.

    Raises:
        UserError: no stage has written anything there.
    """

    def __init__(self, exp: Path) -> None:
        self.exp = exp
        self.folders = sorted(mark.parent for mark in exp.rglob(MARK))
        if not self.folders:
            raise UserError(f"{exp} has no folder of a stage: give the folder of an experiment")
        self.faults: dict[Path, list[str]] = defaultdict(list)
        self.stages: dict[Path, str] = {}
        self.files = self._bytes = 0
        self.unlisted: list[Path] = []

    def run(self) -> None:
        """Find the faults, with a progress bar over all bytes."""
        sizes = {folder: [(folder / name).stat().st_size for name in own_files(folder)] for folder in self.folders}
        self.files = sum(map(len, sizes.values()))
        with progress(None, "check", sum(map(sum, sizes.values())) // 10**6 + 1, "MB") as self._bar:
            for folder in self.folders:
                for fault in self._faults_of(folder):
                    self.faults[folder].append(fault)
            for prepared in sorted(path.parent for path in self.exp.rglob(CHECKSUMS)):
                try:
                    load_prepared(prepared)
                except ValueError as error:
                    self.faults[prepared].append(str(error))

    def report(self) -> str:
        """What is wrong, and what to do about it."""
        lines = []
        for folder, faults in self.faults.items():
            more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
            lines += [f"{folder}: {fault}" for fault in [*faults[:SHOWN], *more]]
            lines.append(f"  → {self._advice(folder)}")
        if self.unlisted:
            lines.append(f"{len(self.unlisted)} folders are of an older asr_kd, which wrote no checksums")
        wrong = f"{len(self.faults)} folders have faults" if self.faults else "all files are as they were written"
        return "\n".join([*lines, f"{len(self.folders)} stages, {self.files:,} files: {wrong}"])

    def _advice(self, folder: Path) -> str:
        if folder not in self.stages:
            return f"delete {folder} and run its stage again"
        stage, faults = self.stages[folder], self.faults[folder]
        if all(fault.startswith("unknown file") for fault in faults):
            return "remove what is not the stage's"
        if all(fault.startswith(("unfinished", "made from another")) for fault in faults):
            return f"run its stage ({stage}) again"
        shards = [str(folder / fault.partition("/")[0]) for fault in faults if fault.startswith("shard-")]
        damaged = " ".join(dict.fromkeys(shards)) if len(shards) == len(faults) else folder
        return f"delete {damaged} and run its stage ({stage}) again"

    def _faults_of(self, folder: Path) -> Iterator[str]:
        try:
            mark = read_mark(folder)
            self.stages[folder] = str(mark["stage"])
            if "files" in mark and f'"{SEAL}"' not in (folder / MARK).read_text(encoding="utf-8"):
                raise UserError(f"{MARK} has no checksum")
        except UserError as error:
            yield str(error)
            return
        if mark["status"] != "done":
            yield "unfinished"
            return
        yield from _changed_inputs(folder, mark)
        if "files" not in mark:
            self.unlisted.append(folder)
            return
        yield from self._listed_files(folder, mark)
        yield from self._arrays(folder, mark["elsewhere"])

    def _listed_files(self, folder: Path, mark: dict[str, Any]) -> Iterator[str]:
        for name, (size, expected) in mark["files"].items():
            path = folder / name
            if not path.is_file():
                yield f"{name} is missing"
            elif path.stat().st_size != size or checksum(path) != expected:
                yield f"{name} has changed"
            self._read(size)
        for name in own_files(folder):
            if name not in mark["files"] and not any(fnmatch(name, pattern) for pattern in mark["elsewhere"]):
                yield f"unknown file {name}"

    def _read(self, size: int) -> None:
        """Advance the progress bar by ``size`` bytes."""
        self._bytes += size
        self._bar.update(self._bytes // 10**6 - self._bar.n)

    def _arrays(self, folder: Path, elsewhere: Sequence[str]) -> Iterator[str]:
        """Faults of the arrays whose checksums are in cuts or in the indices of a store."""
        for index in sorted(folder.glob(f"shard-*/{INDEX}")) if "shard-*/*.npy" in elsewhere else ():
            with contextlib.suppress(UserError):  # a damaged index has been named
                for name, expected in read_json(index)["checksums"].items():
                    path = index.parent / name
                    if not path.is_file() or checksum(path) != expected:
                        yield f"{index.parent.name}/{name} is missing or has changed"
                        continue
                    self._read(path.stat().st_size)
        readers = [read for pattern, read in READERS if pattern in elsewhere]
        for cut in _cuts(folder) if readers else ():
            if isinstance(cut, str):
                yield cut
                continue
            for read in readers:
                try:
                    self._read(read(cut).nbytes)
                except UserError as error:
                    yield str(error)


def _cuts(folder: Path) -> Iterator[MonoCut | str]:
    """The cuts of a stage's manifests, up to a damaged one, which has been named; those of its shards, or the fault."""
    for path in sorted(folder.glob("cuts_*.jsonl.gz")):
        with contextlib.suppress(UserError):
            yield from open_cuts(path)
    for index in sorted(folder.glob(f"*/{SHARDS}")):
        with contextlib.suppress(UserError):
            shards = Shards(index.parent)
            for number in range(len(shards.sizes)):
                try:
                    yield from shards.read(number)
                except UserError as error:
                    yield str(error)


def _changed_inputs(folder: Path, mark: dict[str, Any]) -> Iterator[str]:
    """The inputs that other stages have made again since; those that are elsewhere now are not looked for."""
    for name, known in mark.get("inputs", {}).items():
        path = folder / name
        if not path.exists() or stage_folder(path) is None:
            continue
        try:
            if path_fingerprint(path) != known:
                yield f"made from another {path.resolve()} than there is now"
        except UserError:
            continue  # that folder has a fault of its own
