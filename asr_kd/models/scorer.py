"""Frame scores of networks for search and alignment: log posterior − log prior."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.normalise import Normaliser, quiet_frames
from asr_kd.losses import Mean
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.models.network import AcousticModel
from asr_kd.models.posteriors import posteriors

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


#: Returns the frame scores of a cut with features, (T, C) float32; is called from several threads at once.
Scorer = Callable[["MonoCut"], np.ndarray]
#: Returns the senone posteriors of some frames, given the normalised features (T, D) of the utterance.
Posteriors = Callable[[np.ndarray, slice], np.ndarray]

#: Score of every senone but those of silence where a recording is quiet; that of silence is 0.
NOT_SILENCE = -30.0
#: Frames scored at once, which bounds the memory of a long utterance.
CHUNK_FRAMES = 6000


def in_chunks(score: Callable[[slice], np.ndarray], start: int, stop: int) -> np.ndarray:
    """What ``score`` returns for the frames from ``start`` to ``stop``, given ``CHUNK_FRAMES`` of them at a time."""
    starts = range(start, max(stop, start + 1), CHUNK_FRAMES)  # one of no frames gives scores of shape (0, C)
    scores = [score(slice(first, min(first + CHUNK_FRAMES, stop))) for first in starts]
    return scores[0] if len(scores) == 1 else np.concatenate(scores)


class FrameScorer(ABC):
    """A scorer that can score a part of an utterance; may be called from several threads at once."""

    @abstractmethod
    def features(self, cut: MonoCut) -> np.ndarray:
        """The features (T, D) float32 of a cut, which ``scores`` takes."""

    @abstractmethod
    def chunk_scores(self, features: np.ndarray, frames: slice) -> np.ndarray:
        """The scores of some frames, given the features of the whole cut."""

    def scores(self, features: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The scores (stop − start, C) float32 of the frames from ``start`` to ``stop``."""
        return in_chunks(functools.partial(self.chunk_scores, features), start, stop)

    def __call__(self, cut: MonoCut) -> np.ndarray:
        features = self.features(cut)
        return self.scores(features, 0, len(features))


class NetworkScorer(FrameScorer):
    """Frame scores log posterior − log prior.

    Args:
        posteriors: of a network, of an ensemble, or of a generalist with its specialists.
        network: folder with the prior.
        features: folder with the statistics for normalisation.
        silence_pdfs: senones of silence, which share one score: its states follow each other once, and where noise
            gives way to silence, the search would need a word in between.  They are certain where the recording is
            quiet, however long that lasts: networks are trained on short pauses.
    """

    def __init__(self, posteriors: Posteriors, network: Path, features: Path, silence_pdfs: Sequence[int] = ()) -> None:
        self._posteriors, self._log_prior = posteriors, load_log_prior(network)
        self._silence = np.array(silence_pdfs, dtype=np.int64)
        self._normaliser = Normaliser.load(features)

    def features(self, cut: MonoCut) -> np.ndarray:
        return self._normaliser(cut)

    def chunk_scores(self, features: np.ndarray, frames: slice) -> np.ndarray:
        average = self._posteriors(features, frames)
        floor = np.finfo(np.float32).tiny  # a softmax can underflow to 0
        scores: np.ndarray = np.log(np.maximum(average, floor)) - self._log_prior
        if len(self._silence):
            posterior = average[:, self._silence].sum(1, keepdims=True)
            log_prior = np.log(np.exp(self._log_prior[self._silence]).sum())
            scores[:, self._silence] = np.log(np.maximum(posterior, floor)) - log_prior
            quiet = np.flatnonzero(quiet_frames(features[frames]))
            scores[quiet] = NOT_SILENCE
            scores[np.ix_(quiet, self._silence)] = 0
        return scores


def ensemble_posteriors(folders: Sequence[Path], num_pdfs: int, mean: Mean) -> Posteriors:
    """Return a function for the averaged posteriors of the networks in ``folders``.

    Raises:
        UserError: a network is missing or damaged, or its number of senones is not ``num_pdfs``.
    """
    models = [load_model(folder) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        check_senones(folder, model, num_pdfs)
    return lambda features, frames: posteriors(models, features, mean=mean, frames=frames)


def check_senones(folder: Path, model: AcousticModel, num_pdfs: int) -> None:
    """Check that a network and a graph have the same senones.

    Raises:
        UserError: they do not.
    """
    if (senones := model.network.num_senones) != num_pdfs:
        raise UserError(
            f"the network in {folder} has {senones} senones but the graph has {num_pdfs}: "
            "give the graph that was made with the senones of the network"
        )
