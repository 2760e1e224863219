"""README.md of a bundle."""

from __future__ import annotations

import textwrap

from asr_kd.bundle.confidences import Judged
from asr_kd.bundle.config import Config
from asr_kd.bundle.measure import Form, Forms
from asr_kd.common.storage import atomic_open, read_json
from asr_kd.corpora.cuts import load_cuts
from asr_kd.hmm.pipeline import is_perturbed
from asr_kd.lang.words import Words
from asr_kd.models.network import read_network
from asr_kd.runtime.bundle import FLOAT, INT8, Bundle
from asr_kd.score.tables import Table

#: So many words are listed.
FEW = 200


def write_card(config: Config, bundle: Bundle, forms: Forms, confidences: dict[str, Judged]) -> None:
    """Write the card of a bundle: what it knows, what it costs, how it is used.

    Args:
        forms: of the network, as measured.
        confidences: of int8, by split; empty if there are none.
    """
    network = read_network(config.model)
    title = config.title or config.out.resolve().name
    latency = round(1000 * bundle.right * bundle.seconds)
    splits = config.splits
    header = ["form", "MB", *(f"WER on {split}, %" for split in splits), "scoring on one core, seconds per second"]
    rows = [
        [form.name, f"{form.bytes / 1e6:.2f}", *(_wer(form, split) for split in splits), _rtf(form)] for form in forms
    ]
    table = Table(header, rows).markdown()
    size = ", ".join(f"{split}: {forms.int8.reference_words(split):,} words" for split in splits)
    licence = f"Licence of the training data: {config.licence}\n\n" if config.licence else ""
    text = f"""# {title}

A speech recogniser made by asr_kd: {network.num_parameters():,} parameters, {network.num_senones:,} senones, audio at
{bundle.sampling_rate:,} Hz. It hears {bundle.left} frames of 10 ms before and {bundle.right} after the one that it
scores, so that it waits {latency} ms.

{_training(config)}

{_words(config)}

{licence}{table}

{size}.

{_confidences(confidences)}

    pip install 'asr_kd[runtime]'
    python -m asr_kd.runtime FOLDER FILE...

- `{FLOAT}` and `{INT8}`: samples to scores
- `graph/`: what the search knows of words
- `decode.json`: settings of the search
{"- `golden/`: samples, features, scores (of every tenth frame) and words of a few utterances" if config.golden else ""}
"""
    with atomic_open(config.out / "README.md") as file:
        file.write(text)


def _training(config: Config) -> str:
    seconds, utterances = 0.0, 0
    speakers: set[str | None] = set()
    for cut in load_cuts(config.features, "train"):
        if not is_perturbed(cut):
            seconds, utterances = seconds + cut.duration, utterances + 1
            speakers.update(supervision.speaker for supervision in cut.supervisions)
    distilled = read_json(config.model / "model.json").get("soft_targets")
    taught = "the frame posteriors of other networks (soft targets) on" if distilled else "the alignment of"
    voices = "one speaker" if len(speakers) == 1 else f"{len(speakers):,} speakers"
    text = f"It learned from {taught} {seconds / 3600:.2f} hours of speech: {utterances:,} utterances of {voices}."
    return textwrap.fill(f"{text} Voices, rooms and microphones unlike these are worse recognised.", 120)


def _words(config: Config) -> str:
    names = Words(config.graph)
    known = sorted({name for name in names.names.values() if not name.startswith(("<", "#"))})
    text = f"It knows {len(known):,} {'pieces of words' if names.pieces else 'words'}"
    if len(known) <= FEW:
        text += f", and hears nothing else: {' '.join(known)}"
    return textwrap.fill(f"{text}. `--words FILE` adds others.", 120, break_on_hyphens=False)


def _confidences(judged: dict[str, Judged]) -> str:
    if not judged:
        return "Words have no confidence: there were too few right or wrong ones to fit it to."
    header = ["confidence of words in int8", "words", "right before wrong (AUC)", "calibration error, %"]
    first = next(iter(judged))
    rows = [
        [f"{split}, which it is fitted to" if split == first else split, f"{own.words:,}",
         "–" if own.auc is None else f"{own.auc:.3f}", f"{own.error:.1f}"]
        for split, own in judged.items()
    ]  # fmt: skip
    return Table(header, rows).markdown()


def _wer(form: Form, split: str) -> str:
    return f"{form.wer(split):.2f}" if split in form.references else "–"


def _rtf(form: Form) -> str:
    return "–" if form.rtf is None else f"{form.rtf:.5f}"
