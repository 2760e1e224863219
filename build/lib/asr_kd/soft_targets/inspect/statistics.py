"""Statistics of a store of soft targets."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.corpora.cuts import load_senones, open_cuts
from asr_kd.corpora.manifests import count_lines
from asr_kd.soft_targets.store import SoftTargets

BINS = 12  # of the histogram of entropies
BAR = 40  # characters


def inspect(targets: SoftTargets, cuts: Path | None, damaged: list[str]) -> dict[str, Any]:
    """Return the figures of a store at one temperature, from one pass over it.

    Args:
        targets: an open store.
        cuts: manifest of cuts with senones, to compare the labels in a second pass; None: no comparison.
        damaged: gets the error messages of shards that cannot be read.

    Returns:
        cuts, frames, bytes_per_frame, dense_bytes_per_frame (float16), classes_per_frame, mass_kept, entropy (mean in
        nats), highest_entropy (log C), histogram (frames by entropy, in ``BINS`` equal bins from zero to log C),
        disagree (share of frames, or None).
    """
    total = dict.fromkeys(("frames", "bytes", "classes", "mass", "entropy"), 0.0)
    histogram, read = np.zeros(BINS, dtype=np.int64), 0
    highest = float(np.log(targets.num_classes))
    for cut_id in progress(targets, "store", unit="cut"):
        try:
            rows = targets.read(cut_id)
        except UserError as error:
            damaged.append(str(error))
            continue
        compact = rows.batch(np.arange(len(rows)))
        kept = compact.probabilities
        entropy = compact.entropy(compact.parts(targets.num_classes, torch.float32))
        read += 1
        total["frames"] += len(rows)
        total["bytes"] += rows.nbytes
        total["classes"] += float(rows.counts.sum(dtype=np.int64))
        total["mass"] += kept.sum().item()
        total["entropy"] += entropy.sum().item()
        histogram += np.histogram(entropy.clamp(0, highest).numpy(), BINS, (0, highest))[0]
    frames = max(total["frames"], 1)
    return {
        "cuts": read,
        "frames": int(total["frames"]),
        "bytes_per_frame": total["bytes"] / frames,
        "dense_bytes_per_frame": 2 * targets.num_classes,
        "classes_per_frame": total["classes"] / frames,
        "mass_kept": total["mass"] / frames,
        "entropy": total["entropy"] / frames,
        "highest_entropy": highest,
        "histogram": histogram.tolist(),
        "disagree": None if cuts is None else _disagree(targets, cuts, damaged),
    }


def _disagree(targets: SoftTargets, cuts: Path, damaged: list[str]) -> float | None:

    frames = wrong = 0
    for cut in progress(open_cuts(cuts), "labels", count_lines(cuts), "cut"):
        if cut.id not in targets:
            continue
        labels = load_senones(cut)
        try:
            rows = targets.read(cut.id, len(labels))
        except UserError as error:
            damaged.append(str(error))
            continue
        frames += len(labels)
        compact = rows.batch(np.arange(len(rows)))
        best = compact.classes.gather(1, compact.probabilities.argmax(1, keepdim=True))[:, 0]
        wrong += int((best.numpy() != labels).sum())
    return wrong / frames if frames else None


def table(figures: dict[str, Any]) -> list[str]:
    """Return lines of Markdown for the figures of ``inspect``."""
    ratio = figures["dense_bytes_per_frame"] / max(figures["bytes_per_frame"], 1e-9)
    rows = [
        ("bytes per frame", f"{figures['bytes_per_frame']:.1f}"),
        ("bytes per frame of dense float16", f"{figures['dense_bytes_per_frame']} ({ratio:.0f} times as many)"),
        ("classes per frame", f"{figures['classes_per_frame']:.1f}"),
        ("probability mass kept", f"{100 * figures['mass_kept']:.2f} %"),
        ("mean entropy", f"{figures['entropy']:.3f} nats"),
    ]
    if figures["disagree"] is not None:
        rows.append(("frames where the teachers disagree with the label", f"{100 * figures['disagree']:.2f} %"))
    lines = ["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows), "", "entropy, nats     frames"]
    width = figures["highest_entropy"] / BINS
    highest = max(*figures["histogram"], 1)
    for number, count in enumerate(figures["histogram"]):
        bar = "█" * round(BAR * count / highest)
        lines.append(f"{number * width:5.2f} – {(number + 1) * width:5.2f} {count:9d} {bar}")
    return lines
