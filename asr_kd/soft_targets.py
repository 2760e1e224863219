"""Soft targets: the ensemble's averaged, tempered posteriors, kept compactly on disk, keyed by cut id.

``python -m asr_kd.soft_targets`` writes, for every frame of the transfer set, the k largest posteriors
(uint16 class, float16 probability).  The tail's mass, one minus their sum, is spread evenly over the other
classes when read: of 500 senones at T = 2, the result lay 0.18 nats (32 kept) and 0.03 nats (128 kept)
from the dense distribution, against 0.22 and 0.04 with the tail in proportion to the senone prior.

Files: ``store.json`` (what it was made from), ``shard-NNNNN/`` with ``classes.npy`` and
``probabilities.npy`` (frames, k), memory-mapped, and ``cuts.json`` (cut id → first row, rows).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from asr_kd.cli import run
from asr_kd.parallel import make_executor, run_all
from asr_kd.storage import (
    MARK,
    Stage,
    UserError,
    read_json,
    save_array,
    stage_fingerprint,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

CUTS_A_SHARD = 200


@dataclasses.dataclass
class Config:
    """Average an ensemble's tempered posteriors over a transfer set and store them compactly."""

    models: tuple[Path, ...]
    """Teacher folders, one per member (made by asr_kd.train)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Cuts of the transfer set; only their ids and features are used."""
    out: Path
    """Folder of the store."""
    temperature: float = 2.0
    """Temperature T of the soft targets; the student uses the same."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the members' distributions are averaged."""
    top: int = 128
    """Classes kept for each frame, 4 bytes each; the rest of the mass is spread evenly.  The higher the
    temperature, the more are needed: the printed share of mass kept tells."""
    jobs: int = 0
    """Processes; 0 means one a core."""


def main(config: Config) -> None:
    if config.temperature <= 0 or config.top < 1:
        raise UserError("--temperature must be positive and --top at least 1: correct the flag")
    stage = Stage("soft_targets", config.out, config, [*config.models, config.features, config.cuts])
    if not stage.begin():
        return
    ids = _cut_ids(config.cuts)
    shards = [
        (config, number, ids[at : at + CUTS_A_SHARD]) for number, at in enumerate(range(0, len(ids), CUTS_A_SHARD))
    ]
    missing = [s for s in shards if not (_shard(config.out, s[1]) / "cuts.json").is_file()]
    with make_executor(config.jobs) as executor:
        for _ in run_all(executor, write_shard, missing, "soft targets", "shard"):
            pass
    frames = sum(rows for s in shards for _, rows in read_json(_shard(config.out, s[1]) / "cuts.json").values())
    kept = sum(read_json(_shard(config.out, s[1]) / "mass.json") for s in shards) / frames
    bytes_a_frame = sum(p.stat().st_size for p in config.out.glob("shard-*/*.npy")) / frames
    write_json(
        config.out / "store.json",
        {
            "num_pdfs": read_json(config.models[0] / "model.json")["shape"]["num_pdfs"],
            "temperature": config.temperature,
            "mean": config.mean,
            "top": config.top,
            "shards": len(shards),
            "features": stage_fingerprint(config.features),
            "teachers": {os.path.relpath(m, config.out): stage_fingerprint(m) for m in config.models},
        },
    )
    stage.finish(frames=frames, bytes_a_frame=round(bytes_a_frame, 1), mass_kept=round(kept, 4))
    print(
        f"soft targets: {frames} frames, {bytes_a_frame:.0f} bytes a frame, T = {config.temperature:g}, "
        f"{100 * kept:.1f} % of the mass kept"
    )


def _cut_ids(cuts: Path) -> list[str]:
    from lhotse import load_manifest_lazy

    return [cut.id for cut in load_manifest_lazy(cuts)]


def _shard(out: Path, number: int) -> Path:
    return out / f"shard-{number:05d}"


