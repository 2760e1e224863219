"""GMMs, Kaldi's model files, alignment, and the whole stage on features drawn from known Gaussians."""

from __future__ import annotations

import gzip
import itertools
import json
import pickle
from pathlib import Path

import kaldi_hmm_gmm
import kaldiio
import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Features, NumpyFilesWriter, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, save_array, write_json
from asr_kd.corpora.manifests import jsonl_writer
from asr_kd.hmm.boundaries.compare import boundary_errors, compare_split, match
from asr_kd.hmm.cepstra import DCT, apply_map, delta_map
from asr_kd.hmm.gmm import Gmms, accumulate, grow, update
from asr_kd.hmm.import_alignments.kaldi import read_table
from asr_kd.hmm.kaldi_io import load_transition_model, load_tree, read_model, write_model
from asr_kd.hmm.pipeline import is_perturbed
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.viterbi import Transitions
from asr_kd.hmm.words import locate_words

PHONES = ["AA", "B", "IY", "K", "S", "T"]
WORDS = {"BAT": "B AA T", "KEY": "K IY", "SEA": "S IY", "TEA": "T IY", "ASK": "AA S K", "BEAST": "B IY S T"}


def mixtures(pdfs: int = 5, dim: int = 6, seed: int = 0) -> Gmms:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, pdfs)
    total = int(sizes.sum())
    weights = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Gmms(starts, weights, rng.normal(0, 2, (total, dim)), rng.uniform(0.5, 2, (total, dim)))


def kaldi_gmms(gmms: Gmms) -> kaldi_hmm_gmm.AmDiagGmm:
    model = kaldi_hmm_gmm.AmDiagGmm()
    for start, end in zip(gmms.starts[:-1], gmms.starts[1:], strict=True):
        one = kaldi_hmm_gmm.DiagGmm(int(end - start), gmms.dim)
        one.set_weights(gmms.weights[start:end].astype(np.float32))
        one.set_invvars_and_means(gmms.inverse_variances[start:end], gmms.means[start:end].astype(np.float32))
        one.compute_gconsts()
        model.add_pdf(one)
    return model


# ---------------------------------------------------------------- parts


def test_scores_equal_kaldis() -> None:
    gmms = mixtures()
    frames = np.random.default_rng(1).normal(0, 2, (40, 6)).astype(np.float32)
    theirs = kaldi_gmms(gmms)
    expected = [[theirs.log_likelihood(pdf, frame) for pdf in range(5)] for frame in frames]
    scores = gmms.scores(frames)
    assert scores.dtype == np.float32 and scores.flags.c_contiguous
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    some = np.array([4, 1])
    np.testing.assert_allclose(gmms.scores(frames, some), scores[:, some], atol=1e-5)


def test_statistics_equal_kaldis() -> None:
    gmms = mixtures()
    rng = np.random.default_rng(2)
    frames, labels = rng.normal(0, 2, (60, 6)).astype(np.float32), rng.integers(0, 4, 60)
    ours = accumulate(gmms, frames, labels)
    model = kaldi_gmms(gmms)
    theirs = kaldi_hmm_gmm.AccumAmDiagGmm()
    theirs.init(model, int(kaldi_hmm_gmm.str_to_gmm_flags("mvw")))
    for frame, label in zip(frames, labels, strict=True):
        theirs.accumulate_for_gmm(model, frame, int(label), 1.0)
    assert ours.frames == 60
    assert ours.log_likelihood == pytest.approx(theirs.tot_log_like, rel=1e-5)
    for pdf in range(5):
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        np.testing.assert_allclose(ours.occupation[span], theirs.get_acc(pdf).occupancy, atol=1e-3)
        np.testing.assert_allclose(ours.sums[span], theirs.get_acc(pdf).mean_accumulator, atol=1e-3)


