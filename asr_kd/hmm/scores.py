"""Log-likelihoods of cuts under the GMMs of a folder, and stored score matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.features import Normaliser
from asr_kd.hmm.cepstra import apply_map, cepstra
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.storage import UserError

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


class GmmScorer:
    """Callable: cut -> (T, C) float32.  Pickles as the folder's name.

    Raises:
        UserError: the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _, gmms = read_model(folder / "tri.mdl")
        if gmms is None:
            raise UserError(f"{folder / 'tri.mdl'} holds no GMMs: run python -m asr_kd.hmm to train some")
        self.gmms = gmms
        self.normaliser = Normaliser.load(folder)
        self.transform = np.load(folder / "transform.npy", allow_pickle=False)

    def __reduce__(self) -> tuple[type[GmmScorer], tuple[Path]]:
        return GmmScorer, (self.folder,)

    def features(self, cut: MonoCut) -> np.ndarray:
        """(T, 39) what the GMMs see."""
        return apply_map(cepstra(cut, self.normaliser), self.transform)

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
