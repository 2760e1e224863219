"""Reading and writing of back-off n-gram models in ARPA format."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open
from asr_kd.common.text import read_lines
from asr_kd.lang.ngram import BackoffModel

BOS, EOS = "<s>", "</s>"
LOG10 = math.log(10.0)
log = logging.getLogger(__name__)


def write_arpa(path: Path, model: BackoffModel, words: Sequence[str]) -> None:
    """Write ``model``, in which words[i] has the id i, as an ARPA file (base-10 logarithms)."""
    names = [*words, EOS, BOS]
    with atomic_open(path) as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={size}\n" for n, size in enumerate(model.sizes, 1))
        for n in range(1, model.order + 1):
            file.write(f"\n\\{n}-grams:\n")
            file.writelines(_entries(model, n, names))
        file.write("\n\\end\\\n")


def _entries(model: BackoffModel, n: int, names: Sequence[str]) -> Iterator[str]:
    keys = model.keys[n - 1]
    columns = [((keys // model.base ** (n - 1 - i)) % model.base).tolist() for i in range(n)]
    log_probs = np.maximum(model.log_probs[n - 1] / LOG10, -99.0).tolist()
    backoffs = (model.backoffs[n - 1] / LOG10).tolist()
    eos = model.base - 2
    for log_prob, backoff, *ids in zip(log_probs, backoffs, *columns, strict=True):
        history = n < model.order and ids[-1] != eos
        yield f"{log_prob:.6f}\t{' '.join([names[i] for i in ids])}" + (f"\t{backoff:.6f}\n" if history else "\n")


def read_arpa(path: Path, max_words: int) -> tuple[list[str], BackoffModel]:
    """Read a model (also gzipped), convert its words to upper case, remove its unknown word and renormalise it.

    Args:
        path: the ARPA file.
        max_words: only the most probable words are kept.

    Returns:
        the words, sorted, and the model over them.

    Raises:
        UserError: the file is missing or not an ARPA file.
    """
    try:
        return _parse(read_lines(path), max_words, path)
    except (ValueError, StopIteration) as error:
        raise UserError(f"{path} is not an ARPA language model ({error}): check --arpa") from None


def _parse(lines: Iterator[str], max_words: int, path: Path) -> tuple[list[str], BackoffModel]:
    sections = _sections(lines)
    unigrams: dict[str, float] = {}
    read = kept = 0
    for log_prob, (word, *_) in next(sections):
        if word not in (BOS, "<UNK>"):
            unigrams[word] = max(log_prob, unigrams.get(word, -math.inf))
    if EOS not in unigrams:
        raise ValueError(f"it has no {EOS}")
    end = unigrams.pop(EOS)
    words = sorted(sorted(unigrams, key=lambda word: (-unigrams[word], word))[:max_words])
    ids = {word: i for i, word in enumerate([*words, EOS, BOS])}
    base = len(ids)
    first = np.array([*(unigrams[word] for word in words), end, -math.inf]) * LOG10
    keys, log_probs = [np.arange(base)], [first - np.log(np.exp(first).sum())]
    for n, section in enumerate(sections, 2):
        if n * math.log2(base) >= 63:
            raise UserError(f"{n}-grams of {len(words)} words do not fit into 64 bits: lower --max-words")
        entries: dict[int, float] = {}
        for log_prob, gram in section:
            read += 1
            numbers = [ids.get(word, -1) for word in gram[:n]]
            if -1 not in numbers:
                key = 0
                for number in numbers:
                    key = key * base + number
                entries[key] = log_prob * LOG10
        new = np.array(sorted(entries), np.int64)
        new = new[np.isin(new // base, keys[-1])]
        if not len(new):
            break
        kept += len(new)
        keys.append(new)
        log_probs.append(np.array([entries[key] for key in new.tolist()]))
    model = BackoffModel(base, keys, log_probs, [np.zeros(len(k)) for k in keys])
    model.renormalise()
    if kept < read:
        log.warning("%s: %d of %d longer n-grams are left out, with words or histories that are not in the model, or "
                    "that occur twice in upper case", path, read - kept, read)  # fmt: skip
    return words, model


def _sections(lines: Iterator[str]) -> Iterator[Iterator[tuple[float, list[str]]]]:
    """Yield the entries of each order: log10 probability; words, possibly followed by a back-off weight."""
    sizes: list[int] = []
    for line in lines:
        if line.startswith("ngram "):
            sizes.append(int(line.partition("=")[2]))
        elif line.strip() == "\\1-grams:":
            break
    else:
        raise ValueError("it has no section \\1-grams:")
    for order, size in enumerate(sizes, 1):
        yield _section(lines, order, size)


def _section(lines: Iterator[str], order: int, size: int) -> Iterator[tuple[float, list[str]]]:
    """Raises ValueError unless the section has ``size`` n-grams with probabilities."""
    found = 0
    for line in lines:
        fields = line.split()
        if fields and fields[0].startswith("\\") and len(fields) == 1:
            if found != size:
                raise ValueError(f"it has {found} {order}-grams, and {size} in its head")
            return
        if fields:
            if not order < len(fields) <= order + 2:
                raise ValueError(f"{line[:60]!r} is no {order}-gram")
            log_prob, *_ = numbers = [float(field) for field in (fields[0], *fields[order + 1 :])]
            if not log_prob <= 0 or any(math.isnan(number) or number == math.inf for number in numbers):
                raise ValueError(f"{line[:60]!r} has no probability up to 1 or no back-off weight")
            found += 1
            yield log_prob, [word if word in (BOS, EOS) else word.upper() for word in fields[1:]]
    raise ValueError("it ends early")
