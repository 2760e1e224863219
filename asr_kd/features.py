"""Stage ``python -m asr_kd.features``: 40 log-mel filterbanks every 10 ms, and their normalisation.

The features on disk are raw; everybody downstream reads them through ``Normaliser``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from asr_kd.cli import run
from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError, read_json

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

NUM_MELS = 40
SAMPLING_RATE = 16000
#: A standard deviation below this (log-mel units) means a dead channel; speech has 1 to 4.
MIN_STD = 0.1

#: Frames that mean and variance are taken of.
Over = Literal["all", "speech"]


@dataclass
class Config(Workers):
    """Compute log-mel features of a prepared corpus: 25 ms windows every 10 ms, 40 filters, no dither.

    Damaged, silent or too short recordings are skipped and listed in skipped_ROLE.tsv.
    """

    data: Path
    """Folder that python -m asr_kd.corpora filled."""
    out: Path
    """Folder for the features."""
    normalise: Literal["speaker", "utterance"] = "speaker"
    """Mean and variance are taken of all utterances of a speaker, or of each utterance."""
    normalise_over: Over = "all"
    """Of all frames, or of those with speech (louder than halfway between an utterance's quietest and loudest):
    how long somebody pauses does not move the features then."""
    speed_perturb: tuple[float, ...] = ()
    """Further copies of the training role at these speeds, such as 0.9 1.1."""
    babble: tuple[float, ...] = ()
    """Further roles with others speaking in the background, at these ratios of speech to noise in dB: train_noisy and
    dev_noisy, each cut with one of them, and test_snrN for each."""


def main(config: Config) -> None:
    speeds = config.speed_perturb
    if any(not 0.5 <= factor <= 2 or factor == 1 for factor in speeds) or len(set(speeds)) < len(speeds):
        raise UserError(f"--speed-perturb {speeds} makes no sense: give different factors such as 0.9 1.1")
    stage = Stage("features", config.out, config, [config.data])
    if stage.begin():
        from asr_kd.feature_extraction import extract_corpus

        with config.executor() as executor:
            stage.finish(**extract_corpus(config, executor))


class Normaliser:
    """Reads a cut's log-mel features and normalises them: per speaker (or per utterance), then globally.

    Args:
        per_speaker: use a known speaker's statistics; else those of each utterance.
        speakers: id -> row of ``statistics``.
        statistics: (S, 2, 40) mean and standard deviation of each speaker.
        overall: (2, 40) mean and standard deviation of the training role after the first normalisation.
        over: frames that an utterance's own statistics are taken of.
    """

    def __init__(
        self, per_speaker: bool, speakers: dict[str, int], statistics: np.ndarray, overall: np.ndarray, over: Over
    ) -> None:
        self.per_speaker, self.speakers, self.statistics, self.overall = per_speaker, speakers, statistics, overall
        self.over = over

    @classmethod
    def load(cls, features_dir: Path) -> Normaliser:
        """Read what the features stage wrote.

        Raises:
            UserError: missing or damaged.
        """
        folder = Path(features_dir)
        description = read_json(folder / "cmvn.json")
        try:
            statistics = np.load(folder / "cmvn_speakers.npy", allow_pickle=False)
            overall = np.load(folder / "cmvn_global.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{folder} is damaged ({error}): delete it and run asr_kd.features again") from None
        if "normalise_over" not in description:
            raise UserError(f"{folder} was made by an older version: run asr_kd.features again")
        speakers = {speaker: row for row, speaker in enumerate(description["speakers"])}
        return cls(description["normalise"] == "speaker", speakers, statistics, overall, description["normalise_over"])

    def __call__(self, cut: MonoCut) -> np.ndarray:
        """Normalised features of a cut, (T, 40) float32, C-contiguous."""
        return self.normalise(raw_features(cut), cut.supervisions[0].speaker if cut.supervisions else None)

    def normalise(self, features: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """Normalise raw log-mels (T, 40); a speaker never seen gets this utterance's own statistics."""
        features = np.ascontiguousarray(features, dtype=np.float32)
        row = self.speakers.get(speaker) if self.per_speaker and speaker is not None else None
        if row is None:
            mean, std = moments(sums(frames_for(features, self.over)))
        else:
            mean, std = self.statistics[row]
        # (x − m)/s, then (x − M)/S, in one pass over the frames.
        scale = 1 / (std * self.overall[1])
        shift = -mean * scale - self.overall[0] / self.overall[1]
        return features * scale.astype(np.float32) + shift.astype(np.float32)


def frames_for(features: np.ndarray, over: Over) -> np.ndarray:
    """Those rows of raw log-mels (T, 40) that mean and variance are taken of."""
    if over == "all":
        return features
    loudness = features.mean(1)
    return features[loudness >= np.percentile(loudness, [5, 95]).mean()]


def sums(features: np.ndarray) -> np.ndarray:
    """(3, 40) float64: the number of frames, Σx and Σx²."""
    wide = features.astype(np.float64)
    return np.stack([np.full(features.shape[1], len(wide)), wide.sum(0), np.square(wide).sum(0)])


def moments(summed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (at least ``MIN_STD``) from ``sums``."""
    count, total, squares = summed
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, MIN_STD**2))


def raw_features(cut: MonoCut) -> np.ndarray:
    """Raw log-mels of a cut, (T, 40) float32.

    Raises:
        UserError: the stored features are missing or damaged.
    """
    try:
        return np.ascontiguousarray(cut.load_features(), dtype=np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the features of {cut.id} cannot be read ({error}): run asr_kd.features again") from None


def extract(samples: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Raw log-mels (T, 40) of one mono waveform, float32 in [-1, 1]; T = round(seconds / 0.01).

    Raises:
        UserError: not 16 kHz, or shorter than 0.1 s.
    """
    from asr_kd.feature_extraction import log_mels, sample_fault

    if sampling_rate != SAMPLING_RATE:
        raise UserError(f"audio at {sampling_rate} Hz: resample it to {SAMPLING_RATE} Hz first")
    fault = sample_fault(samples)
    if fault:
        raise UserError(f"no features: {fault}")
    return log_mels(samples)


def read_audio(path: Path | str) -> np.ndarray:
    """Mono 16 kHz float32 samples of any audio file that libsndfile reads (mixes down, resamples).

    Raises:
        UserError: missing, damaged, empty, or with NaN samples.
    """
    import soundfile
    from scipy.signal import resample_poly

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}): give a WAV, FLAC, OGG or MP3 file") from None
    if not len(samples):
        raise UserError(f"{path} has no samples: record it again")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} has NaN or infinite samples: export it again")
    mono = samples.mean(axis=1)
    if rate == SAMPLING_RATE:
        return mono
    common = np.gcd(rate, SAMPLING_RATE)
    return resample_poly(mono, SAMPLING_RATE // common, rate // common).astype(np.float32)


if __name__ == "__main__":
    run(Config, main)
