"""The lexicon and the lang stage: symbol tables, L and G."""

import gzip
import logging
import math
import os
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldialign import edit_distance
from lang_examples import write_transcripts

from asr_kd.common.errors import UserError
from asr_kd.common.storage import stage_figures
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.lang import ngram
from asr_kd.lang.__main__ import main
from asr_kd.lang.arpa import read_arpa
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, Lang
from asr_kd.lang.fst import disambiguate
from asr_kd.lang.g2p import Pronouncer
from asr_kd.lang.lexicon import cmu_dictionary, pronounce

kaldifst = pytest.importorskip("kaldifst")
SPEECH = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[2] / ".." / "shared" / "speech"))
TRAIN = ["THE CAT SAT ON THE MAT", "A DOG SAT", "THE DOG'S CAT SAT ON MATTHEW'S MAT", "TWO CATS TO SEE", "SEE THE CAT"]
DEV = ["THE DOG SAT ON THE CAT", "SEE A XYLOPHONE"]
LM_TEXT = ["A CAT AND A DOG SAT AND SAT", "AND THE DOG SEES THE CAT ON THE MAT", "AND AND QUUXLY QUUXLY 3RD 3RD -- --"]


def write_gzip(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    return write_transcripts(tmp_path / "data", train=TRAIN, dev=DEV)


# ---------------------------------------------------------------- lexicon


def test_cmu_dictionary_has_variants_without_stress():
    dictionary = cmu_dictionary()
    assert dictionary["HELLO"] == [("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")]
    assert len(dictionary) > 100_000
    assert not any(phone[-1].isdigit() for v in dictionary.values() for phones in v for phone in phones)


def test_every_word_gets_a_pronunciation():
    dictionary = cmu_dictionary()
    odd = ["QUUXLY", "CAFÉ", "3RD", "--", "O'", "DOGS'", "JAMES'S", "CAT'S", "DOG'S", "東京", "A\x00B", "\ud800", "'"]
    lexicon, guesses = pronounce(odd, dictionary)
    phones = {phone for variants in dictionary.values() for variant in variants for phone in variant} | {"SPN"}
    assert set(lexicon) == set(odd)
    assert all(variant and phones.issuperset(variant) for variants in lexicon.values() for variant in variants)
    assert {guess.word for guess in guesses} == set(odd) - set(dictionary)
    assert lexicon["CAFÉ"][0][:2] == ("K", "AE") and lexicon["--"] == [("SPN",)]
    assert [lexicon[w][0][-2:] for w in ("JAMES'S", "CAT'S", "DOG'S")] == [("IH", "Z"), ("T", "S"), ("G", "Z")]


def test_guesses_agree_with_the_dictionary():
    """The phone error rate of eSpeak's pronunciations with respect to the CMU dictionary is low."""
    dictionary = cmu_dictionary()
    words = [word for word in list(dictionary)[::400] if word.isalpha()]
    errors = total = 0
    with Pronouncer() as pronouncer:
        for word in words:
            guess = list(pronouncer.phones(word))
            errors += min(edit_distance(list(v), guess)["total"] for v in dictionary[word])
            total += len(guess)
    assert errors / total < 0.15  # half of the words in the dictionary are names


pronunciations = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(tuple)


@given(st.dictionaries(st.text("xyz", min_size=1), st.lists(pronunciations, min_size=1, max_size=3, unique=True)))
def test_disambiguated_pronunciations_are_distinct_and_prefix_free(lexicon):
    entries, highest = disambiguate(lexicon)
    sequences = {phones for _, phones in entries}
    assert len(sequences) == len(entries) == sum(map(len, lexicon.values()))
    assert not any(phones[:n] in sequences for phones in sequences for n in range(1, len(phones)))
    numbers = {int(phone[1:]) for phones in sequences for phone in phones if phone.startswith("#")}
    assert numbers == set(range(1, highest + 1))


# ---------------------------------------------------------------- the stage


def test_output_of_the_stage(tmp_path, data, capsys, caplog):
    text = write_gzip(tmp_path / "text.gz", LM_TEXT)
    out = tmp_path / "lang"
    main(Config(data, out, lm_text=(text,), lexicon=None))
    assert "OOV rate 11.11 % (1 of 9 words)" in capsys.readouterr().out
    figures = stage_figures(out)
    assert figures["dev_oov_percent"] == pytest.approx(11.111) and figures["dev_perplexity"] > 1
    lang = Lang.load(out)
    assert lang.kind == "phone"
    assert lang.phones[:3] == ["<eps>", "SIL", "SPN"] and lang.silence_phones == [1, 2]
    assert lang.phones[3:6] == sorted(lang.phones[3:6]) and "#0" in lang.phones
    assert lang.words[:2] == ["<eps>", UNKNOWN] and lang.words[-3:] == ["#0", "<s>", "</s>"]
    assert lang.words[2:-3] == sorted(lang.words[2:-3])
    assert {w for t in TRAIN for w in t.split()} <= set(lang.words)
    assert {"AND", "QUUXLY", "3RD"} <= set(lang.words) and not {"SEES", "--"} & set(lang.words)
    assert lang.lexicon[UNKNOWN] == [("SPN",)] and set(lang.lexicon) == set(lang.words[1:-3])
    listed = [line.split("\t")[0] for line in (out / "oov_pronunciations.tsv").read_text().splitlines()]
    assert "QUUXLY" in listed and "CAT" not in listed
    with caplog.at_level(logging.WARNING):
        ids = lang.word_ids("THE XYLOPHONE SAT #0 XYLOPHONE")
    assert lang.text(ids) == f"THE {UNKNOWN} SAT {UNKNOWN} {UNKNOWN}"
    assert caplog.text.count("XYLOPHONE is not in the lexicon") == 1
    assert lang.unknown_words("THE XYLOPHONE") == ["XYLOPHONE"]


def test_stage_is_deterministic_and_up_to_date_after_a_run(tmp_path, data, capsys):
    text = write_gzip(tmp_path / "text.gz", LM_TEXT)
    for units in ("phone", "sentencepiece"):
        for name in ("a", "b"):
            main(Config(data, tmp_path / units / name, lm_text=(text,), units=units, vocab_size=40))  # type: ignore[arg-type]
        files = sorted(p.name for p in (tmp_path / units / "a").iterdir() if p.name != "stage.json")
        assert {"lexicon.txt", "words.txt", "phones.txt", "units.json", "lm.arpa", "L.fst", "G.fst"} <= set(files)
        for name in files:
            a, b = (tmp_path / units / folder / name for folder in "ab")
            assert a.read_bytes() == b.read_bytes(), name
    capsys.readouterr()
    main(Config(data, tmp_path / "phone" / "a", lm_text=(text,), vocab_size=40))
    assert "up to date" in capsys.readouterr().out


def sentence_cost(g, lang: Lang, text: str) -> float:
    """Cost of a sentence in G, with #0 allowed anywhere."""
    acceptor = kaldifst.make_linear_acceptor(lang.word_ids(text))
    for state in range(acceptor.num_states):
        acceptor.add_arc(state, kaldifst.StdArc(lang.words.index("#0"), lang.words.index("#0"), 0.0, state))
    kaldifst.arcsort(acceptor, sort_type="olabel")
    path = kaldifst.shortest_path(kaldifst.compose(acceptor, g))
    return kaldifst.get_linear_symbol_sequence(path)[3].value


@pytest.mark.parametrize("order", [1, 2, 3])
def test_costs_of_g_are_those_of_the_model(tmp_path, data, order):
    main(Config(data, tmp_path / "lang", order=order, prune=0))
    lang = Lang.load(tmp_path / "lang")
    words, model = read_arpa(tmp_path / "lang" / "lm.arpa", 1000)
    assert model.order == order
    for text in [*TRAIN, "MAT MAT CAT", "ON A MATTHEW'S SEE", "TO"]:
        expected = -ngram.score(model, [[words.index(word) for word in text.split()]]).sum()
        # With interpolated Kneser-Ney, the back-off path is never better than a listed n-gram.
        assert sentence_cost(lang.fst("G"), lang, text) == pytest.approx(expected, abs=2e-3)


def test_l_maps_phones_to_words_with_optional_silence(tmp_path, data):
    main(Config(data, tmp_path / "lang", silence_probability=0.25))
    lang = Lang.load(tmp_path / "lang")

    def shortest_path(phones: str) -> tuple[str, float]:
        ids = [lang.phone_ids[phone] for phone in phones.split()]
        paths = kaldifst.compose(kaldifst.make_linear_acceptor(ids), lang.fst("L"))
        assert paths.start >= 0, phones
        _, _, words, cost = kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(paths))
        return lang.text(words), cost.value

    no_silence, silence = -math.log(0.75), -math.log(0.25)
    text, cost = shortest_path("DH AH K AE T SIL S AE T")
    assert text == "THE CAT SAT" and cost == pytest.approx(3 * no_silence + silence, abs=1e-4)
    text, cost = shortest_path("SIL DH IY SIL")
    assert text == "THE" and cost == pytest.approx(2 * silence, abs=1e-4)
    assert shortest_path("SIL")[0] == ""


