"""A unidirectional recurrent network, which hears nothing of what follows."""

from __future__ import annotations

from torch import Tensor, nn


class GRU(nn.Module):
    """Gated recurrent units (Cho et al. 2014); streams, and hears what follows only with a ``delay``.

    Args:
        feature_dim, num_senones: inputs and outputs per frame.
        layers, width: number of layers, and of units in each.
        dropout: share of units dropped between the layers in training.
    """

    left, right = None, 0

    def __init__(
        self, feature_dim: int, num_senones: int, layers: int = 3, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.hidden = nn.GRU(feature_dim, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.output = nn.Linear(width, num_senones)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.output(self.hidden(features)[0]), lengths
