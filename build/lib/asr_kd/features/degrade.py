"""Degraded copies of cuts: their audio as another device, line, codec, room or editor would have left it.

A copy describes its condition, and its audio is made when features are computed.  What is drawn at random follows from
the id of the copy.
"""

import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import soundfile
import torch
from lhotse.augmentation import ReverbWithImpulseResponse
from lhotse.augmentation.utils import FastRandomRIRGenerator
from lhotse.cut import MonoCut
from lhotse.utils import compute_num_frames_from_samples, fastcopy
from scipy.signal import butter, resample_poly, sosfiltfilt

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import CLEAN_FRAMES, degraded_name, source_id
from asr_kd.corpora.effects import rms
from asr_kd.features.audio import MIN_SECONDS
from asr_kd.features.conditions import BIT_RATES, Condition, parse_condition
from asr_kd.features.front_end import FRAME_SHIFT

TELEPHONE_RATE, CODEC_RATE = 8000, 16000
TELEPHONE_BAND = (300.0, 3400.0)  # Hz
#: What soundfile calls the forms that audio is sent through.
FORMS = {
    "telephone": ("WAV", "ULAW"), "gsm": ("WAV", "GSM610"), "mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"),
}  # fmt: skip
#: Samples that LAME and the decoder put before a recording, where its file has no room for a note of them.
MP3_DELAY = 1105
#: Around the first and last frames that count as speech when a recording is cut tightly.
TIGHT_FRAMES = 3
#: The hiss in margins is this far below the recording, in dB.
HISS_DB = (40.0, 60.0)


def check_conditions(conditions: Iterable[str]) -> None:
    """Raises UserError if libsndfile, as it is installed, lacks the codec of a condition."""
    for condition in conditions:
        kind = parse_condition(condition).kind
        if kind in FORMS and not soundfile.check_format(*FORMS[kind]):
            raise UserError(
                f"libsndfile {soundfile.__libsndfile_version__} cannot write {' '.join(FORMS[kind])}: leave out "
                f"--degrade {condition}, or install soundfile from PyPI, whose library can"
            )


def degraded_copies(cuts: Iterable[MonoCut], conditions: Sequence[str], copies: int = 1) -> Iterator[MonoCut]:
    """``copies`` of each cut, each under another of the ``conditions``, at random."""
    for cut in cuts:
        generator = np.random.default_rng(zlib.crc32(cut.id.encode()))
        for index in generator.permutation(len(conditions))[:copies]:
            condition = parse_condition(conditions[index])
            # Another spectrum: normalise the speaker by statistics of its own.
            speaker = degraded_name(cut.supervisions[0].speaker, str(condition))
            custom = {
                **(cut.custom or {}),
                "clean_id": cut.id,
                "source_id": source_id(cut),
                "condition": str(condition),
            }
            yield fastcopy(
                cut, id=degraded_name(cut.id, str(condition)),
                supervisions=[fastcopy(cut.supervisions[0], speaker=speaker)], custom=custom,
            )  # fmt: skip


def degrade(cut: MonoCut, samples: np.ndarray) -> tuple[MonoCut, np.ndarray]:
    """A degraded copy and its samples, from those of the clean recording.

    Both have another length, in whole frames, if the recording is cut tightly or given margins.
    """
    kind, value = condition = parse_condition(cut.condition)
    seed = zlib.crc32(cut.id.encode())
    if kind not in ("tight", "margins"):
        return cut, _changed(samples, cut.sampling_rate, condition, seed)
    shift = round(FRAME_SHIFT * cut.sampling_rate)
    if kind == "tight":
        first, stop = speech_range(samples, shift)
        changed = samples[first * shift : stop * shift]
    else:
        first = -round(value / FRAME_SHIFT)
        changed = add_margins(samples, -first * shift, np.random.default_rng(seed))
    duration = len(changed) / cut.sampling_rate
    frames = compute_num_frames_from_samples(len(samples), FRAME_SHIFT, cut.sampling_rate)
    custom = {**cut.custom, CLEAN_FRAMES: [first, frames]}
    supervision = fastcopy(cut.supervisions[0], duration=duration)
    start = cut.start + max(first, 0) * FRAME_SHIFT
    return fastcopy(cut, start=start, duration=duration, supervisions=[supervision], custom=custom), changed