def test_em_raises_the_likelihood_and_growth_obeys_its_target() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(0, 4, (3, 4, 2))
    labels = rng.integers(0, 3, 3000)
    frames = (centres[labels, rng.integers(0, 4, 3000)] + rng.normal(0, 0.5, (3000, 2))).astype(np.float32)
    gmms = Gmms(np.arange(4), np.ones(3), np.zeros((3, 2)), np.ones((3, 2)))
    likelihoods = []
    for step in range(25):
        stats = accumulate(gmms, frames, labels)
        likelihoods.append(stats.log_likelihood / stats.frames)
        gmms = update(gmms, stats, np.full(2, 1e-3))
        if step in (2, 8):
            gmms = grow(gmms, np.bincount(labels, minlength=3).astype(float), 6 if step == 2 else 12, rng)
            assert gmms.starts[-1] == (6 if step == 2 else 12)
    assert all(later > earlier - 1e-2 for earlier, later in itertools.pairwise(likelihoods[1:]))
    assert likelihoods[-1] > likelihoods[2] + 0.5
    np.testing.assert_allclose(np.add.reduceat(gmms.weights, gmms.starts[:-1]), 1)


def test_a_pdf_without_frames_keeps_one_gaussian() -> None:
    gmms = mixtures()
    frames = np.random.default_rng(4).normal(0, 2, (100, 6)).astype(np.float32)
    after = update(gmms, accumulate(gmms, frames, np.zeros(100, int)), np.full(6, 0.01))
    assert after.num_pdfs == 5 and (np.diff(after.starts)[1:] == 1).all()
    assert np.isfinite(after.scores(frames)).all()


