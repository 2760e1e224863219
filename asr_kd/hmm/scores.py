"""Log-likelihoods of cuts for alignment and search: from GMMs, from networks, or from stored arrays."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import torch
from lhotse.cut import MonoCut

from asr_kd.common.storage import load_array, read_json, verify
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.cepstra import apply_transform, cepstra
from asr_kd.hmm.corpus import speaker_of
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.hmm.kaldi_tables import Entry, archive_entries, read_matrix, write_matrices
from asr_kd.hmm.transforms import apply_fmllr
from asr_kd.losses import Mean
from asr_kd.models.network import read_network
from asr_kd.models.scorer import FrameScorer, NetworkScorer, ensemble_posteriors, in_chunks

#: Files of GMMs that are trained with fMLLR: the Gaussians for features without it, and the transforms of speakers.
INDEPENDENT, TRANSFORMS = "si.mdl", "fmllr.ark"


def split_transforms(gmm: Path, split: str) -> Path:
    """The file of the transforms with which a split was aligned."""
    return gmm / f"fmllr_{split}.ark"


def write_transforms(path: Path, transforms: Mapping[str, np.ndarray]) -> None:
    """Write the transforms of speakers as an archive of Kaldi's; spaces in names are %20, as in addresses."""
    write_matrices(path, {quote(speaker): transform for speaker, transform in transforms.items()})


class StoredTransforms(Mapping[str, np.ndarray]):
    """The transforms of speakers in an archive that ``write_transforms`` or Kaldi wrote, each read when asked for.

    A process looks through an archive once, not for every chunk of utterances, since each of these may have a speaker
    of its own.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._entries = _entries(path, path.stat().st_mtime_ns if path.is_file() else 0)

    def __getitem__(self, speaker: str) -> np.ndarray:
        return read_matrix(self._entries[speaker])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@functools.lru_cache(maxsize=2)
def _entries(path: Path, written: int) -> dict[str, Entry]:
    """Where the matrices of an archive are that was ``written`` at that time."""
    return {unquote(key): entry for key, entry in archive_entries(verify(path))}


class GmmScorer(FrameScorer):
    """Log-likelihoods (T, C) float32 of a cut under the GMMs of a folder.

    Args:
        folder: of python -m asr_kd.hmm or asr_kd.hmm.adapt.
        transforms: archive of the speakers' transforms; default: that of the folder, if it has one.  GMMs that were
            trained with such transforms have a second model for use without them.

    Attributes:
        transforms: (E, E + 1) by speaker; other speakers' features stay as they are.

    Raises:
        UserError: the folder is missing or damaged.
    """

    def __init__(self, folder: Path, transforms: Path | None = None) -> None:
        archive = transforms or folder / TRANSFORMS
        stored = transforms is not None or archive.is_file()
        self.transforms: Mapping[str, np.ndarray] = StoredTransforms(archive) if stored else {}
        independent = folder / INDEPENDENT
        _, self.gmms = read_model(folder / "tri.mdl" if self.transforms or not independent.is_file() else independent)
        self.transform = np.array(read_json(folder / "frontend.json")["transform"])
        self.normaliser = Normaliser.load(folder)

    def features(self, cut: MonoCut) -> np.ndarray:
        """Return the features of the GMMs, (T, E)."""
        features, speaker = self.unadapted(cut), speaker_of(cut)
        return apply_fmllr(features, self.transforms[speaker]) if speaker in self.transforms else features

    def unadapted(self, cut: MonoCut) -> np.ndarray:
        """Return the features before the transform of the speaker, (T, E)."""
        return apply_transform(cepstra(cut, self.normaliser), self.transform)

    def chunk_scores(self, features: np.ndarray, frames: slice) -> np.ndarray:
        return self.gmms.scores(features[frames])

    def pdf_scores(self, cut: MonoCut, pdfs: np.ndarray) -> np.ndarray:
        """Return the scores (T, len(pdfs)) of some pdfs."""
        features = self.features(cut)
        return in_chunks(lambda frames: self.gmms.scores(features[frames], pdfs), 0, len(features))


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
