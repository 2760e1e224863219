"""Shows which frames one network has right and another wrong: silence, states of the same phone, other phones.

    python tools/frames_gained.py --before EXP/quarter_hard/seed-0 --after EXP/quarter_student/seed-0 \
        --features EXP/features --gmm EXP/gmm --lang EXP/lang

For each class of confusion it counts the frames that the second network gains (the first had them wrong, and how) and
those that it loses (it has them wrong, and how), as a share of all frames.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from asr_kd.common.cli import run
from asr_kd.common.progress import progress
from asr_kd.common.text import read_lines
from asr_kd.corpora.cuts import load_cuts, load_senones
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.kaldi_io import read_transition_model
from asr_kd.hmm.viterbi import Transitions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.network import AcousticModel
from asr_kd.models.posteriors import posteriors

#: Confusions of a senone with another one.
CLASSES = (
    "silence, another of its states", "silence heard as speech", "speech heard as silence",
    "same state of the phone, other context", "other state of the phone", "other phone",
)  # fmt: skip


@dataclasses.dataclass
class Config:
    """Count the frames that one network gains over another, by the kind of confusion."""

    before: tuple[Path, ...]
    """Folder of a network, or of several: their posteriors are averaged."""
    after: tuple[Path, ...]
    """The same of the system that it is compared with."""
    features: Path
    """Features folder."""
    gmm: Path
    """Folder of python -m asr_kd.hmm, with the alignment."""
    lang: Path
    """Folder of python -m asr_kd.lang."""
    split: str = "test"
    """Split to count in."""


def kinds(config: Config) -> np.ndarray:
    """The number in ``CLASSES`` of each confusion, (C, C): aligned senone, recognised senone."""
    transitions = Transitions.of(read_transition_model(config.gmm / "tri.mdl"))
    names = {int(number): name.split("_")[0] for name, number in map(str.split, read_lines(config.lang / "phones.txt"))}
    numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
    phone, state = np.zeros((2, transitions.num_pdfs), int)
    pdf = transitions.pdf[1:]
    phone[pdf], state[pdf] = [numbers[names[p]] for p in transitions.phone[1:].tolist()], transitions.state[1:]
    silent = np.isin(phone, [numbers["SIL"], numbers.get("SPN", -1)])
    label, heard = np.ix_(range(len(phone)), range(len(phone)))
    conditions = [
        silent[label] & silent[heard], silent[label], silent[heard],
        (phone[label] == phone[heard]) & (state[label] == state[heard]), phone[label] == phone[heard],
    ]  # fmt: skip
    return np.select(conditions, range(len(conditions)), len(conditions))


def main(config: Config) -> None:
    systems = [[load_model(folder) for folder in folders] for folders in (config.before, config.after)]
    normaliser, kind = Normaliser.load(config.features), kinds(config)
    gained: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    right, frames = np.zeros(2, int), 0
    for cut in progress(load_cuts(config.gmm, config.split), config.split, unit="utterance"):
        labels, features = load_senones(cut), normaliser(cut)
        heard = [_heard(system, features) for system in systems]
        before, after = (found == labels for found in heard)
        gained.update(kind[labels, heard[0]][after & ~before].tolist())
        lost.update(kind[labels, heard[1]][before & ~after].tolist())
        right += [before.sum(), after.sum()]
        frames += len(labels)
    accuracy = 100 * right / frames
    print(f"frame accuracy on {config.split}: {accuracy[0]:.2f} % → {accuracy[1]:.2f} % of {frames:,} frames\n")
    print("| confusion | gained % | lost % | net % | share of the net gain |\n| --- | --: | --: | --: | --: |")
    net_total = max(1, sum(gained.values()) - sum(lost.values()))
    for number, name in enumerate(CLASSES):
        up, down = gained[number], lost[number]
        print(
            f"| {name} | {100 * up / frames:.2f} | {100 * down / frames:.2f} | {100 * (up - down) / frames:+.2f} | "
            f"{100 * (up - down) / net_total:.0f} % |"
        )


def _heard(models: list[AcousticModel], features: np.ndarray) -> np.ndarray:
    heard: np.ndarray = posteriors(models, features).argmax(1)
    return heard


if __name__ == "__main__":
    run(Config, main)
