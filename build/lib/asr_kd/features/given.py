"""Features that others made, on Lhotse cuts: taken as they are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lhotse import Features
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.corpora.cuts import in_whole_samples, load_cuts
from asr_kd.features.front_end import FRAME_SHIFT, FrontEnd

#: Lhotse's kinds of storage that are read.  Others unpickle, fetch from addresses, or run what a Kaldi scp names.
STORAGE = ("lilcom_files", "lilcom_chunky", "lilcom_hdf5", "chunked_lilcom_hdf5", "numpy_files", "numpy_hdf5")
#: Difference in frames between features and cuts, whose rules for the last windows differ.
TOLERANCE = 3


def given_front_end(data: Path, normalise: str) -> FrontEnd:
    """The front end of the features on the cuts in a folder: those of the first cut of train.

    Raises:
        UserError: there are none.
    """
    first = next(load_cuts(data, "train"), None)
    features = getattr(first, "features", None)
    if not isinstance(features, Features):
        raise UserError(
            f"the cuts in {data} have no features: give --data a folder of Lhotse cuts (cuts_train.jsonl.gz …) that "
            "have some, or leave out --kind given"
        )
    return FrontEnd(features.type, features.num_features, features.sampling_rate, None, {}, normalise)


def given_cuts(data: Path, split: str) -> Iterator[MonoCut]:
    """The cuts of a split.

    Raises:
        UserError: the manifest is missing or damaged, or has an id twice.
    """
    seen: set[str] = set()
    for cut in load_cuts(data, split):
        if cut.id in seen:
            raise UserError(f"two cuts named {cut.id} in {data / f'cuts_{split}.jsonl.gz'}: give each an id of its own")
        seen.add(cut.id)
        yield in_whole_samples(cut) if isinstance(cut, MonoCut) and cut.has_features else cut


def given_features(cut: MonoCut, data: Path, front_end: FrontEnd) -> np.ndarray | str:
    """The features (T, F) float32 of a cut in a folder, as many as it has frames, or why they cannot be used."""
    if not isinstance(cut, MonoCut) or len(cut.supervisions) != 1:
        return (
            "not one supervision on one channel: trim the cuts to their supervisions (lhotse cut trim-to-supervisions)"
        )
    found = cut.features
    if found is None:
        return "no features"
    if (found.type, found.num_features) != (front_end.extractor, front_end.num_features):
        return f"{found.num_features} features ({found.type}) instead of {front_end}"
    if abs(found.frame_shift - FRAME_SHIFT) > 1e-6:
        return f"a frame every {1000 * found.frame_shift:g} ms instead of every 10 ms"
    if found.storage_type not in STORAGE:
        return f"features stored as {found.storage_type}: write them to files first (copy_feats of Lhotse's FeatureSet)"
    if not cut.supervisions[0].text or not cut.supervisions[0].speaker:
        return "no transcript or no speaker"
    if not Path(found.storage_path).exists():  # relative to the manifest
        cut = fastcopy(cut, features=found.with_path_prefix(data.resolve()))
    try:
        features = np.asarray(cut.load_features(), dtype=np.float32)
    except UNREADABLE as error:
        return f"unreadable features ({type(error).__name__}: {error})"
    if features.ndim != 2 or abs(len(features) - cut.num_frames) > TOLERANCE or not len(features):
        return f"features of shape {features.shape} in a cut of {cut.num_frames} frames"
    if not np.isfinite(features).all():
        return "NaN or infinite features"
    missing = max(cut.num_frames - len(features), 0)
    return np.ascontiguousarray(np.pad(features, ((0, missing), (0, 0)), "edge")[: cut.num_frames])
