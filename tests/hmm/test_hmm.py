"""The hmm stages on a synthetic corpus, whose features are drawn from known Gaussians."""

from __future__ import annotations

import gzip
import json
import pickle
from dataclasses import replace
from pathlib import Path

import kaldi_hmm_gmm
import kaldifst
import kaldiio
import numpy as np
import pytest
import soundfile
from front_ends import front_end
from kaldi_models import kaldi_gmms
from lhotse import CutSet, Features, NumpyFilesWriter, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, save_array, write_json
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl
from asr_kd.features.babble import noisy_copies
from asr_kd.features.cuts import speed_copy
from asr_kd.features.mels import inverse_dct
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm import pipeline, train
from asr_kd.hmm.__main__ import main as train_and_align
from asr_kd.hmm.adapt.__main__ import main as adapt
from asr_kd.hmm.adapt.config import Config as AdaptConfig
from asr_kd.hmm.align import ForcedAligner
from asr_kd.hmm.boundaries.compare import boundary_errors, compare_split, match
from asr_kd.hmm.cepstra import LIFTER
from asr_kd.hmm.config import Config
from asr_kd.hmm.features.config import Config as FeatureConfig
from asr_kd.hmm.features.extract import extract
from asr_kd.hmm.graph.__main__ import main as make_graph
from asr_kd.hmm.graph.config import Config as GraphConfig
from asr_kd.hmm.import_alignments.__main__ import main as import_alignments
from asr_kd.hmm.import_alignments.config import Config as ImportConfig
from asr_kd.hmm.import_alignments.kaldi_alignments import read_table
from asr_kd.hmm.kaldi_io import read_model, read_transition_model, read_tree
from asr_kd.hmm.pipeline import is_perturbed
from asr_kd.hmm.pronunciations import Pronunciations, locate_words
from asr_kd.hmm.realign.__main__ import main as realign
from asr_kd.hmm.realign.config import Config as RealignConfig
from asr_kd.hmm.schedule import Schedule
from asr_kd.hmm.scores import GmmScorer, StoredTransforms, write_transforms
from asr_kd.hmm.states import best_path
from asr_kd.hmm.viterbi import (
    ACOUSTIC_SCALE,
    Graph,
    GraphCompiler,
    Transitions,
    graph_states,
    viterbi_align,
)
from asr_kd.hmm.word_times import WordFinder
from asr_kd.lang.__main__ import main as make_lang
from asr_kd.lang.config import Config as LangConfig
from asr_kd.lang.folder import Lang
from asr_kd.models.scorer import Scorer

PHONES = ["AA", "B", "IY", "K", "S", "T"]
WORDS = {"BAT": "B AA T", "KEY": "K IY", "SEA": "S IY", "TEA": "T IY", "ASK": "AA S K", "BEAST": "B IY S T"}


def test_words_are_located_in_a_phone_sequence() -> None:
    lexicon = {"A": [("x",), ("x", "y")], "B": [("y", "z"), ("z",)]}
    assert locate_words(["SIL", "x", "y", "z", "SIL"], ["A", "B"], lexicon) in ([(1, 2), (2, 4)], [(1, 3), (3, 4)])
    assert locate_words(["x", "y", "SIL", "z"], ["A", "B"], lexicon) == [(0, 2), (3, 4)]
    assert locate_words(["x", "SIL", "y", "z"], ["A", "B"], lexicon) == [(0, 1), (2, 4)]
    assert locate_words(["x", "x", "y"], ["A", "A"], lexicon) == [(0, 1), (1, 3)]
    with pytest.raises(ValueError, match="not a pronunciation"):
        locate_words(["x", "y"], ["B", "A"], lexicon)


