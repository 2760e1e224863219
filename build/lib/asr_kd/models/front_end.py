"""Identity of the features that a network reads, which other corpora may share: what they are, and how normalised."""

from collections.abc import Sequence
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json


def front_end_of(folder: Path) -> str:
    """The front end of a network or of a features folder, in words; "" if it is not known."""
    described = next((folder / name for name in ("model.json", "cmvn.json") if (folder / name).is_file()), None)
    return "" if described is None else str(read_json(described).get("front_end", ""))


def check_same_front_end(networks: Sequence[Path], features: Path) -> None:
    """Check that networks were trained on features like those of a folder, as far as both are known.

    Raises:
        UserError: they were not.
    """
    given = front_end_of(features)
    for network in networks:
        trained = front_end_of(network)
        if trained and given and trained != given:
            raise UserError(
                f"{network} was trained on {trained}, but {features} has {given}: make features like those (the flags "
                "of asr_kd.features), or train the network again"
            )
