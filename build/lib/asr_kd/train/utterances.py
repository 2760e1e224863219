"""Batches of whole utterances with their lattices, for sequence training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.common import distributed
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import prefetch
from asr_kd.corpora.copies import clean_id, shared_frames
from asr_kd.corpora.manifests import write_skipped
from asr_kd.features.normalise import QUIET, Normaliser, quiet_frames
from asr_kd.lattices.batch import LatticeBatch
from asr_kd.lattices.store import LatticeStore
from asr_kd.models.network import Chunks
from asr_kd.models.senones import check_same_senones
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.batches import Batch
from asr_kd.train.config import Config, cuts_of, training_cuts
from asr_kd.train.pools import senones_or_none
from asr_kd.train.sources import Manifests
from asr_kd.train.targets import Targets

#: Batches whose utterances are drawn together and sorted by length.
SORTED_BATCHES = 32


class UtteranceLoader:
    """Batches of whole utterances of about the same length, read anew in every epoch.

    Args:
        source: cuts that have lattices.
        normaliser: reads their features.
        lattices: store of the lattices; a copy has those of the clean utterance.
        batch_frames: frames of a batch, padding included.
        device: of the batches.
        soft_targets: for the frame loss; None: labels only.
    """

    def __init__(
        self, source: Manifests, normaliser: Normaliser, lattices: LatticeStore, batch_frames: int, device: str,
        soft_targets: Targets | None = None,
    ) -> None:  # fmt: skip
        self.source, self.normaliser, self.lattices = source, normaliser, lattices
        self.batch_frames, self.device, self.soft_targets = batch_frames, device, soft_targets

    def __len__(self) -> int:
        """Batches per epoch, about."""
        return max(1, round(sum(self.source.sizes) / self.batch_frames))

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield all utterances once, in an order that ``seed`` alone decides."""
        yield from prefetch(self._batch(group) for group in self._groups(np.random.default_rng(seed)))

    def _groups(self, order: np.random.Generator) -> Iterator[list[int]]:
        """Yield the numbers of the utterances of each batch."""
        sizes = np.asarray(self.source.sizes)
        drawn = order.permutation(len(sizes))
        pool = max(1, round(SORTED_BATCHES * self.batch_frames * len(sizes) / max(1, sizes.sum())))
        for start in range(0, len(drawn), pool):
            numbers = drawn[start : start + pool]
            groups: list[list[int]] = [[]]
            for number in numbers[np.argsort(-sizes[numbers], kind="stable")].tolist():
                if groups[-1] and sizes[groups[-1][0]] * (len(groups[-1]) + 1) > self.batch_frames:
                    groups.append([])
                groups[-1].append(number)
            yield from (groups[number] for number in order.permutation(len(groups)))

    def _batch(self, numbers: list[int]) -> Batch:
        cuts = [cut for number in numbers for cut in self.source.read(number)]
        features = [self.normaliser(cut) for cut in cuts]
        lengths = np.array([len(rows) for rows in features])
        inputs = np.full((len(cuts), lengths.max(), features[0].shape[1]), QUIET, np.float32)
        kept, labels, quiet, stored = [], [], [], []
        for number, (cut, rows) in enumerate(zip(cuts, features, strict=True)):
            inputs[number, : len(rows)] = rows
            shared = shared_frames(cut, len(rows))
            kept.append(number * lengths.max() + np.arange(shared.own.start, shared.own.stop))
            labels.append(senones_or_none(cut, len(rows))[shared.own])
            quiet.append(quiet_frames(rows)[shared.own])
            targets = None if self.soft_targets is None else self.soft_targets.read(clean_id(cut), shared.total)
            stored += [] if targets is None else [targets]
        place = Chunks(self._tensor(lengths), self._tensor(np.concatenate(kept)))
        tensor, frames = torch.from_numpy(inputs).to(self.device), sum(map(len, labels))
        soft = None
        if self.soft_targets is not None:
            soft = self.soft_targets.batch(
                TargetRows.join(stored) if stored else None, np.arange(frames), tensor, place
            )
        lattices = LatticeBatch.of([self.lattices.read(clean_id(cut)) for cut in cuts], self.device)
        silent = torch.from_numpy(np.concatenate(quiet)).to(self.device)
        return Batch(tensor, self._tensor(np.concatenate(labels)), soft, chunks=place, lattices=lattices, quiet=silent)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)


def utterance_loader(
    config: Config,
    split: str,
    device: str,
    out: Path,
    soft_targets: Targets | None = None,
    bootstrap: int | None = None,
) -> UtteranceLoader:
    """Return the loader of the utterances of train or dev.

    Utterances without a lattice are left out, and listed in ``out``.

    Args:
        soft_targets: for training.
        bootstrap: see ``Manifests``.

    Raises:
        UserError: the store of lattices is missing or of other senones, or the cuts have no senones.
    """
    assert config.lattices is not None
    check_same_senones(config.lattices, config.cuts)
    paths = training_cuts(config) if split == "train" else (cuts_of(config, split),)
    if any(path.is_dir() for path in paths):
        raise UserError(f"--lattices does not work with shards ({paths[0]}): give --cuts of the alignment itself")
    store = LatticeStore(config.lattices, split)

    def fault(key: str, frames: int) -> str:
        return store.fault(key, frames) or ("" if soft_targets is None else soft_targets.fault(key, frames))

    source = Manifests(paths, bootstrap, fault, whole=True)
    if source.unlabelled and (config.criterion != "kl" or (config.smoothing and soft_targets is None)):
        raise UserError(
            f"{source.unlabelled} has no senones: give aligned cuts (--criterion kl learns without them, with "
            "--smoothing 0 or soft targets)"
        )
    if source.skipped and distributed.rank().first:
        write_skipped(out, split, source.skipped)
        print(
            f"{out}: {len(source.skipped)} utterances of {split} have no lattice, or no soft targets, and are left "
            f"out: see {out / f'skipped_{split}.tsv'}",
            flush=True,
        )
    return UtteranceLoader(source, Normaliser.load(config.features), store, config.batch_frames, device, soft_targets)
