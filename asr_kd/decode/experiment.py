"""Recordings decoded with an experiment's folder, or a bundle, in place of four flags."""

import sys
from collections.abc import Sequence
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import is_finished

#: A file that only bundles have (asr_kd.runtime.bundle).
BUNDLE = "model.int8.onnx"
#: Networks of the main job, the best first.
NETWORKS = ("student", "teachers", "quarter_student", "quarter_hard")


def names_bundle(arguments: Sequence[str]) -> bool:
    """Whether the first argument is the folder of a bundle, with which asr_kd.runtime decodes."""
    return bool(arguments) and (Path(arguments[0]) / BUNDLE).is_file()


def expand(arguments: Sequence[str]) -> list[str]:
    """Flags for the experiment that the first argument names, if it names one: ``EXP FILE…``.

    Raises:
        UserError: the folder has no trained network, or no graph.
    """
    given = list(arguments)
    if not given or given[0].startswith("-") or not Path(given[0]).is_dir():
        return given
    exp, rest = Path(given[0]), given[1:]
    folders = {name: sorted(filter(is_finished, (exp / name).glob("seed-*"))) for name in NETWORKS}
    networks = next(((name, found) for name, found in folders.items() if found), None)
    if networks is None or not is_finished(exp / "graph"):
        raise UserError(f"{exp} is no bundle, and no experiment with a graph and a network: train one (run.sh)")
    name, found = networks
    chosen = found if name == "teachers" else found[:1]
    flags = ["--model", *map(str, chosen), "--graph", str(exp / "graph"), "--features", str(exp / "features")]
    if is_finished(exp / "tuned"):
        flags += ["--tuned", str(exp / "tuned" / "tuned.json")]
    print(f"decoding with {' '.join(map(str, chosen))}", file=sys.stderr, flush=True)
    return [*flags, *rest]
