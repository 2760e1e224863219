"""A bundle on disk: one folder with all that recognition needs, each file checked before it is used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.files import read_json
from asr_kd.runtime.confidence import NUM_MEASURES

DESCRIPTION, FLOAT, INT8 = "decode.json", "model.onnx", "model.int8.onnx"
GRAPH, WORDS = "graph/HCLG.fst", "graph/words.txt"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What ``decode.json`` says.

    Attributes:
        sampling_rate: of the audio in Hz.
        window, shift: samples in a frame, and from one to the next.
        num_features: log-mels a frame.
        left, right: frames that the network hears before and after the one it scores.
        silence_pdfs: senones of silence.
        beam, max_active, min_active: of the search.
        prior: frames of usual speech that count next to the speech of a recording in its normalisation.
        acoustic_scale: that the scores of the network include.
        confidence: map from what is measured of a word to its confidence (asr_kd.runtime.confidence); empty: unknown.
    """

    sampling_rate: int
    window: int
    shift: int
    num_features: int
    left: int
    right: int
    silence_pdfs: tuple[int, ...]
    beam: float
    max_active: int
    min_active: int
    prior: float
    acoustic_scale: float
    confidence: tuple[float, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """The description of a bundle.

        Raises:
            UserError: it is missing, damaged, or of another version.
        """
        path = folder / DESCRIPTION
        if not path.is_file():
            raise UserError(f"{folder} is no bundle (it has no {DESCRIPTION}): check the name, or run asr_kd.bundle")
        content = read_json(path)
        try:
            values = {field.name: content[field.name] for field in dataclasses.fields(cls) if field.name in content}
            bundle = cls(**values)
            if len(bundle.confidence) not in (0, NUM_MEASURES + 1):
                raise ValueError("confidence")
            return dataclasses.replace(
                bundle, silence_pdfs=tuple(bundle.silence_pdfs), confidence=tuple(bundle.confidence)
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged or of another version ({error}): make the bundle again") from None

    def to_json(self) -> dict[str, Any]:
        """What ``load`` reads."""
        return dataclasses.asdict(self)

    @property
    def seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.shift / self.sampling_rate
