"""Alignment of a recording: the best path through the states of its transcript, and how well its phones fit."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from asr_kd.align.recordings import TEXTS, Pair
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.common.text import read_lines
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.recordings import in_memory, unexpected
from asr_kd.features.audio import read_audio
from asr_kd.features.extractors import extract
from asr_kd.features.front_end import FRAME_SHIFT, FrontEnd
from asr_kd.hmm.align import WIDE_BEAM, Alignment, to_alignment
from asr_kd.hmm.kaldi_io import read_transition_model, read_tree
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.hmm.states import best_path
from asr_kd.hmm.viterbi import ACOUSTIC_SCALE, RETRY_BEAM, GraphCompiler, Transitions, graph_states
from asr_kd.lang.lexicon import Lexicon
from asr_kd.models.scorer import CHUNK_FRAMES, FrameScorer

#: Beams that are tried one after the other.
BEAMS = (RETRY_BEAM, WIDE_BEAM, 400.0)
#: Lowest log-probability of a phone in a frame.
FLOOR = -20.0


@dataclasses.dataclass(frozen=True)
class Segment:
    """A word, phone or senone: where it begins and ends, in seconds, and its score.

    Attributes:
        label: the word, the phone, or the number of the senone.
        score: geometric mean over the frames of the probability of the phones, from 0 to 1.
    """

    label: str
    begin: float
    end: float
    score: float


@dataclasses.dataclass
class Aligned:
    """A recording whose transcript has been aligned, or not.

    Attributes:
        seconds: its length.
        words, phones, senones: with times.
        guessed: pronunciations of the words that the lexicon lacks.
        error: why there is no alignment, or "".
    """

    pair: Pair
    seconds: float = 0.0
    words: list[Segment] = dataclasses.field(default_factory=list)
    phones: list[Segment] = dataclasses.field(default_factory=list)
    senones: list[Segment] = dataclasses.field(default_factory=list)
    guessed: Lexicon = dataclasses.field(default_factory=dict)
    error: str = ""

    @property
    def score(self) -> float:
        """The geometric mean of the scores of the words, by their lengths."""
        lengths = [word.end - word.begin for word in self.words]
        return float(np.exp(np.average(np.log([max(w.score, 1e-9) for w in self.words]), weights=lengths)))


@dataclasses.dataclass(frozen=True)
class RecordingAligner:
    """Aligns recordings with the models of some folders; it pickles, for worker processes."""

    model: tuple[Path, ...]
    gmm: Path
    lang: Path
    features: Path
    mean: Literal["arithmetic", "geometric"]

    def __call__(self, pair: Pair) -> Aligned:
        """Align a recording; whatever is wrong with it is the ``error`` of the result."""
        models, aligned = _load(self), Aligned(pair)
        try:
            words = models.words(pair)
            raw = extract(models.front_end, read_audio(pair.audio, models.front_end.sampling_rate))
            aligned.seconds = len(raw) * FRAME_SHIFT
            models.align(models.scorer.features(in_memory(raw, models.front_end)), words, aligned)
        except UserError as error:
            aligned.error = str(error)
        except Exception as error:  # whatever a library may raise: one strange file must not end the others
            aligned.error = unexpected(pair.audio, error)
        return aligned


@functools.lru_cache(maxsize=1)  # of each process
def _load(aligner: RecordingAligner) -> Models:
    return Models(aligner)


class Models:
    """What an alignment needs.

    Raises:
        UserError: a folder is missing or damaged, or they do not fit each other.
    """

    def __init__(self, aligner: RecordingAligner) -> None:
        description = read_json(aligner.gmm / "hmm.json")
        self.scorer: FrameScorer = load_scorer(
            aligner.model, aligner.features, int(description["num_pdfs"]), description["silence_pdfs"], aligner.mean
        )
        self.front_end = FrontEnd.load(aligner.features)
        self.pronunciations = Pronunciations.load(aligner.lang)
        self.transitions = Transitions.of(read_transition_model(aligner.gmm / "tri.mdl"))
        self.tree = read_tree(aligner.gmm / "tree")
        plain = [self.pronunciations.lang.plain(phone) for phone in self.pronunciations.phones]
        self.phone_names = sorted(set(plain[1:]))
        #: (C, P): whether a phone has a senone.
        self.members = np.zeros((self.transitions.num_pdfs, len(self.phone_names)), np.float32)
        for phone, _, pdf in self.transitions.state_index:
            self.members[pdf, self.phone_names.index(plain[phone])] = 1

    def words(self, pair: Pair) -> list[str]:
        """The words of a transcript; punctuation at their edges is dropped where the lexicon has them without.

        Raises:
            UserError: the file is missing, damaged or empty.
        """
        if pair.text is None:
            names = " or ".join(pair.audio.with_suffix(ending).name for ending in TEXTS)
            raise UserError(f"{pair.audio} has no transcript: write it to {names} next to it")
        lang = self.pronunciations.lang
        words = lang.split(" ".join(read_lines(pair.text)))
        found = [word if word in lang.lexicon else word.strip(_edges(word)) for word in words]
        if not any(found):
            raise UserError(f"{pair.text} has no words: write what was said")
        return [word for word in found if word]

    def align(self, features: np.ndarray, words: list[str], aligned: Aligned) -> None:
        """Add the alignment of features (T, D) to ``aligned``.

        Raises:
            UserError: the words do not fit.
        """
        lexicon, aligned.guessed = self.pronunciations.lexicon([words])
        compiler = GraphCompiler(
            self.transitions, self.tree, lexicon, self.pronunciations.probabilities(lexicon), self.pronunciations.phones
        )
        states, ids = graph_states(compiler(words), self.transitions)
        for beam in BEAMS:
            fits: list[np.ndarray] = []
            found = best_path(states, self._blocks(features, fits), beam)
            if found is not None:
                break
        else:
            raise UserError(
                f"{aligned.pair.audio} does not align with its {len(words)} words: compare transcript and recording"
            )
        path = ids[found[0], (np.diff(found[0], prepend=-1) == 0).astype(int)]
        alignment = to_alignment(path, found[1], self.transitions, words, lexicon, self.pronunciations)
        self._fill(aligned, alignment, path, np.concatenate(fits))

    def _blocks(self, features: np.ndarray, fits: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Scaled scores (frames, C), a few minutes at a time; the log-probabilities of phones are added to ``fits``.

        Raises:
            UserError: a score is not finite.
        """
        for start in range(0, len(features), CHUNK_FRAMES):
            scores = self.scorer.scores(features, start, min(start + CHUNK_FRAMES, len(features)))
            if not np.isfinite(scores.sum()):
                raise UserError("its scores are NaN or infinite: train the network again")
            shares = np.exp(scores - scores.max(1, keepdims=True))
            floor = np.exp(np.float32(FLOOR))
            fits.append(np.log(np.maximum(shares @ self.members / shares.sum(1, keepdims=True), floor)))
            yield scores * np.float32(ACOUSTIC_SCALE)

    def _fill(self, aligned: Aligned, alignment: Alignment, path: np.ndarray, fits: np.ndarray) -> None:
        """Add segments with scores."""
        columns = {name: column for column, name in enumerate(self.phone_names)}
        fit = np.empty(len(path))
        for phone, begin, end in alignment.phones:
            fit[begin:end] = fits[begin:end, columns[phone]]
        totals = np.concatenate([[0], np.cumsum(fit)])

        def segment(label: str, begin: int, end: int) -> Segment:
            score = float(np.exp((totals[end] - totals[begin]) / (end - begin)))
            return Segment(label, begin * FRAME_SHIFT, end * FRAME_SHIFT, score)

        aligned.words = [segment(*word) for word in alignment.words]
        aligned.phones = [segment(*phone) for phone in alignment.phones]
        states = self.transitions.transition_state[path]
        starts = np.flatnonzero((np.diff(states, prepend=-1) != 0) | self.transitions.starts_phone[path])
        bounds = [*starts.tolist(), len(path)]
        aligned.senones = [
            segment(str(alignment.senones[begin]), begin, end) for begin, end in itertools.pairwise(bounds)
        ]


def _edges(word: str) -> str:
    """The punctuation in a word."""
    return "".join({letter for letter in word if unicodedata.category(letter).startswith(("P", "S"))})
