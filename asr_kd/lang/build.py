"""Work of the lang stage: lexicon, language model, L and G."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.text import Case, normalise
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.lang import ngram
from asr_kd.lang.arpa import read_arpa, write_arpa
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, Lang
from asr_kd.lang.fst import grammar_fst
from asr_kd.lang.lexicon import cmu_dictionary
from asr_kd.lang.ngram import BackoffModel
from asr_kd.lang.vocabulary import (
    piece_lexicon,
    read_dictionary,
    read_text,
    report_unknown,
    word_lexicon,
    write_lexicon,
)

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
    transcripts, dev = (read_transcripts(config.data, split, config.text) for split in ("train", "dev"))
    if not transcripts:
        raise UserError(f"{config.data} has no training transcripts: run python -m asr_kd.corpora with --train")
    imported = read_arpa(config.arpa, config.max_words, config.text) if config.arpa else None
    if config.units == "phone":
        dictionary = read_dictionary(config)
        additional = imported[0] if imported else vocabulary(config, transcripts, dictionary.lexicon)
        pronounced = word_lexicon(transcripts, additional, dictionary)
    else:
        pronounced = piece_lexicon(config, transcripts)
    write_lexicon(config, pronounced, transcripts)
    report_unknown(config, transcripts, pronounced)
    lang = Lang.load(config.out)
    started = time.time()
    words, model, mixture = (*imported, []) if imported else estimate_model(config, lang, transcripts, dev)
    if missing := len(set(lang.lexicon) - {UNKNOWN} - set(words)):
        log.warning("%d words of the transcripts are not in the language model: they cannot be recognised", missing)
    write_arpa(config.out / "lm.arpa", model, words)
    grammar_fst(config.out / "lm.arpa", config.out / "words.txt", config.out / "G.fst")
    log.info("language model: %s n-grams in %.1f s", " + ".join(map(str, model.sizes)), time.time() - started)
    figures = {
        "mixture": mixture,
        "words": len(lang.lexicon) - 1,
        "guessed": len(pronounced.guesses),
        "ngrams": model.sizes,
    }
    return figures | report_dev(lang, dev, model, encoder(lang, words))


def check_flags(config: Config) -> None:
    """Raises UserError if flags contradict each other."""
    if config.arpa and config.units != "phone":
        raise UserError("--arpa is a model of words: it cannot be used with --units sentencepiece")
    if config.position_dependent and config.units != "phone":
        raise UserError("--position-dependent is for words: it cannot be used with --units sentencepiece")


# ---------------------------------------------------------------- texts


def read_transcripts(data: Path, split: str, case: Case) -> list[str]:
    """Return the transcripts of a split in normal form; none if the corpus does not have the split."""
    path = data / f"cuts_{split}.jsonl.gz"
    if not path.is_file():
        return []
    return [normalise(cut["supervisions"][0]["text"], case) for cut in read_jsonl(path)]


def vocabulary(config: Config, transcripts: Sequence[str], dictionary: Iterable[str]) -> list[str]:
    """Return the words beyond those of the transcripts, at most ``max_words`` with them.

    They are the words that occur at least ``min_count`` times in --lm-text, the most frequent ones first, and if
    ``min_count`` is 0 the rest of the dictionary: with ``text`` "keep", the CMU dictionary's in lower case alone.
    """
    counts: Counter[str] = Counter()
    for path in config.lm_text:
        for line in read_text(path, config.text):
            counts.update(line.split())
    spoken = {word for text in transcripts for word in text.split()}
    frequent = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= config.min_count]
    words = [word for word in frequent if word not in spoken]
    if config.min_count == 0:
        spelt = cmu_dictionary("lower") if config.text == "keep" and config.lexicon is None else dictionary
        words += sorted(set(spelt) - spoken.union(words))
    room = max(0, config.max_words - len(spoken))
    if len(words) > room:
        log.warning("%d words are left out of the vocabulary, which --max-words limits", len(words) - room)
    return words[:room]


# ---------------------------------------------------------------- language model


def encoder(lang: Lang, words: Sequence[str]) -> Encode:
    """Return a function from text to the ids of the language model; −1 is an unknown word."""
    ids = {name: i for i, name in enumerate(words)}
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
    sources: list[Iterable[str]] = [transcripts, *(read_text(path, config.text) for path in config.lm_text)]
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
