"""A network that knows nothing of asr_kd: what a user would bring."""

import torch
from torch import nn


class Bidirectional(nn.Module):
    """An LSTM that hears the whole chunk."""

    left = right = None

    def __init__(self, feature_dim: int, num_senones: int, width: int = 24) -> None:
        super().__init__()
        self.lstm = nn.LSTM(feature_dim, width, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * width, num_senones)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        values, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.output(values), lengths
