"""The compact form of soft targets: which classes of a frame are kept, and how they are packed into bytes.

A frame keeps the classes whose probability reaches a floor, and none or a random few of the others.  Each is a uint16
class and a uint8 code of its log probability, and each frame has a code of the mass of its tail: 3 bytes per class and
2 per frame.  Peaked frames, mostly silence, keep few classes, which leaves more bytes for the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_kd.losses import CompactTargets, Tail

CODE_STEP = 12 / 254  # nats per code: rounding costs 1e-4 nats of KL, and the smallest probability is e^-12
ZERO_CODE = 255  # code of probability zero
PROBABILITY = np.exp(-CODE_STEP * np.arange(256), dtype=np.float32)  # probability of each code
PROBABILITY[ZERO_CODE] = 0.0
MAX_CLASSES = 255  # per frame: counts are bytes


@dataclasses.dataclass(frozen=True)
class TargetRows:
    """Compact soft targets of T frames that keep E classes in total.

    Attributes:
        counts: (T,) uint8 number of classes that each frame keeps.
        tails: (T,) uint8 code of the mass of all other classes.
        classes: (E,) uint16 classes, frame after frame.
        codes: (E,) uint8 codes of their probabilities.
        tail, prior: what happens to the mass of the tail (asr_kd.losses.CompactTargets).
    """

    counts: np.ndarray
    tails: np.ndarray
    classes: np.ndarray
    codes: np.ndarray
    tail: Tail = "even"
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        ends = np.cumsum(self.counts, dtype=np.int64)
        object.__setattr__(self, "_starts", ends - self.counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def nbytes(self) -> int:
        return sum(int(getattr(self, name).nbytes) for name in COLUMNS)

    @staticmethod
    def pack(probabilities: Tensor, top: int, floor: float, tail: Tail = "even") -> TargetRows:
        """Keep the classes of dense (T, C) probabilities that reach ``floor``, 1 to ``top`` per frame."""
        kept, classes = probabilities.float().topk(min(top, MAX_CLASSES, probabilities.shape[1]), dim=1)
        here = kept >= floor
        here[:, 0] = True
        rest = (1 - torch.where(here, kept, 0.0).sum(1)).clamp_(min=0)
        rest[here.sum(1) == probabilities.shape[1]] = 0  # the rest is rounding
        return TargetRows._of(kept, classes, here, torch.zeros_like(rest) if tail == "none" else rest, tail)

    @staticmethod
    def threshold_sample(probabilities: Tensor, floor: float, generator: torch.Generator) -> TargetRows:
        """Return an unbiased estimate of dense (T, C) probabilities by threshold sampling.

        Classes that reach ``floor`` stay as they are.  Each of the others is kept with the chance p / floor, and then
        gets the probability ``floor``.  One random number per frame chooses them at even distances, so that their mass
        hardly varies (Duffield, Lund and Thorup 2007).  At most 1 / floor + 1 classes per frame are kept.
        """
        values = probabilities.double()
        ends = (values / floor).clamp_(max=1).cumsum(1)
        ends += torch.rand(len(ends), 1, dtype=ends.dtype, generator=generator).to(ends.device)
        here = torch.diff(ends.floor_(), dim=1, prepend=ends.new_zeros(len(ends), 1)) > 0
        classes = torch.arange(values.shape[1], device=here.device).expand_as(here)
        return TargetRows._of(values.clamp(min=floor).float(), classes, here, torch.zeros(len(ends)), "none")

    @staticmethod
    def importance_sample(probabilities: Tensor, draws: int, generator: torch.Generator) -> TargetRows:
        """Return an unbiased estimate of dense (T, C) probabilities: the relative frequencies of ``draws`` draws.

        This is importance sampling with the distribution itself as proposal (Anshumann et al. 2025, arXiv 2503.16870).
        """
        probabilities = probabilities.cpu()  # where the generator is
        drawn = probabilities.float().multinomial(min(draws, MAX_CLASSES), replacement=True, generator=generator)
        shares = torch.zeros_like(probabilities, dtype=torch.float32)
        shares.scatter_add_(1, drawn, torch.full(drawn.shape, 1 / drawn.shape[1]))
        kept, classes = shares.topk(min(draws, MAX_CLASSES, probabilities.shape[1]), dim=1)
        return TargetRows._of(kept, classes, kept > 0, torch.zeros(len(kept)), "none")

    @staticmethod
    def _of(kept: Tensor, classes: Tensor, here: Tensor, rest: Tensor, tail: Tail) -> TargetRows:
        counts, classes, kept = here.sum(1).byte().cpu(), classes[here].cpu(), kept[here].cpu()
        return TargetRows(counts.numpy(), encode(rest.cpu()), classes.numpy().astype(np.uint16), encode(kept), tail)

    @staticmethod
    def join(parts: Sequence[TargetRows]) -> TargetRows:
        columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS}
        return TargetRows(**columns, tail=parts[0].tail, prior=parts[0].prior)

    def range(self, start: int, stop: int) -> TargetRows:
        """Return the frames ``start`` to ``stop``, without a copy."""
        starts = self._starts  # type: ignore[attr-defined]
        first = starts[start] if start < len(self) else len(self.classes)
        last = starts[stop] if stop < len(self) else len(self.classes)
        return dataclasses.replace(
            self,
            counts=self.counts[start:stop],
            tails=self.tails[start:stop],
            classes=self.classes[first:last],
            codes=self.codes[first:last],
        )

    def batch(self, index: np.ndarray) -> CompactTargets:
        """Return the frames ``index`` (B,) as compact targets (B, k), where k is the largest of their counts."""
        counts = self.counts[index]
        within = np.arange(counts.max(initial=1))
        here = within < counts[:, None]
        place = np.where(here, self._starts[index, None] + within, 0)  # type: ignore[attr-defined]
        kept = np.where(here, PROBABILITY[self.codes[place]], np.float32(0))
        # Codes are rounded, so the masses must be scaled to a sum of one.
        kept /= kept.sum(1, keepdims=True) + PROBABILITY[self.tails[index], None]
        classes = np.where(here, self.classes[place], 0).astype(np.int64)
        return CompactTargets(torch.from_numpy(classes), torch.from_numpy(kept), self.tail, self.prior)


#: Columns of ``TargetRows`` and their types.
COLUMNS = {"counts": np.uint8, "tails": np.uint8, "classes": np.uint16, "codes": np.uint8}


def collate(parts: Sequence[TargetRows]) -> tuple[CompactTargets, Tensor]:
    """Return the soft targets of several utterances, or parts of some, as a padded batch.

    Args:
        parts: rows of each, from ``SoftTargets.read``.

    Returns:
        Compact targets (B, T, k), and lengths (B,) int64, which ``frame_kd_loss`` takes; T is the largest of them.  In
        the padding every probability is zero.
    """
    lengths = torch.tensor([len(part) for part in parts])
    inside = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    joined = TargetRows.join(parts)
    flat = joined.batch(np.arange(len(joined)))
    shape = (*inside.shape, flat.classes.shape[1])
    classes, probabilities = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    classes[inside], probabilities[inside] = flat.classes, flat.probabilities
    return CompactTargets(classes, probabilities, flat.tail, flat.prior), lengths


def encode(probabilities: Tensor) -> np.ndarray:
    """Return the uint8 codes of probabilities, which ``PROBABILITY`` decodes."""
    codes = probabilities.log().div_(-CODE_STEP).round_().clamp_(0, ZERO_CODE - 1)
    return torch.where(probabilities > 0, codes, float(ZERO_CODE)).byte().numpy()
