"""``python -m asr_kd.specialists.assign``: assigns classes to specialists (section 5.3)."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.specialists.assign.config import Config
from asr_kd.specialists.files import CLUSTERS, SIMILARITY


def main(config: Config) -> None:
    stage = Stage("assign", config.out, config, config.inputs)
    if not stage.begin():
        return
    from asr_kd.specialists.assign.clustering import class_similarity, cluster
    from asr_kd.specialists.examples import open_examples

    examples = open_examples(config)
    similarity = class_similarity(examples, config.generalist, config.by)
    groups = [
        group
        for seed in range(config.seed, config.seed + config.rounds)
        for group in cluster(similarity, config.count, config.method, seed, config.size)
    ]
    save_array(config.out / SIMILARITY, similarity.astype("float32"))
    names = [[examples.names[c] for c in group] for group in groups]
    write_json(config.out / CLUSTERS, {"clusters": [group.tolist() for group in groups], "names": names})
    sizes = [len(group) for group in groups]
    stage.finish(specialists=len(groups), largest=max(sizes), smallest=min(sizes))
    for number, classes in enumerate(names[:5]):
        more = " …" if len(classes) > 12 else ""
        print(f"specialist {number}: {len(classes)} classes: {', '.join(classes[:12])}{more}")


if __name__ == "__main__":
    run(Config, main)
