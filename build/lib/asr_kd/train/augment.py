"""SpecAugment (Park et al. 2019): stripes of the features are masked anew in every epoch."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import torch
from lhotse.dataset import SpecAugment as LhotseSpecAugment

from asr_kd.models.network import AcousticModel
from asr_kd.train.config import Config
from asr_kd.train.pools import Pool

#: Shorter utterances are left alone: a mask covers at most 15 % of the frames.
MIN_FRAMES = 20


class SpecAugment:
    """Masks frequencies and frames of each utterance of a pool, without warping time, as frames keep their labels.

    Widths are those of Lhotse's defaults: up to two stripes of a third of the features (27 of 80), and 15 % of the
    frames.

    Args:
        feature_dim: features per frame.
    """

    def __init__(self, feature_dim: int) -> None:
        self.mask = LhotseSpecAugment(time_warp_factor=None, features_mask_size=max(2, round(27 / 80 * feature_dim)))

    @classmethod
    def of(cls, config: Config, model: AcousticModel) -> SpecAugment | None:
        """Return what the flags ask for, if they do."""
        return cls(model.network.feature_dim) if config.spec_augment else None

    def __call__(self, pool: Pool, order: np.random.Generator) -> Pool:
        """Return a masked copy of a pool, which ``order`` alone decides."""
        seed = int(order.integers(2**62))
        torch.manual_seed(seed)
        random.seed(seed)
        rows = pool.rows.clone()
        first = 0
        for frames in pool.lengths:
            begin = int(pool.starts[first]) + pool.left
            if frames >= MIN_FRAMES:
                rows[begin : begin + frames] = self.mask(rows[None, begin : begin + frames])[0]
            first += frames
        return dataclasses.replace(pool, rows=rows)
