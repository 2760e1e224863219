"""Log-likelihoods of cuts under the GMMs of a folder, and stored score matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.hmm.cepstra import CepstralMeans, apply_map
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.storage import UserError, read_json

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
