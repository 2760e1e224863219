"""The cuts whose features are computed: each split as recorded, at other speeds, with babble, and degraded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import degraded_name, noisy_name
from asr_kd.corpora.cuts import in_whole_samples, load_cuts
from asr_kd.corpora.manifests import count_lines
from asr_kd.features.babble import noisy_copies, read_talkers
from asr_kd.features.conditions import parse_condition
from asr_kd.features.config import Config
from asr_kd.features.degrade import degraded_copies
from asr_kd.features.given import given_cuts


def read_cuts(data: Path, split: str, rate: int, speeds: Sequence[float] = ()) -> Iterator[MonoCut]:
    """The utterances of a split; then copies at each of ``speeds``, as other speakers.

    Their audio is converted to ``rate`` Hz when it is read.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    for factor in (1.0, *speeds):
        for cut in load_cuts(data, split):
            cut = in_whole_samples(cut if cut.sampling_rate == rate else cut.resample(rate))
            yield cut if factor == 1.0 else speed_copy(cut, factor)


def speed_copy(cut: MonoCut, factor: float) -> MonoCut:
    """A cut at another speed, as another speaker."""
    copy = cut.perturb_speed(factor)
    speaker = cut.supervisions[0].speaker
    # A voice at another speed has another spectrum: normalise it by statistics of its own.
    copy.supervisions[0].speaker = f"{speaker}_sp{factor}"
    copy.custom = {"source_id": cut.id, "source_speaker": speaker}
    return copy


def cuts_by_split(config: Config, rate: int) -> Iterator[tuple[str, Iterator[MonoCut], int]]:
    """(split, its cuts at ``rate`` Hz, their number), for the splits of the corpus and their copies.

    Raises:
        UserError: the corpus has no train split, or too few speakers to babble.
    """
    data = config.data
    splits = sorted(p.name[len("cuts_") : -len(".jsonl.gz")] for p in data.glob("cuts_*.jsonl.gz"))
    if "train" not in splits:
        raise UserError(f"{data} has no cuts_train.jsonl.gz: run asr_kd.corpora first")
    speeds = {split: config.speed_perturb if split == "train" else () for split in splits}
    counts = {s: count_lines(data / f"cuts_{s}.jsonl.gz") * (1 + len(speeds[s])) for s in splits}

    if config.kind == "given":
        for split in splits:
            yield split, given_cuts(data, split), counts[split]
        return

    def talkers(split: str) -> list[MonoCut]:
        return read_talkers(read_cuts(data, split, rate), f"{split} of {data}")

    for split in splits:
        yield split, read_cuts(data, split, rate, speeds[split]), counts[split]
    for split in ("train", "dev"):
        if config.babble and split in splits:
            clean = read_cuts(data, split, rate, speeds[split])
            yield f"{split}_noisy", noisy_copies(clean, config.babble, talkers(split)), counts[split]
    for snr in config.babble if "test" in splits else ():
        # Voices of dev, which no network has been trained on.
        noisy = noisy_copies(read_cuts(data, "test", rate), [snr], talkers("dev"))
        yield noisy_name("test", snr), noisy, counts["test"]
    for split, copies in (("train", config.degrade_copies), ("dev", 1)):
        if config.degrade and split in splits:
            clean = read_cuts(data, split, rate, speeds[split])
            yield f"{split}_degraded", degraded_copies(clean, config.degrade, copies), copies * counts[split]
    for condition in config.degrade if "test" in splits else ():
        name = degraded_name("test", str(parse_condition(condition)))
        yield name, degraded_copies(read_cuts(data, "test", rate), [condition]), counts["test"]
