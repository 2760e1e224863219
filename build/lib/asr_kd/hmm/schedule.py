"""How many passes each model is trained for, and how large it gets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Schedule of Viterbi training.

    Attributes:
        passes: number of passes.
        realign: numbers of the passes that realign the data, from 0.
        mix_up_passes: number of passes after which the mixtures reach their final number of Gaussians.
    """

    passes: int
    realign: frozenset[int]
    mix_up_passes: int


MONOPHONES = Schedule(20, frozenset([*range(1, 9), 10, 12, 15, 18]), 15)
TRIPHONES = Schedule(20, frozenset([5, 10, 15, 18]), 15)
#: Passes before which MLLT or fMLLR is estimated again (Kaldi's 2, 4, 6 and 12, counted from 1).
TRANSFORM_PASSES = frozenset([1, 3, 5, 11])
GAUSSIANS_PER_LEAF = 6
#: Dimension after LDA.
LDA_DIM = 40


@dataclass(frozen=True)
class Sizes:
    """What the trainer makes.

    Attributes:
        mono_gaussians: total number of Gaussians of the monophones.
        mono_frames: longer utterances are left out of the training of the monophones (0: none).
        leaves: maximum number of leaves of the decision tree.
        min_leaf_frames: minimum number of training frames per leaf.
        gaussians: total number of Gaussians of the triphones (0: ``GAUSSIANS_PER_LEAF`` of each leaf).
        lda: whether LDA and MLLT replace the deltas.
        sat: whether features are transformed by speaker.
    """

    mono_gaussians: int
    mono_frames: int
    leaves: int
    min_leaf_frames: float
    gaussians: int
    lda: bool
    sat: bool
