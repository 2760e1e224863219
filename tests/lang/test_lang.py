"""Lexicon, language model, L and G."""

import gzip
import itertools
import json
import logging
import math
import os
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldialign import edit_distance

from asr_kd.common.errors import UserError
from asr_kd.common.storage import stage_figures
from asr_kd.lang import ngram
from asr_kd.lang.__main__ import main
from asr_kd.lang.arpa import read_arpa, write_arpa
from asr_kd.lang.config import Config
from asr_kd.lang.folder import UNKNOWN, Lang
from asr_kd.lang.fst import disambiguate
from asr_kd.lang.g2p import Pronouncer
from asr_kd.lang.lexicon import cmu_dictionary, pronounce, read_lexicon

kaldifst = pytest.importorskip("kaldifst")
SPEECH = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[2] / ".." / "shared" / "speech"))
TRAIN = ["THE CAT SAT ON THE MAT", "A DOG SAT", "THE DOG'S CAT SAT ON MATTHEW'S MAT", "TWO CATS TO SEE", "SEE THE CAT"]
DEV = ["THE DOG SAT ON THE CAT", "SEE A XYLOPHONE"]
LM_TEXT = ["A CAT AND A DOG SAT AND SAT", "AND THE DOG SEES THE CAT ON THE MAT", "AND AND QUUXLY QUUXLY 3RD 3RD -- --"]


