"""``python -m asr_kd.corpora.subset``: copies a folder of cuts with a part of the training split."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, Stage, copy_file, read_json, write_json
from asr_kd.corpora.copies import source_id
from asr_kd.corpora.subset.config import Config

TRAIN = "cuts_train.jsonl.gz"


def main(config: Config) -> None:
    stage = Stage("subset", config.out, config, [config.cuts])
    if not stage.begin():
        return
    from asr_kd.corpora.manifests import jsonl_writer, read_jsonl
    from asr_kd.corpora.subset.choose import choose_utterances

    if not (config.cuts / TRAIN).is_file():
        raise UserError(f"{config.cuts} has no {TRAIN}: give a folder of asr_kd.features or asr_kd.hmm")
    utterances = choose_utterances(config, read_jsonl(config.cuts / TRAIN))
    figures = {"utterances": 0, "frames": 0, "speakers": len(set(utterances.values()))}
    with jsonl_writer(config.out / TRAIN) as add:
        for cut in read_jsonl(config.cuts / TRAIN):
            if source_id(cut) in utterances and (config.copies or cut["id"] in utterances):
                add(cut)
                figures["utterances"] += 1
                figures["frames"] += cut["features"]["num_frames"]
    for path in config.cuts.iterdir():
        if path.is_file() and path.name not in (MARK, TRAIN):
            copy_file(path, config.out / path.name)
    if (config.out / "hmm.json").is_file():
        description = read_json(config.out / "hmm.json")
        description["splits"]["train"] |= {"utterances": figures["utterances"], "frames": figures["frames"]}
        write_json(config.out / "hmm.json", description)
    stage.finish(**figures)
    print(f"train: {figures['utterances']} cuts, {figures['frames']} frames, {figures['speakers']} speakers")


if __name__ == "__main__":
    run(Config, main)
