"""Work of the bundle stage: graph, network in both forms, measurements, golden vectors, card."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.bundle.card import write_card
from asr_kd.bundle.confidences import fit_confidences, judge
from asr_kd.bundle.config import Config
from asr_kd.bundle.export import export_float, export_int8
from asr_kd.bundle.measure import Forms, measure
from asr_kd.bundle.network import Samples2Scores, check_log_mels
from asr_kd.bundle.sherpa import write_sherpa
from asr_kd.bundle.speech import usual_speech
from asr_kd.common.errors import UserError
from asr_kd.common.storage import copy_file, read_json, save_array, write_json
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.output import read_tuned
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import USUAL_FRAMES, Normaliser
from asr_kd.features.parts import LONG
from asr_kd.hmm.new_words import SLOTS, write_slots
from asr_kd.hmm.pipeline import is_perturbed
from asr_kd.hmm.word_times import PRONUNCIATIONS
from asr_kd.lang.openfst import add_to_words
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.senones import check_same_senones
from asr_kd.runtime import Recogniser
from asr_kd.runtime.bundle import DESCRIPTION, FLOAT, GRAPH, INT8, WORDS, Bundle
from asr_kd.score.bootstrap import Bootstrap

GOLDEN = "golden"
#: What so many percent of the bootstrap's draws do not exceed is chance.
CHANCE = 5
#: The scores of every tenth frame are kept.
GOLDEN_STEP = 10


def build(config: Config) -> dict[str, Any]:
    """Fill ``config.out``; returns the figures for the completion mark.

    Raises:
        UserError: the network cannot become a bundle, its audio is gone, or the bundle would be worse than the network.
    """
    check_same_senones(config.model, config.graph)
    check_same_front_end([config.model], config.features)
    out, front_end, model = config.out, FrontEnd.load(config.features), load_model(config.model)
    check_log_mels(front_end)
    scale, penalty = config.acoustic_scale, config.insertion_penalty
    if config.tuned is not None:
        scale, penalty = read_tuned(config.tuned)
    silence = tuple(read_json(config.graph / "graph.json").get("silence_pdfs", ()))
    normaliser = Normaliser.load(config.features)
    prior = 0.0 if normaliser.usual is None else USUAL_FRAMES
    some = _some_of_train(config)
    usual = usual_speech(normaliser, some)
    network = Samples2Scores(front_end, model, load_log_prior(config.model), silence, scale, usual)
    frames = network.front_end
    bundle = Bundle(
        front_end.sampling_rate, frames.length, frames.shift, front_end.num_features, network.left, network.right,
        silence, config.beam, config.max_active, config.min_active, prior, scale,
    )  # fmt: skip
    write_json(out / DESCRIPTION, bundle.to_json())
    add_to_words(config.graph / "HCLG.fst", out / GRAPH, penalty)
    for name in ("words.txt", "graph.json"):
        copy_file(config.graph / name, (out / WORDS).with_name(name))
    if (config.graph / PRONUNCIATIONS).is_file():  # words have exact times
        copy_file(config.graph / PRONUNCIATIONS, (out / WORDS).with_name(PRONUNCIATIONS))
    if (config.graph / SLOTS).is_file():  # new words can be added
        write_slots({**read_json(config.graph / SLOTS), "word_cost": penalty}, (out / WORDS).parent)
    export_float(network, front_end.num_features, out / FLOAT)
    export_int8(out / FLOAT, bundle, _calibration(some, front_end), out / INT8)
    if config.sherpa_onnx:
        senones, blank = model.network.num_senones, next(iter(silence), 0)
        write_sherpa(network, front_end.num_features, senones, bundle.prior, blank, out)
    forms = measure(config, bundle, normaliser, lambda cut: _samples(cut, front_end))
    _check(config, forms)
    bundle = dataclasses.replace(bundle, confidence=fit_confidences(forms.int8, config.splits[0]))
    write_json(out / DESCRIPTION, bundle.to_json())
    confidences = judge(forms.int8, bundle.confidence)
    _write_golden(config, front_end)
    write_card(config, bundle, forms, confidences)
    figures = {form.name: form.figures() for form in forms}
    figures[forms.int8.name]["confidences"] = {split: judged._asdict() for split, judged in confidences.items()}
    return figures


def _some_of_train(config: Config) -> list[MonoCut]:
    """``--calibration`` utterances from all over the training split, but no perturbed ones."""
    count = sum(not is_perturbed(cut) for cut in load_cuts(config.features, "train"))
    cuts = (cut for cut in load_cuts(config.features, "train") if not is_perturbed(cut))
    return [*itertools.islice(cuts, 0, None, max(1, count // config.calibration))]


def _samples(cut: MonoCut, front_end: FrontEnd) -> np.ndarray:
    """The samples of a cut at the rate of the features."""
    if cut.recording is None:
        raise UserError(f"{cut.id} has features but no audio, and a bundle is measured on audio: keep both")
    return cut.resample(front_end.sampling_rate).load_audio()[0]


def _calibration(cuts: Iterable[MonoCut], front_end: FrontEnd) -> Iterator[np.ndarray]:
    """The samples of utterances, of the long ones the first 15 s."""
    for cut in cuts:
        yield _samples(cut, front_end)[: LONG * front_end.sampling_rate // 100]


def _check(config: Config, forms: Forms) -> None:
    """Compare the bundle with the network.

    Raises:
        UserError: another word in float32, or a WER in int8 that is higher than --tolerance allows, beyond chance.
    """
    trained, as_float, as_int8, _ = forms
    split = config.splits[0]
    figures = ", ".join(f"{form.name} {form.wer(split):.2f} %" for form in forms)
    logging.info("WER on %s: %s", split, figures)
    changed = [name for name, words in trained.words[split].items() if as_float.words[split][name] != words]
    if changed:
        raise UserError(
            f"the network in ONNX recognises other words than the trained one in {len(changed)} utterances of {split} "
            f"({figures}; the first: {changed[0]}): report this"
        )
    rates = Bootstrap().rates(trained.scores(split), as_int8.scores(split))
    if len(rates) and np.percentile(rates[:, 1] - rates[:, 0], CHANCE) > config.tolerance:
        raise UserError(
            f"int8 costs more than --tolerance {config.tolerance:g} points of WER on {split}, beyond chance "
            f"({figures}): raise --calibration, or --tolerance"
        )


def _write_golden(config: Config, front_end: FrontEnd) -> None:
    """Samples, features, scores in float32 and words in int8 of some utterances."""
    recogniser = Recogniser.from_bundle(config.out, quantised=False)
    words: dict[int, dict[str, str]] = {}
    for cut in itertools.islice(load_cuts(config.features, config.splits[0]), config.golden):
        samples = _samples(cut, front_end)[: LONG * recogniser.bundle.shift]
        arrays = {
            "samples": samples, "features": recogniser.network.whole(samples, "features"),
            "scores": recogniser.scores(samples)[::GOLDEN_STEP],
        }  # fmt: skip
        for name, array in arrays.items():
            save_array(config.out / GOLDEN / f"{len(words)}-{name}.npy", array)
        words[len(words)] = {"id": cut.id, "words": recogniser(samples).text}
    write_json(config.out / GOLDEN / "words.json", words)
