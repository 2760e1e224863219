"""What features are: who computes them, from which audio, with which settings, and how they are normalised.

A features folder describes its own in cmvn.json.  Reading that needs NumPy alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.features.mels import dct, inverse_dct, mel_bands

FRAME_SHIFT = 0.01  # seconds
#: Frames (0.3 s) around a frame of speech that may hold its weak sounds; all others are quiet.
MARGIN = 30
#: Names of Lhotse's extractors whose audio, filters and levels are known here.
FBANK, MFCC = "kaldi-fbank", "kaldi-mfcc"
#: Where vowels have their energy, and noise little of it, in Hz.
VOWELS = (300.0, 2200.0)
#: File of a features folder that describes them.
DESCRIPTION = "cmvn.json"


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """What the features of a folder are.

    Attributes:
        extractor: name of the Lhotse extractor, or the type of features that others made.
        num_features: values per frame.
        sampling_rate: of the audio in Hz.
        settings: of the extractor (its configuration as Lhotse writes it); None: others made the features.
        unusual: the settings that are not Lhotse's defaults, for ``__str__``.
        normalise: "utterance", "speaker" or "none", as ``--normalise`` says.
    """

    extractor: str
    num_features: int
    sampling_rate: int
    settings: Mapping[str, Any] | None
    unusual: Mapping[str, Any]
    normalise: str

    @classmethod
    def load(cls, folder: Path) -> FrontEnd:
        """The front end of a folder that the features stage or the hmm stage wrote.

        Raises:
            UserError: its description is missing, damaged or of another version.
        """
        path = Path(folder) / DESCRIPTION
        content = read_json(path)
        try:
            return cls(**{field.name: content[field.name] for field in dataclasses.fields(cls)})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged or of another version ({error}): run asr_kd.features again") from None

    def to_json(self) -> dict[str, Any]:
        """What ``load`` reads, and in words what models remember (asr_kd.models.front_end)."""
        return {"front_end": str(self), **dataclasses.asdict(self)}

    def __str__(self) -> str:
        kind = {FBANK: "log-mels", MFCC: "MFCCs"}.get(self.extractor, f"features ({self.extractor})")
        settings = ", ".join(f"{name} {value}" for name, value in sorted(self.unusual.items()))
        origin = "made elsewhere" if self.settings is None else settings
        words = f"{self.num_features} {kind} at {self.sampling_rate} Hz"
        normalised = "not normalised" if self.normalise == "none" else f"normalised by {self.normalise}"
        return f"{words}{f' ({origin})' if origin else ''}, {normalised}"

    @property
    def log_mel(self) -> bool:
        """Whether features are log energies of filters, whose cepstra are a linear transform of them."""
        return self.extractor.endswith("fbank")

    @property
    def finds_speech(self) -> bool:
        """Whether speech can be found in the features, since their filters and units are known."""
        if self.settings is None or self.extractor not in (FBANK, MFCC):
            return False
        usual = not (self.settings["use_energy"] or self.settings["use_fft_mag"])
        return usual and self.vowel_filters.stop > 0

    @cached_property
    def level(self) -> np.ndarray:
        """(F,) float64: what features gain where the energy of the audio rises by the factor e; 0 if unknown."""
        if self.settings is None or not self.finds_speech:
            return np.zeros(self.num_features)
        if self.extractor == FBANK:
            return np.ones(self.num_features)
        gain: np.ndarray = np.ones(self.settings["num_filters"]) @ self._dct(dct)
        return gain

    def heat_map(self, features: np.ndarray) -> np.ndarray:
        """Raw features (T, F) to look at: MFCCs as the log-mels (T, filters), smoothed, that have them."""
        return features @ self._inverse if self.extractor == MFCC and self.finds_speech else features

    def loudness(self, features: np.ndarray) -> np.ndarray:
        """(T,) float64: log energy where vowels have theirs, of raw features (T, F) in which speech can be found."""
        log_mels = self.heat_map(features)[:, self.vowel_filters]
        return np.asarray(np.log(np.exp(log_mels).sum(1, dtype=np.float64)))

    @cached_property
    def vowel_filters(self) -> slice:
        """The filters whose centres lie where vowels have their energy."""
        assert self.settings is not None
        return vowel_filters(self.settings["num_filters"], self.settings["low_freq"], self.settings["high_freq"])

    @cached_property
    def _inverse(self) -> np.ndarray:
        return self._dct(inverse_dct).astype(np.float32)

    def _dct(self, transform: Any) -> np.ndarray:
        assert self.settings is not None
        sizes = (self.settings[name] for name in ("num_filters", "num_ceps", "cepstral_lifter"))
        matrix: np.ndarray = transform(*sizes)
        return matrix


def vowel_filters(num_filters: int, low_freq: float, high_freq: float) -> slice:
    """The filters of a band whose centres lie where vowels have their energy."""
    centres = mel_bands(num_filters, low_freq, high_freq)[:, 1]
    inside = np.flatnonzero((centres >= VOWELS[0]) & (centres <= VOWELS[1]))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
