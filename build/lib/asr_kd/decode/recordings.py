"""Recordings that belong to no corpus: their features as cuts, and what is said of those that fail."""

from pathlib import Path

import numpy as np
from lhotse import Features, MonoCut
from lhotse.features.io import MemoryRawWriter

from asr_kd.features.front_end import FRAME_SHIFT, FrontEnd


def in_memory(features: np.ndarray, front_end: FrontEnd) -> MonoCut:
    """A cut of an unknown speaker with raw features (T, F) in memory."""
    frames, dim = features.shape
    stored = Features(
        type=front_end.extractor, num_frames=frames, num_features=dim, frame_shift=FRAME_SHIFT,
        sampling_rate=front_end.sampling_rate, start=0, duration=frames / 100, storage_type="memory_raw",
        storage_path="", storage_key=MemoryRawWriter().write("", features),
    )  # fmt: skip
    return MonoCut(id="file", start=0, duration=stored.duration, channel=0, features=stored)


def unexpected(path: Path, error: Exception) -> str:
    """What is said of an error that a library raised."""
    return f"{path} cannot be decoded ({type(error).__name__}: {error}): export it again as WAV or FLAC"


def message(path: Path, error: str) -> str:
    """An error in one line that names the file."""
    return " ".join((error if str(path) in error else f"{path}: {error}").splitlines())
