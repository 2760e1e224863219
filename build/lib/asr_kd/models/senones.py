"""Identity of senones: two things that meet must number the same classes, not only as many.

The identity is that of the decision tree.  It is written where senones are made, and everything made from them keeps
it: realigned, transferred and sharded cuts, subsets, networks, stores of soft targets, graphs.
"""

import hashlib
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json

#: Files that describe a network, a store of soft targets, labelled cuts or a GMM, a graph, and a store of lattices.
DESCRIPTIONS = ("model.json", "store.json", "hmm.json", "graph.json", "lattices.json")


def tree_identity(folder: Path) -> str:
    """Return the identity of the senones of the decision tree in a folder; "" if there is no tree."""
    tree = folder / "tree"
    return hashlib.sha256(tree.read_bytes()).hexdigest()[:16] if tree.is_file() else ""


def senones_of(folder: Path) -> str:
    """Return the identity of the senones of a network, a store, labelled cuts, a GMM, a graph or a store of lattices.

    Returns:
        "" if it is not known: alignments imported without a tree, networks of other classes, no such folder.
    """
    described = next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)
    return "" if described is None else str(read_json(described).get("senones", ""))


def check_same_senones(first: Path, second: Path) -> None:
    """Check that two folders have the same senones, as far as both are known.

    Raises:
        UserError: they have not.
    """
    known = {senones_of(first), senones_of(second)} - {""}
    if len(known) > 1:
        raise UserError(
            f"{first} and {second} have different senones (another decision tree): use folders of one experiment"
        )


def check_num_senones(name: Path | str, num_classes: int, labels: Path) -> None:
    """Check that soft targets have as many classes as there are senones in a folder of labelled cuts.

    Raises:
        UserError: they have not.
    """
    senones = int(read_json(labels / "hmm.json")["num_pdfs"])
    if num_classes != senones:
        raise UserError(
            f"{name} has {num_classes} classes, and the cuts in {labels} have {senones} senones: soft targets must be "
            "for the senones of the labels (import the alignment that the teacher was trained on, or train a new one)"
        )
