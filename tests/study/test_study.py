"""Studies: their YAML files, the time left, their tables.  (test_end_to_end.py runs one through the real stages.)"""

import itertools
import math
from pathlib import Path

import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from asr_kd.common.errors import UserError
from asr_kd.common.storage import LAYOUT, write_json
from asr_kd.decode.client import SearchPool
from asr_kd.score.collect import Compared, Results, Row
from asr_kd.score.systems import Names
from asr_kd.study.figures import Spread, spread_plot
from asr_kd.study.format import Study, read_study
from asr_kd.study.measure.tasks import measure_tasks
from asr_kd.study.steps import step_tasks
from asr_kd.study.tasks import Task, run_tasks, time_left
from asr_kd.study.views import Views, values
from asr_kd.train import __main__ as train

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "recipes/librispeech/studies").glob("*.yaml"))

SMALL = {
    "title": "Small",
    "tune": "exp/teachers:0",
    "steps": [
        {"name": "exp/teachers", "stage": "train", "conf": "teachers", "seeds": [0, 1]},
        {"name": "targets", "stage": "soft_targets", "models": "exp/teachers:0-1"},
        {
            "each": {"T": [1, 2], "w": [32]},
            "name": "student-{T}-{w}", "stage": "train", "soft_targets": "targets",
            "temperature": "{T}", "width": "{w}",
        },
    ],
    "systems": [
        {"name": "single", "kind": "single", "runs": "exp/teachers:0-1"},
        {"name": "both", "kind": "ensemble", "runs": [["exp/teachers:0", "exp/teachers:1"]], "twin": "single"},
        {"each": {"T": [1, 2], "w": [32]}, "name": "student-{T}-{w}", "kind": "student", "runs": "student-{T}-{w}:0"},
    ],
    "views": [{"show": "grid", "title": "T", "group": "student", "rows": "T", "columns": "w", "y": "accuracy/test"}],
}  # fmt: skip


def read(tmp_path, changes=None) -> Study:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SMALL, **(changes or {})}))
    return read_study(tmp_path / "small.yaml", names(tmp_path))


def names(tmp_path) -> Names:
    return Names(tmp_path / "exp", tmp_path / "exp" / "studies" / "small")


def tasks_of(study: Study, tmp_path, conf) -> list[Task]:
    return [*step_tasks(study, names(tmp_path), conf), *measure_tasks(study.systems, conf, SearchPool())]


def test_each_is_filled_in_with_its_kind(tmp_path):
    study = read(tmp_path)
    assert [step.name for step in study.steps] == ["exp/teachers", "targets", "student-1-32", "student-2-32"]
    assert [step.flags["temperature"] for step in study.steps[2:]] == [1, 2]
    assert [(s.name, s.group, dict(s.at)) for s in study.systems.systems[2:]] == [
        ("student-1-32", "student", {"T": 1, "w": 32}),
        ("student-2-32", "student", {"T": 2, "w": 32}),
    ]
    assert [len(run.models) for run in study.systems.systems[1].runs] == [2]


