"""The kinds of damaged inputs: which files, which stage reads them, and what it may make of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drills import audio, judges
from drills.judges import Judge
from drills.mutations import kind_of, mutate
from drills.place import Place

MISSING, FOLDER = "missing", "folder"


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        group: row of the table.
        job: the stage that reads it, of ``place.JOBS``.
        files: patterns of the files to damage, under ``exp/`` or ``user/``.
        judge: says what is wrong with the outputs.
        weight: share of the cases.
    """

    group: str
    job: str
    files: tuple[str, ...]
    judge: Judge
    weight: float = 1.0


def _artefacts(group: str, weight: float, *jobs: tuple[str, str]) -> list[Kind]:
    """Kinds of one group: (job, patterns separated by blanks)."""
    return [Kind(group, job, tuple(files.split()), judges.same, weight / len(jobs)) for job, files in jobs]


KINDS: tuple[Kind, ...] = (
    Kind("audio files to decode", "files", ("user/audio/*",), judges.files, 150),
    Kind("audio of a corpus", "features", ("user/tree/*/*/*/*.flac",), judges.utterances_same, 70),
    Kind("transcripts", "corpora", ("user/tree/*/*/*/*.trans.txt",), judges.transcripts, 80),
    Kind("transcripts", "corpora", ("user/tree/*/*/*/*.flac",), judges.transcripts, 20),
    Kind("lexicon", "lexicon", ("user/lexicon.txt",), judges.lexicon, 60),
    Kind("text for the language model", "text", ("user/text.txt", "user/text.txt.gz"), judges.text, 40),
    Kind("ARPA", "arpa", ("user/lm.arpa",), judges.arpa, 50),
    Kind("ARPA", "arpa_gz", ("user/lm.arpa.gz",), judges.arpa, 20),
    Kind("configurations", "conf_features", ("user/conf.yaml",), judges.settings, 12),
    Kind("configurations", "conf_train", ("user/conf.yaml",), judges.settings, 30),
    Kind("configurations", "conf_lang", ("user/lang.yaml",), judges.settings, 15),
    Kind("configurations", "conf_targets", ("user/targets.yaml",), judges.settings, 15),
    Kind("configurations", "conf_score", ("user/score.yaml",), judges.settings, 10),
    Kind("configurations", "conf_decode", ("user/decode.yaml",), judges.settings, 15),
    Kind("lists of systems and studies", "score", ("user/systems.yaml",), judges.finite, 20),
    Kind("lists of systems and studies", "report", ("user/systems.yaml",), judges.finite, 10),
    Kind("lists of systems and studies", "study", ("user/study.yaml",), judges.finite, 20),
    *_artefacts("manifests", 50, ("features", "user/data/*"), ("transfer", "exp/gmm/cuts_*"),
                ("boundaries", "exp/data/truth_*"), ("train", "exp/gmm/cuts_*")),
    *_artefacts("archives of features and senones", 60,
                ("train", "exp/features/storage/train/*/*/* exp/features/cmvn* exp/features/stage.json"),
                ("accuracy", "exp/features/storage/dev/*/*/* exp/gmm/senones/dev/*/*/*"),
                ("decode", "exp/features/storage/test/*/*/* exp/features/cmvn* exp/features/cuts_test*"),
                ("train", "exp/gmm/senones/train/*/*/* exp/gmm/*.npy exp/gmm/hmm.json exp/gmm/stage.json"),
                ("hmm", "exp/features/storage/train/*/*/* exp/features/cuts_*")),
    *_artefacts("shards", 20, ("train_shar", "user/shar/*/* user/shar/* user/shar/*/*/*")),
    *_artefacts("lexicon and grammar of an experiment", 30, ("graph", "exp/lang/*"), ("hmm", "exp/lang/*")),
    *_artefacts("GMM-HMMs", 40, ("graph", "exp/gmm/tree exp/gmm/tri.mdl exp/gmm/hmm.json exp/gmm/topo"),
                ("decode_gmm", "exp/gmm/tri.mdl exp/gmm/*.json exp/gmm/cmvn*"),
                ("realign", "exp/gmm/tree exp/gmm/tri.mdl exp/gmm/topo exp/gmm/hmm.json")),
    *_artefacts("networks", 60, ("soft_targets", "exp/teachers/seed-0/*"), ("decode", "exp/teachers/seed-0/*"),
                ("start_from", "exp/teachers/seed-0/*"), ("train_online", "exp/teachers/seed-0/*"),
                ("accuracy", "exp/teachers/seed-0/*")),
    *_artefacts("stores of soft targets", 60, ("train", "exp/soft_targets/* exp/soft_targets/*/*"),
                ("inspect", "exp/soft_targets/* exp/soft_targets/*/*")),
    *_artefacts("graphs", 50, ("decode", "exp/graph/*"), ("decode", "exp/graph.k2/*/*")),
    *_artefacts("results", 30, ("score", "exp/decode/*/hyp_* exp/accuracy/*/* exp/decode/*/* exp/features/cuts_test*"),
                ("report", "exp/score/* exp/teachers/seed-0/log.jsonl exp/tuned/* exp/decode/*/*"),
                ("decode", "exp/tuned/*")),
    Kind("Kaldi archives and models", "import_pdfs", ("user/pdfs.ark",), judges.utterances_same, 12),
    Kind("Kaldi archives and models", "import_text", ("user/pdfs.txt.ark",), judges.utterances_same, 12),
    Kind("Kaldi archives and models", "import_gz", ("user/pdfs.1.gz",), judges.utterances_same, 10),
    Kind("Kaldi archives and models", "import_scp", ("user/pdfs.scp", "user/pdfs.ark"), judges.utterances_same, 10),
    Kind("Kaldi archives and models", "import_model", ("user/final.mdl", "user/tree.kaldi", "user/phones.txt",
         "user/transitions.ark"), judges.utterances_same, 26),
    Kind("scores to align with", "realign", ("user/scores/*",), judges.utterances_same, 20),
    Kind("teachers and labels of other toolkits", "posteriors", ("user/scores/*",), judges.finite, 10),
    Kind("teachers and labels of other toolkits", "posteriors_scp", ("user/scores.scp", "user/scores.ark"),
         judges.finite, 10),
    Kind("teachers and labels of other toolkits", "import_ctm", ("user/phones.ctm",), judges.finite, 10),
    Kind("teachers and labels of other toolkits", "import_grids", ("user/grids/*",), judges.finite, 10),
    Kind("images", "images", ("user/images/*/*/*",), judges.finite, 15),
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """What happens to a file: other bytes, or ``MISSING`` or ``FOLDER``."""

    path: Path
    name: str
    data: bytes | str


def choose_kind(rng: random.Random) -> Kind:
    return rng.choices(KINDS, [kind.weight for kind in KINDS])[0]


def targets(place: Place, kind: Kind) -> Sequence[Path]:
    """The files of a kind that are not empty, sorted."""
    roots = {"exp": place.exp, "user": place.user}
    found: set[Path] = set()
    for pattern in kind.files:
        root, _, rest = pattern.partition("/")
        found.update(path for path in roots[root].glob(rest) if path.is_file() and path.stat().st_size)
    return sorted(path for path in found if path.name != ".lock")


def damage(place: Place, kind: Kind, rng: random.Random) -> Damage:
    """Draw a file of the kind, and what happens to it."""
    files = targets(place, kind)
    path = rng.choice(files)
    before, how = path.read_bytes(), rng.random()
    if how < 0.03:
        return Damage(path, MISSING, MISSING)
    if how < 0.06:
        return Damage(path, FOLDER, FOLDER)
    if how < 0.14:  # another file of the same name or ending
        others = [p for p in files if p != path and p.suffix == path.suffix and p.read_bytes() != before]
        if others:
            return Damage(path, "another file", rng.choice(others).read_bytes())
    if path.parent.name == "audio" and (special := audio.damage(before, path.name, rng)):
        return Damage(path, *special)
    name = "pdfs.txt" if path.name == "pdfs.txt.ark" else path.name
    return Damage(path, *mutate(before, kind_of("tree.txt" if name == "phones.txt" else name), rng))
