"""``python -m asr_kd.plan``: disk, memory, operations and hours of every stage, from rates measured here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.plan.config import Config

if TYPE_CHECKING:
    from asr_kd.models.network import Network
    from asr_kd.plan.calibrate import Rates


def main(config: Config) -> None:
    from asr_kd.common.parallel import cpu_count
    from asr_kd.models.dnn import dnn
    from asr_kd.plan.costs import Job, Machines, costs

    teacher, student = (
        dnn(config.num_features, config.senones, preset, batch_norm=config.batch_norm)
        for preset in (config.preset, config.student or config.preset)
    )
    decoded, scored = _decoded(config)
    job = Job(
        config.hours, config.copies, config.test_hours, teacher, student, config.teachers, config.students,
        config.epochs, config.epochs, config.batch_size, config.pool_frames, decoded, scored, config.real_time_factor,
    )  # fmt: skip
    rates = _rates(config, teacher, student)
    machines = Machines(
        config.cores or cpu_count(), config.gpus, 1e12 * config.gpu_tflops or _gpu_speed(config, teacher),
        1e6 * config.disk_rate, 1e6 * config.network_rate,
    )  # fmt: skip
    planned = list(costs(job, machines, rates))
    print(f"{job.frames:,.0f} training frames, {config.teachers} teachers of {_parameters(teacher)} parameters\n")
    print("| stage | disk | memory per process | operations | hours | bottleneck |")
    print("| --- | --: | --: | --: | --: | --- |")
    for cost in planned:
        print(
            f"| {cost.stage} | {_bytes(cost.disk)} | {_bytes(cost.memory)} | "
            f"{f'{cost.operations:.1e}' if cost.operations else '–'} | {cost.total / 3600:.3g} | {cost.bottleneck} |"
        )
    print(f"| all | {_bytes(sum(c.disk for c in planned))} | | | {sum(c.total for c in planned) / 3600:.3g} | |")
    if config.out is not None:
        write_json(config.out, {"costs": [vars(c) for c in planned], "rates": rates, "machines": machines})


def _decoded(config: Config) -> tuple[int, int]:
    """The number of runs that are decoded, and of networks that score frames for them."""
    from asr_kd.common.cli import read_yaml
    from asr_kd.score.systems import GMMS, read_systems

    if config.systems is None:
        return 3, 2 + config.teachers
    declared = read_yaml(str(config.systems)).get("variables", {})
    values = {"teachers": config.teachers, "seeds": config.students}
    variables = [f"{name}={value}" for name, value in values.items() if name in declared]
    systems = read_systems(config.systems, Path(), variables).systems
    decoded = [(system, run) for system in systems for run in system.runs if run.decode is not None]
    return len(decoded), sum(len(run.models) for system, run in decoded if system.kind not in GMMS)


def _rates(config: Config, teacher: Network, student: Network) -> Rates:
    from asr_kd.plan.calibrate import Rates, measure

    about = {
        "teacher": teacher.to_json(), "student": student.to_json(), "batch_size": config.batch_size,
        "search": config.search,
    }  # fmt: skip
    if config.rates is not None and config.rates.is_file():
        known = read_json(config.rates)
        try:
            if known["about"] != about:
                raise UserError(f"{config.rates} has the rates of other networks, batches or search: name another file")
            rates = Rates(**known["rates"])
            if not all(0 < rate < math.inf for rate in vars(rates).values()):
                raise ValueError("a rate is not a positive number")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{config.rates} is damaged ({error}): delete it to measure them again") from None
        return rates
    found = measure(teacher, student, config.batch_size, config.search)
    if config.rates is not None:
        write_json(config.rates, {"about": about, "rates": found})
    return found


def _gpu_speed(config: Config, teacher: Network) -> float:
    if not config.gpus:
        return 0.0
    import torch

    if not torch.cuda.is_available():
        raise UserError("this machine has no GPU to measure: give --gpu-tflops")
    from asr_kd.plan.networks import operations, update_seconds

    return operations(teacher) / update_seconds(teacher, "cuda", config.batch_size, soft=True)


def _parameters(network: Network) -> str:
    return f"{network.num_parameters() / 1e6:.2f} M"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


if __name__ == "__main__":
    run(Config, main)
