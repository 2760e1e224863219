"""Stage ``python -m asr_kd.hmm.graph``: the decoding graph HCLG of a lexicon, a language model and an HMM.

Follows Kaldi's mkgraph.sh, in memory.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asr_kd.common.errors import UserError
from asr_kd.lang.lang import UNKNOWN, Lang

if TYPE_CHECKING:
    import kaldi_hmm_gmm
    import kaldifst

Result = TypeVar("Result")
log = logging.getLogger(__name__)


def compile_hclg(
    lang: Lang,
    tree: kaldi_hmm_gmm.ContextDependency,
    transition_model: kaldi_hmm_gmm.TransitionModel,
    transition_scale: float = 1.0,
    self_loop_scale: float = 0.1,
) -> tuple[kaldifst.StdVectorFst, dict[str, Any]]:
    """Compile HCLG.

    Args:
        tree: of any context width; its pdfs are those of ``transition_model``.

    Returns:
        a vector FST whose input labels are pdf + 1 (0: epsilon) and whose output labels are word ids, with
        self-loops and all probabilities as costs; and {"num_pdfs", "states", "arcs", "seconds", "peak_mib"}.

    Raises:
        UserError: a word without pronunciation, a phone that the HMM lacks, or nothing to recognise.
    """
    import kaldi_hmm_gmm as khg
    import kaldifst

    check_phones(lang, transition_model.phones)
    started = time.time()
    lg = _step("L o G", lambda: kaldifst.compose(lang.fst("L_disambig"), lang.fst("G")))
    if lg.start < 0:
        raise UserError(f"no sentence of the language model in {lang.path} has a pronunciation: check --arpa")
    _step("determinize LG", lambda: kaldifst.determinize_star(lg, use_log=True))
    _step("minimize LG", lambda: kaldifst.minimize_encoded(lg))
    kaldifst.arcsort(lg, sort_type="ilabel")
    clg, contexts = _step(
        "C o LG",
        lambda: kaldifst.compose_context(lang.disambiguation_phones, tree.context_width, tree.central_position, lg),
    )
    kaldifst.arcsort(clg, sort_type="ilabel")
    options = khg.HTransducerConfig(transition_scale=transition_scale)
    h, disambiguation = khg.get_h_transducer(contexts, tree, transition_model, options)
    hclg = _step("H o CLG", lambda: kaldifst.compose(h, clg))
    _step("determinize HCLG", lambda: kaldifst.determinize_star(hclg, use_log=True))
    identity = [(i, i) for i in range(1, transition_model.num_transition_ids + 1)]
    hclg = _step("drop disambiguation", lambda: relabel(hclg, [*identity, *((0, i) for i in disambiguation)]))
    _step("remove epsilons", lambda: kaldifst.rmepsilon(hclg))
    _step("minimize HCLG", lambda: kaldifst.minimize_encoded(hclg))
    hclg = _step("self-loops", lambda: khg.add_self_loops(self_loop_scale, [], True, transition_model, hclg))
    pdfs = [(transition_model.transition_id_to_pdf(i) + 1, i) for i, _ in identity]
    hclg = _step("pdf labels", lambda: relabel(hclg, pdfs))
    kaldifst.arcsort(hclg, sort_type="ilabel")
    figures = {
        "num_pdfs": int(transition_model.num_pdfs),
        "states": hclg.num_states,
        "arcs": sum(hclg.num_arcs(state) for state in range(hclg.num_states)),
        "seconds": round(time.time() - started, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    log.info("HCLG: %(states)d states, %(arcs)d arcs in %(seconds).1f s, %(peak_mib)d MiB at most", figures)
    return hclg, figures


def check_phones(lang: Lang, modelled: Iterable[int]) -> None:
    """Every word has a pronunciation of phones that the HMM has.

    Raises:
        UserError: one does not.
    """
    silent = [w for w in lang.words if w not in lang.lexicon and not w.startswith(("<", "#"))]
    if silent:
        raise UserError(
            f"{lang.path}/lexicon.txt lacks {len(silent)} words such as {silent[0]}: run python -m asr_kd.lang again"
        )
    missing = sorted(set(lang.real_phones) - set(modelled))
    if missing:
        phone = lang.phones[missing[0]]
        word = next((w for w, variants in lang.lexicon.items() for v in variants if phone in v and w != UNKNOWN), "")
        raise UserError(
            f"the HMM lacks the phone {phone}{f' (in {word})' if word else ''}: it was trained with another lexicon; "
            f"run python -m asr_kd.hmm with --lang {lang.path}"
        )


def relabel(fst: kaldifst.StdVectorFst, labels: Sequence[tuple[int, int]]) -> kaldifst.StdVectorFst:
    """``fst`` with input label b as a, for every (a, b) of ``labels``; other arcs vanish.

    Composition with a machine of one state does it, as nothing in the wheels changes labels in place.
    """
    import kaldifst

    mapper = kaldifst.compile("".join(f"0 0 {a} {b}\n" for a, b in labels) + "0\n")
    kaldifst.arcsort(mapper, sort_type="olabel")
    return kaldifst.compose(mapper, fst, connect=False)


def _step(name: str, function: Callable[[], Result]) -> Result:
    started = time.time()
    result = function()
    log.info("%-20s %6.1f s", name, time.time() - started)
    return result
