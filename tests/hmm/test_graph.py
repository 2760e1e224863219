"""The decoding graph HCLG of a small language, searched with scores of known word sequences."""

import gzip
import json
import shutil
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
from asr_kd.lang.words import Words

khg = pytest.importorskip("kaldi_hmm_gmm")
kaldi_decoder = pytest.importorskip("kaldi_decoder")
kaldifst = pytest.importorskip("kaldifst")

from asr_kd.hmm.gmm import Gmms  # noqa: E402
from asr_kd.hmm.graph.build import check_phones, compile_hclg  # noqa: E402
from asr_kd.hmm.graph.slots import takes_new_words  # noqa: E402
from asr_kd.hmm.kaldi_io import make_tree, tree_bytes, write_model, write_tree  # noqa: E402
from asr_kd.hmm.new_words import extend_graph  # noqa: E402
from asr_kd.hmm.topology import topology_text  # noqa: E402
from asr_kd.hmm.tree import Node  # noqa: E402
from asr_kd.hmm.word_times import WordFinder  # noqa: E402

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
    hclg, _, figures = compile_hclg(lang, hmm.tree, hmm.transitions)
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
    hclg, *_ = compile_hclg(lang, hmm.tree, hmm.transitions)
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
    hclg, *_ = compile_hclg(lang, hmm.tree, hmm.transitions)
    for text in [*TEXTS[:3], "THE QUIZ'S JAM", "XYZ"]:
        everywhere = set(range(len(text.split()) + 1))
        found = lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, everywhere))))
        if text in TEXTS:
            assert found == text
        # The language model cannot know the word boundaries of unseen words.
        assert found.replace(" ", "") == text.replace(" ", "")


def make_graph(folder: Path, lang: Lang, hmm: Hmm) -> graph.Config:
    """Run the stage; returns its flags."""
    gmm = Stage("hmm", folder / "gmm", {})
    gmm.begin()
    pdfs = hmm.transitions.num_pdfs
    single = Gmms(np.arange(pdfs + 1), np.ones(pdfs), np.zeros((pdfs, 2)), np.ones((pdfs, 2)))
    write_model(folder / "gmm" / "tri.mdl", hmm.transitions, single)
    write_tree(folder / "gmm" / "tree", hmm.data)
    gmm.finish()
    config = graph.Config(lang.path, folder / "gmm", folder / "graph")
    graph.main(config)
    return config


def test_stage_reads_the_folder_of_the_hmm_stage(tmp_path, capsys):
    lang = make_lang(tmp_path / "data")
    hmm = Hmm(lang, 3)
    config = make_graph(tmp_path, lang, hmm)
    hclg = kaldifst.StdVectorFst.read(str(tmp_path / "graph" / "HCLG.fst"))
    text = "GO TO THE CAT"
    assert lang.text(decode(hclg, hmm.scores(phones_with_silences(lang, text, {0, 4})))) == text
    figures, count = read_json(tmp_path / "graph" / "graph.json"), hmm.transitions.num_pdfs
    assert figures["silence_pdfs"] == [0, 1]
    assert figures["num_pdfs"] == count and figures["states"] == hclg.num_states and figures["arcs"] > 0
    for name in ("words.txt", "lm.arpa"):
        assert (tmp_path / "graph" / name).read_bytes() == (lang.path / name).read_bytes()
    graph.main(config)
    assert "up to date" in capsys.readouterr().out


