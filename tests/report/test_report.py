"""The report of an experiment: figures of the table, what is missing, the page and its pictures."""

import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import kaldi_hmm_gmm as khg
import numpy as np
import pytest
from fake_experiment import SINGLE, STUDENT, make
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from lhotse.supervision import AlignmentItem
from training import remark

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import LAYOUT, Stage, atomic_open, read_json, save_array, write_json
from asr_kd.hmm.gmm import Gmms
from asr_kd.hmm.kaldi_io import write_model
from asr_kd.hmm.topology import topology_text
from asr_kd.report import figures
from asr_kd.report.__main__ import main
from asr_kd.report.config import Config
from asr_kd.report.svg import LIGHT, render, standalone
from asr_kd.report.tables import bundles
from asr_kd.report.utterance import Panel, read_utterance, sum_columns
from asr_kd.score.__main__ import main as score_stage
from asr_kd.score.config import Config as ScoreConfig
from asr_kd.train import __main__ as train
from asr_kd.train.loop import Trainer


def config(root: Path, **changes) -> Config:
    return replace(Config(root / "exp", root / "systems.yaml", root / "report"), **changes)


def score(root: Path, **changes) -> None:
    exp = root / "exp"
    settings = ScoreConfig(exp / "score", exp, root / "systems.yaml", replications=300)
    score_stage(replace(settings, **changes))


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fake")
    make(root, utterances=40)
    errors = np.random.default_rng(0).normal(0, 15, size=4000).astype(np.float32)
    statistics = {"median_ms": 10.1, "within_percent": {"30": 95.4}}
    save_array(root / "exp" / "boundaries" / "boundaries_test.npy", errors)
    write_json(root / "exp" / "boundaries" / "boundaries.json", {"test": {"phones": statistics}})
    score(root)
    main(config(root, command="bash run.sh --title '<b>'"))
    return root


def rows_of(root: Path) -> dict[str, dict]:
    return {row["name"]: row for row in read_json(root / "report" / "results.json")["rows"]}


def test_table_one(reported):
    rows = rows_of(reported)
    assert list(rows) == ["gmm", "teachers", "ensemble", "student", "quarter_hard", "quarter_student"]
    accuracies = [100 * accuracy for _, accuracy in STUDENT]
    found = rows["student"]["accuracy"]["test"]["all"]
    assert list(found.values()) == pytest.approx(accuracies, abs=0.01)
    assert rows["student"]["gain_kept"]["test"]["all"] == pytest.approx((np.mean(accuracies) - 60) / 2, abs=1e-3)
    assert all(not rows[name]["gain_kept"] for name in rows if name != "student")
    words = rows["student"]["words"]["test"]
    assert words["wer"] == pytest.approx(np.mean(list(words["seeds"].values())))
    assert words["low"] < words["wer"] < words["high"]
    assert words["wer"] == pytest.approx(words["insertions"] + words["deletions"] + words["substitutions"])
    assert rows["ensemble"]["parameters"] == 3 * rows["teachers"]["parameters"]
    assert rows["gmm"]["parameters"] is None and not rows["gmm"]["accuracy"]
    assert rows["student"]["rtf"]["test"] == pytest.approx(0.034)
    text = (reported / "report" / "report.md").read_text()
    assert "| Distilled, same size | 1.57 M | 61.72 ± 0.08 |" in text
    assert "| 86 % | 0.034 (0.0040) |" in text
    assert "keeps 86 % of that gain" in text
    assert re.search(rf"\| teachers/seed-N \({len(SINGLE)} runs\) \|", text)  # once, though the ensemble has them too
    assert "3512907" in text and "bash run.sh" in text and "| train | 1340 | 67 | 1.75 | 0 |" in text


def test_comparisons_are_seed_by_seed_and_pooled(reported):
    compared = read_json(reported / "report" / "results.json")["comparisons"]
    student = [c for c in compared if (c["system"], c["split"]) == ("student", "test")]
    assert [c["seed"] for c in student] == [0, 1, 2, None]
    assert student[-1]["difference"] == pytest.approx(np.mean([c["difference"] for c in student[:-1]]))
    assert {c["seed"] for c in compared if c["system"] == "ensemble"} == {None}