def test_pieces_spell_every_word(tmp_path, data):
    text = write_gzip(tmp_path / "text.gz", LM_TEXT)
    main(Config(data, tmp_path / "lang", lm_text=(text,), units="sentencepiece", vocab_size=45))
    lang = Lang.load(tmp_path / "lang")
    assert lang.kind == "sentencepiece"
    assert set(string.ascii_uppercase + "'") == set(lang.phones[3:30])
    for piece in lang.words[2:-3]:
        assert lang.lexicon[piece] == [tuple(piece.removeprefix("▁"))]
    assert stage_figures(tmp_path / "lang")["dev_oov_percent"] == 0

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(string.ascii_uppercase + "'", min_size=1, max_size=12), max_size=5).map(" ".join))
    def round_trip(sentence):
        ids = lang.word_ids(sentence)
        assert lang.text(ids) == sentence
        assert lang.words.index(UNKNOWN) not in ids

    round_trip()
    assert lang.text(lang.word_ids("THE CAFÉ'S 3 CATS")) == f"THE CAFE'S {UNKNOWN} CATS"
    # A sentence of unseen words has a finite cost in G, and L maps its letters to it.
    ids = lang.word_ids("QXZ THE")
    assert math.isfinite(sentence_cost(lang.fst("G"), lang, "QXZ THE"))
    letters = kaldifst.make_linear_acceptor([lang.phone_ids[p] for p in ["Q", "X", "Z", "SIL", "T", "H", "E"]])
    acceptor = kaldifst.make_linear_acceptor(ids)
    assert kaldifst.compose(kaldifst.compose(letters, lang.fst("L")), acceptor).start >= 0
    # There is silence between words only.
    inside = kaldifst.make_linear_acceptor([lang.phone_ids[p] for p in ["Q", "SIL", "X", "Z", "T", "H", "E"]])
    assert kaldifst.compose(kaldifst.compose(inside, lang.fst("L")), acceptor).start < 0


