"""Flags of ``python -m asr_kd.bundle``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.errors import UserError
from asr_kd.common.settings import Count, Natural, Positive, Settings, within


@dataclass
class Config(Settings):
    """Make a folder with which asr_kd.runtime recognises speech: network (ONNX, float32 and int8), graph, card.

    The network is measured as it was trained, in float32 and in int8; a bundle that is worse is refused.
    """

    model: Path
    """Folder of the network."""
    graph: Path
    """Folder of the graph (HCLG.fst, words.txt, graph.json)."""
    features: Path
    """Folder of the features that the network was trained on; their audio must still be where it was."""
    out: Path
    """Folder of the bundle."""
    tuned: Path | None = None
    """tuned.json of a decoding with --tune-on; its values replace --acoustic-scale and --insertion-penalty."""
    acoustic_scale: Positive = 0.07
    """Factor of the acoustic log-likelihoods."""
    insertion_penalty: float = 0.0
    """Word insertion penalty: subtracted from the score of a path (natural logarithm) for each word."""
    beam: Positive = 13.0
    """Search beam: paths more than this below the best path of the same frame (scaled natural logarithm) are pruned."""
    max_active: Count = 2500
    """Maximum number of active states per frame; must exceed --min-active."""
    min_active: Natural = 30
    """Minimum number of active states per frame, whatever the beam."""
    splits: Annotated[tuple[str, ...], within(filled=True, different=True)] = ("dev", "test")
    """Splits on which int8 is measured; on the first also the other forms, and it decides whether the bundle is as good
    as the network."""
    calibration: Count = 100
    """Utterances of train that the ranges of int8 are taken from, from all over it."""
    golden: Natural = 3
    """Utterances of the first split that are kept with features, scores and words, for tests of other runtimes."""
    tolerance: Annotated[float, within(0)] = 0.3
    """Largest rise of the WER by int8 on the first split, in points; a higher one is refused if it is beyond chance."""
    sherpa_onnx: bool = False
    """Also write sherpa-onnx/, for sherpa-onnx, which recognises streams on phones and in browsers."""
    title: str = ""
    """Name of the bundle in its card; default: that of its folder."""
    licence: str = ""
    """Licence of the data that the network was trained on, for the card."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_active <= self.min_active:
            raise UserError(f"--max-active {self.max_active} must exceed --min-active {self.min_active}")