def test_steps_become_the_stages_own_configurations(tmp_path):
    (tmp_path / "conf.yaml").write_text("teachers: {preset: tiny, learning_rate: 3e-4}\naccuracy: {}\ndecode: {}\n")
    write_json(tmp_path / "exp/gmm/hmm.json", {"num_pdfs": 20, "splits": {"train": {"frames": 1000}}})
    tasks = tasks_of(read(tmp_path), tmp_path, tmp_path / "conf.yaml")
    measuring = ["accuracy"] * 2 + ["tune"] + ["decode"] * 5
    assert [task.kind for task in tasks] == ["train", "soft_targets", "train", *measuring]
    assert [task.run.args[0].out for task in tasks[3:]] == [
        tmp_path / "exp/studies" / folder
        for folder in (
            "shared/accuracy-dev-test", "small/accuracy", "shared/teachers-0/tuned",
            "shared/teachers-0/decode-test/teachers-0", "shared/teachers-0/decode-test/teachers-1",
            "small/decode/both-0", "small/decode/student-1-32-0", "small/decode/student-2-32-0",
        )
    ]  # fmt: skip
    teachers, students = tasks[0].run.args, tasks[2].run.args
    exp = tmp_path / "exp"
    assert teachers == (
        train.Config(exp / "features", exp / "gmm", exp / "teachers", (0, 1), preset="tiny", learning_rate=3e-4),
    )
    assert [(c.temperature, c.width, c.soft_targets) for c in students] == [
        (1, 32, exp / "studies/small/targets"), (2, 32, exp / "studies/small/targets"),
    ]  # fmt: skip
    assert tasks[0].expected() > tasks[2].expected() > 0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"steps": [{"name": "x", "stage": "guess"}]}, "stage of x must be one of"),
        ({"steps": [{"stage": "train"}]}, "needs name, stage"),
        ({"steps": [{"name": "x-{y}", "stage": "train", "each": {"z": [1]}}]}, "not a variable"),
        ({"systems": [{"name": "x", "kind": "network", "runs": "x"}]}, "kind of x must be one of"),
        ({"systems": SMALL["systems"][:1] * 2}, "two systems are called single"),
        ({"gain": ["single", "best"]}, "no system best"),
        ({"tune": None, "colour": "red"}, "needs"),
        ({"steps": [{"name": "x", "stage": "train", "speed": 3}, *SMALL["steps"]]}, "unknown keys"),
        (
            {"systems": [{"name": "x", "kind": "single", "runs": "exp/teachers:1-2"}]},
            "x needs teachers-2, which no step",
        ),
        ({"tune": "teachers:0"}, "tune needs teachers-0, which no step"),
        (
            {"steps": [{"name": "x", "stage": "train", "epochs": 0}, *SMALL["steps"]]},
            "step x .* --epochs is 0, but must",
        ),
        ({"views": [{"show": "pie"}]}, "show must be one of grid, lines"),
        ({"views": [{"show": "epochs", "groups": ["nobody"]}]}, "no group nobody"),
        ({"views": [{"show": "lines", "title": "a", "x": "size", "y": "wer/test", "lines": {"a": "single"}}]}, "x is"),
        ({"views": [{**SMALL["views"][0], "rows": "depth"}]}, "'depth' is no variable of the group student"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, fault):
    (tmp_path / "conf.yaml").write_text("accuracy: {}\ndecode: {}\n")
    with pytest.raises(UserError, match=fault):
        tasks_of(read(tmp_path, changes), tmp_path, tmp_path / "conf.yaml")


def _mutants(value):
    """A structure with one of its values replaced, in every way."""
    yield from ([], {}, [[]], {"a": []}, None, -1, 2.5, True, "x:9-1", "{", [None])
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key, one in [(key, value[key]) for key in keys]:
        for mutant in _mutants(one):
            copy = value.copy()
            copy[key] = mutant
            yield copy


def test_a_value_of_any_other_kind_is_refused_in_a_sentence_or_used(tmp_path):
    (tmp_path / "conf.yaml").write_text("accuracy: {}\ndecode: {}\nteachers: {}\n")
    refused = 0
    for key in SMALL:
        for mutant in _mutants(SMALL[key]):
            try:
                tasks_of(read(tmp_path, {key: mutant}), tmp_path, tmp_path / "conf.yaml")
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 300


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_recipe_suit_its_configurations(path, tmp_path):
    for conf in ("embedded", "so762"):
        study = read_study(path, names(tmp_path))
        tasks = tasks_of(study, tmp_path, ROOT / f"recipes/librispeech/conf/{conf}.yaml")
        assert len(tasks) > 4
        groups = {system.group for system in study.systems.systems}
        for view in study.views:
            assert {view.get("group"), *view.get("groups", ()), *view.get("lines", {}).values()} - {None} <= groups


def test_time_left_is_judged_by_what_has_run():
    speeds = {"train": [20.0, 10.0], "": [30.0, 10.0]}
    assert time_left([("train", 5.0), ("decode", 1.0)], speeds) == 5 * 2 + 1 * 3
    assert time_left([("train", 5.0)], {}) == 5.0


def test_tasks_run_in_order_and_tell_the_time(capsys):
    ran = []
    run_tasks([Task(f"task {n}", "kind", lambda: 90.0, lambda n=n: ran.append(n)) for n in range(3)])
    assert ran == [0, 1, 2]
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == "== 1 of 3: task 0 (about 4 min left in all)" and "(about 2 min" in lines[2]


