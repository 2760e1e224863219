"""Reading and writing of back-off n-gram models in ARPA format."""

import logging
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open
from asr_kd.common.text import Case, normalise, read_lines
from asr_kd.lang.lexicon import is_reserved
from asr_kd.lang.ngram import BackoffModel

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
LOG10 = math.log(10.0)
SEPARATORS = re.compile("[ \t]+")
log = logging.getLogger(__name__)
Entry = tuple[float, list[str], float]  # log10 probability; words; log10 back-off weight, or 0


def write_arpa(path: Path, model: BackoffModel, words: Sequence[str]) -> None:
    """Write ``model``, in which words[i] has the id i, as an ARPA file (base-10 logarithms)."""
    names = [*words, EOS, BOS]
    with atomic_open(path) as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={size}\n" for n, size in enumerate(model.sizes, 1))
        for n in range(1, model.order + 1):
            file.write(f"\n\\{n}-grams:\n")
            file.writelines(_lines(model, n, names))
        file.write("\n\\end\\\n")


def _lines(model: BackoffModel, n: int, names: Sequence[str]) -> Iterator[str]:
    keys = model.keys[n - 1]
    columns = [((keys // model.base ** (n - 1 - i)) % model.base).tolist() for i in range(n)]
    log_probs = np.maximum(model.log_probs[n - 1] / LOG10, -99.0).tolist()
    backoffs = (model.backoffs[n - 1] / LOG10).tolist()
    eos = model.base - 2
    for log_prob, backoff, *ids in zip(log_probs, backoffs, *columns, strict=True):
        history = n < model.order and ids[-1] != eos
        yield f"{log_prob:.6f}\t{' '.join([names[i] for i in ids])}" + (f"\t{backoff:.6f}\n" if history else "\n")


def read_arpa(path: Path, max_words: int, case: Case = "upper") -> tuple[list[str], BackoffModel]:
    """Read a model (also gzipped) with the weights that it has, without its unknown word.

    Everything before the line ``\\data\\`` that the numbers of n-grams follow is comment.  Nothing is normalised anew,
    also not for the words that are left out: their probability is lost.  Of words with the same normal form the
    probabilities are added; of longer n-grams that become the same, the most probable one stays.

    Args:
        path: the ARPA file.
        max_words: only the most probable words are kept.
        case: normal form of the words.

    Returns:
        the words, sorted, and the model over them.

    Raises:
        UserError: the file is missing or not an ARPA file.
    """
    try:
        return _parse(read_lines(path), max_words, case, path)
    except ValueError as error:
        raise UserError(f"{path} is not an ARPA language model ({error}): check --arpa") from None


def _parse(lines: Iterator[str], max_words: int, case: Case, path: Path) -> tuple[list[str], BackoffModel]:
    sections = read_sections(lines)
    ids, words, model = read_unigrams(next(sections), max_words, case)
    read = unusable = same = 0
    for n, section in enumerate(sections, 2):
        if n * math.log2(model.base) >= 63:
            raise UserError(f"{n}-grams of {len(words)} words do not fit into 64 bits: lower --max-words")
        grams, log_probs, backoffs, size = read_section(section, n, ids, model.base)
        keys = grams @ model.base ** np.arange(n - 1, -1, -1)
        read += size
        possible = np.isin(keys // model.base, model.keys[-1])
        keys, log_probs, backoffs = keys[possible], log_probs[possible], backoffs[possible]
        unusable += size - len(keys)
        order = np.lexsort((-log_probs, keys))
        order = order[np.diff(keys[order], prepend=-1) > 0]
        same += len(keys) - len(order)
        if not len(order):
            break
        model.keys.append(keys[order])
        model.log_probs.append(log_probs[order] * LOG10)
        model.backoffs.append(backoffs[order] * LOG10)
    if unusable:
        log.warning("%s: %d of %d longer n-grams are left out, with words or histories that are not in the model",
                    path, unusable, read)  # fmt: skip
    joined = len(ids) - len(set(ids.values()))
    if joined or same:
        log.warning(
            "%s: %d words are the same as others with --text %s, so their probabilities are added; %d of %d longer "
            "n-grams are left out for a more probable one of the same words", path, joined, case, same, read,
        )  # fmt: skip
    return words, model


def read_unigrams(
    section: Iterable[Entry], max_words: int, case: Case, unknown: bool = False
) -> tuple[dict[str, int], list[str], BackoffModel]:
    """Return the ids of the words as the file spells them, the words in normal form, and the model of unigrams.

    Args:
        section: the entries.
        max_words: only the most probable words are kept.
        case: normal form of the words.
        unknown: also keep the unknown word, as ``<unk>``.
    """
    spellings: dict[str, str] = {}
    found: dict[str, tuple[float, float, float]] = {}  # log10 of the sum and of the largest, with its back-off weight
    for log_prob, (spelling,), backoff in section:
        word = spelling.lower() if is_reserved(spelling) else normalise(spelling, case)
        special = word in (BOS, EOS) or (unknown and word == UNK)
        if special or not (is_reserved(word) or " " in word or not word):
            spellings[spelling] = word
            total, largest, kept = found.get(word, (-math.inf, -math.inf, 0.0))
            total = float(np.logaddexp(total * LOG10, log_prob * LOG10)) / LOG10 if word in found else log_prob
            found[word] = (total, *max((largest, kept), (log_prob, backoff)))
    if EOS not in found:
        raise ValueError(f"it has no {EOS}")
    bos = (-math.inf, -math.inf, found.pop(BOS, (0.0, 0.0, 0.0))[2])
    eos = found.pop(EOS)
    words = sorted(sorted(found, key=lambda word: (-found[word][0], word))[:max_words])
    numbers = {word: i for i, word in enumerate([*words, EOS, BOS])}
    ids = {spelling: numbers[word] for spelling, word in spellings.items() if word in numbers}
    columns = np.array([*map(found.__getitem__, words), eos, bos]) * LOG10
    return ids, words, BackoffModel(len(numbers), [np.arange(len(numbers))], [columns[:, 0]], [columns[:, 2]])


def read_section(
    section: Iterable[Entry], order: int, ids: Mapping[str, int], base: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the n-grams of known words as ids, their log10 probabilities and back-off weights, and the number of all.

    The shapes are (K, order), (K,) and (K,).  ``</s>`` has the id base − 2 and ``<s>`` base − 1; n-grams with <s> other
    than first, or </s> other than last, are left out.
    """
    flat, values, size = array("i"), array("d"), 0
    for log_prob, words, backoff in section:
        size += 1
        numbers = [ids.get(word, -1) for word in words]
        if min(numbers) >= 0:
            flat.extend(numbers)
            values.extend((log_prob, backoff))
    grams, pairs = np.array(flat, np.int32).reshape(-1, order), np.array(values).reshape(-1, 2)
    usable = (grams[:, 1:] != base - 1).all(1) & (grams[:, :-1] != base - 2).all(1)
    return grams[usable], pairs[usable, 0], pairs[usable, 1], size


def read_sections(lines: Iterator[str]) -> Iterator[Iterator[Entry]]:
    """Yield the entries of each order."""
    for order, size in enumerate(_sizes(lines), 1):
        yield _section(lines, order, size)


def _sizes(lines: Iterator[str]) -> list[int]:
    """Read up to ``\\1-grams:``; return the number of n-grams of each order, which follow ``\\data\\``."""
    sizes: list[int] | None = None  # None: in the comment, which may have lines like those of the head
    for line in map(str.strip, lines):
        if line == "\\data\\":
            sizes = []
        elif sizes and line == "\\1-grams:":
            return sizes
        elif sizes is not None and line:
            name, _, size = line.partition("=")
            if name.split() == ["ngram", str(len(sizes) + 1)] and size.strip().isdecimal():
                sizes.append(int(size))
            else:
                sizes = None
    raise ValueError("it has no \\data\\ with the numbers of n-grams before \\1-grams:")


def _section(lines: Iterator[str], order: int, size: int) -> Iterator[Entry]:
    """Raises ValueError unless the section has ``size`` n-grams with probabilities."""
    found = 0
    for line in lines:
        # A word may hold white space of other kinds: it is no word of ours, but ends the entry for split() alone.
        fields = line.split() if line.isascii() else SEPARATORS.split(line.strip(" \t"))
        if not fields:
            continue
        if fields[0].startswith("\\") and len(fields) == 1:
            if found != size:
                raise ValueError(f"it has {found} {order}-grams, and {size} in its head")
            return
        if not order < len(fields) <= order + 2:
            raise ValueError(f"{line[:60]!r} is no {order}-gram")
        log_prob = float(fields[0])
        backoff = float(fields.pop()) if len(fields) > order + 1 else 0.0
        if not log_prob <= 0 or math.isnan(backoff) or backoff == math.inf:
            raise ValueError(f"{line[:60]!r} has no probability up to 1 or no back-off weight")
        found += 1
        yield log_prob, fields[1:], backoff
    raise ValueError("it ends early")
