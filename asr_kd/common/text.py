"""Lines of text files that people hand in: transcripts, lexicons, texts and language models."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import verify

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


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
    for letter in text:
        if (letter < " " and letter not in "\t\f\v") or letter in "\x7f\ufffd\ufeff":
            raise UserError(
                f"{place} has the character U+{ord(letter):04X}, as files have that are damaged or in another "
                "encoding: convert or correct it"
            )
    return text