def test_deltas_are_slopes_and_the_edges_repeat() -> None:
    ramp = np.arange(20, dtype=np.float32)[:, None] * np.ones(13, np.float32)
    features = apply_map(ramp, delta_map())
    assert features.shape == (20, 39)
    np.testing.assert_allclose(features[5:15, 13], 1, atol=1e-5)
    np.testing.assert_allclose(features[5:15, 26], 0, atol=1e-5)
    np.testing.assert_allclose(apply_map(np.ones((3, 13), np.float32), delta_map())[:, 13:], 0, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_models_survive_kaldis_format(tmp_path: Path, classes: int) -> None:
    topology = kaldi_hmm_gmm.HmmTopology()
    topology.read(topology_text([1, 2, 3, 4], [1, 2], classes))
    topology.check()
    assert [topology.min_length(phone) for phone in (1, 3)] == [max(3, classes), 3]
    assert topology.num_pdf_classes(1) == classes
    tree = kaldi_hmm_gmm.monophone_context_dependency([1, 2, 3, 4], topology.get_phone_to_num_pdf_classes())
    model = kaldi_hmm_gmm.TransitionModel(tree, topology)
    counts = np.arange(model.num_transition_ids + 1, dtype=np.float64) * 7 % 31 + 10
    model.mle_update(counts, kaldi_hmm_gmm.MleTransitionUpdateConfig())
    gmms = mixtures(model.num_pdfs)
    write_model(tmp_path / "x.mdl", model, gmms)
    again, gmms_again = read_model(tmp_path / "x.mdl")
    before, after = model.__getstate__(), again.__getstate__()
    assert [t.__getstate__() for t in before[0]] == [t.__getstate__() for t in after[0]]
    assert before[2:6] == after[2:6] and before[6] == after[6]
    np.testing.assert_allclose(before[7], after[7], atol=1e-5)
    np.testing.assert_allclose(gmms.means, gmms_again.means, atol=1e-4)
    write_model(tmp_path / "y.mdl", again, gmms_again)
    assert len((tmp_path / "x.mdl").read_bytes()) == len((tmp_path / "y.mdl").read_bytes())
    (tmp_path / "x.mdl").write_bytes((tmp_path / "x.mdl").read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged"):
        read_model(tmp_path / "x.mdl")
    with pytest.raises(UserError, match="missing"):
        read_model(tmp_path / "z.mdl")


def test_words_are_found_among_phones() -> None:
    lexicon = {"A": [("x",), ("x", "y")], "B": [("y", "z"), ("z",)]}
    assert locate_words(["SIL", "x", "y", "z", "SIL"], ["A", "B"], lexicon) in ([(1, 2), (2, 4)], [(1, 3), (3, 4)])
    assert locate_words(["x", "y", "SIL", "z"], ["A", "B"], lexicon) == [(0, 2), (3, 4)]
    assert locate_words(["x", "SIL", "y", "z"], ["A", "B"], lexicon) == [(0, 1), (2, 4)]
    assert locate_words(["x", "x", "y"], ["A", "A"], lexicon) == [(0, 1), (1, 3)]
    with pytest.raises(ValueError, match="not a pronunciation"):
        locate_words(["x", "y"], ["B", "A"], lexicon)


def test_boundaries_count_matched_phones_only() -> None:
    wanted = [(0.0, 0.1, "SIL"), (0.1, 0.2, "A"), (0.2, 0.3, "B"), (0.3, 0.4, "C")]
    found = [(0.0, 0.11, "SIL"), (0.11, 0.22, "A"), (0.22, 0.3, "X"), (0.3, 0.38, "C")]
    pairs = match(found, wanted)
    assert sorted(pairs) == [(1, 1), (3, 3)]
    assert sorted(round(e) for e in boundary_errors(found, wanted, pairs)) == [-20, 0, 10, 20]


def test_tables_of_other_things_are_refused(tmp_path: Path) -> None:
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


# ---------------------------------------------------------------- the whole stage


def _utterance(rng: np.random.Generator, means: np.ndarray) -> tuple[list[str], np.ndarray, list, list]:
    """Words, log-mels (T, 40), phone and word times of one synthetic utterance."""
    words = [str(word) for word in rng.choice(list(WORDS), 4)]
    names, spans, phones = ["SIL"], [], []
    for number, word in enumerate(words):
        spans.append((len(names), len(names) + len(WORDS[word].split())))
        names += WORDS[word].split()
        if number == 3 or rng.random() < 0.3:
            names.append("SIL")
    lengths = rng.integers(6, 15, len(names))
    rows, at = [], 0
    for name, length in zip(names, lengths, strict=True):
        index = 0 if name == "SIL" else 1 + PHONES.index(name)
        rows.append(means[index, np.arange(length) * 3 // length])
        phones.append([at / 100, (at + int(length)) / 100, name])
        at += int(length)
    cepstra = np.concatenate(rows) + rng.normal(0, 1, (at, 13)) * 2
    times = [[phones[a][0], phones[b - 1][1], word] for word, (a, b) in zip(words, spans, strict=True)]
    return words, (cepstra @ np.linalg.pinv(DCT.astype(np.float64)) - 8).astype(np.float32), phones, times


def _write_split(root: Path, split: str, count: int, rng: np.random.Generator, means: np.ndarray) -> None:
    writer = NumpyFilesWriter(root / "features" / "storage" / split)
    features = jsonl_writer(root / "features" / f"cuts_{split}.jsonl.gz")
    truth = jsonl_writer(root / "data" / f"truth_{split}.jsonl.gz")
    recordings = jsonl_writer(root / "data" / f"recordings_{split}.jsonl.gz")
    supervisions = jsonl_writer(root / "data" / f"supervisions_{split}.jsonl.gz")
    with features as add_cut, truth as add_truth, recordings as add_recording, supervisions as add_supervision:
        for i in range(count):
            words, mels, phones, times = _utterance(rng, means)
            name = f"{split}-{i:03d}"
            if (split, i) == ("train", 5):
                words = words * 30  # far too many words for its frames
            if (split, i) == ("dev", 0):
                mels = np.concatenate([mels, mels])
                words = [*words, "ZEBRAFISH", *words]
            seconds = len(mels) / 100
            source = AudioSource("file", [0], f"{name}.wav")
            recording = Recording(name, [source], 16000, len(mels) * 160, seconds)
            supervision = SupervisionSegment(name, name, 0.0, seconds, 0, " ".join(words), speaker=f"s{i % 4}")
            manifest = Features(
                "fbank", len(mels), 40, 0.01, 16000, 0.0, seconds, writer.name, str(writer.storage_path),
                writer.write(name, mels), name, 0,
            )  # fmt: skip
            cut = MonoCut(name, 0.0, seconds, 0, [supervision], manifest, recording)
            add_cut(cut.to_dict())
            add_truth({"id": name, "phones": phones, "words": times})
            add_recording(recording.to_dict())
            add_supervision(supervision.to_dict())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders data, features and lang of a language of six words, whose phones are known Gaussians."""
    from asr_kd.lang.__main__ import main
    from asr_kd.lang.config import Config

    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    means = rng.normal(0, 6, (1 + len(PHONES), 3, 13))
    means[0] = means[0, 0]  # silence does not change
    for split, count in (("train", 60), ("dev", 6), ("test", 6)):
        _write_split(root, split, count, rng, means)
    save_array(root / "features" / "cmvn_speakers.npy", np.zeros((0, 2, 40)))
    save_array(root / "features" / "cmvn_global.npy", np.ones((2, 40)))
    write_json(root / "features" / "cmvn.json", {"normalise": "utterance", "normalise_over": "all", "speakers": []})
    (root / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in WORDS.items()))
    main(Config(data=root / "data", out=root / "lang", lexicon=root / "lexicon.txt"))
    return root


@pytest.fixture(scope="module")
def gmm(corpus: Path) -> Path:
    run_stage(corpus, corpus / "gmm", jobs=2)
    return corpus / "gmm"


def run_stage(corpus: Path, out: Path, jobs: int = 1, scheduler: str = "") -> None:
    from asr_kd.hmm.__main__ import main
    from asr_kd.hmm.config import Config

    main(
        Config(
            features=corpus / "features", lang=corpus / "lang", out=out, leaves=30, gaussians=60,
            mono_gaussians=40, min_leaf_frames=20, jobs=jobs, scheduler=scheduler,
        )
    )  # fmt: skip


def cuts_of(folder: Path, split: str) -> dict[str, MonoCut]:
    return {cut.id: cut for cut in CutSet.from_jsonl_lazy(folder / f"cuts_{split}.jsonl.gz")}


def test_alignment_finds_the_true_boundaries(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        result = compare_split(gmm, corpus / "data", tmp_path, split)
        assert result["phones"]["coverage_percent"] > 97
        assert result["phones"]["median_ms"] <= 10 and result["phones"]["within_percent"]["30"] > 90
        assert result["words"]["within_percent"]["30"] > 90
    assert len(np.load(tmp_path / "boundaries_test.npy")) == result["phones"]["boundaries"]


def test_what_the_stage_leaves_behind(corpus: Path, gmm: Path) -> None:
    description = read_json(gmm / "hmm.json")
    count = description["num_pdfs"]
    assert load_tree(gmm).num_pdfs == load_transition_model(gmm).num_pdfs == count == 30
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


def test_what_does_not_align_is_listed_and_unknown_words_are_guessed(gmm: Path) -> None:
    assert "train-005" not in cuts_of(gmm, "train")
    assert (gmm / "skipped_train.tsv").read_text().startswith("train-005\t")
    assert read_json(gmm / "hmm.json")["splits"]["train"]["skipped"] == 1
    assert (gmm / "guessed_dev.tsv").read_text().startswith("ZEBRAFISH\t")


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_who_does_the_work_changes_nothing(
    where: str, corpus: Path, gmm: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run_stage(corpus, tmp_path / "gmm", scheduler=request.getfixturevalue("scheduler") if where == "cluster" else "")
    for name in ("tree", "mono.mdl", "tri.mdl", "topo", "pdf_counts.npy", "hmm.json"):
        assert (gmm / name).read_bytes() == (tmp_path / "gmm" / name).read_bytes(), name


def test_scores_of_a_folder_equal_kaldis_decodable(gmm: Path) -> None:
    scorer = GmmScorer(gmm)
    cut = cuts_of(gmm, "test")["test-001"]
    scores = scorer(cut)
    transitions, gmms = read_model(gmm / "tri.mdl")
    model, features = kaldi_gmms(gmms), scorer.features(cut)  # the decodable holds plain pointers
    theirs = kaldi_hmm_gmm.DecodableAmDiagGmmUnmapped(model, features)
    for frame in range(0, len(scores), 7):
        expected = [theirs.log_likelihood(frame, pdf + 1) for pdf in range(gmms.num_pdfs)]
        np.testing.assert_allclose(scores[frame], expected, atol=1e-3)
    assert Transitions.of(transitions).num_pdfs == scores.shape[1]


def test_realignment_with_the_same_scores_gives_the_same_senones(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    from asr_kd.hmm.realign.__main__ import main
    from asr_kd.hmm.realign.config import Config

    scorer = GmmScorer(gmm)
    for split in ("train", "dev", "test"):
        for name, cut in cuts_of(corpus / "features", split).items():
            save_array(tmp_path / "scores" / f"{name}.npy", scorer(cut))
    main(
        Config(
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
    from asr_kd.hmm.import_alignments.__main__ import main
    from asr_kd.hmm.import_alignments.config import Config

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
    main(Config(features=corpus / "features", ark=(tmp_path / "ali.1.gz",), out=out, silence_pdfs=(0,), jobs=1))
    cuts = cuts_of(out, "test")
    assert set(cuts) == {f"test-{i:03d}" for i in (0, 3, 4, 5)}
    np.testing.assert_array_equal(cuts["test-003"].load_custom("senones"), senones["test-003"])
    assert len(cuts["test-000"].load_custom("senones")) == cuts["test-000"].num_frames
    skipped = dict(line.split("\t") for line in (out / "skipped_test.tsv").read_text().splitlines())
    assert set(skipped) == {"test-001", "test-002"} and "no alignment" in skipped["test-002"]
    assert read_json(out / "hmm.json")["silence_pdfs"] == [0]


def test_imported_transition_ids_bring_phones(corpus: Path, gmm: Path, tmp_path: Path) -> None:
    from asr_kd.hmm.import_alignments.__main__ import main
    from asr_kd.hmm.import_alignments.config import Config

    transitions = Transitions.of(load_transition_model(gmm))
    tree = load_tree(gmm)
    path: list[int] = []
    for phone in (1, 3, 1):  # three frames a state: forward, then two self-loops
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
    main(
        Config(
            features=corpus / "features", ark=(tmp_path / "ali.ark",), out=tmp_path / "out", jobs=1,
            model=gmm / "tri.mdl", tree=gmm / "tree", phones=corpus / "lang" / "phones.txt",
        )
    )  # fmt: skip
    items = cuts_of(tmp_path / "out", "test")["test-003"].supervisions[0].alignment["phone"]
    assert [(item.symbol, item.start) for item in items] == [("SIL", 0.0), (PHONES[0], 0.09), ("SIL", 0.18)]
    assert read_json(tmp_path / "out" / "hmm.json")["silence_pdfs"] == [0, 1, 2]


def test_an_up_to_date_stage_returns_at_once(corpus: Path, gmm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(corpus, gmm, jobs=2)
    assert "up to date" in capsys.readouterr().out


def test_missing_inputs_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        run_stage(tmp_path, tmp_path / "gmm", jobs=1)
    with pytest.raises(UserError, match="missing"):
        GmmScorer(tmp_path)


def test_hmm_json_is_plain(gmm: Path) -> None:
    assert json.loads((gmm / "hmm.json").read_text())["training"][0]["pass"] == 1


def test_copies_at_another_speed_are_told_apart(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(16000), 16000)
    cut = MonoCut("a", 0.0, 1.0, 0, recording=Recording.from_file(tmp_path / "a.flac"))
    assert not is_perturbed(cut)
    assert is_perturbed(cut.perturb_speed(0.9))
    assert not is_perturbed(MonoCut("b", 0.0, 1.0, 0))
