"""A small experiment folder with everything that scoring and the report read, and nothing that takes long."""

import gzip
import json
from pathlib import Path

import numpy as np

from asr_kd.common.storage import Stage, atomic_open, write_json

VOCABULARY = ["THE", "A", "DOG", "CAT", "SAW", "RAN", "TO", "FROM", "HOUSE", "OLD", "RIVER", "WE", "THEY", "GREEN"]

#: name -> (word error rate, frame accuracy), of each seed
SINGLE, STUDENT = [(0.30, 0.60), (0.31, 0.601), (0.305, 0.599)], [(0.27, 0.617), (0.275, 0.618), (0.28, 0.6165)]
QUARTER_HARD, QUARTER = [(0.37, 0.55), (0.365, 0.552), (0.36, 0.551)], [(0.34, 0.565), (0.33, 0.566), (0.345, 0.564)]

SYSTEMS = """
tune: teachers:0
splits: [dev, test, also]
systems:
  - {name: gmm, label: Triphone GMM, kind: gmm, runs: gmm, tune: gmm}
  - {name: teachers, label: Baseline DNN, kind: single, runs: "teachers:0-2", twin: gmm}
  - {name: ensemble, label: Ensemble, kind: ensemble, runs: ["teachers:0-2"], twin: teachers}
  - {name: student, label: "Distilled, same size", kind: student, runs: "student:0-2", twin: teachers}
  - {name: quarter_hard, label: "Quarter size, hard targets", kind: single, runs: "quarter_hard:0-2"}
  - {name: quarter_student, label: "Quarter size, distilled", kind: student, runs: "quarter_student:0-2",
     twin: quarter_hard}
"""


def make(root: Path, utterances: int = 60) -> Path:
    """Fill ``root``/exp and ``root``/systems.yaml; returns the experiment's folder."""
    exp = root / "exp"
    random = np.random.default_rng(0)
    with atomic_open(root / "systems.yaml") as file:
        file.write(SYSTEMS)
    _common(exp)
    texts = {split: write_cuts(exp / "features", split, utterances, random) for split in ("dev", "test", "other")}
    Stage("hmm", exp / "gmm", {"leaves": 500}, []).finish(num_pdfs=500)
    _decode(exp, "gmm-0", 0.45, texts, random)
    _decode(exp, "ensemble-0", 0.26, texts, random)
    _accuracy(exp, "ensemble-0", 0.62)
    _tune(exp / "tuned-gmm", 0.45)
    _tune(exp / "tuned", SINGLE[0][0])
    for name, width, seeds in (
        ("teachers", 512, SINGLE),
        ("student", 512, STUDENT),
        ("quarter_hard", 192, QUARTER_HARD),
        ("quarter_student", 192, QUARTER),
    ):
        for seed, (wer, accuracy) in enumerate(seeds):
            _train(exp, name, seed, width, accuracy, random)
            _decode(exp, f"{name}-{seed}", wer, texts, random)
            _accuracy(exp, f"{name}-{seed}", accuracy)
    return exp


