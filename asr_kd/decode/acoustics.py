"""Frame scores for the search: log-likelihoods (T, C) from a network, an ensemble of networks, or the GMM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.storage import UserError

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

    from asr_kd.losses import Mean


#: Gives a cut with features its scores, (T, C) float32; called from several threads at once.
Scorer = Callable[["MonoCut"], np.ndarray]


class NetworkScorer:
    """log posterior − log prior; of several networks, the posteriors are averaged first.

    Raises:
        UserError: the networks do not fit each other or the graph.
    """

    def __init__(self, folders: Sequence[Path], features: Path, num_pdfs: int, mean: Mean) -> None:
        import torch

        from asr_kd.features import Normaliser
        from asr_kd.models import load_log_prior, load_model, posteriors

        torch.set_num_threads(1)  # utterances are scored side by side instead
        self._models = [load_model(folder) for folder in folders]
        self._log_prior = load_log_prior(folders[0])
        self._posteriors = partial(posteriors, mean=mean)
        self._normaliser = Normaliser.load(features)
        for folder, model in zip(folders, self._models, strict=True):
            if model.shape.num_pdfs != num_pdfs:
                raise UserError(
                    f"the network in {folder} has {model.shape.num_pdfs} senones, the graph {num_pdfs}: "
                    "give the graph made with the senones it was trained on"
                )

    def __call__(self, cut: MonoCut) -> np.ndarray:
        average = self._posteriors(self._models, self._normaliser(cut))
        floor = np.finfo(np.float32).tiny  # a softmax can underflow to 0
        return np.log(np.maximum(average, floor)) - self._log_prior


def load_scorer(folders: Sequence[Path], features: Path, num_pdfs: int, mean: Mean = "arithmetic") -> Scorer:
    """The scorer for ``--model`` (folders with model.json: networks; one with hmm.json: the GMM).

    Args:
        features: folder of the features stage.
        num_pdfs: senones of the graph.
        mean: how the posteriors of several networks are averaged.

    Raises:
        UserError: a folder holds neither, or they cannot go together.
    """
    networks = [folder for folder in folders if (folder / "model.json").is_file()]
    if folders and len(networks) == len(folders):
        return NetworkScorer(folders, features, num_pdfs, mean)
    if len(folders) == 1 and (folders[0] / "hmm.json").is_file():
        from asr_kd.hmm import gmm_scores

        return gmm_scores(folders[0])
    strange = next((f for f in folders if f not in networks and not (f / "hmm.json").is_file()), None)
    if strange is not None:
        raise UserError(f"{strange} holds no finished model (model.json or hmm.json): check --model, or train it first")
    raise UserError("--model takes one network, several networks, or one GMM")