def test_only_boundaries_of_matched_phones_are_compared() -> None:
    reference = [(0.0, 0.1, "SIL"), (0.1, 0.2, "A"), (0.2, 0.3, "B"), (0.3, 0.4, "C")]
    aligned = [(0.0, 0.11, "SIL"), (0.11, 0.22, "A"), (0.22, 0.3, "X"), (0.3, 0.38, "C")]
    pairs = match(aligned, reference)
    assert sorted(pairs) == [(1, 1), (3, 3)]
    assert sorted(round(e) for e in boundary_errors(aligned, reference, pairs)) == [-20, 0, 10, 20]


def test_tables_of_other_types_are_errors(tmp_path: Path) -> None:
    kaldiio.save_ark(str(tmp_path / "m.ark"), {"a": np.ones((3, 2), np.float32)})
    with pytest.raises(UserError, match="not a table of integer vectors"):
        list(read_table(tmp_path / "m.ark"))
    (tmp_path / "p.ark").write_bytes(b"a PKL" + pickle.dumps([1]))
    with pytest.raises(UserError, match="not a table of integer vectors"):
        list(read_table(tmp_path / "p.ark"))
    (tmp_path / "s.scp").write_text("a cat /etc/hostname |\n")
    with pytest.raises(UserError):
        list(read_table(tmp_path / "s.scp"))
    with pytest.raises(UserError, match="missing"):
        list(read_table(tmp_path / "none.ark"))
    (tmp_path / "t.ark").write_text("a 1 2 3\nb 4 5\n")
    assert {k: v.tolist() for k, v in read_table(tmp_path / "t.ark")} == {"a": [1, 2, 3], "b": [4, 5]}


