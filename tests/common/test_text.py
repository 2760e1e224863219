"""Lines of text files that people hand in."""

import gzip

import pytest

from asr_kd.common.errors import UserError
from asr_kd.common.text import read_lines


def test_lines_end_at_newlines_alone(tmp_path):
    path = tmp_path / "text"
    for data in ("\ufeffA B\r\nC\u2028D\x0c\n\nE".encode(), gzip.compress("A B\nC\u2028D\x0c\n\nE\n".encode())):
        path.write_bytes(data)
        assert list(read_lines(path)) == ["A B", "C\u2028D\x0c", "", "E"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("A\nÉ\n".encode("latin-1"), "line 2 is not UTF-8: convert the file"),
        ("A\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("A\n".encode("utf-16-le"), r"line 1 has the character U\+0000"),
        (b"A\nB\rC\n", r"line 2 has the character U\+000D"),
        ("A\nB\ufffd\n".encode(), r"line 2 has the character U\+FFFD"),
        (gzip.compress(b"A\n" * 100, mtime=0)[:20], "cannot be read"),
    ],
)
def test_lost_letters_are_named_by_their_line(tmp_path, data, message):
    (tmp_path / "text").write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_lines(tmp_path / "text"))
