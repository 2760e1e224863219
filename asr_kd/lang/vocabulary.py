"""Words or pieces of the lang stage: their pronunciations, the symbol tables and L, and what is doubtful about them."""

import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, write_json
from asr_kd.common.text import Case, normalise, read_lines
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, symbol_names, symbol_table
from asr_kd.lang.fst import disambiguate, homophone_costs, lexicon_fst, variant_costs, write_fst
from asr_kd.lang.lexicon import (
    POSITIONS,
    SPOKEN_NOISE,
    Guess,
    Lexicon,
    Probabilities,
    cmu_dictionary,
    is_english,
    is_reserved,
    position_dependent,
    pronounce,
    read_lexicon,
)
from asr_kd.lang.pieces import LETTERS, Pieces, train_pieces

SYMBOL_SHARE = 0.01  # of the words with digits and symbols, above which there is a warning
GUESSED_SHARE = 0.1  # of the words with guessed pronunciations, likewise
log = logging.getLogger(__name__)


def read_text(path: Path, case: Case) -> Iterator[str]:
    """Return the lines of a text file (also gzipped) in normal form (see ``read_lines``)."""
    return (normalise(line, case) for line in read_lines(path))


@dataclass(frozen=True)
class Pronounced:
    """The words or pieces of a lang folder, or those of a dictionary.

    Attributes:
        lexicon: their pronunciations.
        probabilities: probabilities of the pronunciations; empty if the lexicon has none.
        guesses: pronunciations that were guessed.
        english: whether English rules may guess further ones.
        alphabet: letters of the pieces.
    """

    lexicon: Lexicon
    probabilities: Probabilities = field(default_factory=dict)
    guesses: Sequence[Guess] = ()
    english: bool = True
    alphabet: Sequence[str] = ()


def word_lexicon(transcripts: Sequence[str], additional: Iterable[str], dictionary: Pronounced) -> Pronounced:
    """Return the pronunciations of all words of the transcripts, and of the additional words that have one."""
    spoken = {word for text in transcripts for word in text.split()}
    wanted = {word for word in spoken.union(additional) if not is_reserved(word)}
    lexicon, guesses = pronounce(wanted, dictionary.lexicon, dictionary.english)
    dropped = {guess.word for guess in guesses if guess.source == "none"} - spoken
    lexicon = {word: variants for word, variants in lexicon.items() if word not in dropped}
    guesses = [guess for guess in guesses if guess.word not in dropped]
    log.info("lexicon: %d words, %d with guessed pronunciations", len(lexicon), len({guess.word for guess in guesses}))
    kept = {word: dictionary.probabilities[word] for word in lexicon if word in dictionary.probabilities}
    return Pronounced({UNKNOWN: [SPOKEN_NOISE], **lexicon}, kept, guesses, dictionary.english)


def read_dictionary(config: Config) -> Pronounced:
    """Return all words of --lexicon or of CMU's dictionary."""
    if config.lexicon is None:
        return Pronounced(cmu_dictionary(config.text))
    dictionary, probabilities = read_lexicon(config.lexicon, config.text, config.remove_stress)
    phones = {phone for variants in dictionary.values() for variant in variants for phone in variant}
    if not (english := is_english(phones)) and is_english({phone.rstrip("012") for phone in phones}):
        log.warning("the phones of %s have stress marks, and each is modelled by itself: --remove-stress removes them",
                    config.lexicon)  # fmt: skip
    return Pronounced(dictionary, probabilities, english=english)


def piece_lexicon(config: Config, transcripts: Sequence[str]) -> Pronounced:
    """Train sentencepiece pieces; returns their spellings and the alphabet."""
    marks = {letter for text in transcripts for letter in text if unicodedata.category(letter)[0] in "LM"}
    alphabet = frozenset(marks.union("'", "" if config.text == "keep" else normalise(LETTERS, config.text)))
    further = (read_text(path, config.text) for path in config.lm_text)
    texts = (line for source in (transcripts, *further) for line in source)
    train_pieces(config.out / "pieces.model", texts, alphabet, config.vocab_size)
    pieces = Pieces(config.out / "pieces.model", alphabet)
    log.info("lexicon: %d pieces over %d letters", len(pieces.pieces), len(alphabet))
    return Pronounced({UNKNOWN: [SPOKEN_NOISE], **pieces.lexicon()}, alphabet=sorted(alphabet))


