"""Compilation of the decoding graph HCLG from a lexicon, a language model and an HMM, as in Kaldi's mkgraph.sh."""

import logging
import resource
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import kaldi_hmm_gmm
import kaldifst
import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.hmm.graph.slots import Placeholder, SlotArc, take_out, takes_new_words
from asr_kd.hmm.viterbi import Transitions, relabel
from asr_kd.lang.folder import SILENCE, UNKNOWN, Lang

#: The phone of pauses; the other one of silence is that of <UNK>.
PAUSE = SILENCE[0]
Result = TypeVar("Result")
log = logging.getLogger(__name__)


def compile_hclg(
    lang: Lang,
    tree: kaldi_hmm_gmm.ContextDependency,
    transition_model: kaldi_hmm_gmm.TransitionModel,
    transition_scale: float = 1.0,
    self_loop_scale: float = 0.1,
) -> tuple[kaldifst.StdVectorFst, list[SlotArc], dict[str, Any]]:
    """Compile HCLG.

    Args:
        lang: lexicon and language model.
        tree: decision tree with any context width.
        transition_model: transition model with the pdfs of ``tree``.
        transition_scale: scale of the log-probabilities of transitions between states.
        self_loop_scale: scale of the log-probabilities of self-loops.

    Returns:
        a vector FST whose input labels are pdf + 1 (0: epsilon) and whose output labels are word ids, with
        self-loops and all probabilities as costs; its slots, which are no arcs of it, none where it takes no new
        words; and {"num_pdfs", "silence_pdfs", "states", "arcs", "seconds", "peak_mib"}.

    Raises:
        UserError: a word has no pronunciation, the HMM lacks a phone, or no sentence has a pronunciation.
    """
    check_phones(lang, transition_model.phones)
    started = time.time()
    lexicon, grammar = lang.fst("L_disambig"), lang.fst("G")
    placeholder = Placeholder(lang)
    if takes_new_words(lang, tree, transition_model):
        placeholder.add_to_lexicon(lexicon)
        placeholder.add_to_grammar(grammar)
    lg = _step("L o G", lambda: kaldifst.compose(lexicon, grammar))
    if lg.start < 0:
        raise UserError(f"no sentence of the language model in {lang.path} has a pronunciation: check --arpa")
    _step("determinize LG", lambda: kaldifst.determinize_star(lg, use_log=True))
    _step("minimize LG", lambda: kaldifst.minimize_encoded(lg))
    kaldifst.arcsort(lg, sort_type="ilabel")
    clg, contexts = _step(
        "C o LG",
        lambda: kaldifst.compose_context(lang.disambiguation_phones, tree.context_width, tree.central_position, lg),
    )
    clg, windows, slot_labels = placeholder.take_from_contexts(clg, contexts)
    kaldifst.arcsort(clg, sort_type="ilabel")
    options = kaldi_hmm_gmm.HTransducerConfig(transition_scale=transition_scale)
    h, disambiguation = kaldi_hmm_gmm.get_h_transducer(windows, tree, transition_model, options)
    labels = (label for label, window in enumerate(windows) if len(window) == 1 and window[0] <= 0)
    symbols = dict(zip(labels, disambiguation, strict=True))
    kept = [symbols[label] for label in slot_labels]
    hclg = _step("H o CLG", lambda: kaldifst.compose(h, clg))
    _step("determinize HCLG", lambda: kaldifst.determinize_star(hclg, use_log=True))
    ids = range(1, transition_model.num_transition_ids + 1)
    identity = [(i, i) for i in [*ids, *kept]]
    dropped = [(0, i) for i in sorted(set(disambiguation) - set(kept))]
    hclg = _step("drop disambiguation symbols", lambda: relabel(hclg, [*identity, *dropped]))
    _step("remove epsilons", lambda: kaldifst.rmepsilon(hclg))
    _step("minimize HCLG", lambda: kaldifst.minimize_encoded(hclg))
    hclg = _step(
        "add self-loops", lambda: kaldi_hmm_gmm.add_self_loops(self_loop_scale, kept, True, transition_model, hclg)
    )
    first = transition_model.num_pdfs + 1  # label of a slot
    pdfs = [
        (transition_model.transition_id_to_pdf(i) + 1, i) for i in range(1, transition_model.num_transition_ids + 1)
    ]
    hclg = _step("relabel with pdfs", lambda: relabel(hclg, [*pdfs, *enumerate(kept, first)]))
    kaldifst.arcsort(hclg, sort_type="ilabel")
    kinds = list(slot_labels.values())
    slots = _step("take out the slots", lambda: take_out(hclg, kinds, first)) if kinds else []
    transitions = Transitions.of(transition_model)
    silence = transitions.pdf[np.isin(transitions.phone, lang.silence_phones)]
    figures = {
        "num_pdfs": int(transition_model.num_pdfs),
        "silence_pdfs": sorted(set(silence.tolist())),
        "states": hclg.num_states,
        "arcs": sum(hclg.num_arcs(state) for state in range(hclg.num_states)),
        "seconds": round(time.time() - started, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    log.info("HCLG: %(states)d states, %(arcs)d arcs in %(seconds).1f s, peak memory %(peak_mib)d MiB", figures)
    return hclg, slots, figures


def pronunciation_table(lang: Lang, transitions: Transitions) -> dict[str, Any]:
    """What finds the words in the senones of a path through HCLG, which do not tell where a word begins.

    Returns:
        {"silence": pdfs of the pauses between words, "phones": {phone: [pdfs of each of its states]},
        "lexicon": {word or piece: [its pronunciations]}}.
    """
    states: dict[str, dict[int, set[int]]] = {}
    for phone, state, pdf in transitions.state_index:
        states.setdefault(lang.phones[phone], {}).setdefault(state, set()).add(pdf)
    phones = {phone: [sorted(own[state]) for state in sorted(own)] for phone, own in states.items()}
    silence = sorted({pdf for pdfs in phones.pop(PAUSE, []) for pdf in pdfs})
    return {"silence": silence, "phones": phones, "lexicon": lang.lexicon}


def check_phones(lang: Lang, modelled: Iterable[int]) -> None:
    """Check that every word has a pronunciation and that the HMM has all phones.

    Raises:
        UserError: a word has no pronunciation, or a phone is not among ``modelled``.
    """
    unpronounced = [w for w in lang.words if w not in lang.lexicon and not w.startswith(("<", "#"))]
    if unpronounced:
        raise UserError(
            f"{lang.path}/lexicon.txt lacks {len(unpronounced)} words such as {unpronounced[0]}: "
            "run python -m asr_kd.lang again"
        )
    missing = sorted(set(lang.real_phones) - set(modelled))
    if missing:
        phone = lang.phones[missing[0]]
        word = next((w for w, variants in lang.lexicon.items() for v in variants if phone in v and w != UNKNOWN), "")
        raise UserError(
            f"the HMM lacks the phone {phone}{f' (in {word})' if word else ''}: it was trained with another lexicon; "
            f"run python -m asr_kd.hmm with --lang {lang.path}"
        )


def _step(name: str, function: Callable[[], Result]) -> Result:
    started = time.time()
    result = function()
    log.info("%-27s %6.1f s", name, time.time() - started)
    return result
