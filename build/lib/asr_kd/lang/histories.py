"""A back-off n-gram model as an automaton of histories, for models of any order and number of words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.text import Case, read_lines
from asr_kd.lang.arpa import LOG10, UNK, read_section, read_sections, read_unigrams
from asr_kd.lang.lexicon import is_reserved

NO_LIMIT = 1 << 60  # on the number of words
log = logging.getLogger(__name__)


@dataclass
class Histories:
    """An automaton that gives the probability of any word after any other words, as the ARPA format defines it.

    A state is a history: an n-gram that the model lists and that may matter for what follows; state 0 is the empty one.
    From a state, a word of a listed n-gram leads to the longest history that is listed; any other word has the
    probability that it has after the next shorter history, times the back-off weight.

    Attributes:
        base: number of ids of words; that of the sentence end is base − 2.
        start: the state at the start of a sentence.
        keys: state · base + word of each n-gram, sorted, (A,) int64.
        log_probs: their natural log-probabilities, (A,) float64.
        targets: the state after each of them, (A,) int64.
        backoffs: natural logarithms of the back-off weights of the states, (S,) float64.
        shorter: the longest listed history that is a proper end of each, (S,) int64.
        known: the id of each word, which is that of the unknown word if the model lacks it, (base,) int64.
    """

    base: int
    start: int
    keys: np.ndarray
    log_probs: np.ndarray
    targets: np.ndarray
    backoffs: np.ndarray
    shorter: np.ndarray
    known: np.ndarray

    @property
    def num_states(self) -> int:
        return len(self.backoffs)

    def step(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The natural log-probability of each word after a history, and the history after it: (K,) int64 each."""
        words, states = self.known[words], states.copy()
        log_probs, targets = np.zeros(len(words)), np.zeros(len(words), np.int64)
        rest = np.arange(len(words))
        while len(rest):
            keys = states[rest] * self.base + words[rest]
            places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            listed = self.keys[places] == keys
            done, places = rest[listed], places[listed]
            log_probs[done] += self.log_probs[places]
            targets[done] = self.targets[places]
            rest = rest[~listed]
            log_probs[rest] += self.backoffs[states[rest]]
            states[rest] = self.shorter[states[rest]]
        return log_probs, targets

    def end(self, states: np.ndarray) -> np.ndarray:
        """The natural log-probability of the sentence end after each history, (K,)."""
        return self.step(states, np.full(len(states), self.base - 2))[0]


def read_histories(path: Path, numbers: Mapping[str, int], case: Case) -> Histories:
    """Read an ARPA model (also gzipped) of the words in ``numbers``, with the weights that it has.

    N-grams with other words are left out, and so are those whose history is not listed.  Words that the model lacks are
    its unknown word ``<unk>``; if it has none, they have the probability of its least probable word, after which
    nothing is known of the history.

    Args:
        path: the ARPA file.
        numbers: ids of the words in normal form, at least 0; names of the symbol tables such as ``<eps>`` do not count.
        case: normal form of the words.

    Raises:
        UserError: the file is missing or not an ARPA file, or has none of the words.
    """
    try:
        return _parse(read_lines(path), {w: i for w, i in numbers.items() if not is_reserved(w)}, case, path)
    except ValueError as error:
        raise UserError(f"{path} is not an ARPA language model ({error}): check its name") from None


def _parse(lines: Iterator[str], numbers: Mapping[str, int], case: Case, path: Path) -> Histories:
    sections = read_sections(lines)
    spelled, words, unigrams = read_unigrams(next(sections), NO_LIMIT, case, unknown=True)
    first = 1 + max(numbers.values(), default=0)
    special = [first, first + 1, first + 2]  # unknown word, sentence end and start
    ids = np.array([numbers.get(word, first if word == UNK else -1) for word in words] + special[1:])
    lacking = np.setdiff1d(list(numbers.values()), ids)
    if len(lacking) == len(numbers):
        raise UserError(f"{path} has none of the {len(numbers)} words of the graph: give a model of the same units")
    kept, log_probs, backoffs = ids >= 0, unigrams.log_probs[0], unigrams.backoffs[0]
    graph_ids = {spelling: int(ids[number]) for spelling, number in spelled.items()}
    if first not in ids:
        least = log_probs[kept & np.isfinite(log_probs)].min()
        ids, kept = np.append(ids, first), np.append(kept, True)
        log_probs, backoffs = np.append(log_probs, least), np.append(backoffs, 0.0)
    if len(lacking):
        names = {number: word for word, number in numbers.items()}
        how = UNK if UNK in words else "its least probable word"
        log.warning("%s lacks %d of the %d words of the graph, such as %s: they have the probability of %s",
                    path, len(lacking), len(numbers), names[lacking[0]], how)  # fmt: skip
    builder = _Builder(first + 3, ids[kept])
    builder.add(ids[kept][:, None], log_probs[kept], backoffs[kept])
    for order, section in enumerate(sections, 2):
        grams, log10_probs, log10_backoffs, _ = read_section(section, order, graph_ids, first + 3)
        builder.add(grams.astype(np.int64), log10_probs * LOG10, log10_backoffs * LOG10)
    return builder.finish()


class _Builder:
    """Adds the n-grams of one order after the other; each one is a state, until ``finish`` drops those without use."""

    def __init__(self, base: int, ids: np.ndarray) -> None:
        known = np.full(base, base - 3)
        known[ids] = ids
        none, empty = np.zeros(0, np.int64), np.zeros(1, np.int64)  # no n-grams, and the empty history
        self.model = Histories(base, 0, none, none.astype(float), none, empty.astype(float), empty, known)

    def add(self, grams: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray) -> None:
        """Add n-grams (K, n) of the next order n; of the same ones the most probable stays."""
        model = self.model
        histories, listed = self._find(grams[:, :-1])
        keys = histories * model.base + grams[:, -1]
        order = np.lexsort((-log_probs, keys))
        order = order[listed[order]]
        order = order[np.diff(keys[order], prepend=-1) > 0]
        keys = keys[order]
        states = model.num_states + np.arange(len(keys))
        if grams.shape[1] == 1:
            shorter = np.zeros(len(keys), np.int64)
        else:
            shorter = model.step(model.shorter[keys // model.base], keys % model.base)[1]
        model.keys = np.concatenate([model.keys, keys])  # states grow with the order, so they stay sorted
        model.log_probs = np.concatenate([model.log_probs, log_probs[order]])
        model.targets = np.concatenate([model.targets, states])
        model.backoffs = np.concatenate([model.backoffs, backoffs[order]])
        model.shorter = np.concatenate([model.shorter, shorter])

    def _find(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The state of each n-gram (K, n), and whether it is listed."""
        model, states, listed = self.model, np.zeros(len(grams), np.int64), np.ones(len(grams), bool)
        for word in grams.T:
            keys = states * model.base + word
            places = np.minimum(np.searchsorted(model.keys, keys), len(model.keys) - 1)
            listed &= model.keys[places] == keys
            states = model.targets[places]
        return states, listed

    def finish(self) -> Histories:
        """The automaton; a history without continuation and back-off weight is the same as the next shorter one."""
        model = self.model
        same = model.backoffs == 0
        same[model.keys // model.base] = False
        kept = np.where(same, model.shorter, np.arange(model.num_states))
        while (kept[kept] != kept).any():
            kept = kept[kept]
        model.targets, model.shorter = kept[model.targets], kept[model.shorter]
        start, listed = self._find(np.array([[model.base - 1]]))
        model.start = int(kept[start[0]]) if listed[0] else 0
        return model