def write_shard(job: tuple[Config, int, list[str]]) -> None:
    """Compute and write the soft targets of one shard's cuts."""
    config, number, ids = job
    import torch
    from lhotse import load_manifest_lazy

    from asr_kd.features import Normaliser
    from asr_kd.models import fast_bfloat16, load_model, posteriors

    wanted = set(ids)
    models = [load_model(folder) for folder in config.models]
    if config.top > models[0].shape.num_pdfs:
        raise UserError(f"--top {config.top} exceeds the {models[0].shape.num_pdfs} senones: choose a smaller one")
    normaliser = Normaliser.load(config.features)
    rows, classes, probabilities = {}, [], []
    first, mass = 0, 0.0
    for cut in load_manifest_lazy(config.cuts):
        if cut.id not in wanted:
            continue
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
            average = posteriors(models, normaliser(cut), config.temperature, config.mean)
        top = np.argpartition(-average, config.top - 1, axis=1)[:, : config.top].astype(np.uint16)
        classes.append(top)
        probabilities.append(np.take_along_axis(average, top.astype(np.int64), 1).astype(np.float16))
        mass += float(probabilities[-1].sum(dtype=np.float64))
        rows[cut.id] = (first, len(average))
        first += len(average)
    folder = _shard(config.out, number)
    save_array(folder / "classes.npy", np.concatenate(classes))
    save_array(folder / "probabilities.npy", np.concatenate(probabilities))
    write_json(folder / "mass.json", mass)
    write_json(folder / "cuts.json", rows)  # last: it marks the shard as complete


class SoftTargets:
    """Reader of a store, at random by cut id.

    Args:
        folder: the store.
        features: features folder that the student trains on; the store must come from the same.

    Raises:
        UserError: the store is missing, unfinished, made from other features, or its teachers were
            trained again since.
    """

    def __init__(self, folder: Path, features: Path) -> None:
        stage_fingerprint(folder)
        self.folder = folder
        self.meta: dict[str, Any] = read_json(folder / "store.json")
        if self.meta["features"] != stage_fingerprint(features):
            raise UserError(f"{folder} was made from other features than {features}: run asr_kd.soft_targets again")
        for name, expected in self.meta["teachers"].items():
            teacher = folder / name
            if (teacher / MARK).is_file() and stage_fingerprint(teacher) != expected:
                raise UserError(
                    f"{folder} was made by other teachers ({teacher.resolve().name} changed since): "
                    "run asr_kd.soft_targets again"
                )
        self.temperature = float(self.meta["temperature"])
        self.num_pdfs = int(self.meta["num_pdfs"])
        self._shards: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._where = {
            cut_id: (number, *rows)
            for number in range(self.meta["shards"])
            for cut_id, rows in read_json(_shard(folder, number) / "cuts.json").items()
        }

    def read(self, cut_id: str, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """The k largest classes of each frame, (frames, k) uint16, and their probabilities, float16.

        Raises:
            UserError: the cut is not in the store, or has another number of frames there.
        """
        if cut_id not in self._where:
            raise UserError(f"{self.folder} has no soft targets for {cut_id}: make the store from the same cuts")
        number, first, rows = self._where[cut_id]
        if rows != frames:
            raise UserError(f"{self.folder} has {rows} frames for {cut_id}, not {frames}: make the store again")
        if number not in self._shards:
            folder = _shard(self.folder, number)
            try:
                self._shards[number] = tuple(
                    np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                    for name in ("classes", "probabilities")
                )
            except (OSError, ValueError) as error:
                raise UserError(f"{folder} is damaged ({error}): delete it and run asr_kd.soft_targets again") from None
        classes, probabilities = self._shards[number]
        return classes[first : first + rows], probabilities[first : first + rows]

    def dense(self, classes: np.ndarray, probabilities: np.ndarray) -> Tensor:
        """(B, k) kept classes and probabilities → (B, C) float32 distributions, the tail spread evenly."""
        import torch

        index = torch.from_numpy(classes.astype(np.int64))
        kept = torch.from_numpy(probabilities.astype(np.float32))
        others = max(1, self.num_pdfs - kept.shape[1])
        tail = (1 - kept.sum(1, keepdim=True)).clamp_(min=0) / others
        dense = tail.expand(-1, self.num_pdfs).contiguous().scatter_(1, index, kept)
        return dense.div_(dense.sum(1, keepdim=True))


if __name__ == "__main__":
    run(Config, main)
