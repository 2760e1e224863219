"""Frame accuracy of a network or an ensemble against the forced alignment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.cli import run
from asr_kd.storage import Stage, UserError, read_json, write_json


@dataclasses.dataclass
class Config:
    """Share of frames whose likeliest senone is the aligned one: on all frames, and on speech frames."""

    model: tuple[Path, ...]
    """A network's folder, or several for an ensemble (their posteriors are averaged)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_ROLE.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for accuracy.json."""
    roles: tuple[str, ...] = ("dev", "test")
    """Roles to measure."""


def main(config: Config) -> None:
    stage = Stage("accuracy", config.out, config, [*config.model, config.features, config.cuts])
    if not stage.begin():
        return
    import torch
    from lhotse import load_manifest_lazy

    from asr_kd.features import Normaliser
    from asr_kd.models import load_model, posteriors
    from asr_kd.parallel import cpu_count, progress
    from asr_kd.score import FrameAccuracy

    torch.set_num_threads(cpu_count())
    models = [load_model(folder) for folder in config.model]
    normaliser = Normaliser.load(config.features)
    silence = read_json(config.cuts / "hmm.json")["silence_pdfs"]
    results = {}
    for role in config.roles:
        path = config.cuts / f"cuts_{role}.jsonl.gz"
        if not path.is_file():
            raise UserError(f"{path} is missing: check --roles, or run the alignment of {role}")
        accuracy = FrameAccuracy(silence)
        for cut in progress(load_manifest_lazy(path), f"frame accuracy {role}", unit="utterance"):
            accuracy.update(cut.load_custom("senones"), posteriors(models, normaliser(cut)).argmax(1))
        results[role] = accuracy.result()
    write_json(config.out / "accuracy.json", results)
    stage.finish(parameters=sum(model.parameters_count() for model in models))


if __name__ == "__main__":
    run(Config, main)
