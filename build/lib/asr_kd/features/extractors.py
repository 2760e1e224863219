"""Features as Lhotse's extractors compute them from samples, or read from storage."""

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from lhotse.cut import MonoCut
from lhotse.features.base import FEATURE_EXTRACTORS, FeatureExtractor, get_extractor_type
from lhotse.utils import compute_num_frames_from_samples

from asr_kd.common.cli import read_yaml
from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.corpora.cuts import check_array
from asr_kd.features.audio import sample_fault
from asr_kd.features.config import Config
from asr_kd.features.front_end import FBANK, FRAME_SHIFT, MFCC, FrontEnd

#: Samples count in steps of 16 bits for Kaldi's extractors, as in Kaldi, so that quiet floating-point audio stays above
#: the floor of the logarithm, which is 1.2e-7.
SCALE = np.float32(1 << 15)
#: Frames computed at once.
CHUNK_FRAMES = 12000


def make_front_end(config: Config) -> FrontEnd:
    """The front end that the flags describe.

    Raises:
        UserError: --extractor names no extractor of Lhotse, or one that cannot be used.
    """
    if config.extractor is not None:
        settings = read_yaml(str(config.extractor))
        return _front_end(settings.pop("feature_type", ""), settings, config)
    settings = {
        "sampling_rate": config.sampling_rate, "frame_length": config.frame_length, "frame_shift": FRAME_SHIFT,
        "dither": 0.0, "snip_edges": False, "num_filters": config.num_filters, "low_freq": config.low_freq,
        "high_freq": config.high_freq,
    }  # fmt: skip
    if config.kind == "mfcc":
        settings["num_ceps"] = config.num_ceps
    return _front_end(FBANK if config.kind == "fbank" else MFCC, settings, config)


def _front_end(name: str, settings: Mapping[str, Any], config: Config) -> FrontEnd:
    if name not in FEATURE_EXTRACTORS:
        raise UserError(f"Lhotse has no feature_type {name!r}: give one of {', '.join(sorted(FEATURE_EXTRACTORS))}")
    try:
        rate = int(settings.get("sampling_rate", config.sampling_rate))
        extractor = get_extractor_type(name).from_dict({"feature_type": name, **settings})
        shift, dim = extractor.frame_shift, extractor.feature_dim(rate)
        complete, usual = (_settings(made) for made in (extractor.config, type(extractor.config)()))
    except Exception as error:  # whatever a package or its absence raises
        raise UserError(f"Lhotse cannot make {name} ({type(error).__name__}: {error}): correct its settings") from None
    if not math.isclose(shift, FRAME_SHIFT):
        raise UserError(f"{name} has a frame every {1000 * shift:g} ms, but frames of 10 ms are needed: correct it")
    if name in (FBANK, MFCC) and complete["high_freq"] <= 0:  # relative to half of the rate, as in Kaldi
        complete["high_freq"] += rate / 2
    said = {"sampling_rate", {FBANK: "num_filters", MFCC: "num_ceps"}.get(name)}  # in other words
    unusual = {key: value for key, value in complete.items() if key not in said and usual.get(key) != value}
    return FrontEnd(name, dim, rate, complete, unusual, config.normalise)


def _settings(config: Any) -> dict[str, Any]:
    """The configuration of a Lhotse extractor, but for the device."""
    return {name: value for name, value in config.to_dict().items() if name != "device"}


@functools.lru_cache(maxsize=4)
def _extractor(name: str, settings: str) -> FeatureExtractor:
    return get_extractor_type(name).from_dict({"feature_type": name, **json.loads(settings)})


def compute_features(front_end: FrontEnd, samples: np.ndarray) -> np.ndarray:
    """Raw features (T, F) of samples at the rate of the front end, float32; T = round(seconds / 0.01).

    Kaldi's are computed in chunks, which bounds memory: a frame needs the samples of its neighbours, and no others.

    Raises:
        UserError: others made the features.
        ValueError: the extractor gives another number of frames.
    """
    if front_end.settings is None:
        raise UserError(f"features of new audio cannot be computed, but are {front_end}: decode prepared splits")
    rate = front_end.sampling_rate
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    frames = compute_num_frames_from_samples(len(samples), FRAME_SHIFT, rate)
    extractor = _extractor(front_end.extractor, json.dumps(front_end.settings))
    if front_end.extractor not in (FBANK, MFCC):
        features = np.asarray(extractor.extract(samples, rate), dtype=np.float32)
        if features.shape != (frames, front_end.num_features):
            raise ValueError(f"{front_end.extractor} gives {features.shape} instead of {frames} frames")
        return features
    features = np.empty((frames, front_end.num_features), np.float32)
    shift = round(FRAME_SHIFT * rate)
    around = max(1, math.ceil((front_end.settings["frame_length"] / FRAME_SHIFT - 1) / 2))  # frames that windows reach
    for start in range(0, frames, CHUNK_FRAMES):
        first, stop = max(start - around, 0), start + CHUNK_FRAMES
        chunk = extractor.extract(samples[first * shift : (stop + around) * shift] * SCALE, rate)
        features[start:stop] = chunk[start - first :][:CHUNK_FRAMES]
    return features


def extract(front_end: FrontEnd, samples: np.ndarray) -> np.ndarray:
    """Raw features (T, F) of a mono waveform at the rate of the front end, float32 in [-1, 1], after checking it.

    Raises:
        UserError: the waveform is shorter than 0.1 s or has unusable samples, or others made the features.
    """
    if fault := sample_fault(samples, front_end.sampling_rate):
        raise UserError(f"no features can be computed ({fault}): give another recording")
    return compute_features(front_end, samples)


def raw_features(cut: MonoCut) -> np.ndarray:
    """The stored raw features of a cut, (T, F) float32.

    Raises:
        UserError: the stored features are missing or damaged.
    """
    try:
        features = np.ascontiguousarray(cut.load_features(), dtype=np.float32)
    except UNREADABLE as error:
        raise UserError(f"the features of {cut.id} cannot be read ({error}): run asr_kd.features again") from None
    expected = cut.features.num_features
    if features.ndim != 2 or features.shape[1] != expected:
        raise UserError(f"the features of {cut.id} have shape {features.shape}, not (T, {expected}): make them again")
    return check_array(cut, "features", features)
