"""Disk, memory, operations and seconds of every stage, from the sizes of corpus and networks and measured rates."""

import dataclasses
from collections.abc import Iterator

from asr_kd.models.network import Network
from asr_kd.plan.calibrate import Rates

FRAMES_PER_HOUR = 360_000
#: Bytes on disk per frame: manifest of the features, which take a float32 each; senones with alignments and manifest.
MANIFEST_BYTES, SENONE_BYTES = 2, 10
#: Bytes on disk of soft targets per kept class and per frame; typical number of kept classes.
CLASS_BYTES, TARGET_BYTES, KEPT_CLASSES = 3, 2, 11
#: Work of the search in a graph of 1.7 million arcs (so762 with 0.5 million words of text) with beam 15 and 4,000
#: states, relative to the search that is measured.
GRAPH_FACTOR = 4.0
#: Bytes in memory of a process that has loaded Python, torch and Lhotse.
PROCESS_BYTES = 400e6
#: Bytes in memory of a frame in the pool, but for its features in bfloat16: a senone, and a soft target.
POOL_BYTES = 8 + TARGET_BYTES + CLASS_BYTES * KEPT_CLASSES


@dataclasses.dataclass(frozen=True)
class Job:
    """The run that is planned.

    Attributes:
        hours: hours of training speech.
        copies: copies of each utterance, the original included.
        test_hours: hours of dev and test speech.
        teacher, student: the networks.
        teachers, students: numbers of networks.
        teacher_epochs, student_epochs: passes over the training frames.
        batch: frames per batch.
        pool_frames: frames held in memory.
        decoded: runs that are decoded.
        scored: networks that score frames for them.
        real_time_factor: real-time factor of the search on one core; 0: as measured, times ``GRAPH_FACTOR``.
    """

    hours: float
    copies: int
    test_hours: float
    teacher: Network
    student: Network
    teachers: int
    students: int
    teacher_epochs: int
    student_epochs: int
    batch: int
    pool_frames: int
    decoded: int
    scored: int
    real_time_factor: float

    @property
    def feature_bytes(self) -> int:
        """Bytes on disk of a frame's features."""
        return MANIFEST_BYTES + 4 * self.teacher.feature_dim

    @property
    def frames(self) -> float:
        """Training frames."""
        return self.hours * self.copies * FRAMES_PER_HOUR


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machines that it runs on.

    Attributes:
        cores: cores of the processors.
        gpus: number of GPUs; 0: networks are trained on the cores.
        gpu_speed: floating-point operations per second that a GPU achieves in training.
        disk: bytes per second that all machines together read or write.
        network: bytes per second between any two GPUs.
    """

    cores: int
    gpus: int
    gpu_speed: float
    disk: float
    network: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Costs of one stage.

    Attributes:
        stage: its name.
        disk: bytes that it leaves on disk.
        memory: bytes of one of its processes.
        operations: floating-point operations of matrix products; 0 for stages without them.
        seconds: by resource (compute, loading, disk, network); the longest counts.
        start: seconds until its processes are ready.
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
    """Costs of every stage, in order."""
    for stage in _stages(job, machines, rates):
        yield dataclasses.replace(stage, start=2 * rates.start)


def _stages(job: Job, machines: Machines, rates: Rates) -> Iterator[Cost]:
    frames, disk = job.frames, machines.disk
    every = frames + job.test_hours * FRAMES_PER_HOUR
    features = every * job.feature_bytes
    audio = (job.hours + job.test_hours) * 3600 * 16000 * 2 / 2  # FLAC halves 16-bit samples
    yield Cost(
        "features", features, PROCESS_BYTES + 200e6, 0,
        {"compute": every * rates.features / machines.cores, "disk": (audio + features) / disk},
    )  # fmt: skip
    aligned = job.hours * FRAMES_PER_HOUR * rates.gmm + every * rates.alignment
    yield Cost(
        "senones", every * SENONE_BYTES, PROCESS_BYTES + 300e6, 0,
        {"compute": aligned / machines.cores, "disk": (features + every * SENONE_BYTES) / disk},
    )  # fmt: skip
    yield _training("teachers", job, machines, job.teacher, job.teachers, job.teacher_epochs, rates.update, rates, 0)
    kept = frames * (TARGET_BYTES + CLASS_BYTES * KEPT_CLASSES)
    forward = 2 * job.teacher.num_parameters() * job.teachers * frames
    compute = frames * (rates.loading + rates.forward * job.teachers + rates.targets) / machines.cores
    if machines.gpus:
        compute = forward / (machines.gpus * machines.gpu_speed)
    yield Cost(
        "soft targets", kept, PROCESS_BYTES + job.teachers * 4 * job.teacher.num_parameters(), forward,
        {"compute": compute, "disk": (features + kept) / disk},
    )  # fmt: skip
    yield _training(
        "students", job, machines, job.student, job.students, job.student_epochs, rates.student, rates, kept
    )
    searched = job.test_hours * 3600 * job.decoded * (job.real_time_factor or GRAPH_FACTOR * rates.search)
    scored = job.test_hours * FRAMES_PER_HOUR * job.scored * rates.scoring
    yield Cost("decoding", 1e6, PROCESS_BYTES + 2e9, 0, {"compute": (searched + scored) / machines.cores})


def _training(
    stage: str, job: Job, machines: Machines, network: Network, networks: int, epochs: int, update: float, rates: Rates,
    targets: float,
) -> Cost:  # fmt: skip
    """Costs of training: each network on one core, or on its share of the GPUs with one process per GPU."""
    size = network.num_parameters()
    work = 6 * size * job.frames * epochs * networks
    at_once = min(networks, machines.gpus or machines.cores)
    rounds = -(-networks // at_once)
    if machines.gpus:
        per_network = max(1, machines.gpus // networks)  # GPUs that share a network
        updates = job.frames * epochs / job.batch
        # Each GPU sends and receives all gradients (float32) but its own part, twice (ring all-reduce).
        exchanged = 2 * 4 * size * (per_network - 1) / per_network * updates
        alone = 6 * size * job.frames * epochs / (per_network * machines.gpu_speed)
        loading = job.frames * epochs * rates.loading / min(per_network, max(1, machines.cores // at_once))
        seconds = {
            "compute": rounds * alone, "network": rounds * exchanged / machines.network, "loading": rounds * loading
        }  # fmt: skip
    else:
        seconds = {"compute": rounds * job.frames * epochs * update}
    # What fits into one pool is read once; else every epoch reads it again, for each network.
    passes = networks * (1 if job.frames <= job.pool_frames else epochs)
    seconds["disk"] = passes * (job.frames * job.feature_bytes + targets) / machines.disk
    pool = (POOL_BYTES + 2 * network.feature_dim) * min(job.frames, job.pool_frames)
    memory = PROCESS_BYTES + 16 * size + pool + 40 * job.batch * network.args["width"]
    return Cost(stage, networks * 16 * size, memory, work, seconds)
