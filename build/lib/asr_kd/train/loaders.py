"""Where the frames of a network's training come from, and the batches that it takes."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from asr_kd.common import distributed
from asr_kd.common.errors import UserError
from asr_kd.corpora.manifests import write_skipped
from asr_kd.corpora.shar.shards import Shards
from asr_kd.features.normalise import Normaliser
from asr_kd.models.network import AcousticModel, context_of, is_window_classifier, segment_of, window_of
from asr_kd.soft_targets.online import OnlineTargets
from asr_kd.train.augment import SpecAugment
from asr_kd.train.batches import FrameLoader
from asr_kd.train.chunks import UNBOUNDED, ChunkLoader
from asr_kd.train.config import Config
from asr_kd.train.pools import PoolReader, Streams
from asr_kd.train.sources import Manifests, Source
from asr_kd.train.targets import Targets


def make_loader(
    config: Config, model: AcousticModel, dtype: torch.dtype, device: str, streams: Streams, source: Source,
    soft_targets: Targets | None = None, augment: SpecAugment | None = None,
) -> FrameLoader | ChunkLoader:  # fmt: skip
    """Return batches of shuffled frames for window classifiers, and of chunks for all other networks.

    Args:
        dtype: of the windows; chunks are float32.
        streams: which streams this process reads.
        soft_targets, augment: for training.
    """
    normaliser = Normaliser.load(config.features)
    if is_window_classifier(model):
        pools = PoolReader(
            source, normaliser, *window_of(model), soft_targets, config.pool_frames, dtype, streams
        )  # fmt: skip
        return FrameLoader(pools, config.batch_size, device, augment=augment)
    pools = PoolReader(source, normaliser, 0, 0, soft_targets, config.pool_frames, torch.float32, streams)
    networks = [model, *(soft_targets.models if isinstance(soft_targets, OnlineTargets) else ())]
    contexts = [context_of(network, UNBOUNDED) for network in networks]
    segment = math.lcm(*map(segment_of, networks))
    left = -(-max(left for left, _ in contexts) // segment) * segment
    context = left, max(right for _, right in contexts)
    return ChunkLoader(pools, context, segment, config.chunk, config.batch_chunks, device, augment=augment)


def open_source(
    paths: Sequence[Path], bootstrap: int | None = None, soft_targets: Targets | None = None, out: Path | None = None
) -> Source:
    """Return the cuts of manifests, or of one folder of shards.

    Args:
        bootstrap: see ``Manifests``.
        soft_targets: cuts of manifests that have none are left out, and listed in ``out``.

    Raises:
        UserError: shards together with what needs a list of cuts.
    """
    shards = [path for path in paths if path.is_dir()]
    if shards:
        if len(paths) > 1 or bootstrap is not None:
            raise UserError(f"{shards[0]} is a folder of shards: give no --bootstrap and no other --train-cuts with it")
        return Shards(shards[0])
    source = Manifests(paths, bootstrap, None if soft_targets is None else soft_targets.fault)
    if source.skipped and out is not None and distributed.rank().first:
        write_skipped(out, "train", source.skipped)
        print(
            f"{out}: {len(source.skipped)} utterances have no soft targets and are left out: see "
            f"{out / 'skipped_train.tsv'}",
            flush=True,
        )
    return source
