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
    from asr_kd.models import AcousticModel


#: Gives a cut with features its scores, (T, C) float32; called from several threads at once.
Scorer = Callable[["MonoCut"], np.ndarray]


#: Gives normalised features (T, D) their senone posteriors (T, C).
Posteriors = Callable[[np.ndarray], np.ndarray]


class NetworkScorer:
    """log posterior − log prior; posteriors of a network, of an ensemble, or of a network with its specialists."""

    def __init__(self, posteriors: Posteriors, network: Path, features: Path) -> None:
        from asr_kd.features import Normaliser
        from asr_kd.models import load_log_prior

        self._posteriors, self._log_prior = posteriors, load_log_prior(network)
        self._normaliser = Normaliser.load(features)

    def __call__(self, cut: MonoCut) -> np.ndarray:
        average = self._posteriors(self._normaliser(cut))
        floor = np.finfo(np.float32).tiny  # a softmax can underflow to 0
        return np.log(np.maximum(average, floor)) - self._log_prior


def _ensemble(folders: Sequence[Path], num_pdfs: int, mean: Mean) -> Posteriors:
    from asr_kd.models import load_model, posteriors

    models = [load_model(folder) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        _check_fit(folder, model, num_pdfs)
    return partial(posteriors, models, mean=mean)


def _check_fit(folder: Path, model: AcousticModel, num_pdfs: int) -> None:
    if model.shape.num_pdfs != num_pdfs:
        raise UserError(
            f"the network in {folder} has {model.shape.num_pdfs} senones, the graph {num_pdfs}: "
            "give the graph made with the senones it was trained on"
        )


def _with_specialists(network: Path, num_pdfs: int, specialists: Sequence[Path], likeliest: int) -> Posteriors:
    """What a network and its specialists agree on (section 5.4)."""
    import torch

    from asr_kd.models import context_windows
    from asr_kd.specialists.ensemble import Ensemble

    ensemble = Ensemble(network, specialists, likeliest, torch.float32)
    _check_fit(network, ensemble.generalist, num_pdfs)
    shape = ensemble.generalist.shape

    def posteriors(features: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        return ensemble(context_windows(frames, shape.left, shape.right)).combined.numpy()

    return posteriors


def load_scorer(
    folders: Sequence[Path], features: Path, num_pdfs: int, mean: Mean = "arithmetic",
    specialists: Sequence[Path] = (), likeliest: int = 1,
) -> Scorer:  # fmt: skip
    """The scorer for ``--model`` (folders with model.json: networks; one with hmm.json: the GMM).

    Args:
        features: folder of the features stage.
        num_pdfs: senones of the graph.
        mean: how the posteriors of several networks are averaged.
        specialists: folders of those that have a say beside the one network in ``folders``.
        likeliest: so many of its likeliest classes choose which of them have a say.

    Raises:
        UserError: a folder holds neither, or they do not fit each other or the graph.
    """
    networks = [folder for folder in folders if (folder / "model.json").is_file()]
    if specialists and not len(networks) == len(folders) == 1:
        raise UserError("--specialists stand beside one network: give that one as --model")
    if folders and len(networks) == len(folders):
        import torch

        torch.set_num_threads(1)  # utterances are scored side by side instead
        if specialists:
            found = _with_specialists(folders[0], num_pdfs, specialists, likeliest)
        else:
            found = _ensemble(folders, num_pdfs, mean)
        return NetworkScorer(found, folders[0], features)
    if len(folders) == 1 and (folders[0] / "hmm.json").is_file():
        from asr_kd.hmm import gmm_scores

        return gmm_scores(folders[0])
    strange = next((f for f in folders if f not in networks and not (f / "hmm.json").is_file()), None)
    if strange is not None:
        raise UserError(f"{strange} holds no finished model (model.json or hmm.json): check --model, or train it first")
    raise UserError("--model takes one network, several networks, or one GMM")
