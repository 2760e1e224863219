"""Word error rates, their intervals and comparisons; frame accuracy; the command line."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import kaldialign
import numpy as np
import pytest
from fake_experiment import garble, make, write_cuts, write_hypotheses
from hypothesis import given, settings
from hypothesis import strategies as st
from training import remark

from asr_kd.common.errors import UserError
from asr_kd.common.storage import write_json
from asr_kd.score import __main__ as stage
from asr_kd.score.bootstrap import Bootstrap, compare, interval
from asr_kd.score.collect import Results, collect_experiment
from asr_kd.score.config import Config
from asr_kd.score.frame_accuracy import PADDING, FrameAccuracy, frame_rates
from asr_kd.score.systems import read_systems
from asr_kd.score.wer import Reference, pool, read_hypotheses, read_references, score, score_folder

BOOTSTRAP = Bootstrap(replications=2000)
words = st.lists(st.sampled_from("ABC"), max_size=6)


@pytest.fixture(scope="module")
def spoken() -> dict[str, Reference]:
    random = np.random.default_rng(1)
    vocabulary = ["ONE", "TWO", "THREE", "FOUR", "FIVE"]
    return {
        f"u{n:03d}": Reference(tuple(random.choice(vocabulary, size=random.integers(3, 12))), f"s{n % 8}")
        for n in range(120)
    }


def heard(spoken, rate: float, seed: int) -> dict[str, list[str]]:
    random = np.random.default_rng(seed)
    return {name: garble(list(reference.words), rate, random) for name, reference in spoken.items()}


def plain_distance(first: list[str], second: list[str]) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8))
def test_errors_are_the_edit_distance(pairs):
    references = {f"u{n}": Reference(tuple(said), "s") for n, (said, _) in enumerate(pairs)}
    scores = score(references, {f"u{n}": found for n, (_, found) in enumerate(pairs)})
    assert scores.errors.tolist() == [plain_distance(said, found) for said, found in pairs]
    assert scores.counts[:, 3].tolist() == [len(said) for said, _ in pairs]
    lengths = scores.counts[:, 3] + scores.counts[:, 0] - scores.counts[:, 1]
    assert lengths.tolist() == [len(found) for _, found in pairs]


def test_what_is_missing_is_deleted_and_what_nobody_said_is_inserted():
    references = {"a": Reference(("X", "Y"), "s"), "b": Reference((), "s"), "c": Reference(("Z",), "s")}
    scores = score(references, {"b": ["N"], "c": ["Z"]})
    assert scores.missing == ("a",)
    assert scores.counts.tolist() == [[0, 2, 0, 2], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert scores.wer == 100.0
    with pytest.raises(UserError, match="1 decoded utterances have no reference, such as stranger"):
        score(references, {"stranger": []})


def test_interval_agrees_with_kaldialign(spoken):
    found = heard(spoken, 0.3, 2)
    said = [list(spoken[name].words) for name in sorted(spoken)]
    oracle = kaldialign.bootstrap_wer_ci(said, [found[name] for name in sorted(found)])
    scores = score(spoken, found)
    low, high = interval(scores, Bootstrap())
    assert scores.wer == pytest.approx(100 * oracle["wer"], abs=0.2)
    assert low == pytest.approx(100 * oracle["ci95min"], abs=0.4)
    assert high == pytest.approx(100 * oracle["ci95max"], abs=0.4)


def test_interval_covers_the_true_rate():
    """Of 100 samples from a known source, 95 % intervals miss its rate about 5 times."""
    inside = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        references = {f"u{n}": Reference(("W",) * 10, "s") for n in range(60)}
        hypotheses = {name: ["W" if random.random() > 0.2 else "V" for _ in range(10)] for name in references}
        low, high = interval(score(references, hypotheses), Bootstrap(replications=500))
        inside += low <= 20 <= high
    assert 88 <= inside <= 99


def test_drawing_speakers_sees_that_speakers_differ():
    references = {f"u{n:03d}": Reference(("W",) * 5, f"s{n % 6}") for n in range(120)}
    hypotheses = {n: ["V" if int(n[1:]) % 6 < 3 else "W"] * 5 for n in references}  # three speakers are all wrong
    scores = score(references, hypotheses)
    by_utterance = np.subtract(*interval(scores, BOOTSTRAP)[::-1])
    by_speaker = np.subtract(*interval(scores, replace(BOOTSTRAP, by="speaker"))[::-1])
    assert by_speaker > 3 * by_utterance
    alone = score({n: Reference(r.words, "s") for n, r in references.items()}, hypotheses)
    assert interval(alone, replace(BOOTSTRAP, by="speaker")) == (50.0, 50.0)


def test_comparison(spoken):
    worse, better = score(spoken, heard(spoken, 0.4, 3)), score(spoken, heard(spoken, 0.2, 4))
    gain, loss = compare(worse, better, BOOTSTRAP), compare(better, worse, BOOTSTRAP)
    assert gain.difference == pytest.approx(better.wer - worse.wer)
    assert gain.low < gain.difference < gain.high < 0
    assert gain.improvement == 1 and gain.p < 0.01
    assert (gain.low, gain.high, gain.p) == pytest.approx((-loss.high, -loss.low, loss.p))
    same = compare(worse, worse, BOOTSTRAP)
    assert (same.difference, same.low, same.high, same.improvement, same.p) == (0, 0, 0, 0, 1)
    few = {name: spoken[name] for name in list(spoken)[:5]}
    with pytest.raises(UserError, match="different utterances"):
        compare(worse, score(few, {}), BOOTSTRAP)


def test_two_systems_of_one_quality_seldom_differ(spoken):
    values = [
        compare(score(spoken, heard(spoken, 0.3, 2 * n)), score(spoken, heard(spoken, 0.3, 2 * n + 1)), BOOTSTRAP).p
        for n in range(10, 40)
    ]
    assert sum(p < 0.05 for p in values) <= 5
    assert np.mean(values) > 0.3


def test_pool_is_the_mean_over_seeds(spoken):
    runs = [score(spoken, heard(spoken, rate, 7)) for rate in (0.2, 0.3, 0.4)]
    together = pool(runs)
    assert together.wer == pytest.approx(np.mean([run.wer for run in runs]))
    assert compare(runs[0], together, BOOTSTRAP).difference == pytest.approx(together.wer - runs[0].wer)
    # The runs hear the same utterances: three of them are no three times larger test set.
    one, three = (np.subtract(*interval(s, BOOTSTRAP)[::-1]) for s in (runs[1], pool([runs[1]] * 3)))
    assert three == pytest.approx(one)


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=25)
def test_frame_accuracy_streams(seed, pieces):
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(5, size=60), random.integers(5, size=60)
    labels[random.random(60) < 0.2] = PADDING
    silence = {0, 3}
    accuracy = FrameAccuracy(silence)
    for part in np.array_split(np.arange(60), pieces):
        accuracy.update(labels[part], predictions[part])
    pairs = [(a, b) for a, b in zip(labels.tolist(), predictions.tolist(), strict=True) if a != PADDING]
    assert accuracy.result() == {
        "frames": len(pairs),
        "correct": sum(a == b for a, b in pairs),
        "speech_frames": sum(a not in silence for a, _ in pairs),
        "speech_correct": sum(a == b and a not in silence for a, b in pairs),
        "merged_correct": sum(a == b or {a, b} <= silence for a, b in pairs),
    }


def test_frame_accuracy_edges():
    accuracy = FrameAccuracy([])
    assert frame_rates(accuracy.result()) == {}
    accuracy.update(np.array([1, 2, PADDING, 3]), np.array([1, 2, 3, 1]))
    assert frame_rates(accuracy.result()) == pytest.approx({"all": 200 / 3, "speech": 200 / 3, "merged": 200 / 3})
    with pytest.raises(ValueError, match="must be"):
        accuracy.update(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(
    "text, fault",
    [("a X Y\n", "line 1: there is no tab"), ("a\tX\na\tY\n", "line 2: the utterance a comes twice")],
)
def test_damaged_hypotheses(tmp_path, text, fault):
    (tmp_path / "hyp_test.tsv").write_text(text)
    with pytest.raises(UserError, match=fault):
        read_hypotheses(tmp_path / "hyp_test.tsv")
    with pytest.raises(UserError, match="decode this split first"):
        read_hypotheses(tmp_path / "hyp_dev.tsv")


def test_damaged_references(tmp_path):
    write_cuts(tmp_path, "test", 9, np.random.default_rng(0))
    path = tmp_path / "cuts_test.jsonl.gz"
    assert len(read_references(path)) == 9
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged"):
        read_references(path)
    with pytest.raises(UserError, match="is missing"):
        read_references(tmp_path / "cuts_dev.jsonl.gz")
    write_cuts(tmp_path, "empty", 0, np.random.default_rng(0))
    with pytest.raises(UserError, match="has no reference words"):
        read_references(tmp_path / "cuts_empty.jsonl.gz")


def test_words_are_compared_in_upper_case(tmp_path):
    (tmp_path / "hyp_test.tsv").write_text("b\t\na\ttwo  Words\n")
    assert read_hypotheses(tmp_path / "hyp_test.tsv") == {"a": ["TWO", "WORDS"], "b": []}


@pytest.mark.parametrize(("case", "errors"), [("upper", 1), ("lower", 1), ("keep", 2), (None, 1)])
def test_references_are_in_the_form_of_the_graph(tmp_path, case, errors):
    """decode.json tells the form; the hypotheses of another recogniser, without it, are compared in upper case."""
    text = "Cafe\u0301 \u2019tis\u2028Stra\u00dfe\u00a0zwei"
    cut = {"id": "a\u2028b", "supervisions": [{"text": text, "speaker": "s"}]}
    with gzip.open(tmp_path / "cuts_test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(cut) + "\n")
    (tmp_path / "hyp_test.tsv").write_text("a\u2028b\tcaf\u00e9 'tis Stra\u00dfe drei\n", encoding="utf-8")
    if case is not None:
        write_json(tmp_path / "decode.json", {"text": case})
    references = read_references(tmp_path / "cuts_test.jsonl.gz")
    assert score_folder(tmp_path, "test", references).counts[0].tolist() == [0, 0, errors, 4]


def flags(exp, *folders, **changes) -> Config:
    decoded = tuple(exp / "decode" / name for name in folders)
    return replace(Config(exp.parent / "score", hyp=decoded, cuts=exp / "features", replications=500), **changes)


def test_decoded_folders(tmp_path, capsys):
    exp = make(tmp_path, utterances=30)
    config = flags(exp, "teachers-0", "student-0", splits=("test", "other"), pairs=("teachers-0:student-0",))
    stage.main(config)
    printed = capsys.readouterr().out
    assert "| teachers-0 | test |" in printed and "| student-0 | teachers-0 | test | all |" in printed
    assert printed.startswith((tmp_path / "score" / "score.md").read_text())
    results = Results.load(tmp_path / "score" / "score.json")
    assert results.splits == ["test", "other"] and len(results.comparisons) == 2
    words = results.row("student-0").words["test"]
    assert words.low < words.wer < words.high and words.utterances == 30
    assert words.wer == pytest.approx(words.insertions + words.deletions + words.substitutions)
    stage.main(config)
    assert "up to date" in capsys.readouterr().out
    stage.main(replace(config, out=tmp_path / "again"))
    assert (tmp_path / "again" / "score.json").read_bytes() == (tmp_path / "score" / "score.json").read_bytes()


def test_an_experiment_is_read_back_as_it_was_scored(tmp_path):
    exp = make(tmp_path, utterances=12)
    settings = {"exp": exp, "systems": tmp_path / "systems.yaml", "replications": 100}
    stage.main(Config(tmp_path / "score", **settings))
    systems = read_systems(tmp_path / "systems.yaml", exp).systems
    expected = collect_experiment(systems, exp, exp / "features", Bootstrap(replications=100))
    assert Results.load(tmp_path / "score" / "score.json") == expected
    assert expected.splits == ["test", "other", "dev"] and (expected.baseline, expected.ensemble) == (
        "teachers",
        "ensemble",
    )
    write_json(tmp_path / "score" / "score.json", {"rows": [{"name": "x"}]})
    remark(tmp_path / "score")
    with pytest.raises(UserError, match="is damaged"):
        Results.load(tmp_path / "score" / "score.json")


def test_gains_from_each_twin(tmp_path):
    """As on little data: how far from hard targets on the same data to the best does each student come?"""
    exp = make(tmp_path, utterances=6)
    systems = read_systems(tmp_path / "systems.yaml", exp).systems
    usual, results = (
        collect_experiment(systems, exp, exp / "features", Bootstrap(replications=100), gain)
        for gain in ([], ["ensemble"])
    )
    rows = {row.name: row for row in results.rows}
    best, hard, own = (rows[n].mean_accuracy("test") for n in ("ensemble", "quarter_hard", "quarter_student"))
    assert rows["quarter_student"].gain_kept["test"]["all"] == pytest.approx((own - hard) / (best - hard))
    assert rows["student"].gain_kept == usual.row("student").gain_kept != {}
    assert not rows["ensemble"].gain_kept and not rows["quarter_hard"].gain_kept


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"pairs": ("teachers-0:nobody",)}, "is not A:B with two of the systems"),
        ({"pairs": ("teachers-0",)}, "is not A:B"),
        ({"splits": ("absent",)}, "cuts_absent.jsonl.gz is missing"),
        ({"replications": 5}, "--replications is 5, but must be 100 or more"),
        ({"hyp": ()}, "give --exp with --systems, or --hyp with --cuts"),
        ({"cuts": None}, "give --exp with --systems, or --hyp with --cuts"),
        ({"exp": Path("exp")}, "--exp needs --systems"),
    ],
)
def test_command_line_faults(tmp_path, changes, fault):
    exp = make(tmp_path, utterances=6)
    config = flags(exp, "teachers-0")
    with pytest.raises(UserError, match=fault):
        stage.main(replace(config, **changes))
    twice = (exp / "decode" / "gmm", exp / "other" / "gmm")
    with pytest.raises(UserError, match="two folders of the same name"):
        stage.main(replace(config, hyp=twice))


def test_scoring_against_other_cuts_names_the_file(tmp_path):
    exp = make(tmp_path, utterances=6)
    write_hypotheses(exp / "decode" / "gmm-0", "test", {"somebody-else": ["A"]})
    remark(exp / "decode" / "gmm-0")
    with pytest.raises(UserError, match=r"hyp_test.tsv: 1 decoded utterances have no reference"):
        stage.main(flags(exp, "gmm-0"))