def _utterance(rng: np.random.Generator, means: np.ndarray) -> tuple[list[str], np.ndarray, list, list]:
    """Words, log-mels (T, 40), phone times and word times of a synthetic utterance."""
    words = [str(word) for word in rng.choice(list(WORDS), 4)]
    names, spans, phones = ["SIL"], [], []
    for number, word in enumerate(words):
        spans.append((len(names), len(names) + len(WORDS[word].split())))
        names += WORDS[word].split()
        if number == 3 or rng.random() < 0.3:
            names.append("SIL")
    lengths = rng.integers(6, 15, len(names))
    rows, frame = [], 0
    for name, length in zip(names, lengths, strict=True):
        index = 0 if name == "SIL" else 1 + PHONES.index(name)
        rows.append(means[index, np.arange(length) * 3 // length])
        phones.append([frame / 100, (frame + int(length)) / 100, name])
        frame += int(length)
    cepstra = np.concatenate(rows) + rng.normal(0, 1, (frame, 13)) * 2
    times = [[phones[a][0], phones[b - 1][1], word] for word, (a, b) in zip(words, spans, strict=True)]
    return words, (cepstra @ inverse_dct(40, 13, LIFTER) - 8).astype(np.float32), phones, times


def _write_split(root: Path, split: str, count: int, rng: np.random.Generator, means: np.ndarray) -> None:
    writer = NumpyFilesWriter(root / "features" / "storage" / split)
    features = jsonl_writer(root / "features" / f"cuts_{split}.jsonl.gz")
    truth = jsonl_writer(root / "data" / f"truth_{split}.jsonl.gz")
    data = jsonl_writer(root / "data" / f"cuts_{split}.jsonl.gz")
    with features as add_cut, truth as add_truth, data as add_utterance:
        for i in range(count):
            words, mels, phones, times = _utterance(rng, means)
            name = f"{split}-{i:03d}"
            if (split, i) == ("train", 5):
                words = words * 30  # too many words for its frames
            if (split, i) == ("dev", 0):
                mels = np.concatenate([mels, mels])
                words = [*words, "ZEBRAFISH", *words]
            seconds = len(mels) / 100
            source = AudioSource("file", [0], f"{name}.wav")
            recording = Recording(name, [source], 16000, len(mels) * 160, seconds)
            supervision = SupervisionSegment(name, name, 0.0, seconds, 0, " ".join(words), speaker=f"s{i % 4}")
            manifest = Features(
                "kaldi-fbank", len(mels), 40, 0.01, 16000, 0.0, seconds, writer.name, str(writer.storage_path),
                writer.write(name, mels), name, 0,
            )  # fmt: skip
            cut = MonoCut(name, 0.0, seconds, 0, [supervision], manifest, recording)
            add_cut(cut.to_dict())
            add_truth({"id": name, "phones": phones, "words": times})
            add_utterance(fastcopy(cut, features=None).to_dict())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders data, features and lang of a language of six words."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    means = rng.normal(0, 6, (1 + len(PHONES), 3, 13))
    means[0] = means[0, 0]  # silence is stationary
    for split, count in (("train", 60), ("dev", 6), ("test", 6)):
        _write_split(root, split, count, rng, means)
    save_array(root / "features" / "cmvn_speakers.npy", np.zeros((0, 3, 40)))
    write_json(root / "features" / "cmvn.json", {**front_end().to_json(), "speakers": []})
    (root / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in WORDS.items()))
    make_lang(LangConfig(data=root / "data", out=root / "lang", lexicon=root / "lexicon.txt"))
    return root


@pytest.fixture(scope="module")
def gmm(corpus: Path) -> Path:
    run_stage(corpus, corpus / "gmm", jobs=2)
    return corpus / "gmm"


def run_stage(corpus: Path, out: Path, jobs: int = 1, scheduler: str = "") -> None:
    train_and_align(
        Config(
            features=corpus / "features", lang=corpus / "lang", out=out, leaves=30, gaussians=60,
            mono_gaussians=40, min_leaf_frames=20, transform="delta", sat=False, jobs=jobs, scheduler=scheduler,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapted(corpus: Path) -> Path:
    """GMMs with LDA, MLLT and fMLLR, after fewer passes; their monophones are trained on a part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "MONOPHONES", Schedule(8, frozenset([1, 2, 3, 4, 6]), 5))
        patch.setattr(train, "TRIPHONES", Schedule(6, frozenset([2, 4]), 4))
        train_and_align(
            Config(
                features=corpus / "features", lang=corpus / "lang", out=corpus / "sat", leaves=30, gaussians=60,
                mono_gaussians=40, min_leaf_frames=20, mono_utterances=25, jobs=1,
            )
        )  # fmt: skip
    return corpus / "sat"


def cuts_of(folder: Path, split: str) -> dict[str, MonoCut]:
    return {cut.id: cut for cut in CutSet.from_jsonl_lazy(folder / f"cuts_{split}.jsonl.gz")}


def test_states_of_a_graph_have_the_best_path_that_kaldi_finds(corpus: Path, gmm: Path) -> None:
    transitions = Transitions.of(read_transition_model(gmm / "tri.mdl"))
    pronunciations, scorer, tree = Pronunciations.load(corpus / "lang"), GmmScorer(gmm), read_tree(gmm / "tree")
    for cut in cuts_of(corpus / "features", "test").values():
        words = pronunciations.words(cut)
        lexicon, _ = pronunciations.lexicon([words])
        compiler, scores = GraphCompiler(transitions, tree, lexicon, {}, pronunciations.phones), scorer(cut)
        graph = Graph.of(compiler(words), transitions)
        expected = viterbi_align(graph, transitions, scores[:, transitions.pdf[graph.transition_ids]], 40.0, 80.0)
        states, numbers = graph_states(compiler(words), transitions)
        halves = (half * np.float32(ACOUSTIC_SCALE) for half in np.array_split(scores, 2))
        found = best_path(states, halves, 40.0)
        assert expected and found
        stays = np.diff(found[0], prepend=-1) == 0
        assert (numbers[found[0], stays.astype(int)] == expected[0]).all()
        assert found[1] / ACOUSTIC_SCALE / len(scores) == pytest.approx(expected[1], rel=1e-4)


def test_alignment_finds_the_true_boundaries(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        result = compare_split(gmm, corpus / "data", tmp_path, split)
        assert result["phones"]["coverage_percent"] > 97
        assert result["phones"]["median_ms"] <= 10 and result["phones"]["within_percent"]["30"] > 90
        assert result["words"]["within_percent"]["30"] > 90
    assert len(np.load(tmp_path / "boundaries_test.npy")) == result["phones"]["boundaries"]


def test_output_of_the_stage(corpus: Path, gmm: Path) -> None:
    description = read_json(gmm / "hmm.json")
    count = description["num_pdfs"]
    assert read_tree(gmm / "tree").num_pdfs == read_transition_model(gmm / "tri.mdl").num_pdfs == count == 30
    assert description["silence_pdfs"] == [0, 1, 2]
    cuts = cuts_of(gmm, "train")
    total = np.zeros(count, np.int64)
    for cut in cuts.values():
        senones = cut.load_custom("senones")
        assert senones.dtype == np.int32 and senones.shape == (cut.num_frames,) == tuple(cut.senones.shape)
        total += np.bincount(senones, minlength=count)
        phones = cut.supervisions[0].alignment["phone"]
        assert phones[0].start == 0 and phones[-1].end == pytest.approx(cut.duration)
        assert [item.symbol for item in cut.supervisions[0].alignment["word"]] == cut.supervisions[0].text.split()
    np.testing.assert_array_equal(np.load(gmm / "pdf_counts.npy"), total)
    assert not (gmm / "training").exists() and not (gmm / "chunks").exists()


def test_failed_alignments_and_guessed_words_are_listed(gmm: Path) -> None:
    assert "train-005" not in cuts_of(gmm, "train")
    assert (gmm / "skipped_train.tsv").read_text().startswith("train-005\t")
    assert read_json(gmm / "hmm.json")["splits"]["train"]["skipped"] == 1
    assert (gmm / "guessed_dev.tsv").read_text().startswith("ZEBRAFISH\t")


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_result_does_not_depend_on_the_executor_or_a_kill(
    where: str, corpus: Path, gmm: Path, tmp_path: Path, request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if where == "processes":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pipeline, "align_splits", killed)
            run_stage(corpus, tmp_path / "gmm")
        monkeypatch.setattr(pipeline, "Trainer", killed)  # what is trained is not trained again
    run_stage(corpus, tmp_path / "gmm", scheduler=request.getfixturevalue("scheduler") if where == "cluster" else "")
    for name in ("tree", "mono.mdl", "tri.mdl", "topo", "pdf_counts.npy", "hmm.json"):
        assert (gmm / name).read_bytes() == (tmp_path / "gmm" / name).read_bytes(), name
    output = capsys.readouterr().out
    assert "monophones, pass 20 of 20: 40 Gaussians, log-likelihood per frame -" in output
    assert "train: 59 utterances aligned, 1 skipped; " in output and "{" not in output


def test_scores_equal_those_of_kaldis_decodable(gmm: Path) -> None:
    scorer = GmmScorer(gmm)
    cut = cuts_of(gmm, "test")["test-001"]
    scores = scorer(cut)
    transitions, gmms = read_model(gmm / "tri.mdl")
    model, features = kaldi_gmms(gmms), scorer.features(cut)  # the decodable holds raw pointers
    decodable = kaldi_hmm_gmm.DecodableAmDiagGmmUnmapped(model, features)
    for frame in range(0, len(scores), 7):
        expected = [decodable.log_likelihood(frame, pdf + 1) for pdf in range(gmms.num_pdfs)]
        np.testing.assert_allclose(scores[frame], expected, atol=1e-3)
    assert Transitions.of(transitions).num_pdfs == scores.shape[1]


def test_adapted_models_align_and_have_their_transforms(corpus: Path, adapted: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        result = compare_split(adapted, corpus / "data", tmp_path, split)
        assert result["phones"]["coverage_percent"] > 97
        assert result["phones"]["median_ms"] <= 10 and result["phones"]["within_percent"]["30"] > 90
    assert np.shape(read_json(adapted / "frontend.json")["transform"]) == (40, 117)
    assert read_json(adapted / "hmm.json")["splits"]["train"]["skipped"] == 1
    transforms = StoredTransforms(adapted / "fmllr_train.ark")
    assert transforms.keys() == {"s0", "s1", "s2", "s3"}
    assert all(one.shape == (40, 41) for one in transforms.values())
    # 20 utterances of each speaker in train; dev and test have less than 5 s of speech of each.
    assert all(abs(one - np.eye(40, 41)).max() > 0.01 for one in transforms.values())
    for one in StoredTransforms(adapted / "fmllr_test.ark").values():
        np.testing.assert_array_equal(one, np.eye(40, 41))
    known = GmmScorer(adapted, adapted / "fmllr_train.ark")
    assert likelihood(known, adapted) > likelihood(GmmScorer(adapted), adapted)


def test_gmms_score_some_pdfs_in_parts_and_frames_that_are_none(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, pdfs = GmmScorer(adapted), np.array([3, 0, 5])
    cut = next(iter(cuts_of(adapted, "train").values()))
    whole = scorer(cut)
    monkeypatch.setattr("asr_kd.models.scorer.CHUNK_FRAMES", 50)
    np.testing.assert_allclose(scorer.pdf_scores(cut, pdfs), whole[:, pdfs], rtol=1e-5)
    monkeypatch.setattr(scorer, "features", lambda cut: np.zeros((0, 40), np.float32))
    assert scorer.pdf_scores(cut, pdfs).shape == (0, 3)


def likelihood(scorer: GmmScorer, folder: Path) -> float:
    """Log-likelihood per frame of the alignment of train in a folder, with the determinants of the transforms."""
    scores = []
    for cut in cuts_of(folder, "train").values():
        _, log_det = np.linalg.slogdet(scorer.transforms.get(cut.supervisions[0].speaker, np.eye(40))[:, :40])
        scores.append(scorer(cut)[range(cut.num_frames), cut.load_custom("senones")] + log_det)
    return float(np.concatenate(scores).mean())


def test_gmms_are_adapted_by_recognised_words(corpus: Path, gmm: Path, adapted: Path, tmp_path: Path) -> None:
    decoded = tmp_path / "decoded"
    decoded.mkdir()
    cuts = cuts_of(corpus / "features", "train")
    (decoded / "hyp_train.tsv").write_text(
        "".join(f"{name}\t{cut.supervisions[0].text if name != 'train-005' else ''}\n" for name, cut in cuts.items())
    )
    settings = AdaptConfig(
        gmm=adapted, decoded=decoded, lang=corpus / "lang", features=corpus / "features", out=tmp_path / "out",
        splits=("train",), jobs=1,
    )  # fmt: skip
    adapt(settings)
    assert likelihood(GmmScorer(tmp_path / "out"), adapted) > likelihood(GmmScorer(adapted), adapted)
    truth, found = StoredTransforms(adapted / "fmllr_train.ark"), StoredTransforms(tmp_path / "out" / "fmllr.ark")
    for name in truth:
        assert abs(found[name] - truth[name]).max() < 1
    check_adapted_features(corpus, adapted, tmp_path)
    with pytest.raises(UserError, match=r"has no si\.mdl: train the GMMs without --no-sat"):
        adapt(replace(settings, gmm=gmm))
    with pytest.raises(UserError, match=r"hyp_dev\.tsv is missing: decode this split first"):
        adapt(replace(settings, splits=("dev",), out=tmp_path / "other"))
    (decoded / "hyp_dev.tsv").write_text("dev-001\t\n")
    with pytest.raises(UserError, match="has no words in dev: there is nothing to adapt to"):
        adapt(replace(settings, splits=("dev",), out=tmp_path / "other"))


def check_adapted_features(corpus: Path, adapted: Path, tmp_path: Path) -> None:
    """Features for networks: train's are adapted by transcripts, the others' as they were recognised."""
    out = tmp_path / "fmllr"
    settings = FeatureConfig(adapted, tmp_path / "out", corpus / "features", out, jobs=1)
    figures = extract(settings)
    scorers = {split: GmmScorer(adapted, adapted / "fmllr_train.ark") for split in ("train",)}
    scorers["test"] = GmmScorer(tmp_path / "out")
    normaliser = Normaliser.load(out)
    for split, scorer in scorers.items():
        cuts = cuts_of(out, split)
        assert len(cuts) == figures[split]["cuts"] == len(cuts_of(corpus / "features", split))
        for name, cut in list(cuts_of(corpus / "features", split).items())[:3]:
            np.testing.assert_array_equal(normaliser(cuts[name]), scorer.features(cut))
    (tmp_path / "nobody").mkdir()
    write_transforms(tmp_path / "nobody" / "fmllr.ark", {"somebody": np.eye(40, 41)})
    with pytest.raises(UserError, match=r"has no transform of its speaker: run python -m asr_kd\.hmm\.adapt"):
        extract(replace(settings, adapted=tmp_path / "nobody", out=tmp_path / "none"))


def test_probabilities_of_pronunciations_are_costs_of_training_graphs(gmm: Path) -> None:
    transitions, tree = Transitions.of(read_transition_model(gmm / "tri.mdl")), read_tree(gmm / "tree")
    phones, costs = ["<eps>", "SIL", "SPN", *PHONES], []
    for probabilities in ({}, {"KEY": [0.25, 1.0]}):
        compiler = GraphCompiler(transitions, tree, {"KEY": [("K", "IY"), ("K",)]}, probabilities, phones)
        graph = compiler(["KEY", "KEY"])
        short = kaldifst.shortest_path(graph)
        costs.append(kaldifst.get_linear_symbol_sequence(short)[3].value)
        assert graph.num_states > 12
    long = GraphCompiler(transitions, tree, {"KEY": [("K", "IY")]}, {"KEY": [0.25]}, phones)(["KEY", "KEY"])
    costs.append(kaldifst.get_linear_symbol_sequence(kaldifst.shortest_path(long))[3].value)
    np.testing.assert_allclose(costs, [costs[0], costs[0], costs[0] + 2 * np.log(4)], atol=5e-3)


def test_utterances_with_scores_of_nan_are_skipped(corpus: Path, gmm: Path) -> None:
    def load_scorer() -> Scorer:
        good = GmmScorer(gmm)
        return lambda cut: good(cut) * (np.nan if cut.id == "test-000" else 1)

    cuts = cuts_of(gmm, "test")
    results, _ = ForcedAligner(gmm, corpus / "lang", load_scorer)(list(cuts.values()))
    reasons = {name: one for name, one in zip(cuts, results, strict=True) if isinstance(one, str)}
    assert reasons == {"test-000": "its scores are NaN or infinite"}


def test_realignment_with_the_same_scores_gives_the_same_senones(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    scorer = GmmScorer(gmm)
    for split in ("train", "dev", "test"):
        for name, cut in cuts_of(corpus / "features", split).items():
            save_array(tmp_path / "scores" / f"{name}.npy", scorer(cut))
    realign(
        RealignConfig(
            gmm=gmm, scores=tmp_path / "scores", lang=corpus / "lang", features=corpus / "features",
            out=tmp_path / "again", jobs=1,
        )
    )  # fmt: skip
    for split in ("train", "dev", "test"):
        before, after = cuts_of(gmm, split), cuts_of(tmp_path / "again", split)
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name].load_custom("senones"), after[name].load_custom("senones"))
    assert GmmScorer(tmp_path / "again")(cuts_of(gmm, "test")["test-000"]).shape[1] == 30


def test_imported_alignments(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    senones = {
        name: cut.load_custom("senones")
        for split in ("train", "dev", "test")
        for name, cut in cuts_of(gmm, split).items()
    }
    given = dict(senones)
    given["test-000"] = given["test-000"][:-2]
    given["test-001"] = given["test-001"][:-9]
    del given["test-002"]
    kaldiio.save_ark(str(tmp_path / "ali.ark"), given, scp=str(tmp_path / "ali.scp"))
    with open(tmp_path / "ali.ark", "rb") as plain, gzip.open(tmp_path / "ali.1.gz", "wb") as packed:
        packed.write(plain.read())
    for table in ("ali.ark", "ali.scp", "ali.1.gz"):
        read = dict(read_table(tmp_path / table))
        assert read.keys() == given.keys() and all(np.array_equal(read[name], given[name]) for name in given)
    out = tmp_path / "out"
    ark = (tmp_path / "ali.1.gz",)
    import_alignments(ImportConfig(features=corpus / "features", ark=ark, out=out, silence_pdfs=(0,), jobs=1))
    cuts = cuts_of(out, "test")
    assert set(cuts) == {f"test-{i:03d}" for i in (0, 3, 4, 5)}
    np.testing.assert_array_equal(cuts["test-003"].load_custom("senones"), senones["test-003"])
    assert len(cuts["test-000"].load_custom("senones")) == cuts["test-000"].num_frames
    skipped = dict(line.split("\t") for line in (out / "skipped_test.tsv").read_text().splitlines())
    assert set(skipped) == {"test-001", "test-002"} and "no alignment" in skipped["test-002"]
    assert read_json(out / "hmm.json")["silence_pdfs"] == [0]


def test_tables_that_cannot_be_used_are_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "pipe.scp").write_text("test-000 gunzip -c ali.1.gz |\n")
    kaldiio.save_ark(str(tmp_path / "negative.ark"), {"test-000": np.array([3, -1], np.int32)})
    kaldiio.save_ark(str(tmp_path / "float.ark"), {"test-000": np.ones(5, np.float32)})
    kaldiio.save_ark(str(tmp_path / "empty.ark"), {"test-000": np.zeros(0, np.int32)})
    for name, message in (
        ("pipe.scp", "has a command .gunzip -c ali.1.gz .*: run it"), ("negative.ark", "test-000 has ids outside 0"),
        ("float.ark", "is not a table of integer vectors"), ("empty.ark", "there are no alignments in"),
    ):  # fmt: skip
        settings = ImportConfig(features=corpus / "features", ark=(tmp_path / name,), out=tmp_path / "out", jobs=1)
        with pytest.raises(UserError, match=message):
            import_alignments(settings)


def test_phones_of_imported_transition_ids(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    transitions = Transitions.of(read_transition_model(gmm / "tri.mdl"))
    tree = read_tree(gmm / "tree")
    path: list[int] = []
    for phone in (1, 3, 1):  # three frames per state: the forward transition, then two self-loops
        for state in range(3):
            _, pdf = tree.compute([0, phone, 0], state)
            first = int(transitions.first[transitions.state_index[phone, state, pdf]])
            path += [first + 1, first, first]
    cut = cuts_of(corpus / "features", "test")["test-003"]
    path += [path[-1]] * (cut.num_frames - len(path))
    tables = {f"{split}-{i:03d}": np.array(path, np.int32) for split in ("train", "dev") for i in range(60)}
    for split in ("train", "dev"):
        for name, one in cuts_of(corpus / "features", split).items():
            tables[name] = np.array((path + [path[-1]] * one.num_frames)[: one.num_frames], np.int32)
    tables["test-003"] = np.array(path, np.int32)
    kaldiio.save_ark(str(tmp_path / "ali.ark"), tables)
    import_alignments(
        ImportConfig(
            features=corpus / "features", ark=(tmp_path / "ali.ark",), out=tmp_path / "out", jobs=1,
            model=gmm / "tri.mdl", tree=gmm / "tree", phones=corpus / "lang" / "phones.txt",
        )
    )  # fmt: skip
    items = cuts_of(tmp_path / "out", "test")["test-003"].supervisions[0].alignment["phone"]
    assert [(item.symbol, item.start) for item in items] == [("SIL", 0.0), (PHONES[0], 0.09), ("SIL", 0.18)]
    assert read_json(tmp_path / "out" / "hmm.json")["silence_pdfs"] == [0, 1, 2]


@pytest.mark.parametrize("thirds", [True, False])
def test_phones_with_times_and_a_lexicon_align_and_give_a_graph(corpus: Path, tmp_path: Path, thirds: bool) -> None:
    with open(tmp_path / "phones.ctm", "w") as file:
        for split in ("train", "dev", "test"):
            for line in read_jsonl(corpus / "data" / f"truth_{split}.jsonl.gz"):
                file.writelines(f"{line['id']} 1 {a} {b - a} {phone}\n" for a, b, phone in line["phones"])
    out, lang = tmp_path / "out", corpus / "lang"
    ctm = (tmp_path / "phones.ctm",)
    import_alignments(ImportConfig(corpus / "features", out, ctm=ctm, thirds=thirds, lang=lang, jobs=1))
    senones = {name: cut.load_custom("senones") for name, cut in cuts_of(out, "test").items()}
    count = 8 * (3 if thirds else 1)
    oracle = lambda cut: np.where(np.arange(count) == senones[cut.id][:, None], 0, -9).astype(np.float32)  # noqa: E731
    results, _ = ForcedAligner(out, lang, lambda: oracle)(list(cuts_of(out, "test").values()))
    assert not [one for one in results if isinstance(one, str)]
    for found, expected in zip(results, senones.values(), strict=True):
        assert (found.senones == expected).mean() > 0.97
    make_graph(GraphConfig(lang, out, tmp_path / "graph"))
    graph, labels = read_json(tmp_path / "graph" / "graph.json"), read_json(out / "hmm.json")
    assert graph["num_pdfs"] == labels["num_pdfs"] == count
    assert graph["silence_pdfs"] == labels["silence_pdfs"] == list(range(count // 4))
    assert graph["senones"] == labels["senones"]


def test_words_are_where_the_alignment_has_them_given_its_senones(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    """A graph tells enough to find words in senones, without its word labels."""
    make_graph(GraphConfig(corpus / "lang", gmm, tmp_path / "graph"))
    finder, numbers = WordFinder(tmp_path / "graph"), Lang.load(corpus / "lang").word_ids_by_name
    for cut in cuts_of(gmm, "test").values():
        words = [(item.symbol, round(100 * item.start), round(100 * item.end))
                 for item in cut.supervisions[0].alignment["word"]]  # fmt: skip
        found = finder.in_path(cut.load_custom("senones").tolist(), [numbers[word] for word, *_ in words])
        assert found == [(begin, end) for _, begin, end in words]


def test_an_up_to_date_stage_returns_at_once(corpus: Path, gmm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(corpus, gmm, jobs=2)
    assert "up to date" in capsys.readouterr().out


def test_missing_inputs_are_errors(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        run_stage(tmp_path, tmp_path / "gmm", jobs=1)
    with pytest.raises(UserError, match="missing"):
        GmmScorer(tmp_path)


def test_hmm_json_has_the_training_history(gmm: Path) -> None:
    assert json.loads((gmm / "hmm.json").read_text())["training"][0]["pass"] == 1


def test_speed_perturbed_cuts_are_recognised(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(16000), 16000)
    spoken = SupervisionSegment("a", "a", 0.0, 1.0, speaker="x")
    cut = MonoCut("a", 0.0, 1.0, 0, [spoken], recording=Recording.from_file(tmp_path / "a.flac"))
    assert not is_perturbed(cut)
    assert not is_perturbed(cut.resample(8000))
    assert is_perturbed(speed_copy(cut, 0.9))
    (noisy,) = noisy_copies([cut], [5.0], [])
    assert not is_perturbed(noisy)
    (noisy,) = noisy_copies([speed_copy(cut, 0.9)], [5.0], [])
    assert is_perturbed(noisy)
    assert not is_perturbed(MonoCut("b", 0.0, 1.0, 0))
