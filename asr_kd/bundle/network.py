"""The network of a bundle: from samples to what the search takes, as one module that ONNX can express.

It is meant for streams as well as for whole recordings: it takes the samples around some frames, and what is known of
the speech before them.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from lhotse.features.base import get_extractor_type
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.common.errors import UserError
from asr_kd.features.extractors import SCALE
from asr_kd.features.front_end import FBANK, MARGIN, FrontEnd
from asr_kd.features.normalise import FLOOR, MIN_STD, QUIET, SPEECH_RANGE
from asr_kd.models.dnn import DNN
from asr_kd.models.network import AcousticModel, frame_logits, is_window_classifier, segment_of
from asr_kd.models.scorer import NOT_SILENCE

#: Names of the inputs and outputs, in the order of ``Samples2Scores.forward``.
INPUTS = ("samples", "speech", "new", "prior", "start", "stop")
OUTPUTS = ("scores", "speech_after", "features", "loudness")


def check_log_mels(front_end: FrontEnd) -> None:
    """Raises UserError if features are no log-mels of Lhotse's that ``LogMels`` computes."""
    if front_end.settings is None or not front_end.finds_speech or front_end.extractor != FBANK:
        raise UserError(f"a bundle computes log-mels from samples, but the features are {front_end}: use log-mels")


