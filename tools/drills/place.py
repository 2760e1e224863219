"""The place of a drill: a finished experiment, files as a user hands them in, and the stages that read them."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import soundfile
import yaml
from lhotse import CutSet, MonoCut
from PIL import Image
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.textgrid import Textgrid

from asr_kd.common.errors import UserError
from asr_kd.hmm.import_alignments.kaldi_alignments import Transitions
from asr_kd.hmm.kaldi_io import read_transition_model
from drills import audio
from drills.process import Ended, run_stage

ROOT = Path(__file__).parents[2]
SYSTEMS = ROOT / "recipes/librispeech/conf/systems.yaml"
VARIABLES = ("teachers=2", "seeds=1", "decoded=1")
#: Speakers of the small tree, and utterances of each.
SPEAKERS, UTTERANCES = 2, 3


@dataclass(frozen=True)
class Job:
    """A stage with its flags, which name paths of the place: {exp}, {user}, {out}."""

    module: str
    flags: str


#: The train stage of all jobs.
TRAIN = "--preset tiny --width 32 --epochs 1 --device cpu --cuts {exp}/gmm --features {exp}/features"
DECODE = "--graph {exp}/graph --features {exp}/features --jobs 1"
NETWORK = f"--model {{exp}}/teachers/seed-0 {DECODE}"
SCORE = "--exp {exp} --systems {user}/systems.yaml --out {out}"
DECODED = "--splits test --tuned {exp}/tuned/tuned.json --out {out}"
FOREIGN = "--features {user}/features --cuts {user}/features/cuts_train.jsonl.gz --out {out}"
JOBS = {
    "corpora": Job("corpora", "--corpus-dir {user}/tree --train train --dev dev --test test --out {out}"),
    "features": Job("features", "--data {user}/data --out {out}"),
    "lexicon": Job("lang", "--data {user}/data --lexicon {user}/lexicon.txt --out {out}"),
    "text": Job("lang", "--data {user}/data --lm-text {user}/text.txt {user}/text.txt.gz --out {out}"),
    "arpa": Job("lang", "--data {user}/data --arpa {user}/lm.arpa --out {out}"),
    "arpa_gz": Job("lang", "--data {user}/data --arpa {user}/lm.arpa.gz --out {out}"),
    "hmm": Job("hmm", "--features {exp}/features --lang {exp}/lang --leaves 50 --mono-gaussians 100 --out {out}"),
    "boundaries": Job("hmm.boundaries", "--cuts {exp}/gmm --truth {exp}/data --out {out}"),
    "transfer": Job("hmm.transfer", "--features {exp}/features --cuts {exp}/gmm --out {out}"),
    "realign": Job(
        "hmm.realign", "--gmm {exp}/gmm --lang {exp}/lang --features {user}/features --scores {user}/scores "
        "--out {out}"
    ),
    "graph": Job("hmm.graph", "--lang {exp}/lang --gmm {exp}/gmm --out {out}"),
    "import_pdfs": Job("hmm.import_alignments", "--features {user}/features --ark {user}/pdfs.ark --out {out}"),
    "import_text": Job("hmm.import_alignments", "--features {user}/features --ark {user}/pdfs.txt.ark --out {out}"),
    "import_gz": Job("hmm.import_alignments", "--features {user}/features --ark {user}/pdfs.1.gz --out {out}"),
    "import_scp": Job("hmm.import_alignments", "--features {user}/features --ark {user}/pdfs.scp --out {out}"),
    "import_model": Job(
        "hmm.import_alignments", "--features {user}/features --ark {user}/transitions.ark --model {user}/final.mdl "
        "--tree {user}/tree.kaldi --phones {user}/phones.txt --out {out}"
    ),
    "import_ctm": Job("hmm.import_alignments", "--features {user}/features --ctm {user}/phones.ctm --out {out}"),
    "import_grids": Job(
        "hmm.import_alignments", "--features {user}/features --textgrids {user}/grids --thirds --out {out}"
    ),
    "posteriors": Job("soft_targets", f"--posteriors {{user}}/scores {FOREIGN}"),
    "posteriors_scp": Job("soft_targets", f"--posteriors {{user}}/scores.scp {FOREIGN}"),
    "train": Job("train", f"{TRAIN} --soft-targets {{exp}}/soft_targets --temperature 2 --out {{out}}"),
    "train_online": Job("train", f"{TRAIN} --teachers {{exp}}/teachers/seed-0 --out {{out}}"),
    "start_from": Job("train", f"{TRAIN} --start-from {{exp}}/teachers/seed-0 --out {{out}}"),
    "train_shar": Job("train", TRAIN.replace("{exp}/gmm", "{user}/shar") + " --out {out}"),
    "soft_targets": Job(
        "soft_targets", "--models {exp}/teachers/seed-0 {exp}/teachers/seed-1 --features {exp}/features "
        "--cuts {exp}/gmm/cuts_dev.jsonl.gz --device cpu --out {out}"
    ),
    "inspect": Job("soft_targets.inspect", "--store {exp}/soft_targets --features {exp}/features"),
    "accuracy": Job(
        "score.accuracy", "--systems one={exp}/teachers/seed-0 --features {exp}/features --cuts {exp}/gmm "
        "--splits dev --out {out}"
    ),
    "decode": Job("decode", f"{NETWORK} {DECODED}"),
    "decode_gmm": Job("decode", f"{DECODE} --model {{exp}}/gmm --splits dev --out {{out}}"),
    "files": Job("decode", f"{NETWORK} {{user}}/good/a.wav {{file}} {{user}}/good/b.flac"),
    "score": Job("score", f"{SCORE} --replications 200"),
    "report": Job("report", "--exp {exp} --systems {user}/systems.yaml --no-posteriorgram --out {out}"),
    "images": Job("specialists.images", "--train {user}/images/train --test {user}/images/test --size 8 "
                  "--out {out}"),
    "conf_features": Job("features", "--config {user}/conf.yaml:features --data {user}/data --out {out}"),
    "conf_train": Job("train", "--config {user}/conf.yaml:train --cuts {exp}/gmm --features {exp}/features "
                      "--out {out}"),
    "conf_lang": Job("lang", "--config {user}/lang.yaml --data {user}/data --out {out}"),
    "conf_targets": Job(
        "soft_targets", "--config {user}/targets.yaml --models {exp}/teachers/seed-0 --features {exp}/features "
        "--cuts {exp}/gmm/cuts_dev.jsonl.gz --out {out}"
    ),
    "conf_score": Job("score", f"--config {{user}}/score.yaml {SCORE}"),
    "conf_decode": Job("decode", f"--config {{user}}/decode.yaml {NETWORK} --splits dev --out {{out}}"),
    "study": Job("study", "--study {user}/study.yaml --conf {user}/conf.yaml --exp {exp}"),
}  # fmt: skip
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "conf.yaml": {
        "features": {"normalise": "speaker", "speed_perturb": [0.9, 1.1], "babble": []},
        "train": {
            "seeds": [0], "same_order": False, "bootstrap": False, "preset": "tiny", "layers": 2, "width": 16,
            "left": 10, "right": 3, "dropout": 0.1, "batch_norm": False, "hard_weight": 0.5, "epochs": 1,
            "batch_size": 256, "learning_rate": 2e-3, "weight_decay": 0.01, "pool_frames": 20000, "device": "cpu",
        },
    },
    "lang.yaml": {
        "units": "phone", "max_words": 3000, "min_count": 1, "order": 2, "prune": 1e-7, "silence_probability": 0.4,
    },
    "targets.yaml": {
        "temperatures": [1.0, 4.0], "mean": "arithmetic", "floor": 0.02, "tail": "bucket", "top": 20, "draws": 64,
        "seed": 3, "device": "cpu",
    },
    "score.yaml": {"bootstrap_by": "speaker", "replications": 100, "seed": 4},
    "decode.yaml": {
        "acoustic_scale": 0.08, "insertion_penalty": 0.5, "beam": 8.0, "max_active": 200, "min_active": 20,
        "lattice_beam": 3.0, "lattices": False, "batch": 2, "mean": "geometric",
    },
    "study.yaml": {
        "title": "A study", "tune": "exp/teachers:0", "splits": ["test"],
        "steps": [{"name": "net", "stage": "train", "conf": "teachers", "seeds": [0]}],
        "systems": [
            {"name": "single", "label": "one", "kind": "single", "runs": "net:0", "decoded": 1},
            {"name": "ensemble", "kind": "ensemble", "runs": ["exp/teachers:0-1"], "decoded": 0, "twin": "single"},
        ],
        "views": [{"show": "epochs", "groups": ["single"]}],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Folders of a drill: ``exp``, a finished experiment; ``user``, what a user hands in; ``work``, for outputs."""

    root: Path
    exp: Path

    @property
    def user(self) -> Path:
        return self.root / "user"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def run(self, name: str, file: Path | None = None, seconds: float = 60.0, out: Path | None = None) -> Ended:
        """Run a job of ``JOBS`` in an empty ``work``, with outputs in ``work``/out or ``out``."""
        shutil.rmtree(self.work, ignore_errors=True)
        job = JOBS[name]
        paths = {"exp": self.exp, "user": self.user, "out": out or self.work / "out", "file": file or ""}
        return run_stage(job.module, job.flags.format(**paths).split(), self.work, seconds)

    def check(self, name: str, ended: Ended) -> None:
        """Raises UserError if an undamaged run failed."""
        if ended.code:
            raise UserError(f"the stage {name} fails on undamaged inputs: {ended.output[-2000:]}")


