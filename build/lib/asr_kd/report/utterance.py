"""One test utterance for the posteriorgram: its features, its alignment, and the posteriors of the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.cuts import open_cuts
from asr_kd.features.extractors import raw_features
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.kaldi_io import read_transition_model
from asr_kd.losses import Mean
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import posteriors
from asr_kd.report.figures import Utterance

#: Duration in seconds of the utterance that is shown unless one is named.
SECONDS = 3.0
SILENCE, REST = "SIL", "other"


@dataclass(frozen=True)
class Panel:
    """One panel of the posteriorgram: its networks, their temperature, and how their posteriors are averaged."""

    title: str
    models: tuple[Path, ...]
    temperature: float = 1.0
    mean: Mean = "arithmetic"


def read_utterance(
    features: Path, gmm: Path, panels: Sequence[Panel], phone_names: Mapping[int, str], wanted: str = ""
) -> Utterance:
    """The test utterance ``wanted`` (default: the one closest to ``SECONDS``) with the posteriors of every panel.

    Args:
        features, gmm: folders of the features and of the senones (alignment, transition model).
        phone_names: phone id -> name.

    Raises:
        UserError: there is no such aligned utterance, or a model is missing.
    """
    path = gmm / "cuts_test.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path} is missing: align the test set first")
    cut = _choose(path, wanted)
    phones_of_pdfs = pdf_phones(gmm)
    alignment = cut.supervisions[0].alignment or {}
    segments, words = (
        [(item.start, item.start + item.duration, item.symbol) for item in alignment.get(kind, [])]
        for kind in ("phone", "word")
    )
    shown = list(dict.fromkeys([SILENCE, *(phone for _, _, phone in segments)]))
    place = {phone: row for row, phone in enumerate(shown)}
    rows = np.array([place.get(phone_names[phone], len(shown)) for phone in phones_of_pdfs])
    normaliser = Normaliser.load(features)
    normalised = normaliser(cut)
    sums = {}
    for panel in panels:
        models = [load_model(folder) for folder in panel.models]
        found = posteriors(models, normalised, panel.temperature, panel.mean)
        sums[panel.title] = sum_columns(found, rows, len(shown) + 1)
    text = cut.supervisions[0].text or ""
    front_end = normaliser.front_end
    row = "mel filter" if front_end.finds_speech or front_end.log_mel else "feature"
    return Utterance(
        cut.id, text, front_end.heat_map(raw_features(cut)), row, [*shown, REST], segments, words, sums
    )  # fmt: skip


def sum_columns(posteriors: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Posteriors of senones (T, C) summed into (T, count): column c is added to column ``rows[c]``."""
    sums = np.zeros((len(posteriors), count), dtype=posteriors.dtype)
    np.add.at(sums.T, rows, posteriors.T)
    return sums


def pdf_phones(gmm: Path) -> np.ndarray:
    """(C,) int64 phone id of each senone: the lowest one, where phones share senones."""
    model = read_transition_model(gmm / "tri.mdl")
    phones = np.zeros(model.num_pdfs, dtype=np.int64)
    for transition in range(model.num_transition_ids, 0, -1):
        phones[model.transition_id_to_pdf(transition)] = model.transition_id_to_phone(transition)
    return phones


def _choose(path: Path, wanted: str) -> MonoCut:
    best: tuple[float, str] | None = None
    chosen = None
    for cut in open_cuts(path):
        aligned = cut.supervisions and (cut.supervisions[0].alignment or {}).get("phone")
        rank = (abs(cut.duration - SECONDS), cut.id)
        if aligned and (cut.id == wanted if wanted else best is None or rank < best):
            best, chosen = rank, cut
    if chosen is None:
        raise UserError(f"{path} has no aligned utterance {wanted}: correct --utterance, or align the test set first")
    return chosen
