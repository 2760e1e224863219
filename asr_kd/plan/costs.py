"""What every stage takes, from the size of the corpus and of the networks, and from measured rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from asr_kd.models.dnn import Shape, parameters_of
from asr_kd.plan.calibrate import Rates

FRAMES_AN_HOUR = 360_000
#: Bytes on disk: of a frame's features (40 float32) and manifest; of its senone with alignments and manifest.
FEATURES, SENONES = 162, 10
#: Bytes on disk of a kept class, and of a frame beside (asr_kd.soft_targets); classes that are kept about.
A_CLASS, A_FRAME, CLASSES = 3, 2, 11
#: A graph of 1.7 million arcs (so762 with 0.5 million words of text), beam 15 and 4,000 states are so many times the
#: work of the search that is measured.
GRAPH = 4.0
#: Bytes in memory of what every process has loaded: Python, torch, Lhotse.
PROCESS = 400e6
#: Bytes in memory of a frame in the pool: 40 bfloat16, a senone, and a soft target.
POOLED = 80 + 8 + A_FRAME + A_CLASS * CLASSES


@dataclasses.dataclass(frozen=True)
class Job:
    """What is planned.

    Attributes:
        hours: of training speech.
        copies: of it at other speeds, the original included.
        test_hours: of dev and test, to decode.
        teacher, student: networks.
        teachers, students: how many.
        teacher_epochs, student_epochs: passes over the training frames.
        batch: frames.
        pool_frames: held in memory.
        systems: that decode the test set; of several one is the ensemble of teachers.
        real_time_factor: of the search on one core; 0: as measured, in a graph of ``GRAPH`` times the work.
    """

    hours: float
    copies: int
    test_hours: float
    teacher: Shape
    student: Shape
    teachers: int
    students: int
    teacher_epochs: int
    student_epochs: int
    batch: int
    pool_frames: int
    systems: int
    real_time_factor: float

    @property
    def frames(self) -> float:
        """To train on."""
        return self.hours * self.copies * FRAMES_AN_HOUR


@dataclasses.dataclass(frozen=True)
class Machines:
    """Where it is to run.

    Attributes:
        cores: processors' cores.
        gpus: 0: networks are trained on the cores.
        gpu_speed: floating-point operations a second that a GPU achieves in training.
        disk: bytes a second that all machines together read or write.
        network: bytes a second between any two GPUs.
    """

    cores: int
    gpus: int
    gpu_speed: float
    disk: float
    network: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one stage.

    Attributes:
        stage: its name.
        disk: bytes that it leaves.
        memory: bytes of one of its processes.
        operations: floating-point, of matrix products; 0 where that is not what it does.
        seconds: by what takes that long: compute, loading, disk, network; the longest counts.
        start: seconds until its processes can begin.
    """

    stage: str
    disk: float
    memory: float
    operations: float
    seconds: dict[str, float]
    start: float = 0.0

    @property
    def bottleneck(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def total(self) -> float:
        return self.start + max(self.seconds.values())


def costs(job: Job, machines: Machines, rates: Rates) -> Iterator[Cost]:
    """Every stage's, in order."""
    for stage in _stages(job, machines, rates):
        yield dataclasses.replace(stage, start=2 * rates.start)


def _stages(job: Job, machines: Machines, rates: Rates) -> Iterator[Cost]:
    frames, disk = job.frames, machines.disk
    every = frames + job.test_hours * FRAMES_AN_HOUR
    features = every * FEATURES
    audio = (job.hours + job.test_hours) * 3600 * 16000 * 2 / 2  # FLAC halves 16-bit samples
    yield Cost(
        "features", features, PROCESS + 200e6, 0,
        {"compute": every * rates.features / machines.cores, "disk": (audio + features) / disk},
    )  # fmt: skip
    aligned = job.hours * FRAMES_AN_HOUR * rates.gmm + every * rates.alignment
    yield Cost(
        "senones", every * SENONES, PROCESS + 300e6, 0,
        {"compute": aligned / machines.cores, "disk": (features + every * SENONES) / disk},
    )  # fmt: skip
    yield _training("teachers", job, machines, job.teacher, job.teachers, job.teacher_epochs, rates.update, rates, 0)
    kept = frames * (A_FRAME + A_CLASS * CLASSES)
    forward = 2 * parameters_of(job.teacher) * job.teachers * frames
    compute = frames * (rates.loading + rates.forward * job.teachers + rates.targets) / machines.cores
    if machines.gpus:
        compute = forward / (machines.gpus * machines.gpu_speed)
    yield Cost(
        "soft targets", kept, PROCESS + job.teachers * 4 * parameters_of(job.teacher), forward,
        {"compute": compute, "disk": (features + kept) / disk},
    )  # fmt: skip
    yield _training(
        "students", job, machines, job.student, job.students, job.student_epochs, rates.student, rates, kept
    )
    networks = job.systems - 1 + job.teachers if job.systems > 1 else 1
    searched = job.test_hours * 3600 * job.systems * (job.real_time_factor or GRAPH * rates.search)
    scored = job.test_hours * FRAMES_AN_HOUR * networks * rates.scoring
    yield Cost("decoding", 1e6, PROCESS + 2e9, 0, {"compute": (searched + scored) / machines.cores})


def _training(
    stage: str, job: Job, machines: Machines, shape: Shape, networks: int, epochs: int, update: float, rates: Rates,
    targets: float,
) -> Cost:  # fmt: skip
    """So many networks; each by one core, or by its share of the GPUs, a process each."""
    size = parameters_of(shape)
    work = 6 * size * job.frames * epochs * networks
    at_once = min(networks, machines.gpus or machines.cores)
    rounds = -(-networks // at_once)
    if machines.gpus:
        together = max(1, machines.gpus // networks)  # GPUs that share a network
        updates = job.frames * epochs / job.batch
        # Each GPU sends and receives all gradients (float32) but its own part, twice (ring all-reduce).
        exchanged = 2 * 4 * size * (together - 1) / together * updates
        alone = 6 * size * job.frames * epochs / (together * machines.gpu_speed)
        loading = job.frames * epochs * rates.loading / min(together, max(1, machines.cores // at_once))
        seconds = {
            "compute": rounds * alone, "network": rounds * exchanged / machines.network, "loading": rounds * loading
        }  # fmt: skip
    else:
        seconds = {"compute": rounds * job.frames * epochs * update}
    # What fits into one pool is read once; else every epoch reads it again, for each network.
    passes = networks * (1 if job.frames <= job.pool_frames else epochs)
    seconds["disk"] = passes * (job.frames * FEATURES + targets) / machines.disk
    memory = PROCESS + 16 * size + POOLED * min(job.frames, job.pool_frames) + 40 * job.batch * shape.width
    return Cost(stage, networks * 16 * size, memory, work, seconds)