def write_transcripts(data: Path, **texts: list[str]) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    for split, lines in texts.items():
        with gzip.open(data / f"supervisions_{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(lines))
    return data


def write_gzip(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    return write_transcripts(tmp_path / "data", train=TRAIN, dev=DEV)


# ---------------------------------------------------------------- n-gram models

VOCABULARY = 5
corpora = st.lists(st.lists(st.integers(-1, VOCABULARY - 1), max_size=7), min_size=1, max_size=25)


def sums(model: ngram.BackoffModel, histories: np.ndarray, n: int) -> np.ndarray:
    """Σ P(w | h) over all words and the sentence end, for histories of n − 1 words."""
    words = np.arange(model.base - 1)
    keys = (histories[:, None] * model.base + words).ravel()
    return np.exp(model.log_prob(n, keys)).reshape(len(histories), -1).sum(1)


def assert_normalised(model: ngram.BackoffModel) -> None:
    bos = model.base - 1
    for n in range(1, model.order + 2):
        histories = np.arange(model.base ** (n - 1))
        # Only the first word of a history can be <s>, and none can be </s>.
        digits = [(histories // model.base**i) % model.base for i in range(n - 1)]
        valid = np.ones(len(histories), bool)
        for position, digit in enumerate(digits):
            valid &= (digit < model.base - 2) | ((digit == bos) & (position == n - 2))
        np.testing.assert_allclose(sums(model, histories[valid], n), 1.0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(corpora, st.integers(1, 3))
def test_kneser_ney_sums_to_one_after_every_history(sentences, order):
    assert_normalised(ngram.kneser_ney(ngram.count(sentences, VOCABULARY, order)))


@settings(max_examples=25, deadline=None)
@given(corpora, corpora, st.floats(0.05, 0.95), st.sampled_from([1e-6, 1e-3, 1e-2, 1.0]), st.integers(2, 3))
def test_interpolated_and_pruned_models_sum_to_one(first, second, share, threshold, order):
    counts = [ngram.count(s, VOCABULARY, order) for s in (first, second)]
    model = ngram.interpolate([ngram.kneser_ney(c) for c in counts], [share, 1 - share])
    assert_normalised(model)
    pruned = ngram.prune(model, counts, [share, 1 - share], threshold)
    assert_normalised(pruned)
    assert sum(pruned.sizes) <= sum(model.sizes)
    for n in range(2, pruned.order + 1):  # ARPA readers need every history to be listed
        assert np.isin(pruned.keys[n - 1] // pruned.base, pruned.keys[n - 2]).all()


def test_counts_by_hand():
    counts = ngram.count([[0, 1, -1, 1], [0, 1]], 2, 3)  # base 4: words 0 and 1, </s> 2, <s> 3
    assert dict(zip(counts.keys[0].tolist(), counts.counts[0].tolist(), strict=True)) == {0: 2, 1: 3, 2: 2, 3: 2}
    bigrams = {(3, 0): 2, (0, 1): 2, (1, 2): 2}
    assert dict(zip(counts.keys[1].tolist(), counts.counts[1].tolist(), strict=True)) == {
        a * 4 + b: n for (a, b), n in bigrams.items()
    }
    assert counts.keys[2].tolist() == [0 * 16 + 1 * 4 + 2, 3 * 16 + 0 * 4 + 1]
    assert counts.tokens == 7


def test_counts_do_not_depend_on_the_chunk_size(monkeypatch):
    sentences = np.random.default_rng(0).integers(-1, 9, (200, 6)).tolist()
    expected = ngram.count(sentences, 9, 3)
    monkeypatch.setattr(ngram, "CHUNK", 50)
    chunked = ngram.count(sentences, 9, 3)
    for a, b in zip(expected.keys + expected.counts, chunked.keys + chunked.counts, strict=True):
        np.testing.assert_array_equal(a, b)


def reference(sentences: list[list[str]], history: tuple[str, ...], word: str, vocabulary: int) -> float:
    """Interpolated modified Kneser-Ney bigrams in plain Python."""
    padded = [["<s>", *s, "</s>"] for s in sentences]
    bigrams = Counter(pair for s in padded for pair in itertools.pairwise(s))
    unigrams = Counter(b for _, b in bigrams)  # the number of contexts of each word

    def discounted(counts, key, siblings):
        discounts = [0.0, *ngram._discounts(np.array(list(counts.values())))]
        total = sum(counts[k] for k in siblings)
        backoff = sum(discounts[min(counts[k], 3)] for k in siblings) / total
        return (counts[key] - discounts[min(counts[key], 3)]) / total, backoff

    probability, backoff = discounted(unigrams, word, list(unigrams))
    lower = probability + backoff / (vocabulary + 1)
    siblings = [pair for pair in bigrams if pair[:1] == history]
    if not siblings:
        return lower
    probability, backoff = discounted(bigrams, (*history, word), siblings)
    return probability + backoff * lower


def test_kneser_ney_equals_a_plain_implementation():
    random = np.random.default_rng(1)
    words = list("abcdefgh")
    sentences = [[words[i] for i in random.zipf(1.6, 6) % 8] for _ in range(80)]
    ids = {word: i for i, word in enumerate([*words, "</s>", "<s>"])}
    model = ngram.kneser_ney(ngram.count([[ids[w] for w in s] for s in sentences], len(words), 2))
    for history in [*words, "<s>"]:
        for word in [*words, "</s>"]:
            log_prob = model.log_prob(2, np.array([ids[history] * model.base + ids[word]]))[0]
            assert math.exp(log_prob) == pytest.approx(reference(sentences, (history,), word, len(words)), rel=1e-9)


def zipf_sentences(seed: int, words: int = 30, count: int = 300) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [[int(i) % words for i in random.zipf(1.5, 8)] for _ in range(count)]


def test_interpolation_weights_maximise_the_likelihood():
    models = [ngram.kneser_ney(ngram.count(zipf_sentences(seed, count=60), 30, 2)) for seed in (1, 2)]
    dev = zipf_sentences(3, count=40)
    weights = ngram.interpolation_weights(models, dev)
    probs = np.exp([ngram.score(model, dev) for model in models])
    grid = np.linspace(0, 1, 101)
    likelihood = [np.log(w * probs[0] + (1 - w) * probs[1]).mean() for w in grid]
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(grid[int(np.argmax(likelihood))], abs=0.011)
    perplexity = ngram.perplexity(ngram.score(ngram.interpolate(models, weights), dev))
    assert perplexity <= min(ngram.perplexity(ngram.score(model, dev)) for model in models)


def without(model: ngram.BackoffModel, n: int, index: int) -> ngram.BackoffModel:
    keys, log_probs = list(model.keys), list(model.log_probs)
    keys[n - 1], log_probs[n - 1] = np.delete(keys[n - 1], index), np.delete(log_probs[n - 1], index)
    out = ngram.BackoffModel(model.base, keys, log_probs, [np.zeros(len(k)) for k in keys])
    out.renormalise()
    return out


@pytest.mark.parametrize("order", [2, 3])
def test_pruning_loss_is_the_relative_entropy(order):
    counts = ngram.count(zipf_sentences(0, words=6, count=30), 6, order)
    model = ngram.kneser_ney(counts)
    loss = ngram.pruning_loss(model, order, [counts], [1.0])
    histories, words = counts.keys[order - 2], np.arange(model.base - 1)
    grid = (histories[:, None] * model.base + words).ravel()
    before = model.log_prob(order, grid).reshape(len(histories), -1)
    frequency = counts.counts[order - 2] / counts.tokens
    for index in range(0, len(loss), 5):
        after = without(model, order, index).log_prob(order, grid).reshape(len(histories), -1)
        entropy = (frequency * (np.exp(before) * (before - after)).sum(1)).sum()
        assert loss[index] == pytest.approx(entropy, rel=1e-6, abs=1e-12)


def test_higher_thresholds_prune_more():
    counts = ngram.count(zipf_sentences(0), 30, 3)
    model = ngram.kneser_ney(counts)
    pruned = [ngram.prune(model, [counts], [1.0], threshold) for threshold in (1e-5, 1e-4, 1e-3, 1e9)]
    models = [model, *pruned]
    sizes = [sum(model.sizes) for model in models]
    perplexities = [ngram.perplexity(ngram.score(model, zipf_sentences(0))) for model in models]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] and sizes[-1] == model.base
    assert perplexities == sorted(perplexities)


def test_arpa_round_trip(tmp_path):
    words = sorted(["DOG", "CAT", "A'B"])
    model = ngram.kneser_ney(ngram.count([[0, 1, 2], [2, 2, 1], [1]], 3, 3))
    write_arpa(tmp_path / "lm.arpa", model, words)
    again_words, again = read_arpa(tmp_path / "lm.arpa", 100)
    assert again_words == words and again.sizes == model.sizes
    for n in range(3):
        np.testing.assert_array_equal(again.keys[n], model.keys[n])
        np.testing.assert_allclose(np.exp(again.log_probs[n]), np.exp(model.log_probs[n]), atol=1e-5)
        np.testing.assert_allclose(again.backoffs[n], model.backoffs[n], atol=1e-3)
    few_words, few = read_arpa(tmp_path / "lm.arpa", 2)
    assert len(few_words) == 2
    assert_normalised(few)


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "\\data\\\nngram 1=2\n\n\\1-grams:\n-1 A\n", "\\data\\\nngram 1=1\n\n\\1-grams:\nx A\n\\end\\\n"],
)
def test_damaged_and_missing_arpa_files_are_errors(tmp_path, text):
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(UserError, match="not an ARPA"):
        read_arpa(tmp_path / "lm.arpa", 10)
    with pytest.raises(UserError, match="does not exist"):
        read_arpa(tmp_path / "other.arpa", 10)


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


def test_read_lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("CAT\tK AE1 T\nCAT K AA0 T\n\nTHE DH AH0\n")
    assert read_lexicon(path) == {"CAT": [("K", "AE", "T"), ("K", "AA", "T")], "THE": [("DH", "AH")]}
    path.write_text("CAT\n")
    with pytest.raises(UserError, match="no phones for CAT"):
        read_lexicon(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="empty"):
        read_lexicon(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_lexicon(tmp_path / "none.txt")


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
    with gzip.open(tmp_path / "other.arpa.gz", "wt") as file:
        file.write(arpa)
    main(Config(data, tmp_path / "other", arpa=tmp_path / "other.arpa.gz"))
    lang = Lang.load(tmp_path / "other")
    assert {"ZEBRA", "AARDVARK", "DOG'S"} <= set(lang.words) and "--" not in lang.words
    assert math.isfinite(sentence_cost(lang.fst("G"), lang, "THE ZEBRA SAT"))


def test_external_lexicon(tmp_path, data):
    (tmp_path / "lexicon.txt").write_text("CAT K AE1 T\nTHE DH AH0\nA AH0\nMAT M AE1 T\nS S\nZ Z\nNG NG\nI IH1\n")
    main(Config(data, tmp_path / "lang", lexicon=tmp_path / "lexicon.txt"))
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
