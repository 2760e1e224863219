"""Flags that the stages share: the examples and the generalist."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclasses.dataclass(kw_only=True)
class ExamplesConfig(Settings):
    """The examples, --images or --features with --cuts, and the generalist that was trained on them."""

    images: Path | None = None
    """Folder of images (written by asr_kd.specialists.images)."""
    features: Path | None = None
    """Instead of --images: features of a corpus (written by asr_kd.features)."""
    cuts: Path | None = None
    """Cuts of --features with senones (written by asr_kd.hmm)."""
    generalist: Path
    """Folder of the generalist (written by asr_kd.specialists.classify, or by asr_kd.train for speech)."""

    @property
    def inputs(self) -> list[Path]:
        """The folders that are given."""
        return [path for path in (self.images, self.features, self.cuts, self.generalist) if path is not None]
