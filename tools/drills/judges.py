"""What a stage may make of a damaged input.

A judge compares the outputs of the damaged run with those of an undamaged one, and returns "" or what is wrong:

- ``same``: artefacts of an experiment, which have checksums.  What is used gives the same bytes.
- ``utterances_same``: files of single utterances.  Utterances of undamaged files have the same bytes, the damaged one
  is listed or finite and as long as before, and none is missing from both the outputs and the lists.
- ``transcripts``, ``lexicon``, ``text``, ``arpa``: words and utterances whose lines are undamaged are the same, no
  character is lost (U+FFFD, control characters), probabilities are finite and not above 1, and the counts agree.
- ``settings``: configurations.  The stage ran with the values that the file gives, of the same type.
- ``files``: the other files have the same words, the damaged one has words or a message.
- ``finite``: values of a user's own (images, scores) that nobody can check: what is made is finite.

Weights must be finite in any case.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from drills.process import Ended

#: Outputs with times, paths or dates.
VOLATILE = ("stage.json", "log.jsonl", "last.safetensors", "decode.json", "stdout", "stderr", "log", ".lock")


@dataclass(frozen=True)
class Run:
    """A damaged run beside the undamaged one.

    Attributes:
        ended: how it ended.
        out: its outputs.
        reference: the outputs of the undamaged run.
        printed: what the undamaged run printed to stdout.
        path: the damaged file.
        before, after: its bytes; ``after`` is None if it is missing or a folder.
    """

    ended: Ended
    out: Path
    reference: Path
    printed: str
    path: Path
    before: bytes
    after: bytes | None

    def lines(self) -> tuple[list[bytes], list[bytes]]:
        """The lines of the file before and after, unpacked."""
        return tuple(_unpack(data, self.path.name).split(b"\n") for data in (self.before, self.after or b""))  # type: ignore[return-value]

    def untouched(self) -> set[bytes]:
        """The lines that are in both files equally often."""
        before, after = self.lines()
        return {line for line in set(before) if before.count(line) == after.count(line)}


Judge = Callable[[Run], str]


def _unpack(data: bytes, name: str) -> bytes:
    if name.endswith(".gz") and data[:2] == b"\x1f\x8b":
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, ValueError):
            return b""
    return data


def outputs(folder: Path) -> dict[str, Path]:
    """The files whose bytes an undisturbed run repeats, by their path in ``folder``."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in VOLATILE
        and not {"tensorboard", "tmp"} & set(path.relative_to(folder).parts)
    }


def _listed(folder: Path) -> dict[str, str]:
    """Every utterance in skipped_SPLIT.tsv and failed_SPLIT.tsv, with its reason."""
    files = [path for pattern in ("skipped_*.tsv", "failed_*.tsv") for path in folder.rglob(pattern)]
    rows = [line.partition("\t") for path in files for line in path.read_text().splitlines()]
    return {name: reason for name, _, reason in rows}


def newly_listed(run: Run) -> set[str]:
    """Utterances that only the damaged run lists as skipped or failed."""
    return _listed(run.out).keys() - _listed(run.reference).keys()


def _different(run: Run, names: Iterator[str] | None = None) -> list[str]:
    ours, theirs = outputs(run.out), outputs(run.reference)
    chosen = sorted(ours.keys() | theirs.keys()) if names is None else list(names)
    return [n for n in chosen if n not in ours or n not in theirs or ours[n].read_bytes() != theirs[n].read_bytes()]


def weights(run: Run) -> str:
    for name, path in outputs(run.out).items():
        if name.endswith("model.safetensors"):
            bad = [key for key, value in load_file(path).items() if not np.isfinite(value).all()]
            if bad:
                return f"{name} has weights that are not finite ({bad[0]})"
    return ""


def same(run: Run) -> str:
    """Equal outputs, but for utterances that are listed."""
    listed, wrong = newly_listed(run), []
    for name in _different(run):
        ours, theirs = outputs(run.out).get(name), outputs(run.reference).get(name)
        if not listed or ours is None or theirs is None or ours.suffix != ".tsv":
            wrong.append(name)
            continue
        rows = [set(path.read_text().splitlines()) for path in (ours, theirs)]
        if any(line.partition("\t")[0] not in listed for line in rows[0] ^ rows[1]):
            wrong.append(name)
    return f"used, and {', '.join(wrong[:3])} changed" if wrong else ""


def _cuts(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        cut["id"]: cut
        for path in sorted(folder.glob("*cuts_*.jsonl.gz"))
        for cut in map(json.loads, gzip.open(path, "rt", encoding="utf-8"))
    }


def utterances_same(run: Run) -> str:
    ours, theirs, listed = _cuts(run.out), _cuts(run.reference), newly_listed(run)
    damaged = next((name for name in theirs if name == run.path.stem), "")
    if lost := theirs.keys() - ours.keys() - listed:
        return f"{min(lost)} is neither used nor listed"
    for name, path in outputs(run.out).items():
        if path.suffix != ".npy" or path.stem not in theirs:
            continue
        values, expected = np.load(path), np.load(run.reference / name)
        if path.stem == damaged:
            if values.shape != expected.shape or not np.isfinite(values).all():
                return f"{name} has shape {values.shape}, not {expected.shape}, or is not finite"
        elif damaged and not np.array_equal(values, expected):
            return f"{name} changed, and {damaged} was damaged"
    return ""


def bad_characters(text: str) -> str:
    """The first character that no word may have: replaced, control, byte order mark."""
    return next((repr(c) for c in text if c in "�\ufeff\u2028\u2029" or (ord(c) < 32 and c not in "\t\n")), "")