class Page(HTMLParser):
    """Collects what matters of a page."""

    VOID = frozenset({"meta", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_nothing_else(reported):
    text = (reported / "report" / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.tags["figure"] == page.tags["svg"] == 8
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert "prefers-color-scheme:dark" in text and 'name="viewport"' in text


def test_pictures_follow_the_scheme(reported):
    folder = reported / "report" / "figures"
    names = {path.stem for path in folder.iterdir()}
    assert names == {
        "frame-accuracy", "wer-test", "wer-other", "dev-accuracy", "dev-loss", "train-accuracy", "acoustic-scale",
        "boundaries",
    }  # fmt: skip
    for path in folder.glob("*.svg"):
        ET.parse(path)
        drawn = path.read_text().split("</style>", 1)[1]
        assert "var(--ink)" in drawn
        assert not set(re.findall(r"#[0-9a-f]{6}", drawn)) - {"#ffffff"}, path


def test_second_run_does_nothing_and_same_inputs_give_same_files(reported, capsys):
    main(config(reported))
    assert "report: up to date" in capsys.readouterr().out
    main(config(reported, out=reported / "again", command="bash run.sh --title '<b>'"))
    for name in ("index.html", "results.json", "report.md"):
        assert (reported / "again" / name).read_bytes() == (reported / "report" / name).read_bytes()


def test_what_is_missing_is_listed(tmp_path, capsys):
    exp = make(tmp_path, utterances=12)
    shutil.rmtree(exp / "decode" / "ensemble-0")
    shutil.rmtree(exp / "decode" / "quarter_student-1")
    shutil.rmtree(exp / "accuracy")
    write_json(exp / "student" / "seed-1" / "stage.json", {"stage": "train", "layout": LAYOUT, "status": "running"})
    lines = (exp / "decode" / "gmm-0" / "hyp_test.tsv").read_text().splitlines(keepends=True)
    (exp / "decode" / "gmm-0" / "hyp_test.tsv").write_text("".join(lines[1:]))
    remark(exp / "decode" / "gmm-0")
    score(tmp_path)
    (exp / "data" / "summary.json").unlink()
    main(config(tmp_path))
    rows = rows_of(tmp_path)
    assert not rows["ensemble"]["words"] and rows["student"]["gain_kept"] == {}
    assert set(rows["quarter_student"]["words"]["test"]["seeds"]) == {"0", "2"}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- Ensemble: decode/ensemble-0 is missing\n" in text
    assert "- Distilled, same size: student/seed-1 is unfinished\n" in text
    assert "- Triphone GMM: 1 utterances of test have no hypothesis\n" in text
    assert "- Baseline DNN: accuracy/teachers-1 is missing\n" in text
    seeds = [
        c["seed"]
        for c in read_json(tmp_path / "report" / "results.json")["comparisons"]
        if (c["system"], c["split"]) == ("quarter_student", "test")
    ]
    assert seeds == [0, 2, None]
    assert "not run: Ensemble: decode/ensemble-0 is missing" in capsys.readouterr().out


def test_nothing_to_report(tmp_path):
    make(tmp_path, utterances=4)
    with pytest.raises(UserError, match=r"score is missing: check the name, or first run the stage"):
        main(config(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no results of the systems"):
        score(tmp_path, exp=tmp_path / "empty", cuts=tmp_path / "exp/features")
    with pytest.raises(UserError, match="does not exist: give the experiment's folder"):
        main(config(tmp_path, exp=tmp_path / "nowhere"))
    score(tmp_path)
    with pytest.raises(UserError, match=r"units\.json is missing"):
        main(config(tmp_path, utterance="nobody"))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_keep_apart(values):
    placed = figures.spread_out(values, 5, 0, 100)
    ordered = [placed[i] for i in sorted(range(len(values)), key=values.__getitem__)]
    assert all(b - a > 4.5 for a, b in itertools.pairwise(ordered))
    assert min(placed) >= 0 and max(placed) <= 100


def test_figures_take_plain_arrays():
    first, second = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 50))
    utterance = figures.Utterance(
        name="u1", text="A CAT", features=np.random.default_rng(0).normal(size=(50, 40)), row="mel filter",
        phones=["AH", "K", "other"],
        segments=[(0.0, 0.2, "AH"), (0.2, 0.5, "K")], words=[(0.0, 0.5, "CAT")],
        panels={"Teacher, T = 1": first, "Student": second},
    )  # fmt: skip
    text = render(figures.posteriorgram(utterance), "p")
    assert all(f">{word}</text>" in text for word in ("cat", "ah", "time, s", "Teacher, T = 1", "other"))
    assert text.count("data:image/png;base64") == 3
    ET.fromstring(standalone(text).encode())
    line = figures.Series([0, 1500], [1.0, 2.0], LIGHT["s1"], "one & two")
    drawn = render(figures.line_plot([line], "title", "updates", "%"), "q")
    assert ">one &amp; two</text>" in drawn and ">1.2k</text>" in drawn


def test_posteriors_are_summed_into_phones():
    posteriors = np.array([[0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(sum_columns(posteriors, np.array([1, 0, 1, 2]), 3), [[0.2, 0.4, 0.4], [0, 1, 0]])


def test_posteriorgram_of_a_real_network(prepared, tmp_path):
    """Six phones of one senone each, so that the network's most probable phone is mostly the aligned one."""
    gmm = tmp_path / "gmm"
    topology = khg.HmmTopology()
    topology.read(topology_text(range(1, 7), range(1, 7), 1))
    tree = khg.monophone_context_dependency(list(range(1, 7)), [0] + [1] * 6)
    gaussians = Gmms(np.arange(7), np.ones(6), np.zeros((6, 3)), np.ones((6, 3)))
    write_model(gmm / "tri.mdl", khg.TransitionModel(tree, topology), gaussians)
    cuts = []
    for cut in CutSet.from_file(prepared.senones / "cuts_test.jsonl.gz"):
        senones = cut.load_custom("senones")
        starts = np.flatnonzero(np.diff(senones, prepend=-1))
        items = [
            AlignmentItem(f"P{senones[a]}", a / 100, (b - a) / 100)
            for a, b in zip(starts, [*starts[1:], len(senones)], strict=True)
        ]
        cut.supervisions[0].alignment = {"phone": items}
        cuts.append(cut)
    CutSet.from_cuts(cuts).to_file(gmm / "cuts_test.jsonl.gz")
    settings = {"preset": "tiny", "epochs": 2, "batch_size": 64, "precision": "float32", "device": "cpu"}
    trainer = Trainer(train.Config(prepared.features, prepared.senones, tmp_path / "net", **settings), 0)
    while trainer.epoch < 2:
        trainer.train_epoch()
    names = {0: "<eps>", **{pdf + 1: f"P{pdf}" for pdf in range(6)}}
    panel = Panel("net", (tmp_path / "net" / "seed-0",))
    found = read_utterance(prepared.features, gmm, [panel], names, cuts[2].id)
    assert found.name == cuts[2].id and found.features.shape == (cuts[2].num_frames, 40)
    posteriors = found.panels["net"]
    np.testing.assert_allclose(posteriors.sum(1), 1, atol=1e-5)
    aligned = [found.phones.index(f"P{pdf}") for pdf in cuts[2].load_custom("senones")]
    assert (posteriors.argmax(1) == aligned).mean() > 0.7
    with pytest.raises(UserError, match="no aligned utterance nobody"):
        read_utterance(prepared.features, gmm, [panel], names, "nobody")


def test_bundles_have_a_row_for_each_form(tmp_path):
    form = {"bytes": 1_500_000, "wer": {"dev": 10.0, "test": 12.345}, "rtf": 0.001}
    for name in ("small", "tiny"):
        stage = Stage("bundle", tmp_path / name, {}, [])
        assert stage.begin()
        confidences = {"test": {"words": 90, "auc": 0.9, "error": 3.21}}
        stage.finish(trained=form, int8={**form, "wer": {"test": 13.0}, "confidences": confidences})
    table = bundles([tmp_path / "small", tmp_path / "tiny"])
    gaps = ("calibration error dev %", "calibration error test %")
    assert table.header == ["bundle", "form", "MB", "WER dev %", "WER test %", *gaps, "RTF (scoring)"]
    assert [row[:2] for row in table.rows] == [[b, f] for b in ("small", "tiny") for f in ("trained", "int8")]
    assert table.rows[1][2:] == ["1.50", "–", "13.00", "–", "3.2", "0.00100"]


def test_command_line(tmp_path, capsys):
    make(tmp_path, utterances=4)
    with atomic_open(tmp_path / "recipe.yaml") as file:
        file.write("score: {replications: 200, bootstrap_by: speaker}\nreport: {posteriorgram: false}\n")
    where = ["--exp", str(tmp_path / "exp"), "--systems", str(tmp_path / "systems.yaml")]
    conf = str(tmp_path / "recipe.yaml")
    run(ScoreConfig, score_stage, [*where, "--out", str(tmp_path / "exp/score"), "--config", f"{conf}:score"])
    run(Config, main, [*where, "--out", str(tmp_path / "out"), "--config", f"{conf}:report"])
    assert "| Distilled, same size |" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "results.json").read_text())["ensemble"] == "ensemble"
