"""Text that people hand in (transcripts, lexicons, texts, language models): its lines, and its one normal form."""

import gzip
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from asr_kd.common.errors import UserError
from asr_kd.common.storage import verify

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
#: Control characters other than white space, U+FFFD and a byte order mark within a text.
DAMAGE = re.compile("[\x00-\x08\n\r\x0e-\x1f\x7f\ufffd\ufeff]")
#: What becomes of the letters: LibriSpeech and the CMU dictionary are in upper case.
Case = Literal["upper", "lower", "keep"]
_CONVERT: dict[Case, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower, "keep": str}
_SAME = str.maketrans({"\u2019": "'", "\u200b": " "})  # the apostrophe as printed; the space without width


def normalise(text: str, case: Case) -> str:
    """``text`` in normal form: words with one blank between them; the normal form of that is itself.

    Letters are composed (NFC) and converted to ``case`` as Unicode has it, which knows no languages: in upper case, ß
    becomes SS and both Turkish i become I; in lower case, I becomes i, and a Greek Σ becomes ς at the end of a word and
    σ elsewhere.  U+2019 becomes an apostrophe, and white space of every kind (also U+2028, U+00A0, U+200B) a blank.
    """
    text = _CONVERT[case](unicodedata.normalize("NFC", text.translate(_SAME)))
    return " ".join(unicodedata.normalize("NFC", text).split())


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text, also of a gzipped one, without their ends (a newline, or CR and newline).

    A byte order mark at the start is dropped.  Nothing else ends a line: U+2028 and form feeds are white space.

    Raises:
        UserError: the file is missing or damaged, is not UTF-8, or has control characters or U+FFFD, which stands for a
            letter that is lost.
    """
    try:
        with open(verify(path), "rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield _decode(line.removeprefix(BOM) if number == 1 else line, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): check the name, and that the file is complete") from None


def _decode(line: bytes, place: str) -> str:
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(
            f"{place} is not UTF-8: convert the file, for example with iconv -f LATIN1 -t UTF-8 (or -f UTF-16)"
        ) from None
    if found := DAMAGE.search(text):
        raise UserError(
            f"{place} has the character U+{ord(found[0]):04X}, as files have that are damaged or in another "
            "encoding: convert or correct it"
        )
    return text
