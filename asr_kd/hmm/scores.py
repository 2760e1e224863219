"""Log-likelihoods of cuts under the GMMs of a folder, and stored score matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.hmm.cepstra import CepstralMeans, apply_map
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.losses import Mean
from asr_kd.models.scorer import NetworkScorer, ensemble_posteriors

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


class GmmScorer:
    """Callable: cut -> (T, C) float32.  Pickles as the folder's name.

    Raises:
        UserError: the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _, self.gmms = read_model(folder / "tri.mdl")
        frontend = read_json(folder / "frontend.json")
        self.means = CepstralMeans.load(folder, frontend["cmn"])
        self.transform = np.array(frontend["transform"])

    def __reduce__(self) -> tuple[type[GmmScorer], tuple[Path]]:
        return GmmScorer, (self.folder,)

    def features(self, cut: MonoCut) -> np.ndarray:
        """(T, 39) what the GMMs see."""
        return apply_map(self.means.cepstra(cut), self.transform)

    def __call__(self, cut: MonoCut) -> np.ndarray:
        return self.gmms.scores(self.features(cut))


class NetworkScores:
    """Callable: cut -> (T, C) float32 of a network or an ensemble.  Pickles as the folders' names.

    Raises:
        UserError: a folder is missing or damaged.
    """

    def __init__(self, networks: Sequence[Path], features: Path, mean: Mean) -> None:
        self.made_of = networks, features, mean
        num_pdfs = int(read_json(networks[0] / "model.json")["shape"]["num_pdfs"])
        torch.set_num_threads(1)  # utterances are scored side by side instead
        self.scorer = NetworkScorer(ensemble_posteriors(networks, num_pdfs, mean), networks[0], features)

    def __reduce__(self) -> tuple[type[NetworkScores], tuple[Sequence[Path], Path, Mean]]:
        return NetworkScores, self.made_of

    def __call__(self, cut: MonoCut) -> np.ndarray:
        return self.scorer(cut)


class StoredScores:
    """Callable: cut -> (T, C) float32 from FOLDER/ID.npy.

    Raises:
        UserError: when called, the matrix is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, cut: MonoCut) -> np.ndarray:
        path = self.folder / f"{cut.id}.npy"
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"the scores {path} cannot be read ({error}): write them again") from None