def _names_clean(run: Run, *names: str) -> str:
    for name in names:
        if bad := bad_characters((run.out / name).read_text(encoding="utf-8")):
            return f"{name} has the character {bad}"
    return ""


def _supervisions(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(folder.glob("cuts_*.jsonl.gz"))
    return {
        cut["id"]: cut["supervisions"][0]
        for path in paths
        for cut in map(json.loads, gzip.open(path, "rt", encoding="utf-8"))
    }


def transcripts(run: Run) -> str:
    ours, theirs = _supervisions(run.out), _supervisions(run.reference)
    if lost := theirs.keys() - ours.keys() - newly_listed(run):
        return f"{min(lost)} is neither used nor listed"
    for supervision in ours.values():
        if bad := bad_characters(supervision["text"]):
            return f"{supervision['id']} has the character {bad}"
    damaged: set[str] = set()
    if run.path.suffix == ".txt":
        intact = run.untouched()
        damaged = {_first_word(line) for lines in run.lines() for line in lines if line not in intact}
    changed = [n for n in ours.keys() & theirs.keys() if ours[n]["text"] != theirs[n]["text"] and n not in damaged]
    return f"the transcript of {changed[0]} changed" if changed else ""


def _first_word(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip().partition(" ")[0].partition("\t")[0]


def _lexicon(path: Path) -> dict[str, set[str]]:
    entries: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        word, _, phones = line.partition(" ")
        entries.setdefault(word, set()).add(phones)
    return entries


def lexicon(run: Run) -> str:
    if bad := _names_clean(run, "words.txt", "phones.txt", "lexicon.txt"):
        return bad
    ours, theirs = _lexicon(run.out / "lexicon.txt"), _lexicon(run.reference / "lexicon.txt")
    before, after = run.lines()
    touched = {_first_word(line).upper() for line in set(before) ^ set(after)}
    if touched and len(touched) < len(theirs) // 2:
        changed = [w for w in ours.keys() & theirs.keys() if ours[w] != theirs[w] and w not in touched]
        if changed:
            return f"the pronunciations of {changed[0]} changed"
    return ""


def text(run: Run) -> str:
    if bad := _names_clean(run, "words.txt", "phones.txt", "lexicon.txt"):
        return bad
    ours, theirs = _lexicon(run.out / "lexicon.txt"), _lexicon(run.reference / "lexicon.txt")
    changed = [word for word in ours.keys() & theirs.keys() if ours[word] != theirs[word]]
    return f"the pronunciation of {changed[0]} changed" if changed else _probabilities(run)[0]


def _probabilities(run: Run) -> tuple[str, list[int]]:
    """What is wrong with the numbers of lm.arpa, and the number of n-grams of each order."""
    counts: list[int] = []
    for line in (run.out / "lm.arpa").read_text(encoding="utf-8").split("\n"):
        if line.startswith("\\") and line.endswith("-grams:"):
            counts.append(0)
        elif counts and "\t" in line:
            counts[-1] += 1
            first, *_, last = line.split("\t")
            if not (math.isfinite(float(first)) and float(first) <= 1e-5):
                return f"lm.arpa has the log probability {first}", counts
            if last != line.split("\t")[1] and not math.isfinite(float(last)):
                return f"lm.arpa has the back-off weight {last}", counts
    return "", counts


def arpa(run: Run) -> str:
    wrong, counts = _probabilities(run)
    wrong = wrong or _names_clean(run, "words.txt", "lm.arpa")
    if wrong:
        return wrong
    _, after = run.lines()
    declared = [int(line.split(b"=")[1]) for line in after if line.startswith(b"ngram ")]
    if counts != declared and "left out" not in run.ended.output:
        return f"lm.arpa has {counts} n-grams, the input says {declared}, and nothing was said"
    return ""


def settings(run: Run) -> str:
    """The mark has the values of the file; equal files give equal outputs."""
    before, after = (yaml.safe_load(data) for data in (run.before, run.after or b""))
    if before == after:
        return same(run)
    mark = next(run.out.rglob("stage.json"))
    content = json.loads(mark.read_text())
    used, given = content["settings"], after
    if isinstance(after, dict) and isinstance(after.get(content["stage"]), dict):
        given = after[content["stage"]]
    for key, value in (given or {}).items():
        name = str(key).replace("-", "_")
        if name not in used or name in ("seeds", "jobs"):
            continue
        wanted, got = value, used[name]
        if isinstance(got, list) and not isinstance(wanted, list):
            wanted = [wanted]
        if isinstance(got, float) and isinstance(wanted, (int, str)) and not isinstance(wanted, bool):
            wanted = float(wanted)
        if wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
            return f"{key} is {value!r} in the file, and {got!r} was used"
    return weights(run)


def files(run: Run) -> str:
    """Decoding of files: good, damaged, good."""
    ours, theirs = (dict(line.split("\t", 1) for line in t.splitlines() if "\t" in line) for t in _printed(run))
    for path, words in theirs.items():
        if Path(path).parent.name == "good" and ours.get(path) != words:
            return f"{path} has other words beside a damaged file"
    if str(run.path) not in ours and run.path.name not in run.ended.stderr:
        return "the damaged file has neither words nor a message"
    return "" if (run.ended.code == 0) == (str(run.path) in ours) else f"exit status {run.ended.code}"


def _printed(run: Run) -> tuple[str, str]:
    return run.ended.stdout, run.printed


def finite(run: Run) -> str:
    for name, path in outputs(run.out).items():
        if path.suffix == ".npy":
            values = np.load(path)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                return f"{name} is not finite"
        if path.suffix == ".json" and "NaN" in path.read_text():
            return f"{name} has NaN"
    return weights(run)