NEW = {"CANDIES": "K AE N D IY Z", "OO": "UW", "SEEDY": "S IY D IY"}
PHRASES = "CANDIES\tK AE N D IY Z\noo\tUW\t1.5\n\nSEEDY\t\t0\nDOG CANDIES\t\t-0.5\n"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A graph, and the same with further words: a pronounced one, one of a single phone, a guessed one, a phrase."""
    folder = tmp_path_factory.mktemp("words")
    lang = make_lang(folder / "data")
    hmm = Hmm(lang, 3)
    make_graph(folder, lang, hmm)
    (folder / "words.tsv").write_text(PHRASES)
    extend_graph(folder / "graph", folder / "words.tsv", folder / "more")
    fsts = [kaldifst.StdVectorFst.read(str(folder / name / "HCLG.fst")) for name in ("graph", "more")]
    return lang, hmm, fsts, Words(folder / "more"), folder


def phones_with_new_words(lang: Lang, text: str, silences: set[int]) -> list[str]:
    phones: list[str] = []
    for place, word in enumerate(text.split()):
        phones += ["SIL"] * (place in silences)
        phones += NEW[word].split() if word in NEW else lang.lexicon[word][0]
    return phones


def test_new_words_are_found_next_to_any_words(extended):
    lang, hmm, (_, fst), words, _ = extended
    for text in (
        "CANDIES", "OO", "SEEDY OO CANDIES", "GO TO THE CANDIES", "A OO CAT", "OO OO", "DOG CANDIES", "SEEDY DOG SEEDY",
        "THE DOG CANDIES IS SMALL",
    ):  # fmt: skip
        for silences in (set(), set(range(9)), {1}):
            scores = hmm.scores(phones_with_new_words(lang, text, silences))
            assert words.text(decode(fst, scores)) == text, (text, silences)


def test_phones_of_new_words_tell_their_position(tmp_path):
    lang = make_lang(tmp_path / "data", position_dependent=True)
    hmm = Hmm(lang, 3)
    make_graph(tmp_path, lang, hmm)
    (tmp_path / "words.tsv").write_text("CANTO\tK AE N T UW\nCANDIES\tK AE N D IY Z\n")
    extend_graph(tmp_path / "graph", tmp_path / "words.tsv", tmp_path / "more")
    fst = kaldifst.StdVectorFst.read(str(tmp_path / "more" / "HCLG.fst"))
    # The lexicon has no IY within a word: that of its end has its senones.
    new = {"CANTO": "K_B AE_I N_I T_I UW_E", "CANDIES": "K_B AE_I N_I D_I IY_E Z_E"}
    for text in ("THE CANTO IS CANDIES", "CANTO CANTO"):
        phones = [p for word in text.split() for p in (new[word].split() if word in new else lang.lexicon[word][0])]
        assert Words(tmp_path / "more").text(decode(fst, hmm.scores(phones))) == text
    (tmp_path / "words.tsv").write_text("OO\tUW\n")
    with pytest.raises(UserError, match=r"OO: .*has no phone UW_S"):
        extend_graph(tmp_path / "graph", tmp_path / "words.tsv", tmp_path / "other")


def test_other_words_are_found_as_before(extended):
    lang, hmm, (fst, more), *_ = extended
    for text in TEXTS:
        scores = hmm.scores(phones_with_silences(lang, text, {0, 2}))
        assert decode(fst, scores) == decode(more, scores)
        labels = [pdf + 1 for pdf in np.repeat(hmm.pdfs(phones_with_silences(lang, text, {0, 2})), 3).tolist()]
        assert path_cost(more, labels) == path_cost(fst, labels)


def test_a_new_word_costs_what_the_average_word_costs_less_its_weight(extended):
    """Of two texts that differ in one word without a bigram, one word is new."""
    lang, hmm, (_, fst), *_ = extended
    model_words, model = read_arpa(lang.path / "lm.arpa", 10**6)
    log_probabilities = {}
    for text in ("OO", "CANDIES", "SMALL", "BIG"):
        labels = [pdf + 1 for pdf in np.repeat(hmm.pdfs(phones_with_new_words(lang, text, {0})), 3).tolist()]
        phones = len(phones_with_new_words(lang, text, {0}))
        transitions = -0.1 * 3 * phones * (2 * np.log(0.75) + np.log(0.25))
        log_probabilities[text] = -(path_cost(fst, labels) - transitions - 2 * np.log(2))
    for text in ("SMALL", "BIG"):
        expected = ngram.score(model, [[model_words.index(text)]]).sum()
        assert log_probabilities[text] == pytest.approx(expected, abs=0.02)
    assert log_probabilities["OO"] - log_probabilities["CANDIES"] == pytest.approx(1.5, abs=0.02)
    ends = ngram.score(model, [[]]).sum()
    backoff = log_probabilities["CANDIES"] + np.log(len(lang.lexicon))
    assert backoff < 0 and log_probabilities["CANDIES"] < ends


def test_new_words_have_times(extended):
    lang, hmm, _, words, folder = extended
    ids = {name: number for number, name in words.names.items()}
    phones = phones_with_new_words(lang, "THE CANDIES OO", {0, 1})
    pdfs = np.repeat(hmm.pdfs(phones), 3).tolist()
    times = WordFinder(folder / "more").in_path(pdfs, [ids[word] for word in ("THE", "CANDIES", "OO")])
    assert times == [(9, 27), (36, 90), (90, 99)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no words"),
        ("DOGS\tQQ", "has no phone QQ"),
        ("DOGS\tD\tmuch", "line 1 .*separated by tabs"),
        ("OK\n\tD AO G", "line 2 .*separated by tabs"),
        ("TWO DOGS\tT UW D AO G Z", "phones of each word on a line of its own"),
        ("<s>\tT", "name of the symbol tables"),
        ("5%$", "no pronunciation.*give its phones"),
    ],
)
def test_words_that_cannot_be_added_are_named(extended, tmp_path, content, sentence):
    folder = extended[-1]
    (tmp_path / "words.tsv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        extend_graph(folder / "graph", tmp_path / "words.tsv", tmp_path / "more")


def test_graphs_without_slots_take_no_words(extended, tmp_path):
    folder = extended[-1]
    shutil.copytree(folder / "graph", tmp_path / "graph")
    (tmp_path / "graph" / "new_words.json").unlink()
    with pytest.raises(UserError, match="take none"):
        extend_graph(tmp_path / "graph", folder / "words.tsv", tmp_path / "more")


def test_phones_whose_states_are_no_chain_take_no_new_words(tmp_path):
    lang = make_lang(tmp_path / "data")
    hmm = Hmm(lang, 3)
    assert takes_new_words(lang, hmm.tree, hmm.transitions)
    chain = topology_text(lang.real_phones, lang.silence_phones, 1)
    for entry, found in ((1, False), (2, True)):  # of speech, of silence
        entries = chain.split("<TopologyEntry>")
        entries[entry] = entries[entry].replace("1 0.25", "1 0.15 <Transition> 2 0.1", 1)
        topology = khg.HmmTopology()
        topology.read("<TopologyEntry>".join(entries))
        assert takes_new_words(lang, hmm.tree, khg.TransitionModel(hmm.tree, topology)) == found


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
