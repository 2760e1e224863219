"""Decoding of prepared splits, with tuning before it where --tune-on asks for that."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.storage import write_json
from asr_kd.corpora.cuts import StoredCuts
from asr_kd.decode.calibration import Calibration, read_calibration
from asr_kd.decode.confidences import calibrate, confidence_figures, write_confidences, write_ctm
from asr_kd.decode.config import Config
from asr_kd.decode.output import join_files, read_tuned, write_table
from asr_kd.decode.pipeline import Decoder, lattice_path, read_records, total_seconds
from asr_kd.decode.recogniser import search_options
from asr_kd.decode.tuning import tune
from asr_kd.decode.worker import SearchOptions
from asr_kd.lang.words import Words
from asr_kd.models.senones import senones_of


def decode_splits(config: Config, decoder: Decoder, out: Path) -> dict[str, Any]:
    """Decode every split of ``config`` into ``out``.

    Returns:
        The number of utterances of each split, for the completion mark.
    """
    options, words = search_options(config), Words(config.graph)
    figures: dict[str, Any] = {}
    for split in filter(None, (config.tune_on, *config.splits)):
        _cuts_path(config, split)  # a missing file is reported before any work is done
    if config.tune_on:
        scale, penalty = _tune(config, decoder, options, words, out)
        options = dataclasses.replace(options, acoustic_scale=scale, insertion_penalty=penalty)

    def decode(split: str) -> list[Path]:
        return decoder.run(_read_cuts(config, split), options, out / "shards" / split, f"{out.name} {split}")

    calibration = read_calibration(config.tuned)
    if config.tune_on and (config.mbr or config.times):
        split = config.tune_on
        calibration = calibrate(_read_cuts(config, split), decode(split), words, out / "tuned.json")
    for split in config.splits:
        shards = decode(split)
        figures[split] = _write_split(out, split, shards, words, options.lattice)
        figures[split] |= _write_confidences(config, split, shards, words, calibration)
    write_json(
        out / "decode.json",
        {
            "models": len(config.model), "options": dataclasses.asdict(options), "splits": figures, "text": words.case,
            "senones": senones_of(config.graph),
        },
    )  # fmt: skip
    return {split: figures[split]["utterances"] for split in figures}


def _tune(config: Config, decoder: Decoder, options: SearchOptions, words: Words, out: Path) -> tuple[float, float]:
    """Acoustic scale and word insertion penalty, which are also written to tuned.json."""
    if (out / "tuned.json").is_file():  # from an interrupted run
        return read_tuned(out / "tuned.json")
    split = config.tune_on
    options = dataclasses.replace(options, scales=config.scales, penalties=config.penalties, lattice=False)
    best, points, added = tune(decoder, _read_cuts(config, split), options, words, out / "shards" / f"tune-{split}")
    sweep = {"split": split, "added": added, "points": [dataclasses.asdict(p) for p in points]}
    write_json(out / f"sweep_{split}.json", sweep)
    write_json(out / "tuned.json", {"split": split, **dataclasses.asdict(best)})
    logging.info(
        "tuned on %s: acoustic scale %g, word insertion penalty %g, WER %.2f %%",
        split, best.acoustic_scale, best.insertion_penalty, best.wer,
    )  # fmt: skip
    return best.acoustic_scale, best.insertion_penalty


def _write_split(out: Path, split: str, shards: Sequence[Path], words: Words, lattices: bool) -> dict[str, Any]:
    """Write the files of one split; return its figures for decode.json."""
    hypotheses: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name, record in read_records(shards):
        hypotheses[name] = words.text(record["words"] or [])
        if record["reason"]:
            failed[name] = " ".join(record["reason"].split())
    if failed:
        logging.warning("%s: %d of %d utterances failed: see failed_%s.tsv", split, len(failed), len(hypotheses), split)
    write_table(out / f"hyp_{split}.tsv", hypotheses)
    write_table(out / f"failed_{split}.tsv", failed)
    if lattices:
        join_files(out / f"lattices_{split}.gz", [lattice_path(path) for path in shards])
    seconds = total_seconds(shards)
    audio = seconds["audio_seconds"]
    return {
        "utterances": len(hypotheses),
        "failed": len(failed),
        **{name: round(value, 2) for name, value in seconds.items()},
        "scoring_rtf": round(seconds["scoring_seconds"] / audio, 5),
        "search_rtf": round(seconds["search_seconds"] / audio, 5),
        "rtf": round((seconds["scoring_seconds"] + seconds["search_seconds"]) / audio, 5),
    }


def _write_confidences(
    config: Config, split: str, shards: Sequence[Path], words: Words, calibration: Calibration
) -> dict[str, Any]:
    """Write the files of one split that --mbr and --times ask for; return its further figures for decode.json."""
    assert config.out is not None
    if config.mbr:
        write_confidences(config.out / f"confidences_{split}.tsv", shards, words, calibration)
    if config.times:
        write_ctm(config.out / f"words_{split}.ctm", shards, words, calibration)
    if not (config.mbr or config.times):
        return {}
    return {"confidence": confidence_figures(_read_cuts(config, split), shards, words, calibration)}


def _cuts_path(config: Config, split: str) -> Path:
    path = (config.cuts or config.features) / f"cuts_{split}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path} is missing: check --splits and --cuts, or run the stage that writes it")
    return path


def _read_cuts(config: Config, split: str) -> StoredCuts:
    path = _cuts_path(config, split)
    cuts = StoredCuts(path)
    if not cuts:
        raise UserError(f"{path} is empty: there is nothing to decode in {split}")
    return cuts
