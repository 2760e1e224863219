"""Lines of text files that people hand in, and their normal form."""

import gzip
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_kd.common.errors import UserError
from asr_kd.common.text import Case, normalise, read_lines


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


CASES: tuple[Case, ...] = ("upper", "lower", "keep")


@pytest.mark.parametrize(
    ("text", "upper", "lower", "keep"),
    [
        ("Don\u2019t stop", "DON'T STOP", "don't stop", "Don't stop"),
        (" a\u2028b\u00a0c\u3000d\t\u200be\u0085f ", "A B C D E F", "a b c d e f", "a b c d e f"),
        ("e\u0301te\u0301 Viê\u0323t", "ÉTÉ VIỆT", "été việt", "été Việt"),
        ("Straße", "STRASSE", "straße", "Straße"),  # the other way round, STRASSE stays strasse
        ("İ I ı i", "İ I I I", "i\u0307 i ı i", "İ I ı i"),  # Turkish: two pairs of letters, three in upper case
        ("ΣΑΣ σας ΟΣ\u200bΑ", "ΣΑΣ ΣΑΣ ΟΣ Α", "σας σας ος α", "ΣΑΣ σας ΟΣ Α"),  # the final sigma
        ("Ma3 3rd (x)", "MA3 3RD (X)", "ma3 3rd (x)", "Ma3 3rd (x)"),
    ],
)
def test_normal_form(text, upper, lower, keep):
    assert [normalise(text, case) for case in CASES] == [upper, lower, keep]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(CASES))
def test_the_normal_form_is_one(text, case):
    form = normalise(text, case)
    assert normalise(form, case) == form == normalise(unicodedata.normalize("NFD", text), case)
    # Words do not depend on their neighbours: a lexicon and a transcript agree.
    assert form.split() == [normalise(word, case) for word in form.split()]
    if case != "keep":
        assert normalise(normalise(text, "keep"), case) == form
