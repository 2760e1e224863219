"""Senones from phones with times: one class for each phone, or for each third of each phone."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldi_hmm_gmm
import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, fingerprint
from asr_kd.hmm.align import Alignment
from asr_kd.hmm.gmm import Gmms
from asr_kd.hmm.import_alignments.config import Config
from asr_kd.hmm.import_alignments.phone_times import (
    SILENCE,
    PhoneTimes,
    find_textgrids,
    read_ctm,
    read_textgrid,
    read_times,
)
from asr_kd.hmm.kaldi_io import make_tree, tree_bytes, write_model, write_tree
from asr_kd.hmm.store import FRAME_SHIFT, align_splits, write_summary
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.tree import monophone_tree
from asr_kd.lang.folder import Lang
from asr_kd.lang.lexicon import Lexicon

#: Seconds by which phones may go beyond the end of an utterance, or into each other, by rounding.
TOLERANCE = 0.03


@dataclass(frozen=True)
class PhoneAligner:
    """Aligner that looks up phones with times.

    Attributes:
        folder: filled by ``PhoneTimes.write``.
        faults: utterances whose file cannot be used, with the reasons.
        numbers: number of each phone among those of the classes, by its number in the folder.
        names: names of the phones, by their number among those of the classes.
        states: classes of each phone, 1 or 3.
    """

    folder: Path
    faults: Mapping[str, str]
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    states: int

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Alignment | str], Lexicon]:
        index, phones, spans = _times(self.folder)
        results: list[Alignment | str] = []
        for cut in cuts:
            key = cut.id if cut.id in index else cut.recording_id
            if key not in index:
                results.append(self.faults.get(cut.id, "there are no phones of this utterance"))
                continue
            rows = slice(*index[key])
            order = np.argsort(spans[rows, 0], kind="stable")
            numbers, times = phones[rows][order], spans[rows][order]
            if key != cut.id:  # times in the recording
                times = (times - cut.start).clip(0, cut.duration)
                inside = times[:, 0] < times[:, 1]
                numbers, times = numbers[inside], times[inside]
            results.append(self._align(numbers, times, cut))
        return results, {}

    def _align(self, phones: np.ndarray, times: np.ndarray, cut: MonoCut) -> Alignment | str:
        """Return the alignment of an utterance, given phones (S,) and their times (S, 2) from its start."""
        if not len(times):
            return "there are no phones of this utterance"
        if times[-1, 1] > cut.duration + TOLERANCE:
            return f"its phones end at {times[-1, 1]:.2f} s, and its recording at {cut.duration:.2f} s"
        if (overlaps := times[1:, 0] < times[:-1, 1] - TOLERANCE).any():
            return f"its phones overlap at {times[1:][overlaps][0, 0]:.2f} s"
        middles = (np.arange(cut.num_frames) + 0.5) * FRAME_SHIFT
        segment = np.searchsorted(times[:, 0], middles, side="right") - 1  # that begins last before the middle
        spoken = (segment >= 0) & (middles < times[segment.clip(0), 1])  # all else is silence
        phone = np.where(spoken, np.array(self.numbers)[phones[segment.clip(0)]], 0)
        ends = np.flatnonzero(np.diff(np.where(spoken, segment, -1), append=-2)) + 1
        starts = np.concatenate([[0], ends[:-1]])
        items = [(self.names[phone[first]], int(first), int(last)) for first, last in zip(starts, ends, strict=True)]
        # A pause between segments has thirds, too.
        length = np.repeat(ends - starts, ends - starts)
        within = np.arange(cut.num_frames) - np.repeat(starts, ends - starts)
        third = np.minimum(within * self.states // length, self.states - 1)
        return Alignment((phone * self.states + third).astype(np.int32), items)


@functools.lru_cache(maxsize=1)
def _times(folder: Path) -> tuple[dict[str, list[int]], np.ndarray, np.ndarray]:
    return read_times(folder)


def import_phones(config: Config) -> dict[str, Any]:
    """Fill ``config.out`` with the aligned cuts of every split; returns the figures for the completion mark.

    Raises:
        UserError: a file is missing or damaged, a phone is not in the lexicon, or no utterance of a split has phones.
    """
    out = config.out.resolve()
    times, faults = PhoneTimes(), {}
    for path in config.ctm:
        for key, segment in read_ctm(path):
            times.add(key, [segment])
    for path in find_textgrids(config.textgrids) if config.textgrids else ():
        segments = read_textgrid(path, config.tier)
        if isinstance(segments, str):
            faults[path.stem] = segments
        else:
            times.add(path.stem, segments)
    if not times:
        first = f" ({next(iter(faults.values()))})" if faults else ""
        raise UserError(f"no file has phones{first}: check --ctm, --textgrids and --tier")
    states = 3 if config.thirds else 1
    lang = Lang.load(config.lang) if config.lang else None
    names = [lang.phones[i] for i in lang.real_phones] if lang else [SILENCE, *sorted(set(times.names) - {SILENCE})]
    if missing := sorted(set(times.names) - set(names)):
        raise UserError(
            f"{len(missing)} phones are not in the lexicon of {config.lang}, such as {', '.join(missing[:5])}: make it "
            "with the pronunciations that the phones come from (asr_kd.lang --lexicon), or leave out --lang"
        )
    times.write(out / "times")
    if lang:
        _write_models(out, lang, states)
    numbers = tuple(names.index(name) for name in times.names)
    aligner = PhoneAligner(out / "times", faults, numbers, tuple(names), states)
    with config.executor() as executor:
        statistics = align_splits(executor, aligner, config.features, out, states * len(names))
    shutil.rmtree(out / "times")
    silence = len(lang.silence_phones) if lang else 1
    description = {"num_pdfs": states * len(names), "silence_pdfs": list(range(states * silence)), "phones": names}
    identity = {} if lang else {"senones": fingerprint(names, states)}
    return write_summary(out, {**description, **identity}, statistics)


def _write_models(out: Path, lang: Lang, states: int) -> None:
    """Write a tree without contexts and a transition model, from which asr_kd.hmm.graph compiles a graph.

    Each phone has three states, which lasts 30 ms at least; a class each, or one for all.
    """
    every = lang.real_phones
    text = topology_text(every, lang.silence_phones if states == 3 else every, states)
    with atomic_open(out / "topo") as file:
        file.write(text)
    topology = kaldi_hmm_gmm.HmmTopology()
    topology.read(text)
    tree = tree_bytes(monophone_tree(every, dict.fromkeys(every, states)))
    write_tree(out / "tree", tree)
    transitions = kaldi_hmm_gmm.TransitionModel(make_tree(tree), topology)
    ones = np.ones((transitions.num_pdfs, 1))  # there are no GMMs: one Gaussian each fills the place
    write_model(out / "tri.mdl", transitions, Gmms(np.arange(len(ones) + 1), ones[:, 0], 0 * ones, ones))
