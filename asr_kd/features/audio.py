"""Reading audio files, and finding faults in their samples."""

import logging
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.corpora.utterances import MAX_RATE, MIN_RATE

if TYPE_CHECKING:
    from soundfile import SoundFile

MIN_SECONDS = 0.1
#: Longer recordings are refused: their samples and features would take gigabytes of memory.
MAX_HOURS = 4
#: Samples of all channels read at once: what a header announces is not trusted for an allocation.
BLOCK_SAMPLES = 1 << 20
#: Share of the loudest channel's power below which the mean of the channels counts as cancelled.
CANCELLED = 1e-3
#: Magnitude beyond which samples are nonsense, whatever full scale is, and features overflow.
MAX_LEVEL = 1e9


def read_audio(path: Path | str, rate: int) -> np.ndarray:
    """Mono float32 samples, ``rate`` a second, of any audio file: ``audio_blocks`` together.

    Raises:
        UserError: as of ``audio_blocks``; or the file is longer than ``MAX_HOURS``.
    """
    return np.concatenate([*audio_blocks(path, rate, MAX_HOURS * 3600)])


def audio_blocks(path: Path | str, rate: int, max_seconds: float = math.inf, channel: int = 0) -> Iterator[np.ndarray]:
    """Blocks of mono float32 samples, ``rate`` a second, of any audio file that libsndfile reads.

    Channels are averaged, unless one of them is chosen (from 1); where they cancel each other, the loudest one is used.
    A file that ends before its header says so is read up to there, with a warning.

    Raises:
        UserError: the file is missing, no regular file, damaged, empty or longer than ``max_seconds``, has NaN or
            infinite samples, a rate outside 4 to 768 kHz, or fewer channels.
    """
    import soundfile

    try:
        with _open_regular(path) as content, soundfile.SoundFile(content.fileno(), closefd=False) as file:
            own = file.samplerate
            if not MIN_RATE <= own <= MAX_RATE:
                raise UserError(f"{path} has a rate of {own} Hz, outside {MIN_RATE} to {MAX_RATE}: export it again")
            if channel > file.channels:
                raise UserError(f"{path} has no channel {channel}, it has {file.channels}: choose another --channel")
            chosen = channel - 1 if channel else None
            if file.channels > 1 and not channel:
                chosen = _loudest(file, path, max_seconds)
            yield from _resample(_checked_blocks(file, path, chosen, max_seconds), own, rate)
            if "should be" in file.extra_info:  # so libsndfile's log marks a size in the header
                logging.warning("%s: its header announces other sizes than the file has: it may be cut off", path)
    except soundfile.LibsndfileError as error:
        raise UserError(_unreadable(path, error.error_string)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(_unreadable(path, getattr(error, "strerror", None) or error)) from None


def _unreadable(path: Path | str, reason: object) -> str:
    return f"{path} cannot be read as audio ({str(reason).rstrip('.')}): give a WAV, FLAC, OGG or MP3 file"


def _open_regular(path: Path | str) -> BinaryIO:
    """The file at ``path``; a pipe or device could be read for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is a folder, pipe or device: give a regular audio file")
    return os.fdopen(descriptor, "rb")


def _loudest(file: "SoundFile", path: Path | str, max_seconds: float) -> int | None:
    """The loudest channel if the channels cancel each other; reads the file, and goes back to its start."""
    power = np.zeros(file.channels + 1)
    for block in _blocks(file, path, max_seconds):
        power += np.square(np.column_stack([block, block.mean(axis=1)]), dtype=np.float64).sum(axis=0)
    file.seek(0)
    if not power[-1] < CANCELLED * power.max():  # also if samples are NaN, which is found later
        return None
    logging.warning("%s: the channels cancel each other, so the loudest one is used alone", path)
    return int(power.argmax())


def _checked_blocks(
    file: "SoundFile", path: Path | str, channel: int | None, max_seconds: float
) -> Iterator[np.ndarray]:
    """Blocks of a channel, or of the mean of all.

    Raises:
        UserError: the file has no samples, too many, or some that are NaN or infinite.
    """
    read = 0
    for block in _blocks(file, path, max_seconds):
        read += len(block)
        if not np.isfinite(block).all():
            raise UserError(f"{path} has NaN or infinite samples: export it again")
        yield block.mean(axis=1) if channel is None else block[:, channel]
    if not read:
        raise UserError(f"{path} has no samples: record it again")
    if read < file.frames:
        logging.warning("%s: %d of the %d samples of its header can be read", path, read, file.frames)


def _blocks(file: "SoundFile", path: Path | str, max_seconds: float) -> Iterator[np.ndarray]:
    """The rest of a file, in arrays (T, channels) float32."""
    left = max_seconds * file.samplerate
    while len(block := file.read(max(1, BLOCK_SAMPLES // file.channels), dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:
            length = f"{max_seconds / 3600:g} hours" if max_seconds >= 3600 else f"{max_seconds:g} s"
            raise UserError(f"{path} is longer than {length}: cut it into shorter files")
        yield block


def _resample(blocks: Iterator[np.ndarray], old: int, new: int) -> Iterator[np.ndarray]:
    """Blocks of samples at ``new`` Hz."""
    resampler = Resampler(old, new)
    yield from map(resampler.accept, blocks)
    yield resampler.finish()


class Resampler:
    """Samples at another rate, block by block: the same (but for rounding) as if all were resampled at once.

    Args:
        old, new: rates in Hz; their ratio is what counts.
    """

    def __init__(self, old: int, new: int) -> None:
        divisor = math.gcd(old, new)
        self.up, self.down = new // divisor, old // divisor
        # Half of the filter, in whole periods.
        self.margin = self.down * math.ceil(10 * max(self.up, self.down) / (self.up * self.down))
        self._pending, self._done = np.empty(0, np.float32), 0  # of the pending samples, the first are only context

    def accept(self, block: np.ndarray) -> np.ndarray:
        """The samples (M,) that are known now, given the next ones (N,); there may be none."""
        if self.up == self.down:
            return block
        self._pending = np.concatenate([self._pending, block])
        ready = (len(self._pending) - self.margin) // self.down * self.down
        if ready <= max(self._done, self.margin):
            return np.empty(0, np.float32)
        resampled = self._resampled()[: (ready - self._done) // self.down * self.up]
        self._pending, self._done = self._pending[ready - self.margin :], self.margin
        return resampled

    def finish(self) -> np.ndarray:
        """The last samples."""
        return self._resampled()

    def _resampled(self) -> np.ndarray:
        return _polyphase(self._pending, self.up, self.down)[self._done // self.down * self.up :]


def _polyphase(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    """Samples at up / down times the rate, as ``scipy.signal.resample_poly``: a recogniser does not need SciPy."""
    half = 10 * max(up, down)
    taps = np.sinc(np.arange(-half, half + 1) / max(up, down)) * np.kaiser(2 * half + 1, 5.0)
    taps *= up / taps.sum()
    margin = half // up + 1
    padded = np.pad(samples, (margin, margin + down)).astype(np.float32)
    resampled = np.empty(-(-len(samples) * up // down), np.float32)
    for first in range(min(up, len(resampled))):  # every up-th sample has the same weights
        base, phase = divmod(first * down, up)
        weights = taps[half + phase - (half + phase) // up * up :: up].astype(np.float32)[::-1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights))
        count = len(resampled[first::up])
        begin = base - (half - phase) // up + margin
        resampled[first::up] = windows[begin : begin + (count - 1) * down + 1 : down] @ weights
    return resampled


def sample_fault(samples: np.ndarray, rate: int) -> str | None:
    """The reason why features cannot be computed from mono samples at ``rate`` Hz, or None."""
    if len(samples) < MIN_SECONDS * rate:
        return f"shorter than {MIN_SECONDS} s"
    if not np.isfinite(samples).all():
        return "NaN or infinite samples"
    if (level := float(np.abs(samples).max())) > MAX_LEVEL:
        return f"samples up to {level:.1g} where 1.0 is full scale"
    return None if level else "digital silence: every sample is zero"
