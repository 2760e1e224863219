"""Log-likelihoods of cuts for alignment and search: from GMMs, from networks, or from stored arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import MonoCut

from asr_kd.common.storage import load_array, read_json
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.cepstra import apply_transform, cepstra
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.losses import Mean
from asr_kd.models.network import read_network
from asr_kd.models.scorer import FrameScorer, NetworkScorer, ensemble_posteriors


class GmmScorer(FrameScorer):
    """Log-likelihoods (T, C) float32 of a cut under the GMMs of a folder.

    Raises:
        UserError: the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        _, self.gmms = read_model(folder / "tri.mdl")
        self.transform = np.array(read_json(folder / "frontend.json")["transform"])
        self.normaliser = Normaliser.load(folder)

    def features(self, cut: MonoCut) -> np.ndarray:
        """Return the features of the GMMs, (T, E)."""
        return apply_transform(cepstra(cut, self.normaliser), self.transform)

    def chunk_scores(self, features: np.ndarray, frames: slice) -> np.ndarray:
        return self.gmms.scores(features[frames])


def network_scorer(networks: Sequence[Path], features: Path, mean: Mean) -> NetworkScorer:
    """Return the scorer of a network or an ensemble, which computes in one thread.

    Raises:
        UserError: a folder is missing or damaged.
    """
    num_pdfs = read_network(networks[0]).num_senones
    torch.set_num_threads(1)  # utterances are scored in parallel instead
    return NetworkScorer(ensemble_posteriors(networks, num_pdfs, mean), networks[0], features)


class StoredScores:
    """Scores (T, C) float32 of a cut from FOLDER/ID.npy.

    Raises:
        UserError: when called, if the array is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, cut: MonoCut) -> np.ndarray:
        path = self.folder / f"{cut.id}.npy"
        return np.asarray(load_array(path), dtype=np.float32)
