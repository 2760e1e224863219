"""Language models made elsewhere: their forms, and their weights, which are used as they are."""

import gzip
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest

from asr_kd.common.errors import UserError
from asr_kd.lang import ngram
from asr_kd.lang.arpa import read_arpa, write_arpa
from asr_kd.lang.fst import grammar_fst

kaldifst = pytest.importorskip("kaldifst")
kaldilm = pytest.importorskip("kaldilm")

SPEECH = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[2] / ".." / "shared" / "speech"))
AN4 = SPEECH / "an4" / "etc" / "an4.lm"
#: Weights that are not normalised; back-off weights above 1 and of 0, or none; a certain bigram, as in an4.lm.
ODD = """\\data\\
ngram 1=7
ngram 2=5

\\1-grams:
-0.7\t<UNK>\t0.0
-0.5\t</s>\t-99
-99\t<s>\t0.0
-0.3\tyes\t0.4
-1.1\tno
-2.0253\tÉtÉ\t-0.25
-0.9\tmay\t-0.1

\\2-grams:
0.0\t<s> </s>
-0.01\tyes no
-3.5\tno yes
-1.5\tÉtÉ ÉtÉ
-0.8\tmay <UNK>

\\end\\
"""


def sentence_cost(g, words: list[str], sentence: list[str]) -> float:
    """Cost of the best path of a sentence in G, over the names ``words`` by id; infinite if there is none."""
    zero = words.index("#0")
    acceptor = kaldifst.make_linear_acceptor([words.index(word) for word in sentence])
    for state in range(acceptor.num_states):
        acceptor.add_arc(state, kaldifst.StdArc(zero, zero, 0.0, state))
    kaldifst.arcsort(acceptor, sort_type="olabel")
    paths = kaldifst.compose(acceptor, g)
    return kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(paths))[3].value if paths.start >= 0 else math.inf