def test_external_arpa_model(tmp_path, data):
    main(Config(data, tmp_path / "lang"))
    arpa = (tmp_path / "lang" / "lm.arpa").read_text().replace("DOG'S", "ZEBRA").replace("MATTHEW'S", "aardvark")
    arpa = arpa.replace("TWO", "--")  # it has no pronunciation, so it must not be in the graph
    arpa = arpa.replace("\\1-grams:\n", "\\1-grams:\n-2.0\t<unk>\n")
    arpa = re.sub(r"ngram 1=(\d+)", lambda match: f"ngram 1={int(match[1]) + 1}", arpa)
    with gzip.open(tmp_path / "other.arpa.gz", "wt") as file:
        file.write(arpa)
    main(Config(data, tmp_path / "other", arpa=tmp_path / "other.arpa.gz"))
    lang = Lang.load(tmp_path / "other")
    assert {"ZEBRA", "AARDVARK", "DOG'S"} <= set(lang.words) and "--" not in lang.words
    assert math.isfinite(sentence_cost(lang.fst("G"), lang, "THE ZEBRA SAT"))


@pytest.mark.parametrize("case", ["upper", "keep"])
def test_all_words_of_the_lexicon_can_be_recognised(tmp_path, data, case, caplog):
    """Words of no text have a small probability, the same for each."""
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("THE DH AH\nABLE EY B AH L\nable EY B AH L\nBAKER B EY K ER\n<unk> SPN\n")
    text = write_gzip(tmp_path / "text.txt.gz", LM_TEXT)
    config = Config(data, tmp_path / "lang", lexicon=lexicon, text=case, lm_text=(text,), min_count=0)
    main(config)
    lang = Lang.load(tmp_path / "lang")
    new = {"ABLE", "BAKER"} if case == "upper" else {"ABLE", "able", "BAKER"}
    texts = {word for line in TRAIN + LM_TEXT for word in line.split()}
    assert new < set(lang.lexicon) <= new | texts | {UNKNOWN} and lang.lexicon["BAKER"] == [("B", "EY", "K", "ER")]
    words, model = read_arpa(tmp_path / "lang" / "lm.arpa", 100, case)
    *rare, often = (model.log_probs[0][words.index(word)] for word in (*new, "THE"))
    assert len(set(rare)) == 1 and -8 < rare[0] < often
    main(replace(config, out=tmp_path / "few", max_words=3))
    assert not new & set(Lang.load(tmp_path / "few").lexicon)
    assert "words are left out of the vocabulary, which --max-words limits" in caplog.text


