"""Frame accuracy, from counts of correct frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

#: Label of frames that never count.
PADDING = -100


class FrameAccuracy:
    """Counts right frames, utterance by utterance.

    Args:
        silence_pdfs: senones of silence: not speech, and one class in the merged accuracy.
    """

    def __init__(self, silence_pdfs: Iterable[int]) -> None:
        self._silence = np.asarray(sorted(silence_pdfs), dtype=np.int64)
        self._counts = dict.fromkeys(("frames", "correct", "speech_frames", "speech_correct", "merged_correct"), 0)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count the frames of one utterance.

        Args:
            labels: (T,) senones; frames labelled ``PADDING`` do not count.
            predictions: (T,) senones.

        Raises:
            ValueError: the shapes differ.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.ndim != 1 or labels.shape != predictions.shape:
            raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be (T,) both")
        labels, predictions = labels[labels != PADDING], predictions[labels != PADDING]
        right = labels == predictions
        silence = np.isin(labels, self._silence)
        merged = right | (silence & np.isin(predictions, self._silence))
        found = (len(labels), right.sum(), (~silence).sum(), (right & ~silence).sum(), merged.sum())
        for name, count in zip(self._counts, found, strict=True):
            self._counts[name] += int(count)

    def result(self) -> dict[str, int]:
        """Counts so far: frames, correct, speech_frames, speech_correct, merged_correct (silences as one class)."""
        return dict(self._counts)


def frame_rates(counts: Mapping[str, int]) -> dict[str, float]:
    """``FrameAccuracy.result()`` in per cent: of all frames, of speech frames, of all with the silences merged.

    A rate without a frame is left out.
    """
    parts = {
        "all": ("correct", "frames"),
        "speech": ("speech_correct", "speech_frames"),
        "merged": ("merged_correct", "frames"),
    }
    return {rate: 100 * counts[right] / counts[every] for rate, (right, every) in parts.items() if counts[every]}
