"""Identity of senones: two things that meet must number the same classes, not only as many.

The identity is that of the decision tree.  It is written where senones are made, and everything made from them keeps
it: realigned, transferred and sharded cuts, subsets, networks, stores of soft targets, graphs.
"""

import hashlib
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json


def tree_identity(folder: Path) -> str:
    """Return the identity of the senones of the decision tree in a folder; "" if there is no tree."""
    tree = folder / "tree"
    return hashlib.sha256(tree.read_bytes()).hexdigest()[:16] if tree.is_file() else ""


def senones_of_cuts(folder: Path) -> str:
    """Return the identity of the senones of labelled cuts, or of a GMM's folder; "" if they were imported without a
    tree."""
    return str(read_json(folder / "hmm.json").get("senones", ""))


def senones_of_network(folder: Path) -> str:
    """Return the identity of the senones that a network was trained on; "" if it has other classes."""
    return str(read_json(folder / "model.json").get("senones", ""))


def senones_of_graph(folder: Path) -> str:
    """Return the identity of the senones of a decoding graph; "" if it is not known."""
    return str(read_json(folder / "graph.json").get("senones", ""))


def check_same_senones(first: Path, identity: str, second: Path, other: str) -> None:
    """Check that two folders have the same senones, as far as both are known.

    Raises:
        UserError: they have not.
    """
    if identity and other and identity != other:
        raise UserError(
            f"{first} and {second} have different senones (another decision tree): use folders of one experiment"
        )