def test_external_lexicon(tmp_path, data):
    (tmp_path / "lexicon.txt").write_text("CAT K AE1 T\nTHE DH AH0\nA AH0\nMAT M AE1 T\nS S\nZ Z\nNG NG\nI IH1\n")
    main(Config(data, tmp_path / "lang", lexicon=tmp_path / "lexicon.txt", remove_stress=True))
    lang = Lang.load(tmp_path / "lang")
    assert lang.lexicon["THE"] == [("DH", "AH")]
    # D, G and AO are not in this lexicon: eSpeak's pronunciation of DOG would need phones without training data.
    assert lang.lexicon["DOG"] == [("SPN",)] and lang.lexicon["SAT"] == [("S", "AE", "T")]


def test_errors_say_what_to_do(tmp_path, data):
    bad = tmp_path / "bad.gz"
    bad.write_bytes(b"not gzip")
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("-- ?!\n")
    empty = write_transcripts(tmp_path / "empty", train=[])
    for number, (message, config) in enumerate(
        {
            "--lm-text": {"lm_text": (bad,)},
            "no word of the vocabulary": {"lm_text": (unknown,)},
            "no training transcripts": {"data": empty},
            "--order": {"order": 7},
            "--prune": {"prune": -1.0},
            "--silence-probability": {"silence_probability": 1.0},
            "--transcript-weight": {"transcript_weight": 1.5},
            "--arpa": {"arpa": unknown},
            "--vocab-size": {"units": "sentencepiece", "vocab_size": 3},
        }.items()
    ):
        with pytest.raises(UserError, match=message):
            main(Config(**{"data": data, "out": tmp_path / str(number), **config}))
    with pytest.raises(UserError, match=r"python -m asr_kd\.lang|run the stage"):
        Lang.load(tmp_path / "nowhere")


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no recordings in {SPEECH} (ASR_KD_SPEECH)")
def test_real_texts(tmp_path):
    """OOV rate and perplexity on unseen speakers, on which the recipes rely."""
    texts: dict[str, list[str]] = {}
    for split in ("train", "dev"):
        files = sorted((SPEECH / "so762" / "LibriSpeech" / f"{split}-so762").rglob("*.trans.txt"))
        texts[split] = [line.split(" ", 1)[1] for file in files for line in file.read_text().splitlines()]
    data = write_transcripts(tmp_path / "data", **texts)
    main(Config(data, tmp_path / "lang", lm_text=(SPEECH / "librispeech-lm-text.txt.gz",)))
    figures = stage_figures(tmp_path / "lang")
    assert figures["dev_oov_percent"] < 1.0 and figures["dev_perplexity"] < 110
    assert 10_000 < figures["words"] < 20_000