def write_cuts(folder: Path, split: str, count: int, random: np.random.Generator) -> dict[str, list[str]]:
    """cuts_SPLIT.jsonl.gz of ``count`` utterances by six speakers; returns their words."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    with gzip.open(folder / f"cuts_{split}.jsonl.gz", "wt", encoding="utf-8") as file:
        for number in range(count):
            name, speaker = f"{split}-{number % 6}-{number:04d}", f"{split}-{number % 6}"
            texts[name] = [str(word) for word in random.choice(VOCABULARY, size=random.integers(4, 14))]
            spoken = {"id": name, "speaker": speaker, "text": " ".join(texts[name])}
            file.write(json.dumps({"id": name, "supervisions": [spoken], "type": "MonoCut"}) + "\n")
    return texts


def garble(words: list[str], rate: float, random: np.random.Generator) -> list[str]:
    """About ``rate`` of the words substituted, dropped or followed by another."""
    heard = []
    for word in words:
        fault = random.random() / rate
        if fault < 0.2:
            continue
        heard.append(str(random.choice(VOCABULARY)) if fault < 0.9 else word)
        if 0.9 <= fault < 1:
            heard.append(str(random.choice(VOCABULARY)))
    return heard


def write_hypotheses(folder: Path, split: str, hypotheses: dict[str, list[str]]) -> None:
    with atomic_open(folder / f"hyp_{split}.tsv") as file:
        file.writelines(f"{name}\t{' '.join(hypotheses[name])}\n" for name in sorted(hypotheses))


def _common(exp: Path) -> None:
    splits = {"train": (1340, 67, 1.75), "dev": (310, 15, 0.36), "test": (310, 15, 0.37), "other": (100, 100, 0.35)}
    summary = {r: {"utterances": u, "speakers": s, "hours": h, "skipped": 0} for r, (u, s, h) in splits.items()}
    for name, stage, settings in (
        ("data", "corpora", {"seed": 0}),
        ("features", "features", {"normalise": "speaker"}),
        ("lang", "lang", {"order": 2}),
        ("graph", "graph", {}),
        ("soft_targets", "soft_targets", {"temperatures": [2.0], "mean": "arithmetic", "top": 32}),
    ):
        Stage(stage, exp / name, settings, []).finish()
    write_json(exp / "data" / "summary.json", summary)
    write_json(exp / "graph" / "graph.json", {"num_pdfs": 500, "states": 1_304_113, "arcs": 3_512_907})


def _train(exp: Path, name: str, seed: int, width: int, accuracy: float, random: np.random.Generator) -> None:
    folder = exp / name / f"seed-{seed}"
    lines = []
    for epoch in range(1, 9):
        reached = 100 * (accuracy - 0.25 * np.exp(-0.5 * epoch) + 0.001 * random.standard_normal())
        entry = {"epoch": epoch, "updates": 1200 * epoch, "dev_accuracy": reached, "dev_loss": 4.2 - reached / 25}
        if name != "student":  # older logs lack it
            entry["train_accuracy"] = reached + epoch
        lines.append(json.dumps(entry))
    with atomic_open(folder / "log.jsonl") as file:
        file.write("\n".join(lines) + "\n")
    parameters = 26 * 40 * width + 3 * width * width + 500 * width
    Stage("train", folder, {"preset": "medium", "epochs": 8, "seeds": seed}, []).finish(parameters=parameters)


def _accuracy(exp: Path, name: str, accuracy: float) -> None:
    counts = {
        "frames": 130_000,
        "correct": round(130_000 * accuracy),
        "speech_frames": 90_000,
        "speech_correct": round(90_000 * (accuracy - 0.08)),
        "merged_correct": round(130_000 * (accuracy + 0.02)),
    }
    write_json(exp / "accuracy" / name / "accuracy.json", {"dev": counts, "test": counts})
    Stage("accuracy", exp / "accuracy" / name, {}, []).finish()


def _decode(exp: Path, name: str, wer: float, texts: dict, random: np.random.Generator) -> None:
    folder = exp / "decode" / name
    for split, said in texts.items():
        write_hypotheses(folder, split, {i: garble(words, wer, random) for i, words in said.items()})
    timing = {"utterances": 60, "failed": 0, "scoring_rtf": 0.004, "search_rtf": 0.03, "rtf": 0.034}
    write_json(folder / "decode.json", {"models": 1, "options": {}, "splits": {split: timing for split in texts}})
    Stage("decode", folder, {"beam": 16.0}, []).finish()


def _tune(folder: Path, wer: float) -> None:
    points = [
        {"acoustic_scale": s, "insertion_penalty": p, "wer": 100 * wer * (1 + 25 * (s - 0.1) ** 2 + 0.02 * p**2)}
        for s in (0.05, 0.07, 0.08, 0.1, 0.12, 0.14, 0.17, 0.2, 0.25, 0.3)
        for p in (-1.0, 0.0, 1.0)
    ]
    write_json(folder / "sweep_dev.json", {"split": "dev", "points": points})
    write_json(folder / "tuned.json", min(points, key=lambda point: point["wer"]))
    Stage("decode", folder, {"beam": 16.0}, []).finish()
