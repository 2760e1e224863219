"""Open-vocabulary units: sentencepiece pieces that are pronounced letter by letter.

The tokens of the language model are pieces; the first piece of a word starts with "▁".  A piece is pronounced as its
letters, which are the acoustic units.  Every single letter is also a piece, both at the start of a word and within
it, so that every word over the alphabet has a pronunciation.
"""

import io
import string
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, verify
from asr_kd.lang.lexicon import Lexicon
from asr_kd.lang.words import BOUNDARY

#: The letters of LibriSpeech, in its case; those of the training transcripts are added.
LETTERS = string.ascii_uppercase
MAX_SENTENCES = 200_000  # for training the pieces


def spell(word: str, alphabet: frozenset[str]) -> str:
    """Return ``word`` without accents and without characters outside the alphabet."""
    if alphabet.issuperset(word):
        return word
    plain = (c if c in alphabet else unicodedata.normalize("NFKD", c)[:1] for c in word)
    return "".join(c for c in plain if c in alphabet)


def train_pieces(path: Path, texts: Iterable[str], alphabet: frozenset[str], size: int) -> None:
    """Train a unigram sentencepiece model with about ``size`` pieces and write it to ``path``.

    Raises:
        UserError: sentencepiece fails, for instance if ``size`` is less than the number of letters.
    """

    def spelt() -> Iterator[str]:
        for text, _ in zip(texts, range(MAX_SENTENCES), strict=False):
            line = " ".join(filter(None, (spell(word, alphabet) for word in text.split())))
            if line:
                yield line

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=spelt(), model_writer=model, vocab_size=size, model_type="unigram", num_threads=1,
            character_coverage=1.0, hard_vocab_limit=False, normalization_rule_name="identity",
            bos_id=-1, eos_id=-1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
        raise UserError(f"sentencepiece cannot train {size} pieces ({reason}): change --vocab-size") from None
    with atomic_open(path, "wb") as file:
        file.write(model.getvalue())


class Pieces:
    """Splits words into pieces.

    Args:
        path: sentencepiece model.
        alphabet: the letters.

    Attributes:
        pieces: all pieces, sorted.
    """

    def __init__(self, path: Path, alphabet: Iterable[str]) -> None:
        self.alphabet = frozenset(alphabet)
        self._model = model = sentencepiece.SentencePieceProcessor(model_file=str(verify(path)))
        trained = {model.id_to_piece(i) for i in range(model.get_piece_size()) if not model.is_unknown(i)}
        letters = {prefix + letter for letter in self.alphabet for prefix in ("", BOUNDARY)}
        self.pieces = sorted((trained | letters) - {BOUNDARY})
        self._vocabulary = frozenset(self.pieces)
        self._cache: dict[str, list[str]] = {}

    def encode(self, word: str) -> list[str]:
        """Return the pieces of a word; none if it has no letter of the alphabet."""
        if word not in self._cache:
            self._cache[word] = self._encode(spell(word, self.alphabet))
        return self._cache[word]

    def _encode(self, word: str) -> list[str]:
        if not word:
            return []
        out: list[str] = []
        for piece in self._model.encode(word, out_type=str):
            if out == [BOUNDARY]:  # it has no pronunciation: merge it with the next piece
                out, piece = [], BOUNDARY + piece
            if piece == BOUNDARY or piece in self._vocabulary:
                out.append(piece)
            else:
                head = piece[:2] if piece.startswith(BOUNDARY) else piece[:1]
                out += [head, *piece[len(head) :]]
        return out

    def lexicon(self) -> Lexicon:
        """Return the pronunciation of each piece."""
        return {piece: [tuple(piece.removeprefix(BOUNDARY))] for piece in self.pieces}