def run_recipe(exp: Path, conf: Path, log: Path) -> None:
    """Make an experiment with the recipe, or finish it.

    Raises:
        UserError: it failed.
    """
    command = ["bash", str(ROOT / "recipes/librispeech/run.sh"), "--conf", str(conf), "--exp", str(exp)]
    with open(log, "a") as file:
        done = subprocess.run(
            [*command, "--teachers", "2"], stdout=file, stderr=file, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    if done.returncode:
        raise UserError(f"the recipe failed: see {log}")


def prepare(place: Place) -> None:
    """Make the files of the user from the experiment, unless that has been done."""
    done = place.root / "prepared"
    if done.exists():
        return
    shutil.rmtree(place.user, ignore_errors=True)
    place.user.mkdir(parents=True)
    _small_tree(place)
    _texts(place)
    for name, folder in (("corpora", "data"), ("features", "features")):
        place.check(name, place.run(name, out=place.user / folder))
    place.check("shar", _shar(place))
    _alignments(place)
    _images(place.user / "images")
    samples, _ = soundfile.read(next((place.exp / "data/corpus/test").rglob("*.flac")), dtype="float64")
    audio.write_all(samples, place.user / "audio")
    audio.write_all(samples[len(samples) // 4 :], place.user / "good")
    shutil.copy(place.user / "good/pcm16.wav", place.user / "good/a.wav")
    shutil.copy(place.user / "good/pcm16.flac", place.user / "good/b.flac")
    done.touch()


def _small_tree(place: Place) -> None:
    """A LibriSpeech tree with a few utterances of a few speakers of the experiment's corpus."""
    for split in ("train", "dev", "test"):
        for speaker in sorted((place.exp / "data/corpus" / split).iterdir())[:SPEAKERS]:
            for chapter in sorted(speaker.iterdir())[:1]:
                target = place.user / "tree" / split / speaker.name / chapter.name
                target.mkdir(parents=True)
                lines = next(chapter.glob("*.trans.txt")).read_text().splitlines(keepends=True)[:UTTERANCES]
                (target / next(chapter.glob("*.trans.txt")).name).write_text("".join(lines))
                for line in lines:
                    shutil.copy(chapter / f"{line.split()[0]}.flac", target)


def _texts(place: Place) -> None:
    """Lexicon, texts, language models and configurations."""
    lines = (place.exp / "lang/lexicon.txt").read_text().splitlines(keepends=True)
    (place.user / "lexicon.txt").write_text("".join(line for line in lines if not line.startswith("<")))
    text = (place.exp / "data/lm_text.txt").read_text().splitlines(keepends=True)
    (place.user / "text.txt").write_text("".join(text[:400]))
    (place.user / "text.txt.gz").write_bytes(gzip.compress("".join(text[400:700]).encode(), mtime=0))
    arpa = (place.exp / "lang/lm.arpa").read_bytes()
    (place.user / "lm.arpa").write_bytes(arpa)
    (place.user / "lm.arpa.gz").write_bytes(gzip.compress(arpa, mtime=0))
    systems = yaml.safe_load(SYSTEMS.read_text())
    systems["variables"] = {name: int(value) for name, value in (one.split("=") for one in VARIABLES)}
    (place.user / "systems.yaml").write_text(yaml.safe_dump(systems, sort_keys=False))
    small = yaml.safe_load((Path(__file__).parent / "small.yaml").read_text())
    for name, values in CONFIGURATIONS.items():
        values = {**small, **values} if name == "conf.yaml" else values
        (place.user / name).write_text(yaml.safe_dump(values, sort_keys=False))


def _shar(place: Place) -> Ended:
    flags = f"--cuts {place.exp}/gmm --out {place.user}/shar --shard-frames 5000"
    return run_stage("corpora.shar", flags.split(), place.work)


def _alignments(place: Place) -> None:
    """Kaldi archives of pdf-ids and transition-ids, its model, scores, and phones, of the small corpus."""
    user = place.user
    ids: dict[str, np.ndarray] = {}
    (user / "grids").mkdir()
    for split in ("train", "dev", "test"):
        known = {cut.id for cut in CutSet.from_file(user / f"features/cuts_{split}.jsonl.gz")}
        cuts = CutSet.from_file(place.exp / f"gmm/cuts_{split}.jsonl.gz")
        cuts = [cut for cut in cuts if cut.id in known]
        ids |= {cut.id: cut.load_senones().astype(np.int32) for cut in cuts}
        for cut in cuts:
            _phones(user, cut)
    (user / "scores").mkdir()
    senones = 1 + max(int(vector.max()) for vector in ids.values())
    rng = np.random.default_rng(0)
    for name, vector in ids.items():
        scores = rng.standard_normal((len(vector), _num_pdfs(place, senones))).astype(np.float32)
        scores[np.arange(len(vector)), vector] += 5
        np.save(user / "scores" / f"{name}.npy", scores)
    arrays = {path.stem: np.load(path) for path in sorted((user / "scores").iterdir())}
    kaldiio.save_ark(str(user / "scores.ark"), arrays, scp=str(user / "scores.scp"))
    kaldiio.save_ark(str(user / "pdfs.ark"), ids, scp=str(user / "pdfs.scp"))
    lines = [f"{name} {' '.join(map(str, vector))}\n" for name, vector in ids.items()]
    (user / "pdfs.txt.ark").write_text("".join(lines))
    (user / "pdfs.1.gz").write_bytes(gzip.compress((user / "pdfs.ark").read_bytes(), mtime=0))
    for source, target in (("tri.mdl", "final.mdl"), ("tree", "tree.kaldi")):
        shutil.copy(place.exp / "gmm" / source, user / target)
    shutil.copy(place.exp / "lang/phones.txt", user / "phones.txt")
    kaldiio.save_ark(str(user / "transitions.ark"), {n: _transition_ids(place, v) for n, v in ids.items()})


def _phones(user: Path, cut: MonoCut) -> None:
    """Append the phones of a cut to phones.ctm, and write its TextGrid."""
    phones = cut.supervisions[0].alignment["phone"]
    with open(user / "phones.ctm", "a", encoding="utf-8") as file:
        file.writelines(f"{cut.id} 1 {item.start:.2f} {item.duration:.2f} {item.symbol}\n" for item in phones)
    grid = Textgrid()
    spans = [(item.start, round(item.end, 4), item.symbol) for item in phones]
    grid.addTier(IntervalTier("phones", spans, 0, cut.duration))
    grid.save(str(user / "grids" / f"{cut.id}.TextGrid"), "long_textgrid", includeBlankSpaces=True)


def _num_pdfs(place: Place, at_least: int) -> int:
    return max(at_least, len(np.load(place.exp / "gmm/pdf_counts.npy")))


def _transition_ids(place: Place, pdfs: np.ndarray) -> np.ndarray:
    """The first transition-id of each pdf: no path of the HMM, but valid ids."""
    table = Transitions.of(read_transition_model(place.exp / "gmm/tri.mdl")).pdf
    return np.array([int(np.flatnonzero(table[1:] == pdf)[0]) + 1 for pdf in pdfs], np.int32)


def _images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("one", "two"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8))
                pixels.save(folder / split / name / f"{number}.{'png' if number % 2 else 'jpg'}")