class LogMels(nn.Module):
    """Lhotse's log-mels of samples that need no padding, (N,) → (T, F): products, with a square between them.

    All that happens to a frame of samples before its power spectrum is linear. Its window is symmetric, and the power
    spectrum does not know where time begins: so the cosines about its middle meet sums of samples as far from it on
    either side, the sines differences, and two matrices of half the length do what a Fourier transform does; in
    onnxruntime in a fraction of its time, and as exactly.
    """

    window: Tensor
    bins: Tensor
    filters: Tensor
    shares: Tensor
    shared: Tensor

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        settings = {"feature_type": FBANK, **(front_end.settings or {})}
        lhotse = get_extractor_type(FBANK).from_dict(settings).extractor.double()
        self.sampling_rate = front_end.sampling_rate
        self.length, self.shift = int(lhotse.wav2win._length), int(lhotse.wav2win._shift)
        self.preemphasis = float(lhotse.wav2win.preemph_coeff)
        self.offset = (1 - self.preemphasis) * float(lhotse.wav2win.remove_dc_offset)
        self.fft_length = int(lhotse.fft_length)
        # Few numbers, from which matrices are computed whenever a bundle is loaded, which is smaller by these; buffers,
        # since what is computed from constants is written out.
        self.half_length = self.length - self.length // 2
        window = lhotse.wav2win._window[: self.half_length].float() * float(SCALE)
        window[self.length // 2 :] /= 2  # a sample in the middle is in both halves
        self.register_buffer("window", window)
        used = int(lhotse._fb.any(1).nonzero().max()) + 1
        self.register_buffer("bins", torch.arange(used))
        self.register_buffer("filters", torch.arange(lhotse._fb.shape[1]))
        shares, filters = lhotse._fb[:used].float().topk(2, 1)  # a frequency lies in two filters at most
        self.register_buffer("shares", shares)
        self.register_buffer("shared", filters)
        self.floor = float(torch.finfo(torch.float32).eps)

    def forward(self, samples: Tensor) -> Tensor:
        count = (torch.tensor(0) + samples.shape[0] - self.length) // self.shift + 1
        before = torch.cat([samples[:1], samples[:-1]])
        emphasised = samples - self.preemphasis * before
        # Frames are copied in pieces, which they share: to look up each sample would take longer than the products.
        piece = math.gcd(self.half_length, self.length, self.shift)
        step, pieces = self.shift // piece, self.length // piece
        whole = samples.shape[0] // piece * piece
        forwards = emphasised[:whole].view(-1, piece)
        firsts = frame_range(torch.tensor(0), count)[:, None] * step
        places = torch.arange(self.half_length // piece)
        early = forwards.index_select(0, (firsts + places).flatten()).view(-1, self.half_length)
        late = forwards.flip(1).index_select(0, (firsts + (pieces - 1 - places)).flatten()).view(-1, self.half_length)
        # Of each frame, and not of the whole, Lhotse takes out the mean, and its first sample has nothing before it.
        mean = F.avg_pool1d(samples[:whole].view(1, 1, -1, piece).mean(3), pieces, step)[0, 0, :count, None]
        if self.window[0] != 0:
            first = self.preemphasis * (before[:: self.shift] - samples[:: self.shift])[:count, None]
            early = early + F.pad(first, (0, self.half_length - 1))
        cosines, sines = self._transforms()
        rising = (early + late - 2 * self.offset * mean) @ cosines
        falling = (early - late) @ sines
        mels = (self.shares[:, :, None] * (self.shared[:, :, None] == self.filters)).sum(1)
        return ((rising.square() + falling.square()) @ mels).clamp_min(self.floor).log()

    def _transforms(self) -> tuple[Tensor, Tensor]:
        """Matrices (samples of half a frame, bins) of cosines and sines about the frame's middle, times the window."""
        # In halves of a sample, since the middle of a frame may lie between two.
        turns = (2 * torch.arange(self.half_length)[:, None] - (self.length - 1)) * self.bins + self.fft_length
        turns = turns % (2 * self.fft_length) - self.fft_length  # small: float32 has their cosine
        angles = turns.float() * (math.pi / self.fft_length)
        return angles.cos() * self.window[:, None], angles.sin() * self.window[:, None]


class Samples2Scores(nn.Module):
    """Scores for the search, times the acoustic scale, of some frames; as ``asr_kd.models.scorer.NetworkScorer``'s.

    Args:
        front_end: of the features that the network was trained on.
        model: in evaluation mode.
        log_prior: (C,) of the senones.
        silence_pdfs: senones of silence.
        scale: acoustic scale.
        usual: (2, F) what speech is like: mean features and squares, above its level.
    """

    usual: Tensor
    log_prior: Tensor
    silence: Tensor

    def __init__(
        self, front_end: FrontEnd, model: AcousticModel, log_prior: np.ndarray, silence_pdfs: tuple[int, ...],
        scale: float, usual: np.ndarray,
    ) -> None:  # fmt: skip
        super().__init__()
        if segment_of(model) > 1 or model.left is None or model.right is None:
            raise UserError(f"{model.network.name} needs more of a recording than a bundle keeps: give another network")
        self.front_end = LogMels(front_end)
        self.vowels, self.scale = front_end.vowel_filters, scale
        self.model = _with_fixed_norms(copy.deepcopy(model))
        self.left, self.right, self.normalised = model.left, model.right, front_end.normalise != "none"
        self.register_buffer("usual", torch.from_numpy(usual))
        self.register_buffer("log_prior", torch.from_numpy(log_prior))
        silence = torch.zeros(len(log_prior), dtype=torch.bool)
        silence[list(silence_pdfs)] = True
        self.register_buffer("silence", silence)
        self.silence_prior = float(np.log(np.exp(log_prior[list(silence_pdfs)]).sum())) if silence_pdfs else 0.0

    def forward(
        self, samples: Tensor, speech: Tensor, new: Tensor, prior: Tensor, start: Tensor, stop: Tensor
    ) -> tuple[Tensor, ...]:
        """Score the frames ``start`` to ``stop`` (exclusive) of those in ``samples``.

        Args:
            samples: (N,) in [−1, 1], padded at the ends of a recording as Lhotse does; T = (N − window) // shift + 1.
            speech: (3 + 2 F,) float64, sums over the frames of the recording so far: energy; energy · loudness;
                frames of speech, their features, and the squares of these; all zero at its start.
            new: how many of the last frames these sums lack.
            prior: frames of usual speech to which this counts as a continuation, float64; 0 for whole recordings.

        Returns:
            scores (stop − start, C); the sums with the new frames; the normalised features (T, F); loudness (T,).
        """
        return self.score(self.front_end(samples), speech, new, prior, start, stop)

    def score(
        self, raw: Tensor, speech: Tensor, new: Tensor, prior: Tensor, start: Tensor, stop: Tensor
    ) -> tuple[Tensor, ...]:
        """The same, given the log-mels (T, F) of the samples."""
        loudness = raw[:, self.vowels].logsumexp(1)
        speech, heard = self._listen(raw, loudness, speech, new)
        features = self._normalise(raw, speech, prior, heard) if self.normalised else raw
        padded = F.pad(features, (0, 0, self.left, self.right), value=QUIET)
        count = stop - start
        part = padded.index_select(0, frame_range(start, stop + self.left + self.right))
        logits = self._logits(part, count)
        return self._scores(logits, features.index_select(0, frame_range(start, stop))), speech, features, loudness

    def _listen(self, raw: Tensor, loudness: Tensor, speech: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """The sums with the new frames, and where there is speech, (T,) 0 or 1."""
        added = (torch.arange(raw.shape[0]) >= raw.shape[0] - new).double()
        energy = loudness.double().exp() * added
        level = speech[:2] + torch.stack([energy.sum(), (energy * loudness.double()).sum()])
        heard = (loudness >= (level[1] / level[0]).float() - SPEECH_RANGE).float()
        weights, values = (added * heard.double())[:, None], raw.double()
        sums = [weights.sum()[None], (weights * values).sum(0), (weights * values.square()).sum(0)]
        return torch.cat([level, speech[2:] + torch.cat(sums)]), heard

    def _normalise(self, raw: Tensor, speech: Tensor, prior: Tensor, heard: Tensor) -> Tensor:
        level, total = speech[1] / speech[0], speech[2].clamp_min(1.0) + prior
        own_sum, own_squares = speech[3:].chunk(2)
        # The sums are those of features; the usual ones, of what is above the level.
        above = own_sum - speech[2] * level
        squares = own_squares - level * (own_sum + above)
        mean = (above + prior * self.usual[0]) / total
        scale = ((squares + prior * self.usual[1]) / total - mean.square()).clamp_min(MIN_STD**2).rsqrt()
        features = ((raw - (mean + level).float()) * scale.float()).clamp_min(FLOOR)
        near = F.max_pool1d(heard[None, None], 2 * MARGIN + 1, 1, MARGIN)[0, 0]
        return torch.where(near[:, None] > 0, features, QUIET)

    def _logits(self, part: Tensor, count: Tensor) -> Tensor:
        """Logits (count, C) of (left + count + right, F): of all frames but the margins."""
        if is_window_classifier(self.model):
            window = self.left + 1 + self.right
            index = (frame_range(torch.tensor(0), count)[:, None] + torch.arange(window)).flatten()
            return self.model.forward_windows(part.index_select(0, index).view(-1, window * part.shape[1]))
        lengths = (count + self.left + self.right)[None]  # a tensor: tracing would make a constant of a shape
        logits = frame_logits(self.model, part[None], lengths)[0]
        return logits[self.left : logits.shape[0] - self.right]

    def _scores(self, logits: Tensor, features: Tensor) -> Tensor:
        posteriors = logits.log_softmax(1).clamp_min(math.log(np.finfo(np.float32).tiny))
        scores = posteriors - self.log_prior
        if bool(self.silence.any()):
            shared = posteriors[:, self.silence.nonzero()[:, 0]].logsumexp(1, keepdim=True) - self.silence_prior
            scores = torch.where(self.silence, shared, scores)
            certain = torch.where(self.silence, 0.0, NOT_SILENCE)
            quiet = (features == QUIET).all(1, keepdim=True)
            scores = torch.where(quiet, certain, scores)
        return scores * self.scale


class _FixedNorm(nn.Module):
    """Batch norm after training, (…, C) or (B, C, T): onnxruntime's own takes ten times as long."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale, shift = (norm.running_var + norm.eps).rsqrt(), torch.zeros(())
        if norm.affine:
            scale, shift = scale * norm.weight.detach(), norm.bias.detach()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift - norm.running_mean * scale)

    def forward(self, values: Tensor) -> Tensor:
        scale, shift = (part[:, None] if values.dim() == 3 else part for part in (self.scale, self.shift))
        return values * scale + shift


def _with_fixed_norms(model: AcousticModel) -> AcousticModel:
    """The model with its batch norms as part of the layers before them, or as factors and summands; in place."""
    if isinstance(model, DNN):
        return model.fold_batch_norm()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d) and child.running_mean is not None:
                setattr(module, name, _FixedNorm(child))
    return model


def frame_range(start: Tensor, stop: Tensor) -> Tensor:
    """``torch.arange`` of tensors, which tracing must not make constants of."""
    numbers: Tensor = torch.arange(start, stop)  # type: ignore[call-overload]
    return numbers
