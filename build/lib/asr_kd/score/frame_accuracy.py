"""Frame accuracy, from counts of correct frames."""

from collections.abc import Iterable, Mapping

import numpy as np

#: Label of frames that do not count.
PADDING = -100


class FrameAccuracy:
    """Counts correct frames, utterance by utterance.

    Args:
        silence_pdfs: senones of silence; they are not speech, and are one class in the merged accuracy.
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
        correct = labels == predictions
        silence = np.isin(labels, self._silence)
        merged = correct | (silence & np.isin(predictions, self._silence))
        counts = (len(labels), correct.sum(), (~silence).sum(), (correct & ~silence).sum(), merged.sum())
        for name, count in zip(self._counts, counts, strict=True):
            self._counts[name] += int(count)

    def result(self) -> dict[str, int]:
        """Counts so far: frames, correct, speech_frames, speech_correct, merged_correct (silences as one class)."""
        return dict(self._counts)


def frame_rates(counts: Mapping[str, int]) -> dict[str, float]:
    """``FrameAccuracy.result()`` in per cent: over all frames, over speech frames, and with the silences merged.

    A rate over no frames is left out.
    """
    parts = {
        "all": ("correct", "frames"),
        "speech": ("speech_correct", "speech_frames"),
        "merged": ("merged_correct", "frames"),
    }
    return {rate: 100 * counts[correct] / counts[total] for rate, (correct, total) in parts.items() if counts[total]}
