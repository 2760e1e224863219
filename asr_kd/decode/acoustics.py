"""Frame scores for the search: log-likelihoods (T, C) from a network, an ensemble of networks, or the GMM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.common.errors import UserError
from asr_kd.hmm.scores import GmmScorer
from asr_kd.losses import Mean
from asr_kd.models.scorer import NetworkScorer, Posteriors, Scorer, check_fit, ensemble_posteriors
from asr_kd.models.windows import context_windows
from asr_kd.specialists.ensemble import Ensemble


def _with_specialists(network: Path, num_pdfs: int, specialists: Sequence[Path], likeliest: int) -> Posteriors:
    """What a network and its specialists agree on (section 5.4)."""
    ensemble = Ensemble(network, specialists, likeliest, torch.float32)
    check_fit(network, ensemble.generalist, num_pdfs)
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
        torch.set_num_threads(1)  # utterances are scored side by side instead
        if specialists:
            found = _with_specialists(folders[0], num_pdfs, specialists, likeliest)
        else:
            found = ensemble_posteriors(folders, num_pdfs, mean)
        return NetworkScorer(found, folders[0], features)
    if len(folders) == 1 and (folders[0] / "hmm.json").is_file():
        return GmmScorer(folders[0])
    strange = next((f for f in folders if f not in networks and not (f / "hmm.json").is_file()), None)
    if strange is not None:
        raise UserError(f"{strange} holds no finished model (model.json or hmm.json): check --model, or train it first")
    raise UserError("--model takes one network, several networks, or one GMM")
