"""Context windows of frames, as views without a copy."""

from torch import Tensor
from torch.nn import functional as F

from asr_kd.features.normalise import QUIET


def context_windows(features: Tensor, left: int, right: int) -> Tensor:
    """Return the window of every frame of an utterance, (T, D) → (T, (left + 1 + right) · D), a strided view.

    The utterance is surrounded by quiet frames, so that silence before and after it changes nothing.
    """
    return strided_windows(F.pad(features, (0, 0, left, right), value=QUIET), left + 1 + right)


def strided_windows(rows: Tensor, width: int) -> Tensor:
    """Return all windows of ``width`` rows, (N, D) → (N − width + 1, width · D), a strided view."""
    return rows.as_strided((len(rows) - width + 1, width * rows.shape[1]), (rows.shape[1], 1))
