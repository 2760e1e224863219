"""The decoding graph HCLG of a small language, searched with scores of known word sequences."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from training import remark

from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, read_json
from asr_kd.hmm.graph import __main__ as graph
from asr_kd.lang import ngram
from asr_kd.lang.__main__ import main
from asr_kd.lang.arpa import read_arpa
from asr_kd.lang.config import Config
from asr_kd.lang.folder import Lang

khg = pytest.importorskip("kaldi_hmm_gmm")
kaldi_decoder = pytest.importorskip("kaldi_decoder")
kaldifst = pytest.importorskip("kaldifst")

from asr_kd.hmm.gmm import Gmms  # noqa: E402
from asr_kd.hmm.graph.build import check_phones, compile_hclg  # noqa: E402
from asr_kd.hmm.kaldi_io import make_tree, tree_bytes, write_model, write_tree  # noqa: E402
from asr_kd.hmm.topology import topology_text  # noqa: E402
from asr_kd.hmm.tree import Node  # noqa: E402

TEXTS = [
    "TWO DOGS SEE A CAT", "THE CAT IS TOO BIG", "GO TO THE DOG", "GO TO THE CAT", "CAN THE CAT SEE CANDY",
    "A CAN OF CANDY", "TWO CATS GO TO SEE A DOG", "THE DOG IS TOO SMALL",
]  # fmt: skip


def make_lang(folder: Path, **options) -> Lang:
    folder.mkdir()
    with gzip.open(folder / "cuts_train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"supervisions": [{"text": text}]}) + "\n" for text in TEXTS)
    main(Config(folder, folder / "lang", prune=0, **options))
    return Lang.load(folder / "lang")


class Hmm:
    """A tree and transition model, and the scores of phone sequences under it.

    Args:
        lang: the language.
        width: context width.  1: one pdf per phone and state; 3: the pdf of the first state also depends on whether
            the left phone is silence or a vowel, that of the last state on the right phone.
    """

    def __init__(self, lang: Lang, width: int) -> None:
        self.lang, self.silence = lang, lang.phone_ids["SIL"]
        topology = khg.HmmTopology()
        topology.read(topology_text(lang.real_phones, lang.silence_phones, 1))
        self.data = tree_bytes(self._root(width), width, width // 2)
        self.tree = make_tree(self.data)
        self.transitions = khg.TransitionModel(self.tree, topology)

    def _root(self, width: int) -> Node:
        leaves = iter(range(10**6))

        def state(phone: int, pdf_class: int) -> Node:
            if width == 1 or phone in self.lang.silence_phones or pdf_class == 1:
                return Node(leaf=next(leaves))
            vowels = {i for i, name in enumerate(self.lang.phones) if name[0] in "AEIOU"} | {0, self.silence}
            key = 0 if pdf_class == 0 else 2
            yes, no = Node(leaf=next(leaves)), Node(leaf=next(leaves))
            return Node(key=key, yes_set=frozenset(vowels), yes=yes, no=no)

        tables: list[Node | None] = [None]
        for phone in self.lang.real_phones:
            classes = 1 if phone in self.lang.silence_phones else 3
            tables.append(Node(key=-1, table=tuple(state(phone, c) for c in range(classes))))
        return Node(key=width // 2, table=tuple(tables))

    def pdfs(self, phones: list[str]) -> list[int]:
        """The senone of each state of a phone sequence."""
        ids = [0, *(self.lang.phone_ids[phone] for phone in phones), 0]
        half = self.tree.context_width // 2
        out = []
        for at in range(1, len(ids) - 1):
            for pdf_class in (0, 0, 0) if ids[at] in self.lang.silence_phones else (0, 1, 2):
                found, pdf = self.tree.compute(ids[at - half : at + half + 1], pdf_class)
                assert found
                out.append(pdf)
        return out

    def scores(self, phones: list[str], frames: int = 3) -> np.ndarray:
        """(T, C) float32: 0 for the correct senone, −20 for all others; each state lasts ``frames`` frames."""
        pdfs = np.repeat(self.pdfs(phones), frames)
        scores = np.full((len(pdfs), self.transitions.num_pdfs), -20, np.float32)
        scores[np.arange(len(pdfs)), pdfs] = 0
        return scores


def decode(hclg, scores: np.ndarray) -> list[int]:
    decoder = kaldi_decoder.FasterDecoder(hclg, kaldi_decoder.FasterDecoderOptions(beam=200.0))
    decoder.decode(kaldi_decoder.DecodableCtc(scores))
    assert decoder.reached_final()
    found, lattice = decoder.get_best_path()
    assert found
    return kaldifst.get_linear_symbol_sequence(lattice)[2]


def phones_with_silences(lang: Lang, text: str, silences: set[int]) -> list[str]:
    """Phones of a sentence with SIL before the words at these positions (len(words): at the end)."""
    phones: list[str] = []
    words = text.split()
    for position, word in enumerate(words):
        phones += ["SIL"] * (position in silences)
        phones += [phone for unit in lang.units_of(word) for phone in lang.lexicon[unit][0]]
    return phones + ["SIL"] * (len(words) in silences)


@pytest.fixture(scope="module", params=[1, 3], ids=["monophone", "triphone"])
def compiled(request, tmp_path_factory):
    lang = make_lang(tmp_path_factory.mktemp("graph") / "data", order=request.param)
    hmm = Hmm(lang, request.param)
    hclg, figures = compile_hclg(lang, hmm.tree, hmm.transitions)
    return lang, hmm, hclg, figures


def test_sentences_are_recognised_with_any_silences(compiled):
    lang, hmm, hclg, _ = compiled
    random = np.random.default_rng(0)
    for text in [*TEXTS, "CANDY", "DOG CAT DOG", "SMALL CANDY CAN GO"]:
        positions = len(text.split()) + 1
        half = set(random.choice(positions, positions // 2, replace=False).tolist())
        for silences in (set(), set(range(positions)), half):
            words = lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, silences))))
            assert [lang.lexicon[w][0] for w in words.split()] == [lang.lexicon[w][0] for w in text.split()]


def test_compilation_is_deterministic(compiled):
    lang, hmm, hclg, _ = compiled
    assert compile_hclg(lang, hmm.tree, hmm.transitions)[0].to_str() == hclg.to_str()


def test_homophones_follow_the_language_model(tmp_path):
    lang = make_lang(tmp_path / "data")
    hmm = Hmm(lang, 3)
    hclg, _ = compile_hclg(lang, hmm.tree, hmm.transitions)
    assert lang.lexicon["TWO"][0] == lang.lexicon["TOO"][0] == lang.lexicon["TO"][0] == ("T", "UW")
    for text in ("TWO DOGS SEE A CAT", "THE CAT IS TOO BIG", "GO TO THE DOG"):
        assert lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, {0})))) == text


def path_cost(fst, labels: list[int]) -> float:
    """Cost of the best path with these input labels."""
    chain = kaldifst.make_linear_acceptor(labels)
    kaldifst.arcsort(chain, sort_type="olabel")
    found = kaldifst.compose(chain, fst)
    assert found.start >= 0
    return kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(found))[3].value


def test_cost_of_a_path_is_the_sum_of_its_parts(compiled):
    """The parts are the costs of the language model, of silences and of transitions."""
    lang, hmm, hclg, _ = compiled
    words, model = read_arpa(lang.path / "lm.arpa", 10**6)
    text, frames = "SMALL CANDY", 3
    phones = phones_with_silences(lang, text, {0})
    language = -ngram.score(model, [[words.index(word) for word in text.split()]]).sum()
    silence = 3 * np.log(2)
    # Each state is left once (with probability one, since the self-loop is normalised out) and loops twice; with
    # self_loop_scale 0.1, a loop costs 0.1 log(0.75) and leaving costs 0.1 log(0.25).
    states = 3 * len(phones)
    transitions = -0.1 * states * ((frames - 1) * np.log(0.75) + np.log(0.25))
    labels = [pdf + 1 for pdf in np.repeat(hmm.pdfs(phones), frames).tolist()]
    assert path_cost(hclg, labels) == pytest.approx(language + silence + transitions, abs=0.02)


def test_labels_are_pdfs_and_words(compiled):
    lang, hmm, hclg, figures = compiled
    rows = [line.split() for line in hclg.to_str(show_weight_one=True).splitlines()]
    arcs = np.array([[int(v) for v in row[:4]] for row in rows if len(row) == 5])
    used = set(hmm.pdfs([lang.phones[i] for i in lang.real_phones]))
    assert arcs[:, 2].max() <= hmm.transitions.num_pdfs and arcs[:, 2].min() >= 0
    assert set(arcs[:, 3]) - {0} <= {lang.words.index(w) for w in lang.words[2:-3]}
    assert len(used & set((arcs[:, 2] - 1).tolist())) > 10
    assert figures["states"] == hclg.num_states and figures["arcs"] == len(arcs)
    assert figures["num_pdfs"] == hmm.transitions.num_pdfs
    epsilons = arcs[arcs[:, 2] == 0, :2]
    while len(epsilons):  # there is no cycle of input epsilons: removing arcs to dead ends repeatedly removes all
        rest = epsilons[np.isin(epsilons[:, 1], epsilons[:, 0])]
        assert len(rest) < len(epsilons)
        epsilons = rest


def test_pieces_decode_unseen_words(tmp_path):
    lang = make_lang(tmp_path / "data", units="sentencepiece", vocab_size=40)
    hmm = Hmm(lang, 3)
    hclg, _ = compile_hclg(lang, hmm.tree, hmm.transitions)
    for text in [*TEXTS[:3], "THE QUIZ'S JAM", "XYZ"]:
        everywhere = set(range(len(text.split()) + 1))
        found = lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, everywhere))))
        if text in TEXTS:
            assert found == text
        # The language model cannot know the word boundaries of unseen words.
        assert found.replace(" ", "") == text.replace(" ", "")


def test_stage_reads_the_folder_of_the_hmm_stage(tmp_path, capsys):
    lang = make_lang(tmp_path / "data")
    hmm = Hmm(lang, 3)
    gmm = Stage("hmm", tmp_path / "gmm", {})
    gmm.begin()
    pdfs = hmm.transitions.num_pdfs
    single = Gmms(np.arange(pdfs + 1), np.ones(pdfs), np.zeros((pdfs, 2)), np.ones((pdfs, 2)))
    write_model(tmp_path / "gmm" / "tri.mdl", hmm.transitions, single)
    write_tree(tmp_path / "gmm" / "tree", hmm.data)
    gmm.finish()
    config = graph.Config(lang.path, tmp_path / "gmm", tmp_path / "graph")
    graph.main(config)
    hclg = kaldifst.StdVectorFst.read(str(tmp_path / "graph" / "HCLG.fst"))
    text = "GO TO THE CAT"
    assert lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, {0, 4})))) == text
    figures = read_json(tmp_path / "graph" / "graph.json")
    assert figures["silence_pdfs"] == [0, 1]
    assert figures["num_pdfs"] == pdfs and figures["states"] == hclg.num_states and figures["arcs"] > 0
    for name in ("words.txt", "lm.arpa"):
        assert (tmp_path / "graph" / name).read_bytes() == (lang.path / name).read_bytes()
    graph.main(config)
    assert "up to date" in capsys.readouterr().out


def test_errors_say_what_to_do(tmp_path):
    lang = make_lang(tmp_path / "data")
    hmm = Hmm(lang, 1)
    with pytest.raises(UserError, match=r"lacks the phone \w+ \(in \w+\).*python -m asr_kd.hmm"):
        check_phones(lang, lang.real_phones[:-1])
    path = lang.path / "lexicon.txt"
    content = path.read_text()
    path.write_text("".join(line for line in content.splitlines(keepends=True) if not line.startswith("CANDY ")))
    remark(lang.path)
    with pytest.raises(UserError, match="lacks 1 words such as CANDY"):
        compile_hclg(Lang.load(lang.path), hmm.tree, hmm.transitions)
    path.write_text(content + "EXTRA QQ\n")
    remark(lang.path)
    with pytest.raises(UserError, match="EXTRA"):
        compile_hclg(Lang.load(lang.path), hmm.tree, hmm.transitions)
    (lang.path / "G.fst").unlink()
    path.write_text(content)
    remark(lang.path)
    with pytest.raises(UserError, match=r"G\.fst is missing"):
        compile_hclg(Lang.load(lang.path), hmm.tree, hmm.transitions)
