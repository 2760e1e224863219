"""Flags that the stages of specialists share: which examples, which generalist."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(kw_only=True)
class ExamplesConfig:
    """Where the examples are: --images, or --features with --cuts; and the generalist that has learnt from them."""

    images: Path | None = None
    """Folder of images (made by asr_kd.specialists.images)."""
    features: Path | None = None
    """Instead, features of a corpus (made by asr_kd.features)."""
    cuts: Path | None = None
    """Their cuts with senones (made by asr_kd.hmm)."""
    generalist: Path
    """Folder of the generalist (made by asr_kd.specialists.classify, or by asr_kd.train for speech)."""

    @property
    def folders(self) -> list[Path]:
        """What a stage reads."""
        return [path for path in (self.images, self.features, self.cuts, self.generalist) if path is not None]
