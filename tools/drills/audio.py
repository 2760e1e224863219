"""Audio files of every format, and damage to their headers."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

#: (name, format, subtype, rate in Hz, channels) of the files to damage.
FORMATS = (
    ("pcm16.wav", "WAV", "PCM_16", 16000, 1), ("pcm24.wav", "WAV", "PCM_24", 48000, 2),
    ("pcm8.wav", "WAV", "PCM_U8", 8000, 1), ("float.wav", "WAV", "FLOAT", 16000, 1),
    ("double.wav", "WAVEX", "DOUBLE", 44100, 2), ("ulaw.wav", "WAV", "ULAW", 8000, 1),
    ("alaw.wav", "WAV", "ALAW", 8000, 1), ("adpcm.wav", "WAV", "IMA_ADPCM", 22050, 1),
    ("ms_adpcm.wav", "WAV", "MS_ADPCM", 16000, 1), ("gsm.wav", "WAV", "GSM610", 8000, 1),
    ("pcm16.flac", "FLAC", "PCM_16", 16000, 1), ("pcm24.flac", "FLAC", "PCM_24", 44100, 2),
    ("layer3.mp3", "MP3", "MPEG_LAYER_III", 16000, 1), ("layer3_44k.mp3", "MP3", "MPEG_LAYER_III", 44100, 2),
    ("vorbis.ogg", "OGG", "VORBIS", 16000, 1), ("opus.opus", "OGG", "OPUS", 48000, 1),
    ("pcm16.aiff", "AIFF", "PCM_16", 16000, 1), ("pcm16.au", "AU", "PCM_16", 16000, 1),
    ("pcm16.sph", "NIST", "PCM_16", 16000, 1), ("pcm16.caf", "CAF", "PCM_16", 16000, 2),
    ("pcm16.w64", "W64", "PCM_16", 16000, 1), ("pcm16.rf64", "RF64", "PCM_16", 16000, 1),
)  # fmt: skip
ODD_RATES = (0, 1, 100, 3999, 4000, 7999, 11025, 12345, 44056, 96000, 768000, 768001, 16_000_000, 2**31 - 1, 2**32 - 1)
#: Offset and type of the fields of a WAV header.
WAV_FIELDS = (
    (4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"), (40, "<I"),
)  # fmt: skip


def write_all(samples: np.ndarray, folder: Path) -> None:
    """Write mono samples at 16 kHz as a file of each of ``FORMATS``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, container, subtype, rate, channels in FORMATS:
        resampled = resample_poly(samples, rate // np.gcd(rate, 16000), 16000 // np.gcd(rate, 16000))
        columns = np.repeat(resampled[:, None], channels, axis=1)
        soundfile.write(folder / name, columns, rate, format=container, subtype=subtype)


def damage(data: bytes, name: str, rng: random.Random) -> tuple[str, bytes] | None:
    """Damage that audio alone knows; None: any other is to be drawn."""
    how = rng.choice(("header", "header", "rate", "samples", "wrong name", "other", "other", "other", "other"))
    if how == "header" and name.endswith("wav"):
        place, layout = rng.choice(WAV_FIELDS)
        size = struct.calcsize(layout)
        value = rng.choice((0, 1, 2, 3, 255, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), rng.randrange(2 ** (8 * size))))
        return f"header field {place}", data[:place] + struct.pack(layout, value) + data[place + size :]
    if how == "rate" and name.endswith("wav"):
        return "rate", data[:24] + struct.pack("<I", rng.choice(ODD_RATES)) + data[28:]
    if how == "samples":
        return _odd_samples(data, rng)
    return None


def _odd_samples(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A sound file that is valid and strange: NaN, silence, a constant, too short, very loud, many channels."""
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    how = rng.choice(("nan", "inf", "zeros", "constant", "short", "none", "loud", "channels", "tiny", "long"))
    rate, mono = rng.choice((4000, 8000, 11025, 16000, 48000, 192000)), samples[:, 0]
    if how in ("nan", "inf"):
        mono[rng.randrange(len(mono))] = float(how)
    shapes: dict[str, np.ndarray] = {
        "zeros": np.zeros_like(mono), "constant": np.full_like(mono, 0.5), "short": mono[: rng.randint(1, 300)],
        "none": mono[:0], "loud": mono * 1e20, "channels": np.repeat(mono[:, None], rng.randint(3, 64), axis=1),
        "tiny": mono * 1e-30, "long": np.tile(mono, 4),
    }  # fmt: skip
    file = io.BytesIO()
    soundfile.write(file, shapes.get(how, mono), rate, format="WAV", subtype=rng.choice(("FLOAT", "DOUBLE")))
    return f"samples: {how}", file.getvalue()


def names(folder: Path) -> Sequence[Path]:
    """The files of ``write_all``, in order."""
    return [folder / name for name, *_ in FORMATS]
