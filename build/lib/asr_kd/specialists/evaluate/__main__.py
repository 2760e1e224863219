"""``python -m asr_kd.specialists.evaluate``: measures the accuracy of a generalist with its specialists."""

from asr_kd.common.cli import parse_system, run
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.specialists.evaluate.config import Config
from asr_kd.specialists.files import RESULTS, specialist_folders


def main(config: Config) -> None:
    specialists = specialist_folders(config.specialists)
    others = dict(parse_system(text, "--others") for text in config.others)
    inputs = [*config.inputs, *specialists, *(path for paths in others.values() for path in paths)]
    stage = Stage("evaluate", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.specialists.evaluate.measure import measure

    results, correct, units = measure(config, specialists, others)
    save_array(config.out / "right.npy", correct)
    save_array(config.out / "units.npy", units)
    write_json(config.out / RESULTS, results)
    accuracies = dict(zip(results["systems"], 100 * correct.mean(1), strict=True))
    stage.finish(**{name: round(float(accuracy), 3) for name, accuracy in accuracies.items()})
    for name, accuracy in accuracies.items():
        print(f"{name}: accuracy {accuracy:.2f} % on {len(units):,} examples")


if __name__ == "__main__":
    run(Config, main)
