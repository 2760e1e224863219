"""Context windows of frames, as views without a copy."""

import torch
from torch import Tensor


def context_windows(features: Tensor, left: int, right: int) -> Tensor:
    """Return the window of every frame of an utterance, (T, D) → (T, (left + 1 + right) · D), a strided view.

    The utterance is padded by repeating its first and last frame.
    """
    dim = features.shape[1]
    padded = torch.cat([features[:1].expand(left, dim), features, features[-1:].expand(right, dim)])
    return strided_windows(padded, left + 1 + right)


def strided_windows(rows: Tensor, width: int) -> Tensor:
    """Return all windows of ``width`` rows, (N, D) → (N − width + 1, width · D), a strided view."""
    return rows.as_strided((len(rows) - width + 1, width * rows.shape[1]), (rows.shape[1], 1))