def test_phones_tell_their_position_in_the_word(tmp_path, data):
    main(Config(data, tmp_path / "plain"))
    main(Config(data, tmp_path / "lang", position_dependent=True))
    plain, lang = Lang.load(tmp_path / "plain"), Lang.load(tmp_path / "lang")
    assert lang.lexicon["A"] == [("AH_S",), ("EY_S",)] and lang.lexicon["CAT"] == [("K_B", "AE_I", "T_E")]
    assert lang.lexicon[UNKNOWN] == [("SPN",)] and lang.plain_lexicon == plain.lexicon
    alike = {frozenset(lang.phones[i] for i in own) for own in lang.phones_alike}
    assert frozenset(["G_E", "G_I"]) in alike and {i for own in alike for i in own} == set(lang.phones[3:]) - {
        name for name in lang.phones if name[0] == "#"
    }
    assert [{lang.phones[i][-1] for i in own} for own in lang.positions] == [{"B"}, {"I"}, {"E"}, {"S"}]
    assert lang.plain("G_E") == "G" and plain.plain("G_E") == "G_E"  # a phone of a lexicon may be called that
    assert not plain.positions and all(len(own) == 1 for own in plain.phones_alike)
    # Words outside the lexicon are guessed, and get positions like all others.
    guessed = Pronunciations(lang).lexicon([["CATS", "XYLOPHONE"]])[1]
    assert all((v[0].endswith("_B") and v[-1].endswith("_E")) or v == ("SPN",) for vs in guessed.values() for v in vs)


def test_phones_that_tell_positions_already_are_refused(tmp_path, data):
    lexicon = tmp_path / "lexicon"
    lexicon.write_text("".join(f"{word} A_B B_E\n" for word in " ".join(TRAIN).split()))
    with pytest.raises(UserError, match="has the phone A_B, whose ending is that of a position within a word"):
        main(Config(data, tmp_path / "lang", lexicon=lexicon, position_dependent=True))
    with pytest.raises(UserError, match="--position-dependent is for words"):
        main(Config(data, tmp_path / "lang", units="sentencepiece", position_dependent=True))


@pytest.mark.parametrize("often", ["O", "OH"])
def test_the_more_frequent_homophone_wins_a_tie(tmp_path, often):
    """A foreign model may give homophones the same probability, as AN4's does; its weights stay as they are."""
    (tmp_path / "lexicon").write_text("O OW\nOH OW\nGO G OW\n")
    unigrams = "".join(f"-1\t{word}\n" for word in ("<s>", "</s>", "GO", "O", "OH"))
    (tmp_path / "lm").write_text(f"\\data\\\nngram 1=5\n\n\\1-grams:\n{unigrams}\n\\end\\\n")
    data = write_transcripts(tmp_path / "data", train=["GO O OH", often], dev=["GO"])
    main(Config(data, tmp_path / "lang", lexicon=tmp_path / "lexicon", arpa=tmp_path / "lm"))
    lang = Lang.load(tmp_path / "lang")
    lg = kaldifst.compose(lang.fst("L_disambig"), lang.fst("G"))
    markers = [i for i, name in enumerate(lang.phones) if name.startswith("#")]
    spoken = kaldifst.make_linear_acceptor([lang.phone_ids["OW"]])
    for state in range(spoken.num_states):
        for marker in markers:
            spoken.add_arc(state, kaldifst.StdArc(marker, marker, 0.0, state))
    kaldifst.arcsort(spoken, sort_type="olabel")
    _, _, words, cost = kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(kaldifst.compose(spoken, lg)))
    assert lang.text(words) == often
    assert cost.value == pytest.approx(2 * math.log(10) - 2 * math.log(0.5), abs=1e-4)
