"""Plans: what they say follows from rates, and rates are measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.models.dnn import dnn
from asr_kd.plan import calibrate, clock
from asr_kd.plan.__main__ import _decoded, main
from asr_kd.plan.config import Config
from asr_kd.plan.costs import GRAPH_FACTOR, Job, Machines, costs

TEACHER, STUDENT = dnn(40, 600, "large"), dnn(40, 600, "quarter")
RATES = calibrate.Rates(
    features=1e-5, copies=2e-5, alignment=2e-5, gmm=3e-4, loading=1e-9, target_loading=2e-9, update=5e-5, student=2e-5,
    forward=1e-5, targets=1e-5, scoring=3e-5, search=0.02, start=0, process=6e8, feature=2,
)  # fmt: skip
JOB = Job(10, 3, 1, TEACHER, STUDENT, 4, 1, 2, 2, 1024, 2_000_000, 3, 6, 0.1)
CORES = Machines(cores=2, gpus=0, gpu_speed=0, disk=1e9, network=1e9)


def hours(job: Job = JOB, machines: Machines = CORES) -> dict[str, float]:
    return {cost.stage: cost.total / 3600 for cost in costs(job, machines, RATES)}


def test_what_doubles_doubles() -> None:
    small, large = hours(), hours(dataclasses.replace(JOB, hours=20, test_hours=2))
    assert large == pytest.approx({stage: 2 * value for stage, value in small.items()})
    # Four networks on four cores instead of two; one student gains nothing from them.
    wide = hours(machines=dataclasses.replace(CORES, cores=4))
    assert wide["teachers"] == pytest.approx(small["teachers"] / 2)
    assert wide["students"] == small["students"]
    assert wide["features"] == pytest.approx(small["features"] / 2)


def test_hours_are_frames_times_rates() -> None:
    frames, test = 10 * 3 * 360_000, 360_000
    found = {stage: 3600 * value for stage, value in hours().items()}
    assert found["features"] == pytest.approx(((frames / 3 + test) * 1e-5 + frames * 2 / 3 * 2e-5) / 2)
    assert found["GMMs"] == pytest.approx(frames / 3 * 3e-4 / 2)
    assert found["alignment"] == pytest.approx((frames + test) * 2e-5 / 2)
    assert found["teachers"] == pytest.approx(2 * 2 * frames * (5e-5 + 1e-9))  # two rounds of two epochs
    assert found["students"] == pytest.approx(2 * frames * (2e-5 + 2e-9))
    little = hours(dataclasses.replace(JOB, pool_frames=10**9))["students"] * 3600  # one pool is read once
    assert little == pytest.approx(2 * frames * 2e-5 + frames * 2e-9)


def test_decoding_is_search_and_the_scores_of_networks() -> None:
    found = [
        hours(dataclasses.replace(JOB, decoded=n, scored=k, real_time_factor=f))["decoding"]
        for n, k, f in ((1, 1, 0.1), (3, 6, 0))
    ]
    read = 1e-9 * 360_000 / 3600  # features, by every run
    assert found[0] == pytest.approx((0.1 + 3e-3 + read) / 2, rel=1e-9)
    # Two networks and an ensemble of four.
    assert found[1] == pytest.approx((3 * (GRAPH_FACTOR * 0.02 + read) + 6 * 3e-3) / 2, rel=1e-9)


def test_gpus_share_networks_until_the_network_between_them_is_too_slow() -> None:
    one, eight, many = (Machines(16, gpus, 2e14, 1e9, 1e9) for gpus in (1, 8, 512))
    teachers = [next(c for c in costs(JOB, m, RATES) if c.stage == "teachers") for m in (one, eight, many)]
    work = 6 * TEACHER.num_parameters() * JOB.frames * 2
    assert teachers[0].seconds["compute"] == pytest.approx(4 * work / 2e14)
    assert teachers[1].seconds["compute"] == pytest.approx(work / 2 / 2e14)
    assert teachers[0].seconds["network"] == 0
    assert teachers[2].bottleneck == "network"
    slow = dataclasses.replace(RATES, loading=1e-6)
    for cores, processes in ((16, 2), (4, 1)):  # for each of the four networks that are trained at once
        machines = Machines(cores, 8, 2e14, 1e12, 1e12)
        (found,) = (c for c in costs(JOB, machines, slow) if c.stage == "teachers")
        assert found.bottleneck == "loading"
        assert found.seconds["loading"] == pytest.approx(JOB.frames * 2 * 1e-6 / processes)


def test_a_corpus_that_does_not_fit_is_read_every_epoch() -> None:
    little = dataclasses.replace(JOB, pool_frames=10**9)
    found = [next(c for c in costs(job, CORES, RATES) if c.stage == "teachers") for job in (JOB, little)]
    assert found[0].seconds["disk"] == pytest.approx(2 * found[1].seconds["disk"])
    assert found[0].memory < found[1].memory


def test_the_pool_is_of_the_number_type_that_networks_are_trained_in() -> None:
    def memory(rates: calibrate.Rates, machines: Machines = CORES) -> float:
        return next(c.memory for c in costs(JOB, machines, rates) if c.stage == "teachers")

    wide = dataclasses.replace(RATES, feature=4)
    assert memory(wide) - memory(RATES) == pytest.approx(2 * 1.5 * 40 * JOB.pool_frames)
    gpus = Machines(16, 8, 2e14, 1e9, 1e9)
    assert memory(wide, gpus) == memory(RATES, gpus)


def test_the_recipes_systems_are_counted() -> None:
    systems = Path(__file__).parents[2] / "recipes/librispeech/conf/systems.yaml"
    # GMM, before and after its adaptation, three of five teachers, their ensemble, two students, two of a quarter of
    # the size on either target.
    assert _decoded(Config(hours=1, teachers=5, students=2, systems=systems)) == (12, 3 + 5 + 3 * 2)
    assert _decoded(Config(hours=1, teachers=5)) == (3, 7)


def test_the_table(tmp_path, capsys, monkeypatch, inline) -> None:
    monkeypatch.setattr(calibrate, "MINUTES", 0.5)
    monkeypatch.setattr(calibrate, "LEAVES", 40)
    monkeypatch.setattr(clock, "MIN_SECONDS", 0.05)
    monkeypatch.setattr(calibrate, "MAX_CORES", 1)
    config = Config(
        hours=1, senones=50, preset="tiny", teachers=2, rates=tmp_path / "rates.json", out=tmp_path / "plan.json"
    )
    main(config)
    plan = read_json(tmp_path / "plan.json")
    assert all(value > 0 for value in plan["rates"].values())
    assert [cost["stage"] for cost in plan["costs"]] == [
        "features", "GMMs", "alignment", "teachers", "soft targets", "students", "decoding"
    ]  # fmt: skip
    first = capsys.readouterr().out.splitlines()[-10:]
    main(config)
    assert capsys.readouterr().out.splitlines()[-10:] == first, "the second time rates are read"
    for flags, message in (
        ({"senones": 60}, "rates of other networks, batches or search"),
        ({"search": "kernel"}, "rates of other networks, batches or search"),
        ({"hours": 0}, "must be above 0"),
        ({"gpus": 8}, "give --gpu-tflops"),
    ):
        with pytest.raises(UserError, match=message):
            main(dataclasses.replace(config, **flags))
