"""GMM-HMM: topology, training, decision tree, forced alignment (senones), HCLG.

``python -m asr_kd.hmm`` trains and aligns, ``asr_kd.hmm.realign`` aligns with a network's scores,
``asr_kd.hmm.import_alignments`` takes alignments made elsewhere, ``asr_kd.hmm.boundaries`` compares with truth,
``asr_kd.hmm.graph`` makes the decoding graph.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from kaldi_hmm_gmm import ContextDependency, TransitionModel
    from lhotse.cut import MonoCut


def load_transition_model(gmm_dir: Path) -> TransitionModel:
    """The triphones' transition model.

    Raises:
        UserError: missing or damaged.
    """
    from asr_kd.hmm.kaldi_io import read_transition_model

    return read_transition_model(Path(gmm_dir) / "tri.mdl")


def load_tree(gmm_dir: Path) -> ContextDependency:
    """The decision tree.

    Raises:
        UserError: missing or damaged.
    """
    from asr_kd.hmm.kaldi_io import read_tree

    return read_tree(Path(gmm_dir) / "tree")


def gmm_scores(gmm_dir: Path) -> Callable[[MonoCut], np.ndarray]:
    """The triphone GMMs' log-likelihoods (T, C) float32 of a cut, whose features it reads itself.

    Raises:
        UserError: the folder is missing or damaged.
    """
    from asr_kd.hmm.scores import GmmScorer

    return GmmScorer(Path(gmm_dir))