def _changed(samples: np.ndarray, rate: int, condition: Condition, seed: int) -> np.ndarray:
    """Samples of the same length under a condition."""
    kind, value = condition
    if kind == "band":  # as if recorded at twice the frequency; in steps of 50 Hz, which the rates have in common
        other = 100 * round(value / 50)
        return samples if other >= rate else _at(other, samples, rate, lambda narrow: narrow)
    if kind == "gain":  # recorded in 16 bits
        return (np.clip(np.rint(samples * value * (1 << 15)), -(1 << 15), (1 << 15) - 1) / (1 << 15)).astype(np.float32)
    if kind == "room":
        return reverberate(samples, rate, value, seed)
    if kind in BIT_RATES:
        low, high = BIT_RATES[kind]
        level = (high - value) / (high - low)
        more = {"bitrate_mode": "CONSTANT"} if kind == "mp3" else {}
        return _at(CODEC_RATE, samples, rate, lambda s: _coded(s, CODEC_RATE, kind, compression_level=level, **more))
    return _at(TELEPHONE_RATE, samples, rate, lambda s: _coded(_telephone_band(s), TELEPHONE_RATE, kind))


def _at(other: int, samples: np.ndarray, rate: int, effect: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Samples at ``rate`` that had an effect at another rate."""
    divisor = math.gcd(rate, other)
    up, down = other // divisor, rate // divisor
    there = samples if up == down else resample_poly(samples, up, down)
    changed = effect(there.astype(np.float32))
    back = changed if up == down else resample_poly(changed, down, up)
    return np.asarray(back[: len(samples)], dtype=np.float32)


def _telephone_band(samples: np.ndarray) -> np.ndarray:
    filters = butter(3, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
    return np.asarray(sosfiltfilt(filters, samples, padlen=min(100, len(samples) - 1)))


def _coded(samples: np.ndarray, rate: int, kind: str, **options: float | str) -> np.ndarray:
    """Samples after encoding and decoding, at least as many."""
    container, subtype = FORMS[kind]
    with io.BytesIO() as file:
        soundfile.write(
            file, np.clip(samples, -1, 1), rate, format=container, subtype=subtype, closefd=False, **options
        )
        file.seek(0)
        decoded: np.ndarray = soundfile.read(file, dtype="float32")[0]
    delay = MP3_DELAY if kind == "mp3" and len(decoded) > len(samples) else 0
    return np.pad(decoded[delay:], (0, max(len(samples) + delay - len(decoded), 0)))


def reverberate(samples: np.ndarray, rate: int, longest: float, seed: int) -> np.ndarray:
    """Samples as heard in a random room, whose reverberation decays by 60 dB in 0.1 to ``longest`` seconds.

    Speaker and microphone are 0.2 to 12 m apart; the direct sound keeps its time (Lhotse's generator of responses,
    arXiv 2208.04101).
    """
    with torch.random.fork_rng(devices=[]):  # which the generator draws from, too
        torch.manual_seed(seed)
        room = FastRandomRIRGenerator(sr=rate, max_T60=longest, room_seed=seed, source_seed=seed + 1)
        heard: np.ndarray = ReverbWithImpulseResponse(rir_generator=room)(samples[None], rate)
    return heard[0].astype(np.float32)


def speech_range(samples: np.ndarray, shift: int) -> tuple[int, int]:
    """First frame of speech, and the frame that follows the last one.

    Frames of ``shift`` samples are speech if their energy in dB is nearer to that of loud speech than to that of the
    background.  At least ``MIN_SECONDS`` are left.
    """
    whole = len(samples) // shift
    power = np.square(samples[: whole * shift].reshape(whole, shift), dtype=np.float64).mean(1)
    loud = np.percentile(power, 95) + 1e-20
    background = max(np.percentile(power, 5), 1e-6 * loud)
    speech = np.flatnonzero(power >= math.sqrt(loud * background))
    first = max(int(speech[0]) - TIGHT_FRAMES, 0)
    stop = max(int(speech[-1]) + 1 + TIGHT_FRAMES, first + round(MIN_SECONDS / FRAME_SHIFT))
    return min(first, whole - round(MIN_SECONDS / FRAME_SHIFT)), min(stop, whole)


def add_margins(samples: np.ndarray, margin: int, generator: np.random.Generator) -> np.ndarray:
    """Samples with ``margin`` samples of hiss before and after them."""
    level = rms(samples) * 10 ** (-generator.uniform(*HISS_DB) / 20)
    hiss = level * generator.standard_normal((2, margin), dtype=np.float32)
    return np.concatenate([hiss[0], samples, hiss[1]]).astype(np.float32)
