"""Work of the lang stage: lexicon, language model, L and G."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, write_json
from asr_kd.common.text import read_lines
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.lang import ngram
from asr_kd.lang.arpa import read_arpa, write_arpa
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, Lang, symbol_names, symbol_table
from asr_kd.lang.fst import disambiguate, grammar_fst, lexicon_fst, write_fst
from asr_kd.lang.lexicon import SPOKEN_NOISE, Guess, Lexicon, cmu_dictionary, pronounce, read_lexicon
from asr_kd.lang.ngram import BackoffModel
from asr_kd.lang.pieces import ALPHABET, Pieces, train_pieces

Encode = Callable[[str], list[int]]
log = logging.getLogger(__name__)


def build(config: Config) -> dict[str, Any]:
    """Fill ``config.out``.

    Returns:
        figures for the completion mark: words, guessed pronunciations, n-grams, OOV rate and perplexity on dev, ….

    Raises:
        UserError: a flag is out of range, or an input is missing, damaged or empty.
    """
    check_flags(config)
    transcripts, dev = read_transcripts(config.data, "train"), read_transcripts(config.data, "dev")
    if not transcripts:
        raise UserError(f"{config.data} has no training transcripts: run python -m asr_kd.corpora with --train")
    imported = read_arpa(config.arpa, config.max_words) if config.arpa else None
    if config.units == "phone":
        additional = imported[0] if imported else frequent_words(config, transcripts)
        lexicon, guesses = word_lexicon(config, transcripts, additional)
        alphabet: list[str] = []
    else:
        lexicon, alphabet = piece_lexicon(config, transcripts)
        guesses = []
    write_lexicon(config, lexicon, guesses, alphabet)
    lang = Lang.load(config.out)
    started = time.time()
    words, model, mixture = (*imported, []) if imported else estimate_model(config, lang, transcripts, dev)
    if missing := len(set(lang.lexicon) - {UNKNOWN} - set(words)):
        log.warning("%d words of the transcripts are not in the language model: they cannot be recognised", missing)
    write_arpa(config.out / "lm.arpa", model, words)
    grammar_fst(config.out / "lm.arpa", config.out / "words.txt", config.out / "G.fst")
    log.info("language model: %s n-grams in %.1f s", " + ".join(map(str, model.sizes)), time.time() - started)
    figures = {"mixture": mixture, "words": len(lexicon) - 1, "guessed": len(guesses), "ngrams": model.sizes}
    return figures | report_dev(lang, dev, model, encoder(lang, words))


def check_flags(config: Config) -> None:
    """Raises UserError if flags contradict each other."""
    if config.arpa and config.units != "phone":
        raise UserError("--arpa is a model of words: it cannot be used with --units sentencepiece")


# ---------------------------------------------------------------- texts


def read_transcripts(data: Path, split: str) -> list[str]:
    """Return the transcripts of a split in upper case; none if the corpus does not have the split."""
    path = data / f"supervisions_{split}.jsonl.gz"
    if not path.is_file():
        return []
    return [item["text"].upper() for item in read_jsonl(path)]


def read_text(path: Path) -> Iterator[str]:
    """Return the lines of a text file (also gzipped) in upper case (see ``read_lines``)."""
    return map(str.upper, read_lines(path))


def frequent_words(config: Config, transcripts: Sequence[str]) -> list[str]:
    """Return the words that occur at least ``min_count`` times in --lm-text, the most frequent ones first."""
    counts: Counter[str] = Counter()
    for path in config.lm_text:
        for line in read_text(path):
            counts.update(line.split())
    spoken = {word for text in transcripts for word in text.split()}
    frequent = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= config.min_count]
    return [word for word in frequent if word not in spoken][: max(0, config.max_words - len(spoken))]


# ---------------------------------------------------------------- lexicon


def word_lexicon(config: Config, transcripts: Sequence[str], additional: Iterable[str]) -> tuple[Lexicon, list[Guess]]:
    """Return a lexicon with all words of the transcripts, and the additional words that can be pronounced."""
    spoken = {word for text in transcripts for word in text.split()}
    reserved = {"<EPS>", "#0", "<S>", "</S>", UNKNOWN}
    dictionary = read_lexicon(config.lexicon) if config.lexicon else cmu_dictionary()
    lexicon, guesses = pronounce((spoken | set(additional)) - reserved, dictionary)
    dropped = {guess.word for guess in guesses if guess.source == "none"} - spoken
    lexicon = {word: variants for word, variants in lexicon.items() if word not in dropped}
    guesses = [guess for guess in guesses if guess.word not in dropped]
    log.info("lexicon: %d words, %d with guessed pronunciations", len(lexicon), len({guess.word for guess in guesses}))
    return {UNKNOWN: [SPOKEN_NOISE], **lexicon}, guesses


def piece_lexicon(config: Config, transcripts: Sequence[str]) -> tuple[Lexicon, list[str]]:
    """Train sentencepiece pieces; returns their spellings and the alphabet."""
    alphabet = ALPHABET | {letter for text in transcripts for letter in text if letter.isalpha()}
    texts = (line for source in (transcripts, *map(read_text, config.lm_text)) for line in source)
    train_pieces(config.out / "pieces.model", texts, alphabet, config.vocab_size)
    pieces = Pieces(config.out / "pieces.model", alphabet)
    log.info("lexicon: %d pieces over %d letters", len(pieces.pieces), len(alphabet))
    return {UNKNOWN: [SPOKEN_NOISE], **pieces.lexicon()}, sorted(alphabet)


def write_lexicon(config: Config, lexicon: Lexicon, guesses: Sequence[Guess], alphabet: Sequence[str]) -> None:
    """Write the lexicon, the symbol tables and L."""
    entries, highest = disambiguate(lexicon)
    units = {phone for variants in lexicon.values() for variant in variants for phone in variant}
    phones = symbol_names("phones", units, highest + 1)  # the last symbol follows silence
    words = symbol_names("words", lexicon, 0)
    out = config.out
    with atomic_open(out / "lexicon.txt") as file:
        file.writelines(f"{word} {' '.join(v)}\n" for word, variants in lexicon.items() for v in variants)
    with atomic_open(out / "oov_pronunciations.tsv") as file:
        file.writelines(f"{guess.word}\t{' '.join(guess.phones)}\t{guess.source}\n" for guess in guesses)
    for name, symbols in (("phones", phones), ("words", words)):
        with atomic_open(out / f"{name}.txt") as file:
            file.write(symbol_table(symbols))
    pieces = config.units == "sentencepiece"
    plain = [(word, variant) for word, variants in lexicon.items() for variant in variants]
    phone_ids, word_ids = _ids(phones), _ids(words)
    for name, pronunciations, symbol in (("L", plain, None), ("L_disambig", entries, phones[-1])):
        fst = lexicon_fst(pronunciations, phone_ids, word_ids, pieces, config.silence_probability, symbol)
        write_fst(out / f"{name}.fst", fst)
    write_json(out / "units.json", {"kind": config.units, "alphabet": list(alphabet)})


def _ids(names: Sequence[str]) -> Mapping[str, int]:
    return {name: i for i, name in enumerate(names)}


# ---------------------------------------------------------------- language model


def encoder(lang: Lang, words: Sequence[str]) -> Encode:
    """Return a function from text to the ids of the language model; −1 is an unknown word."""
    ids = _ids(words)
    return lambda text: [ids.get(unit, -1) for word in text.split() for unit in lang.units_of(word)]


def estimate_model(
    config: Config, lang: Lang, transcripts: Sequence[str], dev: Sequence[str]
) -> tuple[list[str], BackoffModel, list[float]]:
    """Estimate a model of the transcripts, interpolated with models of further texts.

    Returns:
        the words, the model and the interpolation weights.
    """
    words = [word for word in lang.lexicon if word != UNKNOWN]
    encode = encoder(lang, words)
    order, threshold = (2, 1e-7) if lang.kind == "phone" else (4, 1e-6)
    order = order if config.order is None else config.order
    threshold = threshold if config.prune is None else config.prune
    sources: list[Iterable[str]] = [transcripts, *map(read_text, config.lm_text)]
    try:
        corpora = [ngram.count(map(encode, source), len(words), order) for source in sources]
    except ValueError as error:
        raise UserError(f"{error}: lower --order or --max-words") from None
    empty = [path for path, counts in zip(config.lm_text, corpora[1:], strict=True) if not counts.words]
    if empty:
        raise UserError(f"{empty[0]} has no word of the vocabulary: check --lm-text")
    models = [ngram.kneser_ney(counts) for counts in corpora]
    weights = text_weights(config, models, [encode(text) for text in dev])
    model = ngram.interpolate(models, weights) if len(models) > 1 else models[0]
    if threshold:
        model = ngram.prune(model, corpora, weights, threshold)
    return words, model, [round(float(weight), 4) for weight in weights]


def text_weights(config: Config, models: Sequence[BackoffModel], dev: Sequence[Sequence[int]]) -> Sequence[float]:
    """Return the interpolation weights of the models of the transcripts and of the further texts."""
    if len(models) == 1:
        return [1.0]
    if config.transcript_weight is None and dev:
        return [float(weight) for weight in ngram.interpolation_weights(models, dev)]
    weight = 0.5 if config.transcript_weight is None else config.transcript_weight
    return [weight, *[(1 - weight) / (len(models) - 1)] * (len(models) - 1)]


def report_dev(lang: Lang, dev: Sequence[str], model: BackoffModel, encode: Encode) -> dict[str, Any]:
    """Print and return the OOV rate (%) and the perplexity on dev, for pieces both per piece and per word."""
    words = [word for text in dev for word in text.split()]
    if not words:
        return {}
    unknown = sum(-1 in encode(word) for word in words)
    log_probs = ngram.score(model, map(encode, dev))
    figures = {
        "dev_oov_percent": round(100 * unknown / len(words), 3),
        "dev_perplexity": round(ngram.perplexity(log_probs), 2),
    }
    line = f"dev: OOV rate {figures['dev_oov_percent']:.2f} % ({unknown:,} of {len(words):,} words), "
    line += f"perplexity {figures['dev_perplexity']:.1f}"
    if lang.kind == "sentencepiece":
        per_word = log_probs.sum() / (len(words) + len(dev))
        figures["dev_perplexity_per_word"] = round(math.exp(-per_word), 2)
        line += f" per piece, {figures['dev_perplexity_per_word']:.1f} per word"
    print(line, flush=True)
    return figures