def kaldi_grammar(arpa: Path, folder: Path) -> tuple[object, list[str]]:
    """G as kaldilm makes it of a file as it is, and its words."""
    files = {"output_fst": str(folder / "kaldi.fst"), "write_symbol_table": str(folder / "kaldi.txt")}
    kaldilm.arpa2fst(input_arpa=str(arpa), disambig_symbol="#0", **files)
    rows = [line.split() for line in (folder / "kaldi.txt").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [int(row[1]) for row in rows] == list(range(len(rows)))
    return kaldifst.StdVectorFst.read(files["output_fst"]), [row[0] for row in rows]


def grammar(arpa: Path, folder: Path, max_words: int = 1000, case: str = "upper") -> tuple[object, list[str]]:
    """G as the stage makes it, and its words."""
    words, model = read_arpa(arpa, max_words, case)  # type: ignore[arg-type]
    names = ["<eps>", "<UNK>", *words, "#0", "<s>", "</s>"]
    (folder / "words.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)), encoding="utf-8")
    write_arpa(folder / "lm.arpa", model, words)
    grammar_fst(folder / "lm.arpa", folder / "words.txt", folder / "G.fst")
    return kaldifst.StdVectorFst.read(str(folder / "G.fst")), names


@pytest.mark.parametrize("case", ["upper", "lower", "keep"])
def test_sentences_have_the_scores_of_kaldilm(tmp_path, case):
    (tmp_path / "odd.arpa").write_text(ODD, encoding="utf-8")
    theirs, names = kaldi_grammar(tmp_path / "odd.arpa", tmp_path)
    ours, words = grammar(tmp_path / "odd.arpa", tmp_path, case=case)
    spell = {"upper": str.upper, "lower": str.lower, "keep": str}[case]
    compared = 0
    for n in range(4):
        for sentence in itertools.product(["yes", "no", "ÉtÉ", "may"], repeat=n):
            expected = sentence_cost(theirs, names, list(sentence))
            assert sentence_cost(ours, words, [spell(word) for word in sentence]) == pytest.approx(expected, abs=1e-4)
            compared += math.isfinite(expected)
    assert compared == 85 and sentence_cost(ours, words, []) == 0


@pytest.mark.skipif(not AN4.is_file(), reason=f"no {AN4} (ASR_KD_SPEECH)")
def test_an4_has_the_scores_of_kaldilm(tmp_path):
    theirs, names = kaldi_grammar(AN4, tmp_path)
    ours, words = grammar(AN4, tmp_path)
    assert len(words) == 104 + 5
    generator = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 5, 8, 13):
        sentence = generator.choice(words[2:-3], length).tolist()
        expected = sentence_cost(theirs, names, sentence)
        assert sentence_cost(ours, words, sentence) == pytest.approx(expected, rel=1e-5, abs=1e-4)
        # Every word and the end cost the same.  Were <s> </s>, which is certain, normalised, no other word could begin.
        assert expected == pytest.approx((length + 1) * 2.0253 * math.log(10) if length else 0, rel=1e-4)


def test_words_that_are_left_out_change_no_weight(tmp_path, caplog):
    (tmp_path / "odd.arpa").write_text(ODD, encoding="utf-8")
    whole, names = grammar(tmp_path / "odd.arpa", tmp_path)
    few, words = grammar(tmp_path / "odd.arpa", tmp_path, max_words=2)
    assert words[2:-3] == ["MAY", "YES"]
    for sentence in ([], ["YES"], ["MAY", "YES"], ["YES", "YES", "MAY"]):
        assert sentence_cost(few, words, sentence) == pytest.approx(sentence_cost(whole, names, sentence), abs=1e-5)
    assert "4 of 5 longer n-grams are left out, with words or histories that are not in the model" in caplog.text


HEAD = "\\data\\\nngram 1=3\nngram 2=1\n\n"
BODY = "\\1-grams:\n-1\t<s>\t-0.1\n-0.5\t</s>\n-0.5\tYES\t-0.1\n\n\\2-grams:\n-0.2\t<s> YES\n\n\\end\\\n"


@pytest.mark.parametrize(
    "data",
    [
        "Format: begins with \\data\\\n\\1-grams:\np_1 wd_1 bo_1\n" + HEAD + BODY,
        "\\data\\\nngram 1=nr\n\\1-grams:\np_1 wd_1 bo_1\n\\end\\\n\n" + HEAD + BODY,
        "ngram 1=5\nngram model of a corpus\n" + HEAD + BODY,
        "\ufeff" + (HEAD + BODY).replace("\n", "\r\n"),
        (HEAD + BODY).replace("\t", "   ").replace("ngram 1=3", "ngram  1 = 3 "),
        (HEAD + BODY).replace("</s>\n", "</s>\t-99.0\n").replace("<s> YES\n", "<s> YES\t-0.7\n"),
        gzip.compress((HEAD + BODY).encode()),
    ],
    ids=["comment", "commented head", "commented numbers", "CRLF", "blanks", "back-off weights without use", "gzip"],
)
def test_forms_of_one_model(tmp_path, data):
    (tmp_path / "lm").write_bytes(data if isinstance(data, bytes) else data.encode())
    words, model = read_arpa(tmp_path / "lm", 9)
    assert words == ["YES"] and model.sizes == [3, 1]
    np.testing.assert_allclose(model.log_probs[0] / np.log(10), [-0.5, -0.5, -np.inf])
    np.testing.assert_allclose(model.backoffs[0][[0, 2]] / np.log(10), [-0.1, -0.1])
    np.testing.assert_allclose(model.log_probs[1] / np.log(10), [-0.2])


def test_words_that_become_the_same_are_joined(tmp_path, caplog):
    (tmp_path / "lm").write_text(
        "\\data\\\nngram 1=7\nngram 2=4\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-1 May -0.5\n-0.5 may -0.2\n-1 fu\u0308r\n"
        "-2 f\u00fcr\n-1 new\u00a0york\n\n\\2-grams:\n-0.3 <s> May\n-0.1 <s> may\n-0.4 May may\n-0.6 may may\n\n"
        "\\end\\\n", "utf-8",
    )  # fmt: skip
    words, model = read_arpa(tmp_path / "lm", 9)
    assert words == ["FÜR", "MAY"]  # a word with a blank of another kind is never one word of a text
    np.testing.assert_allclose(np.exp(model.log_probs[0][:2]), [0.1 + 0.01, 0.1 + 10**-0.5])
    np.testing.assert_allclose(model.backoffs[0][:2] / np.log(10), [0, -0.2])
    np.testing.assert_allclose(np.sort(model.log_probs[1]) / np.log(10), [-0.4, -0.1])
    assert "2 words are the same as others with --text upper, so their probabilities are added; 2 of 4" in caplog.text


def test_round_trip(tmp_path):
    words = sorted(["DOG", "CAT", "A'B"])
    model = ngram.kneser_ney(ngram.count([[0, 1, 2], [2, 2, 1], [1]], 3, 3))
    write_arpa(tmp_path / "lm.arpa", model, words)
    again_words, again = read_arpa(tmp_path / "lm.arpa", 100)
    assert again_words == words and again.sizes == model.sizes
    for n in range(3):
        np.testing.assert_array_equal(again.keys[n], model.keys[n])
        np.testing.assert_allclose(np.exp(again.log_probs[n]), np.exp(model.log_probs[n]), atol=1e-5)
        np.testing.assert_allclose(again.backoffs[n], model.backoffs[n], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no"),
        ("hello\n", "it has no"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 A\n", "it ends early"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\nx A\n\\end\\\n", "could not convert"),
    ]
    + [
        (f"\\data\\\nngram 1={n}\n\n\\1-grams:\n-1 </s>\n{line}\n\\end\\\n", reason)
        for n, line, reason in (
            (3, "-1 A", "it has 2 1-grams, and 3 in its head"), (2, "nan A", "no probability up to 1"),
            (2, "0.1 A", "no probability up to 1"), (2, "-1 A B C", "is no 1-gram"), (1, "", "it has 1 1-grams, and 2"),
            (2, "-1 A nan", "no back-off weight"), (2, "-1 A inf", "no back-off weight"),
        )
    ]
    + [("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 A\n\\end\\\n", "it has no </s>")],
)  # fmt: skip
def test_damaged_files_are_errors(tmp_path, text, reason):
    if reason == "it has 1 1-grams, and 2":
        text = text.replace("ngram 1=1", "ngram 1=2")
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(UserError, match=rf"not an ARPA language model \(.*{reason}.*\): check --arpa"):
        read_arpa(tmp_path / "lm.arpa", 10)
    with pytest.raises(UserError, match="cannot be read"):
        read_arpa(tmp_path / "other.arpa", 10)
