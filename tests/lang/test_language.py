"""Text of any language: one normal form for transcripts, lexicon, language model and whatever is decoded later."""

import json
import logging
import math
import unicodedata

import pytest
from lang_examples import write_transcripts

from asr_kd.lang.__main__ import main
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, Lang

kaldifst = pytest.importorskip("kaldifst")

LEXICON = "má 0.5 m a5\nmá 0.25 m a1\nmạ 1.0 m a6\nphở 1.0 f @2\nNAM 1.0 n a1 m\n<UNK> 1.0 SPN\n"
TRANSCRIPTS = ["Má mạ phở", "nam\u2028má\u00a0Phở", "mạ MẠ nam"]


@pytest.fixture
def lang(tmp_path) -> Lang:
    """A small lexicon with tones and probabilities; the transcripts are decomposed."""
    texts = [unicodedata.normalize("NFD", text) for text in TRANSCRIPTS]
    data = write_transcripts(tmp_path / "data", train=[*texts, "mỡ mỡ <unk>"], dev=texts[:1])
    (tmp_path / "lexicon.txt").write_text(LEXICON, "utf-8")
    (tmp_path / "text.txt").write_text("PHỞ NAM\nphở nam mạ\n", "utf-8")
    main(
        Config(
            data, tmp_path / "lang", lexicon=tmp_path / "lexicon.txt", text="lower", lm_text=(tmp_path / "text.txt",),
            min_count=1,
        )
    )  # fmt: skip
    return Lang.load(tmp_path / "lang")


def test_all_text_has_one_form(lang, tmp_path):
    assert lang.words[2:-3] == sorted(["má", "mạ", "mỡ", "nam", "phở"])
    assert lang.case == "lower" and not lang.guesses
    assert lang.unknown_words("MA\u0301 PHỞ x") == ["x"]
    assert lang.text(lang.word_ids("MA\u0301\u2028PHỞ <UNK>")) == f"má phở {UNKNOWN}"
    assert {"a1", "a5", "a6", "@2"} <= set(lang.phones)
    units = json.loads((lang.path / "units.json").read_text())
    assert units["text"] == "lower" and units["probabilities"] and units["kind"] == "phone"
    assert "mạ" in (lang.path / "lm.arpa").read_text("utf-8")


def test_words_that_a_lexicon_of_another_language_lacks(lang, caplog):
    """English rules would have made something of them."""
    assert lang.lexicon["mỡ"] == [("SPN",)] and lang.lexicon["má"] == [("m", "a5"), ("m", "a1")]
    assert (lang.path / "oov_pronunciations.tsv").read_text("utf-8") == "mỡ\tSPN\tnone\n"
    said = "\n".join(record.message for record in caplog.get_records("setup"))
    assert "1 words of the training transcripts are not in" in said and "such as mỡ: they count as spoken noise" in said


def test_probabilities_are_costs_in_l(lang):
    assert (lang.path / "lexicon.txt").read_text("utf-8").splitlines()[1:3] == ["má 0.5 m a5", "má 0.25 m a1"]
    assert lang.probabilities["má"] == [0.5, 0.25] and lang.probabilities["mỡ"] == [1.0]
    plain = math.log(2)  # no silence at two places of each path, with probability 1/2
    for name, phones, cost in (("L", "m a5", 0.5), ("L", "m a1", 0.25), ("L", "m a6", 1.0), ("L", "SPN", 1.0)):
        chain = kaldifst.make_linear_acceptor([lang.phone_ids[phone] for phone in phones.split()])
        best = kaldifst.shortest_path(kaldifst.compose(chain, lang.fst(name)))  # type: ignore[arg-type]
        found = kaldifst.get_linear_symbol_sequence(best)[3].value
        assert found == pytest.approx(2 * plain - math.log(cost), abs=1e-5)


@pytest.mark.parametrize("case", ["upper", "lower", "keep"])
def test_pieces_in_each_case(tmp_path, case):
    texts = ["Der Käse ist gut", "die Maus sah den Käse", "Groß und klein", "हिन्दी में"]
    data = write_transcripts(tmp_path / "data", train=texts)
    main(Config(data, tmp_path / "lang", text=case, units="sentencepiece", vocab_size=70))
    lang = Lang.load(tmp_path / "lang")
    assert [lang.text(lang.word_ids(text)) for text in texts] == [" ".join(lang.split(text)) for text in texts]
    letters = {"upper": {"Ä", "Z"}, "lower": {"ä", "z", "ß"}, "keep": {"ä", "D", "ß"}}[case] | {"\u093f"}
    assert letters <= set(lang.phones) and ("Z" in lang.phones) == (case == "upper")
    assert (tmp_path / "lang" / "symbols.tsv").read_text() == ""


def test_digits_and_symbols_are_listed(tmp_path, caplog):
    texts = ["THE CAT'S 3RD HAT , TWO-FACED", "THE 3RD 100 CATS A.M."] + ["THE CAT SAT"] * 3
    data = write_transcripts(tmp_path / "data", train=texts)
    main(Config(data, tmp_path / "lang"))
    listed = (tmp_path / "lang" / "symbols.tsv").read_text().splitlines()
    assert listed[0] == "3RD\t2" and {",\t1", "100\t1"} <= set(listed) and not any("FACED" in line for line in listed)
    assert "words of the training transcripts have digits or symbols that the lexicon lacks, such as 3RD" in caplog.text
    caplog.clear()
    plain = write_transcripts(tmp_path / "plain", train=[*texts[2:] * 100, "100 CATS"])
    main(Config(plain, tmp_path / "plain_lang"))  # fewer than 1 %: listed, without a warning
    assert (tmp_path / "plain_lang" / "symbols.tsv").read_text() == "100\t1\n" and "digits" not in caplog.text


def test_other_forms_of_english(tmp_path, caplog):
    """The CMU dictionary serves text in any case; most words guessed, or stress marks, are worth a warning."""
    data = write_transcripts(tmp_path / "data", train=["The cat's hat", "a CAT sat"])
    for case, words in (("lower", ["a", "cat", "cat's", "hat", "sat", "the"]), ("keep", ["CAT", "The", "a"])):
        main(Config(data, tmp_path / case, text=case))  # type: ignore[arg-type]
        lang = Lang.load(tmp_path / case)
        assert set(words) <= set(lang.words)
        assert lang.lexicon[words[1].lower() if case == "lower" else "CAT"] == [("K", "AE", "T")]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    (tmp_path / "lexicon.txt").write_text("THE DH AH0\nCAT K AE1 T\nA AH0\nSAT S AE1 T\nHAT HH AE1 T\n")
    main(Config(data, tmp_path / "stress", lexicon=tmp_path / "lexicon.txt"))
    assert "have stress marks, and each is modelled by itself: --remove-stress removes them" in caplog.text
    foreign = write_transcripts(tmp_path / "foreign", train=["ich weiß nicht", "zwölf boxkämpfer jagen viktor"])
    main(Config(foreign, tmp_path / "german"))
    assert "pronunciations guessed by English rules: for another language give --lexicon" in caplog.text
