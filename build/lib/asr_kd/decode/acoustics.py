"""Frame scores for the search: log-likelihoods (T, C) from a network, an ensemble of networks, or the GMM."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.common.errors import UserError
from asr_kd.hmm.scores import GmmScorer
from asr_kd.losses import Mean
from asr_kd.models.posteriors import utterance_inputs
from asr_kd.models.scorer import FrameScorer, NetworkScorer, Posteriors, check_senones, ensemble_posteriors
from asr_kd.specialists.ensemble import Ensemble


def _specialist_posteriors(network: Path, num_pdfs: int, specialists: Sequence[Path], top_k: int) -> Posteriors:
    """Return the combined posteriors of a network and its specialists (section 5.4)."""
    ensemble = Ensemble(network, specialists, top_k, torch.float32)
    check_senones(network, ensemble.generalist, num_pdfs)

    def posteriors(features: np.ndarray, frames: slice) -> np.ndarray:
        rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        start, stop, _ = frames.indices(len(rows))
        return ensemble(*utterance_inputs(ensemble.generalist, rows, start, stop)).combined.numpy()

    return posteriors


def load_scorer(
    folders: Sequence[Path], features: Path, num_pdfs: int, silence_pdfs: Sequence[int] = (),
    mean: Mean = "arithmetic", specialists: Sequence[Path] = (), top_k: int = 1,
) -> FrameScorer:  # fmt: skip
    """The scorer for ``--model``: folders with model.json are networks, a folder with hmm.json is the GMM.

    Args:
        features: folder of the features stage.
        num_pdfs: number of senones of the graph.
        silence_pdfs: senones of silence, which networks are not asked about where the recording is quiet.
        mean: how the posteriors of several networks are averaged.
        specialists: folders of specialists that are combined with the one network in ``folders``.
        top_k: specialists are active that cover one of its top-k senones.

    Raises:
        UserError: a folder has neither file, or the models do not fit each other or the graph.
    """
    networks = [folder for folder in folders if (folder / "model.json").is_file()]
    if specialists and not len(networks) == len(folders) == 1:
        raise UserError("--specialists are combined with one network: give that one as --model")
    if folders and len(networks) == len(folders):
        torch.set_num_threads(1)  # several utterances are scored at the same time instead
        if specialists:
            posteriors = _specialist_posteriors(folders[0], num_pdfs, specialists, top_k)
        else:
            posteriors = ensemble_posteriors(folders, num_pdfs, mean)
        return NetworkScorer(posteriors, folders[0], features, silence_pdfs)
    if len(folders) == 1 and (folders[0] / "hmm.json").is_file():
        return GmmScorer(folders[0])
    unknown = next((f for f in folders if f not in networks and not (f / "hmm.json").is_file()), None)
    if unknown is not None:
        raise UserError(f"{unknown} holds no finished model (model.json or hmm.json): check --model, or train it first")
    raise UserError("--model takes one network, several networks, or one GMM")
