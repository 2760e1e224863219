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
#: Bytes in memory of what a process works on at a time, a few hundred utterances, beside what it has loaded.
WORK_BYTES = 50e6
#: Bytes in memory of a frame in the pool, but for its features: senone, place, place in the order and in the soft
#: targets, and a soft target.
POOL_BYTES = 4 * 8 + TARGET_BYTES + CLASS_BYTES * KEPT_CLASSES
#: Bytes of a feature in a GPU's number type, bfloat16.
GPU_FEATURE_BYTES = 2
#: Memory of the features in the pool: they are there twice for a while, while half of the frames are put together.
PUTTING_TOGETHER = 1.5


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
        memory: bytes of the largest of its processes.
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
    recorded, every = job.hours * FRAMES_PER_HOUR, frames + job.test_hours * FRAMES_PER_HOUR
    extracted = (every - frames + recorded) * rates.features + (frames - recorded) * rates.copies
    features = every * job.feature_bytes
    audio = (job.hours + job.test_hours) * 3600 * 16000 * 2 / 2  # FLAC halves 16-bit samples
    yield Cost(
        "features", features, rates.process + WORK_BYTES, 0,
        {"compute": extracted / machines.cores, "disk": (audio + features) / disk},
    )  # fmt: skip
    yield Cost(
        "GMMs", 0, rates.process + WORK_BYTES, 0,
        {"compute": recorded * rates.gmm / machines.cores, "disk": recorded * job.feature_bytes / disk},
    )  # fmt: skip
    yield Cost(
        "alignment", every * SENONE_BYTES, rates.process + WORK_BYTES, 0,
        {"compute": every * rates.alignment / machines.cores, "disk": (features + every * SENONE_BYTES) / disk},
    )  # fmt: skip
    loading, soft = rates.loading, rates.target_loading
    yield _training(
        "teachers", job, machines, job.teacher, job.teachers, job.teacher_epochs, rates.update, loading, rates, 0
    )
    kept = frames * (TARGET_BYTES + CLASS_BYTES * KEPT_CLASSES)
    forward = 2 * job.teacher.num_parameters() * job.teachers * frames
    compute = frames * (rates.loading + rates.forward * job.teachers + rates.targets) / machines.cores
    if machines.gpus:
        compute = forward / (machines.gpus * machines.gpu_speed)
    yield Cost(
        "soft targets", kept, rates.process + WORK_BYTES + job.teachers * 4 * job.teacher.num_parameters(), forward,
        {"compute": compute, "disk": (features + kept) / disk},
    )  # fmt: skip
    yield _training(
        "students", job, machines, job.student, job.students, job.student_epochs, rates.student, soft, rates, kept
    )
    searched = job.test_hours * 3600 * job.decoded * (job.real_time_factor or GRAPH_FACTOR * rates.search)
    scored = job.test_hours * FRAMES_PER_HOUR * (job.scored * rates.scoring + job.decoded * rates.loading)
    # A search process takes more than this only with a graph of 6 million arcs or more (60 bytes an arc), or lattices.
    yield Cost("decoding", 1e6, rates.process + WORK_BYTES, 0, {"compute": (searched + scored) / machines.cores})


def _training(
    stage: str, job: Job, machines: Machines, network: Network, networks: int, epochs: int, update: float,
    loading: float, rates: Rates, targets: float,
) -> Cost:  # fmt: skip
    """Costs of training: each network on one core, or on its share of the GPUs with one process per GPU."""
    # What fits into one pool is read once; else every epoch reads it again, for each network.
    readings = 1 if job.frames <= job.pool_frames else epochs
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
        read = job.frames * readings * loading / min(per_network, max(1, machines.cores // at_once))
        seconds = {
            "compute": rounds * alone, "network": rounds * exchanged / machines.network, "loading": rounds * read
        }  # fmt: skip
    else:  # reading ahead takes its time from the same core
        seconds = {"compute": rounds * job.frames * (epochs * update + readings * loading)}
    seconds["disk"] = networks * readings * (job.frames * job.feature_bytes + targets) / machines.disk
    feature = PUTTING_TOGETHER * (GPU_FEATURE_BYTES if machines.gpus else rates.feature)
    pool = (POOL_BYTES + feature * network.feature_dim) * min(job.frames, job.pool_frames)
    memory = rates.process + 16 * size + pool + 40 * job.batch * network.args["width"]
    return Cost(stage, networks * 16 * size, memory, work, seconds)
