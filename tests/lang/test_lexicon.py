"""Pronunciation lexicons that people hand in."""

import os
from pathlib import Path

import pytest

from asr_kd.common.errors import UserError
from asr_kd.lang.lexicon import cmu_dictionary, is_english, pronounce, read_lexicon

SPEECH = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[2] / ".." / "shared" / "speech"))
AN4 = SPEECH / "an4" / "etc" / "an4.dic"


def read(tmp_path: Path, text: str, **options):
    (tmp_path / "lexicon.txt").write_bytes(text.encode("utf-8"))
    return read_lexicon(tmp_path / "lexicon.txt", **options)


def test_variants_comments_and_line_ends(tmp_path):
    text = "\ufeff;;; CMU's comment\n# note about K AE T\n\nCAT\tK AE T\r\nCAT(2) \t K AA T  # southern\ncat K AE T\n"
    assert read(tmp_path, text) == ({"CAT": [("K", "AE", "T"), ("K", "AA", "T")]}, {})
    # A word that begins with # is none of the comments; neither is one in parentheses a variant.
    odd, _ = read(tmp_path, "#HASH-MARK HH AE SH\n(2) T UW\n## note\nA(B) EY\n<UNK> SPN\n<eps> SIL\n!SIL SIL\n")
    assert odd == {"#HASH-MARK": [("HH", "AE", "SH")], "(2)": [("T", "UW")], "A(B)": [("EY",)], "!SIL": [("SIL",)]}


def test_words_are_in_normal_form(tmp_path):
    text = "cafe\u0301 k a f e\nDON\u2019T D OW N T\n"
    for case, words in (("upper", ["CAFÉ", "DON'T"]), ("lower", ["café", "don't"]), ("keep", ["café", "DON'T"])):
        assert list(read(tmp_path, text, case=case)[0]) == words


def test_tones_and_digits_are_kept(tmp_path):
    text = "ma1 m a1\nma2 m a2\nerr er2 1\nx 1\n"
    assert read(tmp_path, text, case="lower")[0]["ma2"] == [("m", "a2")]
    assert read(tmp_path, text, case="lower")[0]["err"] == [("er2", "1")]
    assert read(tmp_path, "CAT K AE1 T\nCAT K AE0 T\n")[0] == {"CAT": [("K", "AE1", "T"), ("K", "AE0", "T")]}
    assert read(tmp_path, "CAT K AE1 T\nCAT K AE0 T\n", remove_stress=True)[0] == {"CAT": [("K", "AE", "T")]}


def test_probabilities_are_a_column_of_the_whole_file(tmp_path):
    lexicon, probabilities = read(
        tmp_path, "YES 1.0 Y EH S\nYES\t2e-1 Y AE\nyes 0.5 Y AE\nONE 1 W AH N\n<unk> 1.0 SPN\n"
    )
    assert lexicon == {"YES": [("Y", "EH", "S"), ("Y", "AE")], "ONE": [("W", "AH", "N")]}
    assert probabilities == {"YES": [1.0, 0.5], "ONE": [1.0]}
    assert read(tmp_path, "a 1 b\nb 1\n") == ({"A": [("1", "b")], "B": [("1",)]}, {})  # phones may be whole numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CAT\n", "line 1: the lexicon has no phones for CAT: add them or remove the line"),
        ("CAT # K AE T\n", "no phones for CAT"),
        ("YES 1.0 Y EH S\nNO 1.0\n", "line 2: the lexicon has no phones for NO"),
        ("YES 1.0 Y EH S\nNO N OW\n", "line 1: 1.0 is no phone: give a probability in .* in every line, or in none"),
        ("YES 1.0 Y EH S\nNO 1.5 N OW\n", "line 1: 1.0 is no phone"),
        ("YES 1.0 0.2 Y EH S\n", "line 1: 0.2 is no phone"),
        ("YES 0.0 Y EH S\n", "line 1: 0.0 is no phone"),
        ("YES Y #1 S\n", "line 1: #1 is a name of the symbol tables, not a phone: give the phone another name"),
        ("YES <eps>\n", "line 1: <eps> is a name of the symbol tables"),
        ("\n;;; CAT K AE T\n", "is empty: check --lexicon"),
        ("<UNK> SPN\n", "is empty: check --lexicon"),
    ],
)
def test_bad_lexicons_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)
    with pytest.raises(UserError, match="cannot be read"):
        read_lexicon(tmp_path / "none.txt")


@pytest.mark.skipif(not AN4.is_file(), reason=f"no {AN4} (ASR_KD_SPEECH)")
def test_an4():
    lexicon, probabilities = read_lexicon(AN4)
    assert lexicon["A"] == [("AH",), ("EY",)] and "A(2)" not in lexicon
    assert sum(map(len, lexicon.values())) == 130 and not probabilities
    assert is_english({phone for variants in lexicon.values() for variant in variants for phone in variant})


def test_english_rules_suit_english_phones_alone():
    words = ["cat", "DOGS'", "zebra's"]
    dictionary = {"DOGS": [("d", "o")], "zebra": [("z", "e")]}
    lexicon, guesses = pronounce(words, dictionary, guess=False)
    assert set(lexicon) == set(words) and all(variants == [("SPN",)] for variants in lexicon.values())
    assert {guess.source for guess in guesses} == {"none"}
    assert (
        is_english(["K", "AE", "T", "SIL", "SPN"]) and not is_english(["K", "AE1", "T"]) and not is_english(["k", "a"])
    )


def test_cmu_dictionary_in_other_cases():
    assert cmu_dictionary("lower")["cat"] == cmu_dictionary("keep")["Cat"] == cmu_dictionary()["CAT"]
    assert pronounce(["cat's"], cmu_dictionary("lower"))[0]["cat's"] == [("K", "AE", "T", "S")]
