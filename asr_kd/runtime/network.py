"""The network of a bundle in onnxruntime, and the samples that it wants around a frame."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from asr_kd.common.checksums import verify
from asr_kd.common.errors import UserError
from asr_kd.features.front_end import MARGIN
from asr_kd.features.parts import QUIET_RANGE, level_of, segment_bounds
from asr_kd.runtime.bundle import Bundle


class Scores(NamedTuple):
    """What the network says of some frames.

    Attributes:
        scores: (n, C) float32, times the acoustic scale.
        speech: sums over the speech so far, which the next call takes.
    """

    scores: np.ndarray
    speech: np.ndarray


class Network:
    """The network of a bundle.

    Args:
        path: the ONNX file.
        bundle: its description.
        threads: of onnxruntime.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path, bundle: Bundle, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                verify(path).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except FileNotFoundError:
            raise UserError(f"{path} is missing: make the bundle again") from None
        except Exception as error:  # onnxruntime has exceptions of its own, without a common type
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is damaged ({reason}): make the bundle again, or get it again") from None
        self.bundle = bundle

    def __call__(
        self, samples: np.ndarray, speech: np.ndarray, new: int, prior: float, start: int, stop: int
    ) -> Scores:
        """Score the frames ``start`` to ``stop`` of those in ``samples`` (asr_kd.bundle.network.Samples2Scores)."""
        inputs = network_inputs(samples, speech, new, prior, start, stop)
        return Scores(*self._session.run(["scores", "speech_after"], inputs))

    def whole(self, samples: np.ndarray, output: str = "scores") -> np.ndarray:
        """The scores (T, C), or the normalised features (T, F) or loudness (T,), of a whole recording."""
        inputs = whole_inputs(self.bundle, samples)
        found: np.ndarray = self._session.run([output], inputs)[0]
        return found

    def long(self, samples: np.ndarray) -> np.ndarray:
        """The scores (T, C) of a recording whose segments are normalised each by its own speech."""
        inputs = whole_inputs(self.bundle, samples)
        padded, frames = inputs["samples"], int(inputs["new"])
        scores, loudness = self._session.run(["scores", "loudness"], inputs)
        bounds, level = [*segment_bounds(loudness), frames], level_of(loudness)
        for start, stop in itertools.pairwise(bounds):
            if level_of(loudness[start:stop]) <= level - QUIET_RANGE:
                continue  # silence, next to the whole
            first = max(0, start - self.bundle.left - MARGIN)
            after = min(frames, stop + self.bundle.right + MARGIN)
            part = padded[first * self.bundle.shift : (after - 1) * self.bundle.shift + self.bundle.window]
            speech = self._heard(part[(start - first) * self.bundle.shift :], stop - start)
            found = self(part, speech, 0, self.bundle.prior, start - first, stop - first)
            scores[start:stop] = found.scores
        return scores

    def _heard(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """The sums over the speech of the first frames of samples."""
        samples = samples[: (frames - 1) * self.bundle.shift + self.bundle.window]
        return self(samples, no_speech(self.bundle), frames, 0.0, 0, 1).speech


def network_inputs(
    samples: np.ndarray, speech: np.ndarray, new: int, prior: float, start: int, stop: int
) -> dict[str, np.ndarray]:
    """What the network takes, by name (asr_kd.bundle.network.Samples2Scores)."""
    numbers = {"new": new, "start": start, "stop": stop}
    return {
        "samples": samples, "speech": speech, "prior": np.array(prior, np.float64),
        **{name: np.array(number, np.int64) for name, number in numbers.items()},
    }  # fmt: skip


def whole_inputs(bundle: Bundle, samples: np.ndarray) -> dict[str, np.ndarray]:
    """What the network takes for a whole recording."""
    frames = num_frames(bundle, len(samples))
    return network_inputs(pad(bundle, samples), no_speech(bundle), frames, bundle.prior, 0, frames)


def no_speech(bundle: Bundle) -> np.ndarray:
    """The sums over the speech at the start of a recording."""
    return np.zeros(3 + 2 * bundle.num_features)


def num_frames(bundle: Bundle, samples: int) -> int:
    """The number of frames of a recording of so many samples, as Lhotse counts them."""
    return (samples + bundle.shift // 2) // bundle.shift


def before(bundle: Bundle) -> int:
    """Samples of the first frame that lie before the recording."""
    return (bundle.window - bundle.shift) // 2


def pad(bundle: Bundle, samples: np.ndarray, begin: bool = True, end: bool = True) -> np.ndarray:
    """Samples with their ends mirrored, so that all frames are whole, as Lhotse's.

    Args:
        begin, end: whether the recording begins and ends with ``samples``.
    """
    left = before(bundle) if begin else 0
    right = 0
    if end:
        origin = 0 if begin else before(bundle)  # where the first frame of the samples would begin without padding
        frames = num_frames(bundle, len(samples) - origin)
        right = (frames - 1) * bundle.shift + bundle.window - len(samples) - left
    mirrored = samples[::-1]
    tail = mirrored[: max(right, 0)]
    padded = np.concatenate([mirrored[len(samples) - left :], samples, tail])
    return padded[: len(padded) + min(right, 0)].astype(np.float32)
