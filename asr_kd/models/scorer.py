"""Frame scores of networks for search and alignment: log posterior − log prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import Mean
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.posteriors import posteriors

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


#: Returns the frame scores of a cut with features, (T, C) float32; is called from several threads at once.
Scorer = Callable[["MonoCut"], np.ndarray]
#: Returns the senone posteriors (T, C) of normalised features (T, D).
Posteriors = Callable[[np.ndarray], np.ndarray]


class NetworkScorer:
    """Frame scores log posterior − log prior.

    Args:
        posteriors: of a network, of an ensemble, or of a generalist with its specialists.
        network: folder with the prior.
        features: folder with the statistics for normalisation.
    """

    def __init__(self, posteriors: Posteriors, network: Path, features: Path) -> None:
        self._posteriors, self._log_prior = posteriors, load_log_prior(network)
        self._normaliser = Normaliser.load(features)

    def __call__(self, cut: MonoCut) -> np.ndarray:
        average = self._posteriors(self._normaliser(cut))
        floor = np.finfo(np.float32).tiny  # a softmax can underflow to 0
        return np.log(np.maximum(average, floor)) - self._log_prior


def ensemble_posteriors(folders: Sequence[Path], num_pdfs: int, mean: Mean) -> Posteriors:
    """Return a function for the averaged posteriors of the networks in ``folders``.

    Raises:
        UserError: a network is missing or damaged, or its number of senones is not ``num_pdfs``.
    """
    models = [load_model(folder) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        check_senones(folder, model, num_pdfs)
    return partial(posteriors, models, mean=mean)


def check_senones(folder: Path, model: AcousticModel, num_pdfs: int) -> None:
    """Check that a network and a graph have the same senones.

    Raises:
        UserError: they do not.
    """
    if model.shape.num_pdfs != num_pdfs:
        raise UserError(
            f"the network in {folder} has {model.shape.num_pdfs} senones but the graph has {num_pdfs}: "
            "give the graph that was made with the senones of the network"
        )