def test_what_is_done_takes_no_time(tmp_path):
    study = read(tmp_path, {"tune": "exp/teachers:0"})
    conf = tmp_path / "conf.yaml"
    conf.write_text("{teachers: {width: 32, layers: 1}, decode: {}, accuracy: {}}")

    def expected() -> dict[str, float]:
        tasks = tasks_of(study, tmp_path, conf)
        return {f"{task.kind}: {task.title}": task.expected() for task in tasks}

    before = expected()
    assert all(value > 0 for value in before.values())
    for folder in ("exp/teachers/seed-0", "exp/studies/small/targets", "exp/studies/shared/teachers-0/tuned"):
        write_json(tmp_path / folder / "stage.json", {"stage": "test", "layout": LAYOUT, "status": "done"})
    write_json(tmp_path / "exp/teachers/seed-1/stage.json", {"stage": "test", "layout": LAYOUT, "status": "running"})
    after = expected()
    changed = {task: after[task] / before[task] for task in before if after[task] != before[task]}
    assert changed == {
        "train: 2 networks: teachers": 0.5,
        "soft_targets: targets": 0,
        "tune: tuning of the search, all networks": 0,
    }


def test_grids_have_means_over_seeds(tmp_path):
    students = ("student-1-16", "student-1-32", "student-2-16", "student-2-32")
    rows = [
        Row(name, name, "student", accuracy={"test": {"all": {0: mean - 1, 1: mean + 1}}})
        for name, mean in zip(students, (39.0, 40.0, 41.0, 42.0), strict=True)
    ]
    against = Compared(students[1], students[0], "test", None, 50.0, 51.0, -1.0, -2.0, 0.0, 0.9, 0.04)
    system = {**SMALL["systems"][2], "each": {"T": [1, 2], "w": [16, 32]}, "runs": "exp/teachers:0"}
    study = read(tmp_path, {"systems": [system]})
    views = Views(study, Results(rows, [against], [], ["test"], "", ""), lambda some: [])
    grid, compared = views.sections()
    assert grid.table.rows == [["1", "39.00 ± 1.41", "40.00 ± 1.41"], ["2", "41.00 ± 1.41", "42.00 ± 1.41"]]
    assert compared.table.rows[0][:2] == [students[1], students[0]]
    assert values(rows[0], "wer/test") == {} and values(rows[0], "accuracy/test") == {0: 38.0, 1: 40.0}

    drawing = next(views.drawings())
    (axes,) = drawing.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "32"]
    assert [line.get_ydata().tolist() for line in axes.lines if list(line.get_xdata()) == [0, 1]] == [
        [39, 40],
        [41, 42],
    ]


def test_splits_are_a_figure_of_every_system(tmp_path):
    rows = [
        Row(name, name, "student", accuracy={split: {"speech": {0: 30.0 - n}} for n, split in enumerate(splits)})
        for name, splits in (("student-1-32", ("test", "test_snr20", "test_snr10")), ("student-2-32", ("test",)))
    ]
    view = {"show": "splits", "title": "By noise", "y": "speech", "splits": {"a": "test", "b": "test_snr20"}}
    views = Views(read(tmp_path, {"views": [view]}), Results(rows, [], [], ["test"], "", ""), lambda some: [])
    drawing = next(views.drawings())
    (axes,) = drawing.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata()) == 2] == [[30.0, 29.0]]


def names_of_conditions() -> list[str]:
    """Those of the study with the most of them."""
    return list(
        yaml.safe_load((ROOT / "recipes/librispeech/studies/conditions.yaml").read_text())["views"][0]["splits"]
    )


@pytest.mark.parametrize(
    "names",
    [
        ["as it is", "room"],
        ["as it is", "6 kHz", "Opus", "8 kHz", "telephone", "room 0.2 s", "GSM"],
        names_of_conditions(),
    ],
)
def test_names_below_an_axis_do_not_overlap(names):
    line = Spread(range(len(names)), [[20.0 + place] for place in range(len(names))], "#236192", "distilled")
    figure = spread_plot([line], "WER by condition", "", "WER %", names=names)
    FigureCanvasAgg(figure).draw()
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == names
    for before, after in itertools.pairwise(labels):
        left, right, angle = before.get_window_extent(), after.get_window_extent(), math.radians(after.get_rotation())
        if angle:  # labels end at their ticks, and are parallel: as far apart as a line of text is high, or more
            assert (right.x1 - left.x1) * math.sin(angle) > before.get_fontsize() * figure.dpi / 72
        else:
            assert left.x1 < right.x0