def write_lexicon(config: Config, pronounced: Pronounced, transcripts: Sequence[str]) -> None:
    """Write the lexicon, the symbol tables and L.

    With --arpa, which may give homophones the same probability, the one that is more frequent in the transcripts wins.

    Raises:
        UserError: the phones of --lexicon tell positions already.
    """
    lexicon, weighted = pronounced.lexicon, bool(pronounced.probabilities)
    if config.position_dependent:
        _check_positions(config, lexicon)
        lexicon = {word: [position_dependent(variant) for variant in variants] for word, variants in lexicon.items()}
    entries, highest = disambiguate(lexicon)
    units = {phone for variants in lexicon.values() for variant in variants for phone in variant}
    phones = symbol_names("phones", units, highest + 1)  # the last symbol follows silence
    words = symbol_names("words", lexicon, 0)
    out = config.out
    plain = [(word, variant) for word, variants in lexicon.items() for variant in variants]
    costs = variant_costs(lexicon, pronounced.probabilities) if weighted else []
    with atomic_open(out / "lexicon.txt") as file:
        columns = [f" {math.exp(-cost):.6g}" for cost in costs] or [""] * len(plain)
        file.writelines(f"{w}{column} {' '.join(v)}\n" for (w, v), column in zip(plain, columns, strict=True))
    with atomic_open(out / "oov_pronunciations.tsv") as file:
        file.writelines(f"{guess.word}\t{' '.join(guess.phones)}\t{guess.source}\n" for guess in pronounced.guesses)
    for name, symbols in (("phones", phones), ("words", words)):
        with atomic_open(out / f"{name}.txt") as file:
            file.write(symbol_table(symbols))
    pieces = config.units == "sentencepiece"
    phone_ids, word_ids = ({name: i for i, name in enumerate(names)} for names in (phones, words))
    decoding = costs
    if config.arpa:
        ties = homophone_costs(lexicon, Counter(word for text in transcripts for word in text.split()))
        decoding = [a + b for a, b in zip(costs or [0.0] * len(ties), ties, strict=True)]
    for name, pronunciations, symbol, own in (("L", plain, None, costs), ("L_disambig", entries, phones[-1], decoding)):
        fst = lexicon_fst(pronunciations, phone_ids, word_ids, pieces, config.silence_probability, symbol, own)
        write_fst(out / f"{name}.fst", fst)
    write_json(
        out / "units.json",
        {
            "kind": config.units, "alphabet": list(pronounced.alphabet), "text": config.text,
            "probabilities": weighted, "guesses": pronounced.english, "positions": config.position_dependent,
        },
    )  # fmt: skip


def _check_positions(config: Config, lexicon: Lexicon) -> None:
    for phone in (phone for variants in lexicon.values() for variant in variants for phone in variant):
        if phone.endswith(POSITIONS):
            raise UserError(
                f"{config.lexicon} has the phone {phone}, whose ending is that of a position within a word: leave out "
                "--position-dependent"
            )


def report_unknown(config: Config, transcripts: Sequence[str], pronounced: Pronounced) -> None:
    """Write symbols.tsv, and warn of words of the transcripts that have no pronunciation or a doubtful one."""
    counts = Counter(word for text in transcripts for word in text.split())
    sources = {guess.word: guess.source for guess in pronounced.guesses}
    unknown = sources if config.units == "phone" else counts
    symbols = [(word, n) for word, n in counts.most_common() if word in unknown and has_symbols(word)]
    with atomic_open(config.out / "symbols.tsv") as file:
        file.writelines(f"{word}\t{n}\n" for word, n in symbols)
    share = sum(n for _, n in symbols) / max(counts.total(), 1)
    if share > SYMBOL_SHARE:
        log.warning(
            "%.1f %% of the words of the training transcripts have digits or symbols that the lexicon lacks, such as "
            "%s: spell them out, remove punctuation, or add the words to --lexicon; %s lists them",
            100 * share, symbols[0][0], config.out / "symbols.tsv",
        )  # fmt: skip
    guessed = sum(n for word, n in counts.items() if sources.get(word) == "espeak-ng")
    if guessed > GUESSED_SHARE * counts.total():
        log.warning(
            "%.0f %% of the words of the training transcripts have pronunciations guessed by English rules: for another"
            " language give --lexicon or --units sentencepiece", 100 * guessed / counts.total(),
        )  # fmt: skip
    silent = [word for word in counts if sources.get(word) == "none" and not has_symbols(word)]
    if silent and not pronounced.english:
        log.warning(
            "%d words of the training transcripts are not in %s, such as %s: they count as spoken noise, since English "
            "rules do not suit its phones; add them to it (%s lists them)",
            len(silent), config.lexicon, min(silent), config.out / "oov_pronunciations.tsv",
        )  # fmt: skip


def has_symbols(word: str) -> bool:
    """Whether a word has digits or symbols; an apostrophe or a hyphen beside a letter is none."""
    letters = [unicodedata.category(letter)[0] in "LM" for letter in word if letter not in "'-"]
    return not letters or not all(letters)
