"""``python -m asr_kd.lattices``: decoded lattices → a store for sequence training."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, read_json, write_json
from asr_kd.lattices.config import Config


def main(config: Config) -> None:
    stage = Stage("lattices", config.out, config, [config.decoded])
    if not stage.begin():
        return
    from asr_kd.lattices.store import STORE, store_lattices

    described = read_json(config.decoded / "decode.json")
    try:
        options = described["options"]
        scale, penalty = float(options["acoustic_scale"]), float(options["insertion_penalty"])
        senones = described["senones"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{config.decoded / 'decode.json'} is damaged or of another version ({error}): decode again"
        ) from None
    figures = {split: store_lattices(config.decoded, split, penalty, config.out) for split in config.splits}
    write_json(config.out / STORE, {"acoustic_scale": scale, "senones": senones})
    for split, counts in figures.items():
        print(f"{split}: {counts['lattices']} lattices, {counts['arcs_per_frame']} arcs per frame", flush=True)
    stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
